"""Motion models inside a MODEL: weights in a ModelPatcher of their own, modules in the slots while the model is loaded.

What ComfyUI's lifecycle asks of this (measured on 0.3.64 and 0.33.0): the U-Net object is shared by all clones of a MODEL and stays
injected after sampling until another clone is loaded, and a clone may eject what it never injected. So injecting is idempotent and
undoes itself when it fails, ejecting tolerates anything, and what is injected comes from the patcher in hand, never from a closure.

What happens during a call is in ``motion_call.py``.
"""

import logging
from collections.abc import Callable

import comfy.model_management
import comfy.ops
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import PatcherInjection, WrappersMP
from einops import rearrange
from torch import Tensor

from ....modules.checkpoints.motion import MotionModule, check_base
from ....modules.temporal.chunks import Chunks, spatial_layers
from ....modules.temporal.motion import MotionModel, functions_of
from ....modules.temporal.settings import PLAIN, MotionSettings
from ....modules.temporal.slots import empty, fill, norms, swap
from ....modules.temporal.windows import WindowPlan
from ..held import HELD, KEY, WINDOWS, Injected, Traits, held_by, unet_of, windows_of
from . import motion_call
from .model_sampling import with_schedule

log = logging.getLogger("longtake")
AUTHORS, MODELS = "authors", "model"  # whose noise schedule a model with motion samples with, unless one is named


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
        patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, motion_call.around_sampling)
        patched.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, KEY, motion_call.around_preparation)
        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, motion_call.around_call)
    return patched


def apply_motion(
    model: ModelPatcher, motion: MotionModule, settings: MotionSettings = PLAIN, noise_schedule: str = AUTHORS
) -> ModelPatcher:
    """A clone of ``model`` with the motion module in its slots, and the noise schedule that the module was trained with.

    Args:
        model: of the module's base model.
        motion: what to apply.
        settings: how strongly, where and when.
        noise_schedule: ``authors``, ``model`` to leave the model's own, or a name in ``noise.NOISE_SCHEDULES``.

    Raises:
        ValueError: the module is for another base model, or the model is of a kind that has no such schedule.
    """
    check_base(motion, unet_of(model))
    if motion.conv_in is not None or motion.image_encoder is not None:
        log.info("%s can follow a picture: First Frame gives it one, without it moves as a module that has none", motion.name)
    traits = Traits(motion.name, motion.max_frames, motion.trained_frames, motion.clip_norms, settings)
    network = motion.build(comfy.ops.manual_cast).to(dtype_of_parts()).looking(settings.window, first=settings.first_frame)
    patched = attach(model, network, traits)
    if noise_schedule != MODELS:
        named = motion.noise_schedule if noise_schedule == AUTHORS else noise_schedule
        distilled = motion.lcm_steps if noise_schedule == AUTHORS else None
        sampling = model.get_model_object("model_sampling")
        patched.add_object_patch("model_sampling", with_schedule(sampling, named, distilled))
    return patched


def dtype_of_parts() -> torch.dtype:
    """What ComfyUI would choose for a U-Net of its own, but never an 8-bit type."""
    dtype = comfy.model_management.unet_dtype(device=comfy.model_management.get_torch_device())
    return dtype if dtype in (torch.float32, torch.float16, torch.bfloat16) else torch.float16


def temporal_windows(model: ModelPatcher, plan: WindowPlan, mode: str) -> ModelPatcher:
    """A clone of ``model`` whose motion modules see the clip through windows, while everything else sees it whole.

    Raises:
        ValueError: the model has no motion module, or the windows do not fit one of them.
    """
    held = held_by(model)
    if not held:
        raise ValueError(
            "the model has no motion module whose windows could slide: put Apply Motion Module before Context Windows, or use mode whole"
        )
    for item in held:
        plan.resolved(item.traits.trained_frames or 16, item.traits.most)
    patched = model.clone()
    patched.model_options.pop("context_handler", None)  # windows of the whole model, from an earlier node
    patched.set_attachments(WINDOWS, (mode, plan))
    return patched


def window_plan(model: ModelPatcher) -> tuple[WindowPlan | None, str, int, int | None]:
    """(plan, mode, trained frames, most frames) of a MODEL, as ``Show Plan`` wants them."""
    held = held_by(model)
    trained = min((item.traits.trained_frames for item in held if item.traits.trained_frames), default=16)
    most = min((item.traits.most for item in held if item.traits.most), default=None)
    mode, plan = windows_of(model) or ("temporal", None)
    return plan, mode, trained, most


def inject(patcher: ModelPatcher) -> None:
    """Put every motion model of ``patcher`` into the slots of its U-Net."""
    unet, held = unet_of(patcher), held_by(patcher)
    across = any(item.traits.clip_norms for item in held)
    chunks = Chunks(_say_halved)
    eject(patcher)
    try:
        inside = [item.model for item in held if item.model.inside]  # then no layer sees a frame by itself
        layers = [] if inside else spatial_layers(unet, clip_norms=across)
        fill(unet, functions_of(item.model for item in held), chunks.around, layers)
        for item in held:
            item.model.join(unet)
        scope = next((item.model for item in held if item.traits.clip_norms), None)
        if scope is not None:
            for norm in norms(unet):
                swap(norm, over_the_clip(scope))
        unet.__dict__[HELD] = Injected(held, chunks)
    except BaseException:
        eject(patcher)
        raise


def eject(patcher: ModelPatcher) -> None:
    """Leave no trace in the U-Net; whether anything was there does not matter."""
    unet = unet_of(patcher)
    empty(unet)
    unet.__dict__.pop(HELD, None)


def _say_halved(size: int) -> None:
    comfy.model_management.soft_empty_cache()
    log.warning("memory ran out: from here on %d frames go through each layer at once", size)


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
