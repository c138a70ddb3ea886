"""Clips as this host has them, and its model as samplers of this pack call it."""

from collections.abc import Callable
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from einops import rearrange
from torch import Tensor

from ...modules.control.timed_prompts import SHOT
from ...modules.sampling.model_view import Denoise, View
from .options import CLIP, CLIPS, IDS, NAMES, TIMES, Clip

ROUNDING = 1e-4  # ComfyUI resizes masks


class Layout:
    """Where frames lie in this host's latents: in the batch axis, or in an axis of their own."""

    def __init__(self, shape: torch.Size):
        self.video = len(shape) == 5
        self.batch, self.frames = (shape[0], shape[2]) if self.video else (1, shape[0])
        self.clip = Clip(self.frames, *shape[-2:])

    @classmethod
    def of(cls, latent: Tensor) -> "Layout":
        """The layout of ``latent``: ``f c h w`` or ``b c f h w``."""
        return cls(latent.shape)

    def frames_first(self, x: Tensor) -> Tensor:
        """``x``: ``f c h w`` or ``b c f h w``. Returns ``f ...``."""
        return rearrange(x, "b c f h w -> f b c h w") if self.video else x

    def hosts(self, x: Tensor, clips: int = 1) -> Tensor:
        """The way back, for several variants of a clip at once: ``x``: ``n ...``."""
        return rearrange(x, "(k f) b c h w -> (k b) c f h w", k=clips) if self.video else x

    def variants(self, x: Tensor, clips: int) -> Tensor:
        """Variants in the host's layout, frames first: ``x``: as ``hosts`` gave it. Returns ``n ...``."""
        return rearrange(x, "(k b) c f h w -> (k f) b c h w", k=clips) if self.video else x

    def sigmas(self, sigma: Tensor, clips: int) -> Tensor:
        """A noise level per frame as models of this host take it: ``sigma``: ``n``. Returns ``...``, ``n`` or one row per clip."""
        return sigma.view(clips, -1).repeat_interleave(self.batch, dim=0) if self.video else sigma

    def levels(self, sigma: Tensor) -> Tensor:
        """The other way round, for one clip: ``sigma``: ``...``, one level for all, one per frame, or one row per video. Returns ``f``."""
        first = sigma[0] if sigma.ndim == 2 else sigma
        return first if len(first) == self.frames and not (self.video and sigma.ndim == 1) else first[:1].expand(self.frames)


def denoiser(predict: Callable[..., Tensor], layout: Layout, options: dict[str, Any], seed: int | None) -> Denoise:
    """ComfyUI's prediction as samplers of this pack call it.

    Args:
        predict: ``(x, sigma, model_options, seed) -> clean``.
        layout: of the latent.
        options: ComfyUI's, of this sampling.
        seed: for those conditionings that draw noise themselves.
    """

    def denoise(view: View) -> Tensor:
        told = {CLIP: layout.clip, IDS: view.ids, CLIPS: view.clips, NAMES: view.names}
        told |= {} if view.times is None else {TIMES: view.times}
        told |= {SHOT: view.shot} if view.shot else {}
        transformer = {**options.get("transformer_options", {}), **told}
        x, sigma = layout.hosts(view.x, view.clips), layout.sigmas(view.sigma.to(view.x), view.clips)
        return layout.variants(predict(x, sigma, {**options, "transformer_options": transformer}, seed), view.clips)

    return denoise


def in_model_numbers(model: ModelPatcher, samples: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """A latent changed in the numbers that ``model`` works with: ``samples``: ``r ...``. Returns ``r ...``."""
    return model.model.process_latent_out(change(model.model.process_latent_in(samples)))


def whole_frames(mask: Tensor) -> Tensor:
    """Which frames a denoise mask leaves alone: ``mask``: ``f ...``, 1 where noise goes. Returns ``f``, bool.

    Raises:
        ValueError: it masks parts of a frame.
    """
    flat = mask.flatten(1)
    known, made = (flat < ROUNDING).all(dim=1), (flat > 1 - ROUNDING).all(dim=1)
    partly = (~(known | made)).nonzero().flatten().tolist()
    if partly:
        raise ValueError(
            f"the latent's mask covers part of frame {partly[0]}: this sampler keeps or makes whole frames; give each frame a mask of all"
            " 0 (kept) or all 1 (made)"
        )
    return known
