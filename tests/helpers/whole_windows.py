"""Clips under windows of the whole model, with ControlNets, masks and prompts, for the tests that compare ways of showing a clip."""

import inspect

import torch
from pack.modules.temporal.windows import WindowPlan
from tiny_motion import UNET, randomized, text

FRAMES = 7
PLAN = WindowPlan(length=4, overlap=2, fuse="pyramid")


def whole(model, plan=PLAN):
    from pack.host.comfyui.parts.windows import whole_windows

    return whole_windows(model, plan)


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def guess(model, x, sigma, positive=None, negative=None, cfg=2.0, mask=None, between=None):
    """The clean guess that a sampler gets for one call, in ComfyUI's own surroundings; ``between`` sees the model's conditions first."""
    import comfy.samplers

    class Once(comfy.samplers.Sampler):
        def sample(
            self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False
        ):
            if between:
                between(model_wrap.conds)
            return model_wrap(x, sigma.expand(len(x)) if sigma.ndim else sigma.repeat(len(x)), **extra_args)

    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive or text(3), negative or text(4))
    guider.set_cfg(cfg)
    with torch.inference_mode():
        return guider.sample(
            torch.zeros_like(x), torch.zeros_like(x), Once(), torch.tensor([10.0, 2.0, 0.0]), denoise_mask=mask, seed=1
        )


def run(model, sampler="euler", *, frames=FRAMES, steps=3, cfg=2.0, positive=None, negative=None, noise_mask=None, latent=None):
    """Latents through ComfyUI's KSampler."""
    import nodes

    samples = torch.zeros(frames, 4, 8, 8) if latent is None else latent
    given = {"samples": samples} | ({} if noise_mask is None else {"noise_mask": noise_mask})
    with torch.inference_mode():
        conds = positive or text(3), negative or text(4)
        return nodes.KSampler().sample(model, 1, steps, cfg, sampler, "normal", *conds, given)[0]["samples"]


def close(one, other, tolerance=2e-5):
    """Relative to the largest value; matrix products of another size round otherwise, and sampling adds that up."""
    torch.testing.assert_close(one, other, rtol=0, atol=tolerance * float(other.abs().max()))


def prompts(frames=FRAMES, seed=5):
    """A CONDITIONING with a prompt per frame."""
    return [[drawn(frames, 4, 16, seed=seed), {}]]


def core_handler(**settings):
    import comfy.context_windows as core

    known = inspect.signature(core.IndexListContextHandler.__init__).parameters
    settings |= {"causal_window_fix": False}
    named = {name: value for name, value in settings.items() if name in known}
    schedule, fuse = settings["schedule"], settings["fuse"]
    return core.IndexListContextHandler(
        core.get_matching_context_schedule(schedule), core.get_matching_fuse_method(fuse), **named
    )


def masked(conditioning, mask, **more):
    return [[conditioning[0][0], {"mask": mask, "mask_strength": 1.0, **more}]]


def later(conditioning, start, end):
    return [[conditioning[0][0], {**conditioning[0][1], "start_percent": start, "end_percent": end}]]


def straddling(model):
    """Sigmas of which some are on each side of 40 percent."""
    return float(model.get_model_object("model_sampling").percent_to_sigma(0.4))


def config():
    """The arguments of a ControlNet for ``image_model``."""
    import comfy.ops

    values = UNET.comfyui() | {"image_size": 8, "dtype": torch.float32, "operations": comfy.ops.disable_weight_init}
    return {name: value for name, value in values.items() if name != "out_channels"}


def hints(frames=FRAMES, seed=3):
    return torch.rand(frames, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def control_net(seed=5):
    import comfy.cldm.cldm
    import comfy.controlnet

    network = randomized(comfy.cldm.cldm.ControlNet(hint_channels=3, **config()).eval(), seed)
    return comfy.controlnet.ControlNet(network, load_device=torch.device("cpu"))


def control_lora(seed=5):
    import comfy.controlnet

    full = control_net(seed).control_model.state_dict()
    own = ("input_hint_block", "zero_convs", "middle_block_out")
    weights = {key: value for key, value in full.items() if key.startswith(own)}
    weights["input_blocks.1.0.in_layers.2.up"] = drawn(32, 2, 1, 1, seed=7)
    weights["input_blocks.1.0.in_layers.2.down"] = drawn(2, 32, 3, 3, seed=8) * 0.1
    return comfy.controlnet.ControlLora(weights)


def t2i_adapter(seed=5):
    import comfy.controlnet
    import comfy.t2i_adapter.adapter

    network = comfy.t2i_adapter.adapter.Adapter(channels=[32, 64], nums_rb=2, cin=3 * 64, ksize=1, sk=True, xl=False)
    return comfy.controlnet.T2IAdapter(randomized(network.eval(), seed), 3, 8, "nearest-exact", torch.device("cpu"))


CONTROLS = {"ControlNet": control_net, "ControlLora": control_lora, "T2IAdapter": t2i_adapter}


def controlled(control, uncond=True, seeds=(3, 4)):
    return [[[text(seed)[0][0], {"control": control, "control_apply_to_uncond": uncond}]] for seed in seeds]
