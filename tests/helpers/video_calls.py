"""One call of a video model in ComfyUI's own surroundings, at a noise level for each frame."""

import torch
from tiny_wan import text

CFG = 2.5


def guess(model, x, sigma, *, positive=None, negative=None, ids=None, cfg=CFG, extra=None):
    """One call of ComfyUI's guider during a sampling: ``x``: ``b c f h w``, ``sigma``: ``b f`` or ``b``. Returns ``b c f h w``."""
    import comfy.samplers
    from pack.host.comfyui.options import IDS
    from pack.host.comfyui.parts.frame_levels import with_frame_levels

    class OneCall(comfy.samplers.Sampler):
        def sample(
            self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False
        ):
            options = extra_args["model_options"]
            options = with_frame_levels(model, options) if sigma.ndim == 2 else options
            told = options.get("transformer_options", {}) | ({} if ids is None else {IDS: torch.tensor(ids)})
            out = model_wrap(x, sigma, model_options={**options, "transformer_options": told}, seed=0)
            return torch.nn.functional.pad(out, (0, 0, 0, 0, 0, noise.shape[2] - out.shape[2]))

    full = torch.zeros_like(x) if extra is None else torch.zeros(x.shape[0], x.shape[1], extra, *x.shape[3:])
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive or text(3), negative or text(4))
    guider.set_cfg(cfg)
    with torch.inference_mode():
        out = guider.sample(torch.ones_like(full), full, OneCall(), torch.tensor([1.0, 0.0]), seed=0)
    return model.model.process_latent_in(out)[:, :, : x.shape[2]]
