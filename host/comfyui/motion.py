"""Motion models inside a MODEL: weights in a ModelPatcher of their own, modules in the slots while the model is loaded.

What ComfyUI's lifecycle asks of this (measured on 0.3.64 and 0.33.0): the U-Net object is shared by all clones of a MODEL and stays
injected after sampling until another clone is loaded, and a clone may eject what it never injected. So injecting is idempotent and
undoes itself when it fails, ejecting tolerates anything, and what is injected comes from the patcher in hand, never from a closure.
"""

import copy
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.ops
import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from comfy.model_sampling import ModelSamplingDiscrete
from comfy.patcher_extension import PatcherInjection, WrappersMP
from einops import rearrange
from torch import Tensor, nn

from ...modules.checkpoints.motion import MotionModule, check_base
from ...modules.noise import NoiseSchedule
from ...modules.temporal.motion import MotionModel
from ...modules.temporal.slots import empty, fill, norms, swap

KEY = "longtake_motion"
IDS = "longtake_frame_ids"  # in transformer_options: ``n``, absolute frame numbers of this call
HELD = "_longtake_motion"  # on the U-Net while it is injected: what is in its slots
SDPA_ROWS = 2**15  # some CUDA kernels of scaled_dot_product_attention refuse 2**16 batch entries and more


@dataclass(frozen=True)
class Traits:
    """What is known of an attached motion model beside its weights."""

    name: str
    max_frames: int | None = None  # None: any number
    clip_norms: bool = False  # v1: some of the U-Net's norms take their statistics over the whole clip


@dataclass(frozen=True)
class Held:
    """A motion model in the slots."""

    model: MotionModel
    traits: Traits


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention in parts that every backend takes: ``q``: ``b heads n d``, ``k`` and ``v``: ``b heads m d``."""
    rows = max(1, SDPA_ROWS // q.shape[1])
    if q.shape[0] <= rows:
        return F.scaled_dot_product_attention(q, k, v)
    return torch.cat(
        [F.scaled_dot_product_attention(*part) for part in zip(q.split(rows), k.split(rows), v.split(rows), strict=True)]
    )


def unet_of(model: ModelPatcher) -> Any:
    """The U-Net of a MODEL, whatever kind it is."""
    return model.model.diffusion_model


def attach(model: ModelPatcher, motion: MotionModel, traits: Traits) -> ModelPatcher:
    """A clone of ``model`` with one more motion model in its slots.

    Args:
        model: anything with a U-Net of Stable Diffusion's family.
        motion: with its weights.
        traits: of the motion model.
    """
    patched = model.clone()
    patcher = ModelPatcher(
        motion.eval().requires_grad_(False),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
    patcher.set_attachments(KEY, traits)
    patched.set_additional_models(KEY, [*patched.get_additional_models_with_key(KEY), patcher])
    if not patched.get_injections(KEY):
        patched.set_injections(KEY, [PatcherInjection(inject, eject)])
        patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, before_sampling)
        patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, KEY, around_call)
    return patched


def apply_motion(model: ModelPatcher, motion: MotionModule) -> ModelPatcher:
    """A clone of ``model`` with the motion module in its slots and the noise schedule that the module was trained with.

    Raises:
        ValueError: the module is for another base model, or the model is of a kind that has no such schedule.
    """
    check_base(motion, unet_of(model))
    built = motion.build(comfy.ops.manual_cast, attention)
    patched = attach(model, built.to(_dtype()), Traits(motion.name, motion.max_frames, motion.clip_norms))
    sampling = model.get_model_object("model_sampling")
    patched.add_object_patch("model_sampling", _with_schedule(sampling, NoiseSchedule.named(motion.noise_schedule)))
    return patched


def _dtype() -> torch.dtype:
    """What ComfyUI would choose for a U-Net of its own, but never an 8-bit type."""
    dtype = comfy.model_management.unet_dtype(device=comfy.model_management.get_torch_device())
    return dtype if dtype in (torch.float32, torch.float16, torch.bfloat16) else torch.float16


def _with_schedule(sampling: nn.Module, schedule: NoiseSchedule) -> nn.Module:
    """The same sampling object (prediction type and all) over other sigmas."""
    if not isinstance(sampling, ModelSamplingDiscrete):
        raise ValueError(
            f"the model samples with {type(sampling).__mro__[1].__name__}, and AnimateDiff's motion modules need the discrete timesteps of"
            " Stable Diffusion: use an SD1.5 checkpoint without such a patch"
        )
    changed: Any = copy.deepcopy(sampling)
    changed.set_sigmas(schedule.sigmas)
    return changed


def inject(patcher: ModelPatcher) -> None:
    """Put every motion model of ``patcher`` into the slots of its U-Net."""
    unet = unet_of(patcher)
    held = tuple(Held(motion.model, motion.get_attachment(KEY)) for motion in patcher.get_additional_models_with_key(KEY))
    eject(patcher)
    try:
        fill(unet, _functions(held))
        scope = next((item.model for item in held if item.traits.clip_norms), None)
        if scope is not None:
            for norm in norms(unet):
                swap(norm, over_the_clip(scope))
        unet.__dict__[HELD] = held
    except BaseException:
        eject(patcher)
        raise


def eject(patcher: ModelPatcher) -> None:
    """Leave no trace in the U-Net; whether anything was there does not matter."""
    unet = unet_of(patcher)
    empty(unet)
    unet.__dict__.pop(HELD, None)


def _functions(held: tuple[Held, ...]) -> dict[str, Callable[[Tensor], Tensor]]:
    functions: dict[str, Callable[[Tensor], Tensor]] = {}
    for item in held:
        for name, function in item.model.slot_functions().items():
            functions[name] = _in_turn(functions[name], function) if name in functions else function
    return functions


def _in_turn(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: second(first(x))


def over_the_clip(motion: MotionModel) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Let a norm see each clip of the present call as one tall image: its statistics then run over all frames."""

    def around(inner: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def forward(x: Tensor) -> Tensor:
            frames = motion.frames
            if frames is None:
                return inner(x)
            height = x.shape[-2]
            tall = inner(rearrange(x, "(b f) c h w -> b c (f h) w", f=frames.count))
            return rearrange(tall, "b c (f h) w -> (b f) c h w", h=height)

        return forward

    return around


def check_frames(held: tuple[Held, ...], count: int) -> None:
    """Refuse more frames in one call than a motion model knows times for."""
    for item in held:
        _check_frames(item.traits, count)


def _check_frames(traits: Traits, count: int) -> None:
    if traits.max_frames is not None and count > traits.max_frames:
        raise ValueError(
            f"{traits.name} was trained on clips of at most {traits.max_frames} frames and got {count}: use at most {traits.max_frames}"
            " frames, or a sampler that slides a window over the clip"
        )


def before_sampling(executor: Any, noise: Tensor, latent_image: Tensor, sampler: Any, *args: Any, **kwargs: Any) -> Any:
    """OUTER_SAMPLE: refuse what cannot work before anything is loaded or computed."""
    guider = executor.class_obj
    windowed = getattr(sampler, "slides_windows", False) or guider.model_options.get("context_handler") is not None
    if not windowed:
        for motion in guider.model_patcher.get_additional_models_with_key(KEY):
            _check_frames(motion.get_attachment(KEY), noise.shape[0])
    return executor(noise, latent_image, sampler, *args, **kwargs)


def around_call(executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    """DIFFUSION_MODEL: tell the motion models how the batch of this call divides into frames, and forget it afterwards."""
    options = call_options(args, kwargs)
    held: tuple[Held, ...] = executor.class_obj.__dict__.get(HELD, ())
    count = x.shape[0] // max(1, len(options.get("cond_or_uncond", ())))
    check_frames(held, count)
    ids = frame_numbers(options, count).to(x.device)
    with ExitStack() as stack:
        for item in held:
            stack.enter_context(item.model.during(item.model.frames_for(ids)))
        return executor(x, *args, **kwargs)


def call_options(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The transformer options among what follows ``x`` in a call of the model or of its U-Net: the fifth in both."""
    return kwargs["transformer_options"] if "transformer_options" in kwargs else args[4]


def frame_numbers(options: dict[str, Any], count: int) -> Tensor:
    """Which frames of the clip a call of ``count`` frames is about: ``n``, int64, from its transformer options."""
    ids, window = options.get(IDS), options.get("context_window")
    if window is not None and getattr(window, "dim", None) == 0:  # ComfyUI's own context windows, over the batch axis
        index = torch.tensor(list(window.index_list))
        return index if ids is None else ids.cpu()[index]
    return torch.arange(count) if ids is None else ids
