"""MotionLoRAs without ComfyUI: the motion module is rebuilt with the LoRA in its weights; the one before stays as it is."""

import copy
from collections.abc import Callable
from dataclasses import replace

from ...modules.checkpoints.motion_lora import MotionLora, fitting, merged
from ...modules.temporal.motion import MotionModel
from .models import Model


def apply_motion_lora(
    model: Model,
    lora: MotionLora,
    strength: float = 1.0,
    block_strength: Callable[[str], float] | None = None,
    start_percent: float = 0.0,
    end_percent: float = 1.0,
) -> Model:
    """The same model, its last motion module with the LoRA in its weights. The arguments are those of ComfyUI's side.

    Raises:
        ValueError: the model has no motion module, the LoRA does not fit it, or only ComfyUI can do what is asked for.
    """
    if lora.spatial:
        raise ValueError(f"{lora.name} changes the image model, which the standalone host cannot do: use it in ComfyUI")
    if start_percent > 0 or end_percent < 1:
        raise ValueError(
            f"{lora.name} is to act from {start_percent:g} to {end_percent:g} of sampling, which the standalone host cannot do: set"
            " start_percent to 0 and end_percent to 1, or use ComfyUI"
        )
    if not model.motions:
        raise ValueError(
            f"{lora.name} is a MotionLoRA and the model has no motion module: put Apply Motion Module before this node"
        )
    *before, last = model.motions
    return replace(model, motions=(*before, _with(last, lora, strength, block_strength or (lambda slot: 1.0))))


def _with(motion: MotionModel, lora: MotionLora, strength: float, block_strength: Callable[[str], float]) -> MotionModel:
    state = motion.state_dict()
    fits = fitting(lora, {key: tuple(weight.shape) for key, weight in state.items()}, "the model's motion module")
    changed = copy.deepcopy(motion)
    changed.load_state_dict(merged(state, [fits.at(strength, block_strength)]))
    return changed
