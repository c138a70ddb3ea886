"""ComfyUI's SamplerCustomAdvanced with its usual company, for tests of SAMPLERs."""

import torch
from pack.modules.sampling.noise_levels import NoiseLevels
from pack.nodes.forcing.forcing_sampler import LongTakeForcingSampler


def advanced(model, sampler, latent, sigmas, *, positive, negative=None, cfg=1.0, seed=1, guider=None, noise=True):
    """The latents that ComfyUI's own node makes; ``latent`` is a LATENT, or its samples."""
    import comfy.samplers
    import nodes  # noqa: F401  ComfyUI's own, before its extras
    from comfy_extras import nodes_custom_sampler as custom

    if guider is None:
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, positive if negative is None else negative)
        guider.set_cfg(cfg)
    drawn = custom.Noise_RandomNoise(seed) if noise else custom.Noise_EmptyNoise()
    node = custom.SamplerCustomAdvanced
    run = node.execute if hasattr(node, "execute") else node().sample
    given = latent if isinstance(latent, dict) else {"samples": latent}
    with torch.inference_mode():
        made = run(drawn, guider, sampler, sigmas, given)
    return (made.args if hasattr(made, "args") else made)[0]["samples"]


def scheduler_sigmas(model, steps, denoise=1.0, name="normal"):
    """What BasicScheduler gives."""
    import comfy.samplers

    total = int(steps / denoise)
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), name, total)[-(steps + 1) :]


def theirs(name):
    """A SAMPLER of ComfyUI's."""
    import comfy.samplers

    return comfy.samplers.sampler_object(name)


def forcing(schedule="full_sequence", frames=6, steps=4, *, known=0, lag=1.0, block=1, **inputs):
    """The SAMPLER of the Forcing Sampler node."""
    levels = NoiseLevels.named(schedule, frames, steps, lag=lag, block=block, known=known)
    return LongTakeForcingSampler.execute(noise_levels=levels, **{"window": frames, **inputs}).args[0]
