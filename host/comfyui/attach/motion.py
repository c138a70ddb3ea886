"""Motion models for a MODEL: weights in a ModelPatcher of their own, with the noise schedule that they were trained with, and windows.

What happens in the U-Net and during a call is in ``motion_call.py``.
"""

import logging

import comfy.model_management
import comfy.ops
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ....modules.checkpoints.motion import MotionModule, check_base
from ....modules.temporal.motion import MotionModel
from ....modules.temporal.settings import PLAIN, MotionSettings
from ....modules.temporal.windows import WindowPlan
from ..attached import KEY, WINDOWS, MotionInfo, attached_to, unet_of, windows_of
from ..memory import PLAN, prepare_sampling
from .attachment import hang
from .model_sampling import schedule
from .motion_call import MOTION

log = logging.getLogger("longtake")
AUTHORS, MODELS = "authors", "model"  # whose noise schedule a model with motion samples with, unless one is named


def attach(model: ModelPatcher, motion: MotionModel, about: MotionInfo) -> ModelPatcher:
    """A clone of ``model`` with one more motion model in its slots.

    Args:
        model: anything with a U-Net of Stable Diffusion's family.
        motion: with its weights.
        about: what is known of it.
    """
    patched = model.clone()
    patcher = ModelPatcher(
        motion.eval().requires_grad_(False),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
    patcher.set_attachments(KEY, about)
    patched.set_additional_models(KEY, [*patched.get_additional_models_with_key(KEY), patcher])
    hang(patched, MOTION)
    if not patched.get_wrappers(WrappersMP.PREPARE_SAMPLING, PLAN):
        patched.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, PLAN, prepare_sampling)
    return patched


def apply_motion(
    model: ModelPatcher, motion: MotionModule, settings: MotionSettings = PLAIN, noise_schedule: str = AUTHORS
) -> ModelPatcher:
    """A clone of ``model`` with the motion module in its slots, and the noise schedule that the module was trained with.

    The schedule goes into the sampling that the model has and into any that a later node gives it.

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
    about = MotionInfo(motion.name, motion.max_frames, motion.trained_frames, motion.clip_norms, settings, one_level=True)
    network = (
        motion.build(comfy.ops.manual_cast)
        .to(dtype_of_parts())
        .looking(settings.attention_window, first=settings.see_first_frame)
    )
    patched = attach(model, network, about)
    if noise_schedule != MODELS:
        named = motion.noise_schedule if noise_schedule == AUTHORS else noise_schedule
        distilled = motion.lcm_steps if noise_schedule == AUTHORS else None
        schedule(patched, named, distilled)
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
    motions = attached_to(model)
    if not motions:
        raise ValueError(
            "the model has no motion module whose windows could slide: put Apply Motion Module before Context Windows, or use mode whole"
        )
    for item in motions:
        plan.resolved(item.about.trained_frames or 16, item.about.most)
    patched = model.clone()
    patched.model_options.pop("context_handler", None)  # windows of the whole model, from an earlier node
    patched.set_attachments(WINDOWS, (mode, plan))
    return patched


def window_plan(model: ModelPatcher) -> tuple[WindowPlan | None, str, int, int | None]:
    """(plan, mode, trained frames, most frames) of a MODEL, as ``Show Plan`` wants them."""
    motions = attached_to(model)
    trained = min((item.about.trained_frames for item in motions if item.about.trained_frames), default=16)
    most = min((item.about.most for item in motions if item.about.most), default=None)
    mode, plan = windows_of(model) or ("temporal", None)
    return plan, mode, trained, most
