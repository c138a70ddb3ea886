"""LoRAs on a MODEL with motion: onto the motion module, onto the image model, or one half each, as the file has it.

A constant strength is a patch of the motion module's ModelPatcher: ComfyUI merges it when the module is loaded and takes it out
again, so any number chain, branches of a graph do not see each other, and the module's own weights stay. A strength that changes over
sampling is a branch beside the weights (``modules/temporal/low_rank.py``), kept in a ModelPatcher of its own, so that ComfyUI loads
and offloads it. ComfyUI's hooks are not used: on recent versions they switch sampling to a second copy of the model.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import comfy.lora
import comfy.lora_convert
import comfy.model_management
import comfy.ops
import torch
from comfy.model_patcher import ModelPatcher
from comfy.weight_adapter import LoRAAdapter, WeightAdapterBase
from torch import Tensor

from ....modules.checkpoints.motion_lora import LowRank, MotionLora, change, fitting
from ....modules.temporal.low_rank import Branches, install, remove
from ..attached import KEY, motion_sampling
from ..options import ALONE
from .attachment import Attachment, hang
from .call_info import CallInfo, Sampling

log = logging.getLogger("longtake")
SCHEDULED = "longtake_motion_lora"  # the attachment, and that of the branches' patcher


@dataclass(frozen=True)
class Schedule:
    """When the branches of one LoRA act, and on which motion module.

    Attributes:
        place: of the motion module among those of the MODEL.
        start_percent: of sampling, 0..1.
        end_percent: of sampling, 0..1.
    """

    place: int
    start_percent: float
    end_percent: float

    def gain(self, sigmas: Tensor, sampling: Any) -> Tensor:
        """1 where it acts and 0 where not, for each frame's noise level: ``sigmas``: ``f``. Returns ``f``."""
        begun = sigmas <= sampling.percent_to_sigma(self.start_percent)
        ended = sigmas <= sampling.percent_to_sigma(self.end_percent) if self.end_percent < 1 else torch.zeros_like(begun)
        return (begun & ~ended).float()


def apply_motion_lora(
    model: ModelPatcher,
    lora: MotionLora,
    strength: float = 1.0,
    block_strength: Callable[[str], float] | None = None,
    start_percent: float = 0.0,
    end_percent: float = 1.0,
) -> ModelPatcher:
    """A clone of ``model`` with the LoRA on it.

    Args:
        model: with a motion module, unless the LoRA is for the image model alone.
        lora: a MotionLoRA, goes onto the motion module that was applied last; what the file holds for the image model goes there.
        strength: of all of it, of either sign.
        block_strength: a further one for each slot of the motion module; None for 1 everywhere.
        start_percent: of sampling, 0..1, from where on it acts.
        end_percent: of sampling, 0..1, up to where it acts.

    Raises:
        ValueError: the file does not fit the model, or what is asked for cannot be done with it. One sentence each.
    """
    always = start_percent <= 0 and end_percent >= 1
    if not 0 <= start_percent < end_percent <= 1:
        raise ValueError(
            f"{lora.name} is to act from {start_percent:g} to {end_percent:g} of sampling: start below end, both from 0 to 1"
        )
    if lora.spatial and not always:
        raise ValueError(
            f"{lora.name} is a LoRA of the image model, whose weights cannot change during sampling: set start_percent to 0 and"
            " end_percent to 1"
        )
    if not lora.deltas and block_strength is not None:
        raise ValueError(
            f"{lora.name} is a LoRA of the image model and has no motion modules to set one by one: leave blocks empty"
        )
    if lora.lengths and not always:
        raise ValueError(
            f"{lora.name} is a DoRA, which changes the weights as a whole and not for a while: set start_percent to 0 and end_percent to 1"
        )
    scaled = lora.at(strength, block_strength or (lambda slot: 1.0))
    patched = with_spatial(model, lora, strength) if lora.spatial else model.clone()
    if not lora.deltas:
        return patched
    fits = _fitting(patched, scaled)
    return with_patches(patched, fits) if always else scheduled(patched, fits, start_percent, end_percent)


def _fitting(model: ModelPatcher, lora: MotionLora) -> MotionLora:
    motions = model.get_additional_models_with_key(KEY)
    if not motions:
        raise ValueError(
            f"{lora.name} is a MotionLoRA and the model has no motion module: put Apply Motion Module before this node"
        )
    name = motions[-1].get_attachment(KEY).name
    shapes = {key: tuple(weight.shape) for key, weight in motions[-1].model.state_dict().items()}
    fits = fitting(lora, shapes, name)
    log.info("%s: %d of %d weights fit %s", lora.name, len(fits.deltas), len(lora.deltas), name)
    return fits


def with_patches(model: ModelPatcher, lora: MotionLora) -> ModelPatcher:
    """A clone of ``model`` whose last motion module has the LoRA among its patches."""
    patched = model.clone()  # clones its motion modules' patchers too
    motion = patched.get_additional_models_with_key(KEY)[-1]
    for factor in sorted({delta.factor for delta in lora.deltas.values()} - {0.0}):
        adapters = {
            key: Dora(set(), (delta.up, delta.down, lora.lengths[key]))
            if key in lora.lengths
            else LoRAAdapter(set(), (delta.up, delta.down, None, None, None, None))
            for key, delta in lora.deltas.items()
            if delta.factor == factor
        }
        motion.add_patches(adapters, factor)
    return patched


class Dora(WeightAdapterBase):
    """A DoRA's change of a weight when ComfyUI merges it, whose own adapter measures rows before the change and not after it."""

    name = "longtake_dora"

    def __init__(self, loaded_keys: set[str], weights: tuple[Tensor, Tensor, Tensor]):
        self.loaded_keys, self.weights = loaded_keys, weights

    def calculate_weight(self, weight: Tensor, key: str, strength: float, *_: Any, **__: Any) -> Tensor:
        """``weight``: ``d c`` with the change at a strength. Returns ``d c``."""
        up, down, lengths = self.weights
        return weight + change(weight.float(), LowRank(up, down, strength), lengths).to(weight.dtype)


def with_spatial(model: ModelPatcher, lora: MotionLora, strength: float) -> ModelPatcher:
    """A clone of ``model`` with the image model's part of the LoRA, read and applied by ComfyUI's own functions.

    Raises:
        ValueError: no key of it is one of this image model.
    """
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    loaded = comfy.lora.load_lora(comfy.lora_convert.convert_lora(dict(lora.spatial)), keys)
    patched = model.clone()
    used = patched.add_patches(loaded, strength)
    if not used:
        raise ValueError(
            f"{lora.name} is a LoRA of an image model and none of its {len(lora.spatial)} weights are in this one"
            f" (first: {next(iter(lora.spatial))}): use one for the same base model"
        )
    log.info("%s: %d layers of the image model changed (it is no MotionLoRA, but goes there by itself)", lora.name, len(used))
    return patched


def scheduled(model: ModelPatcher, lora: MotionLora, start_percent: float, end_percent: float) -> ModelPatcher:
    """A clone of ``model`` whose last motion module has the LoRA beside its weights, acting during a part of sampling.

    Each frame's own noise level decides, so frames at different levels in one call are right too.
    """
    patched = model.clone()
    motions = patched.get_additional_models_with_key(KEY)
    dtype = next(motions[-1].model.parameters()).dtype
    patcher = ModelPatcher(
        Branches(lora.deltas, comfy.ops.manual_cast).to(dtype).eval().requires_grad_(False),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
    patcher.set_attachments(SCHEDULED, Schedule(len(motions) - 1, start_percent, end_percent))
    patched.set_additional_models(SCHEDULED, [*patched.get_additional_models_with_key(SCHEDULED), patcher])
    hang(patched, BRANCHES)
    return patched


class ScheduledBranches(Attachment):
    """The attachment."""

    key = SCHEDULED

    def inject(self, patcher: ModelPatcher) -> tuple[tuple[Branches, Schedule], ...]:
        """Put every scheduled LoRA of ``patcher`` beside the layers of its motion modules."""
        parts = patcher.get_additional_models_with_key(SCHEDULED)
        scheduled = tuple((part.model, part.get_attachment(SCHEDULED)) for part in parts)
        for place, motion in enumerate(patcher.get_additional_models_with_key(KEY)):
            install(motion.model, [branches for branches, schedule in scheduled if schedule.place == place])
        return scheduled

    def eject(self, patcher: ModelPatcher) -> None:
        """Leave no trace on the motion modules; whether anything was there does not matter."""
        for motion in patcher.get_additional_models_with_key(KEY):
            remove(motion.model)

    @contextmanager
    def begin(self, sampling: Sampling) -> Iterator[None]:
        """See ``Attachment``."""
        sampling.options[ALONE] = True  # variants show frames at other noise levels
        try:
            yield
        finally:
            sampling.options.pop(ALONE, None)

    @contextmanager
    def call(self, info: CallInfo) -> Iterator[None]:
        """See ``Attachment``."""
        known = motion_sampling(info.options)
        windowed = known is not None and known.plan is not None
        with ExitStack() as stack:
            for branches, schedule in info.inside[self.key]:
                gain = schedule.gain(info.levels, info.model.model_sampling)
                least, most = torch.stack(gain.aminmax()).tolist()
                if least < most and windowed:
                    raise ValueError(
                        "a MotionLoRA that acts in a part of sampling met frames before and after its end, in windows of the motion module:"
                        " let it act from 0 to 1, or leave Context Windows out"
                    )
                if most > 0:
                    stack.enter_context(branches.during(gain if least < most else gain[0]))
            yield


BRANCHES = ScheduledBranches()
