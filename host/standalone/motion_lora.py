"""LoRAs without ComfyUI: a network is rebuilt with the LoRA in its weights; the one before stays as it is."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from ...modules.checkpoints.motion_lora import MotionLora, adapter_deltas, change, fitting, merged
from ...modules.temporal.motion import MotionModel
from ...modules.train.lora import image_projections
from .models import Model


def apply_motion_lora(
    model: Model,
    lora: MotionLora,
    strength: float = 1.0,
    block_strength: Callable[[str], float] | None = None,
    start_percent: float = 0.0,
    end_percent: float = 1.0,
) -> Model:
    """The same model with the LoRA in the weights of its last motion module, and of its image model; arguments as on ComfyUI's side.

    Raises:
        ValueError: the model has no motion module, the LoRA does not fit it, or only ComfyUI can do what is asked for.
    """
    if start_percent > 0 or end_percent < 1:
        raise ValueError(
            f"{lora.name} is to act from {start_percent:g} to {end_percent:g} of sampling, which the standalone host cannot do: set"
            " start_percent to 0 and end_percent to 1, or use ComfyUI"
        )
    if lora.spatial:
        model = _with_spatial(model, lora, strength)
    if not lora.deltas:
        return model
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


def _with_spatial(model: Model, lora: MotionLora, strength: float) -> Model:
    unet = copy.deepcopy(model.unet)
    layers: dict[str, Any] = dict(image_projections(unet))
    for name, delta in adapter_deltas(lora).items():
        weight = layers[name].weight if name in layers else None
        if weight is None or tuple(weight.shape) != (len(delta.up), delta.down.shape[1]):
            raise ValueError(
                f"{lora.name} changes {name}, which is not in this image model or of another size: use one for this base model"
            )
        with torch.no_grad():
            weight.add_((strength * change(weight, delta)).to(weight))
    return replace(model, unet=unet)
