"""Any of ComfyUI's ControlNets with a strength of its own in each frame: the hint at a keyframe, less around it, nothing far from all."""

from typing import Any

import comfy.controlnet
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....modules.control.keyframes import Keyframes
from ..attach.call_info import CallInfo
from ..parts.controls import Conditioning, Conditions, Features, FrameControl, chained, check_length

NODE = "Keyframed ControlNet"


def apply_keyed_control(
    positive: Conditioning,
    negative: Conditioning,
    control: Any,
    keyframes: Keyframes,
    hints: Tensor | None = None,
    vae: Any = None,
    strength: float = 1.0,
    percents: tuple[float, float] = (0.0, 1.0),
    per_frame: tuple[float, ...] = (),
) -> tuple[Conditioning, Conditioning]:
    """Both conditionings, controlled as strongly in each frame as the keyframes say.

    Args:
        positive: ComfyUI's conditioning.
        negative: the same for guidance.
        control: from Load ControlNet Model.
        keyframes: at a clip's length.
        hints: ``f h w c``, a hint for every frame; None for the nearest keyframe's image in each.
        vae: for those ControlNets that want one.
        strength: of everything.
        percents: shares of the sampling where it begins and ends.
        per_frame: factors on the strength, one for each frame, the last one holding to the end; empty for 1.

    Raises:
        ValueError: there are fewer or more hints than frames, or the control is none.
    """
    if not isinstance(control, comfy.controlnet.ControlBase):
        raise ValueError(f"{type(control).__name__} was given for a ControlNet: connect Load ControlNet Model")
    if hints is not None and len(hints) != keyframes.clip:
        raise ValueError(
            f"{len(hints)} hints were given for a clip of {keyframes.clip} frames: give one for each, or none for the keyframes' own images"
        )
    weights = keyframes.weights(keyframes.clip)
    factors = torch.tensor(per_frame or (1.0,))[torch.arange(keyframes.clip).clamp_max(max(len(per_frame), 1) - 1)]
    pictures = keyframes.images[weights.argmax(dim=0)] if hints is None else hints
    shown = pictures[..., :3].movedim(-1, 1)

    def make() -> KeyedControl:
        return KeyedControl(control.copy().set_cond_hint(shown, strength, percents, vae=vae), weights.amax(dim=0) * factors)

    return chained(positive, negative, make)


class KeyedControl(comfy.controlnet.ControlBase):
    """A control around another, which has a hint for every frame; what ComfyUI calls is its base class's.

    Args:
        control: the other.
        weights: ``f``, its strength in each frame.
    """

    def __init__(self, control: Any, weights: Tensor):
        super().__init__()
        self.control, self.weights = control, weights

    def pre_run(self, model: Any, percent_to_timestep_function: Any) -> None:
        """Before each sampling."""
        super().pre_run(model, percent_to_timestep_function)
        self.control.pre_run(model, percent_to_timestep_function)

    def cleanup(self) -> None:
        """After each sampling."""
        super().cleanup()
        self.control.cleanup()

    def get_models(self) -> list[ModelPatcher]:
        """What ComfyUI must load."""
        return [*super().get_models(), *self.control.get_models()]

    def get_extra_hooks(self) -> list[Any]:
        """Those of both."""
        return [*super().get_extra_hooks(), *self.control.get_extra_hooks()]

    def inference_memory_requirements(self, dtype: torch.dtype) -> int:
        """Those of both."""
        return super().inference_memory_requirements(dtype) + self.control.inference_memory_requirements(dtype)

    def copy(self) -> "KeyedControl":
        """The same control, of which settings can be changed."""
        made = KeyedControl(self.control.copy(), self.weights)
        self.copy_to(made)
        return made

    def deepclone_multigpu(self, load_device: torch.device, autoregister: bool = False) -> "KeyedControl":
        """A copy with a network of its own on another device."""
        made = KeyedControl(self.control.deepclone_multigpu(load_device), self.weights)
        self.copy_to(made)
        if autoregister:
            self.multigpu_clones[load_device] = made
        return made

    def get_control(
        self, x_noisy: Tensor, t: Tensor, cond: Conditions, batched_number: int, transformer_options: dict[str, Any]
    ) -> Features | None:
        """ComfyUI's signature; ``x_noisy``: ``(conds n) c h w``, ``t``: ``(conds n)``."""
        before = self.previous_controlnet
        before = before and before.get_control(x_noisy, t, cond, batched_number, transformer_options)
        info = CallInfo.of(x_noisy, t, transformer_options)
        ids = info.ids.cpu()
        check_length(ids, len(self.weights), transformer_options, NODE)
        inside = ids < len(self.weights)  # a sampler may show frames beyond the end that it drops later
        weights = torch.where(inside, self.weights[ids.clamp_max(len(self.weights) - 1)], 0)
        if not bool(weights.any()):
            return before
        made = FrameControl(self.control, ids.repeat(len(info.variants))).get_control(
            x_noisy, t, cond, batched_number, transformer_options
        )
        if made is None:
            return before
        rows = info.each(weights).to(x_noisy.device).view(-1, 1, 1, 1)
        scaled = {
            place: [None if one is None else one * rows.to(one.dtype) for one in features] for place, features in made.items()
        }
        return self.control_merge(scaled, before, output_dtype=None)
