"""Starting noise of ComfyUI's samplers: noise for whole clips, and FreeInit's repeated sampling.

Both hang on the MODEL as attachments with a wrapper each, so they survive clones and work with every sampler node. Clip noise is put in
around everything else (OUTER_SAMPLE), FreeInit around the sampler alone (SAMPLER_SAMPLE), where latents are in the model's own
coordinates, the model is loaded and the conditioning prepared: so it runs on clip noise whatever the order of the nodes.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from einops import rearrange
from torch import Tensor

from ....modules.noise.clip_noise import Clip, Layer, check_numbers, clip_noise, with_layer
from ....modules.noise.freeinit import FreeInit, Start
from ....modules.noise.noise_kinds import frames_drawn
from ..progress import check_interrupt

LAYERS = "longtake_clip_noise"
FREEINIT = "longtake_freeinit"
FRAMES = "longtake_noise_frames"  # in transformer options of a sampling: the absolute numbers of its frames
SHAPED = "_longtake_clip_noise"  # on a noise tensor that is clip noise already: the numbers of its frames, or None

log = logging.getLogger("longtake")
Callback = Callable[[int, Tensor, Tensor, int], None]


class ClipNoise:
    """A NOISE: another one's noise under layers.

    Args:
        base: a NOISE, whose seed and noise count; None: none was connected.
        layers: from the lowest.
    """

    def __init__(self, base: Any, layers: tuple[Layer, ...]):
        self.base, self.layers = base, layers

    @property
    def seed(self) -> int:
        """The base's seed."""
        return self._base().seed

    def generate_noise(self, input_latent: dict[str, Any]) -> Tensor:
        """ComfyUI's signature; frame numbers are the latent's ``batch_index`` where it has one. Returns ``f c h w``, ``b c f h w``."""
        numbers, given = input_latent.get("batch_index"), input_latent["samples"]
        if numbers is not None and not _is_video(given):
            check_numbers(numbers, len(given))  # ComfyUI's own noise would only fail on them
        noise = shaped(self._base().generate_noise(input_latent), self.layers, self.seed, numbers)
        setattr(noise, SHAPED, numbers)  # a tensor may carry a mark; its class does not know of it
        return noise

    def _base(self) -> Any:
        if self.base is None:
            raise ValueError("Clip Noise has no seed for its noise output: connect RandomNoise to its noise input")
        return self.base


def add_clip_noise(model: ModelPatcher, layer: Layer, noise: Any = None) -> tuple[ModelPatcher, ClipNoise]:
    """One more layer on the noise of every sampler that runs the model.

    Args:
        model: MODEL.
        layer: goes on top of what is there.
        noise: NOISE or None, from RandomNoise or from this function.

    Returns:
        model: a clone.
        noise: a NOISE that gives the same as samplers use with that model.
    """
    patched = model.clone()
    layers = with_layer(layers_of(model), layer)
    patched.set_attachments(LAYERS, layers)
    if not layers_of(model):
        patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, LAYERS, with_clip_noise)
    return patched, ClipNoise(noise.base if isinstance(noise, ClipNoise) else noise, layers)


def layers_of(model: ModelPatcher) -> tuple[Layer, ...]:
    """The layers that a MODEL has, from the lowest."""
    return model.get_attachment(LAYERS) or ()


def with_clip_noise(
    executor: Any,
    noise: Tensor,
    latent_image: Tensor,
    sampler: Any,
    sigmas: Tensor,
    denoise_mask: Tensor | None = None,
    callback: Callback | None = None,
    disable_pbar: bool = False,
    seed: int | None = None,
    **newer: Any,  # what later versions of ComfyUI add
) -> Tensor:
    """OUTER_SAMPLE: layers on the sampler's noise, unless it draws none or was given clip noise."""
    guider, numbers = executor.class_obj, noise.__dict__.get(SHAPED)
    model: ModelPatcher = guider.model_patcher
    if SHAPED not in noise.__dict__ and torch.count_nonzero(noise) > 0:
        layers = layers_of(model)
        asked = model.get_attachment(FREEINIT) is not None or any(layer.source == "per_frame" for layer in layers)
        numbers = numbers_of(noise, seed or 0) if asked else None
        noise = shaped(noise, layers, seed or 0, numbers)
    if numbers is not None:
        guider.model_options.setdefault("transformer_options", {})[FRAMES] = numbers
    return executor(noise, latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar, seed, **newer)


def numbers_of(noise: Tensor, seed: int) -> tuple[int, ...] | None:
    """The absolute numbers of the frames that a sampler drew noise for, ``noise``: ``f c h w``; None where nothing says so."""
    if _is_video(noise):
        return None
    numbers = frames_drawn(noise, seed)
    if numbers is None:
        log.warning("the sampler's noise is not ComfyUI's own of its seed, so noise by frame number counts from frame 0")
    return numbers


def shaped(noise: Tensor, layers: tuple[Layer, ...], seed: int, frames: Any = None) -> Tensor:
    """A sampler's noise under layers.

    Args:
        noise: ``f c h w`` or ``b c f h w``.
        layers: from the lowest.
        seed: the sampler's.
        frames: their absolute numbers, or None: from 0.
    """
    video = _is_video(noise)
    own = rearrange(noise, "b c f h w -> f b c h w") if video else noise
    numbers = range(len(own)) if frames is None or video else frames
    made = clip_noise(Clip(own, seed, tuple(int(number) for number in numbers)), layers)
    return rearrange(made, "f b c h w -> b c f h w").contiguous() if video else made


def _is_video(noise: Tensor) -> bool:
    """Whether frames are the third axis and not the first."""
    if noise.is_nested or noise.ndim not in (4, 5):
        what = "several in one" if noise.is_nested or noise.ndim == 3 else f"of shape {list(noise.shape)}"
        raise ValueError(
            f"clip noise and FreeInit are for the frames of one clip, and the latent is {what}: use latents of frames, channels, height,"
            " width (or a batch of videos)"
        )
    return noise.ndim == 5


def add_freeinit(model: ModelPatcher, settings: FreeInit) -> ModelPatcher:
    """A clone of a MODEL with which every sampler runs several times, each from the slow part of the last result."""
    patched = model.clone()
    if model.get_attachment(FREEINIT) is None:
        patched.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, FREEINIT, repeatedly)
    patched.set_attachments(FREEINIT, settings)
    return patched


def repeatedly(
    executor: Any,
    guider: Any,
    sigmas: Tensor,
    extra_args: dict[str, Any],
    callback: Callback | None,
    noise: Tensor,
    latent_image: Tensor,
    denoise_mask: Tensor | None = None,
    disable_pbar: bool = False,
) -> Tensor:
    """SAMPLER_SAMPLE: the whole sampling, as often as FreeInit wants it. ``noise``, ``latent_image``: ``f c h w`` or ``b c f h w``."""
    settings: FreeInit = guider.model_patcher.get_attachment(FREEINIT)

    def run(iteration: int, current: Tensor) -> Tensor:
        counted = _counted(callback, iteration, settings.iterations)
        return executor(guider, sigmas, {**extra_args}, counted, current, latent_image, denoise_mask, disable_pbar)

    if settings.iterations == 1:
        return run(0, noise)
    _check_sampling(noise, sigmas)
    start, seed = _start(executor.class_obj, guider, sigmas, noise.ndim), extra_args.get("seed") or 0
    told = extra_args.get("model_options", {}).get("transformer_options", {})
    numbers = told[FRAMES] if FRAMES in told else numbers_of(noise, seed)
    result = run(0, noise)
    for iteration in range(1, settings.iterations):
        check_interrupt()
        fresh = _fresh(guider, noise, seed, iteration, numbers)
        slow = start.diffused(result, latent_image, noise)
        result = run(iteration, _along_time(settings.mixed, slow, fresh))
    return result


def _check_sampling(noise: Tensor, sigmas: Tensor) -> None:
    """Refuse what cannot work before the first model call."""
    _is_video(noise)
    if torch.count_nonzero(noise) == 0:
        raise ValueError("FreeInit works on the noise that sampling starts from, and this sampler adds none: enable add_noise")
    if float(sigmas[-1]) != 0:
        raise ValueError(
            f"FreeInit needs finished frames, and the sampler's steps end at sigma {float(sigmas[-1]):.3g}: let it run to the last step"
            " (return_with_leftover_noise off)"
        )


def _start(sampler: Any, guider: Any, sigmas: Tensor, ndim: int) -> Start:
    """What the model's own way of adding noise does at the first sigma, read off from ones and zeros."""
    scaling = guider.inner_model.model_sampling.noise_scaling
    one = torch.ones([1] * ndim, device=sigmas.device)
    zero = torch.zeros_like(one)
    top = sampler.max_denoise(guider, sigmas)
    return Start(
        gain=float(scaling(sigmas[0], one, zero, top)),
        signal=float(scaling(sigmas[0], zero, one, False)),
        spread=float(scaling(sigmas[0], one, zero, False)),
    )


def _fresh(guider: Any, noise: Tensor, seed: int, iteration: int, numbers: tuple[int, ...] | None) -> Tensor:
    """New noise for an iteration, of the same kind as the first. ``noise``: ``f c h w`` or ``b c f h w``. Returns its shape."""
    video = _is_video(noise)
    like = rearrange(noise, "b c f h w -> f b c h w") if video else noise
    made = clip_noise(Clip.again(like, seed, iteration, numbers), layers_of(guider.model_patcher))
    return rearrange(made, "f b c h w -> b c f h w") if video else made


def _along_time(mix: Callable[[Tensor, Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """Mix with frames on the third axis from the end, where filters want them."""
    if _is_video(high):
        return mix(low, high)
    return mix(low.transpose(0, 1), high.transpose(0, 1)).transpose(0, 1).contiguous()


def _counted(callback: Callback | None, iteration: int, iterations: int) -> Callback | None:
    """A callback whose steps count through all iterations."""
    if callback is None:
        return None
    return lambda step, clean, x, total: callback(iteration * total + step, clean, x, iterations * total)
