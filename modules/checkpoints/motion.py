"""Motion modules: AnimateDiff's files, whatever their wrapping, as one canonical thing.

Layouts are rows of ``FORMATS`` (how keys are spelt) and generations are rows of ``FAMILIES`` (what the same keys mean: noise schedule,
norms). To add a format, append a row that names its signature and the renames that lead to AnimateDiff's own keys; one with
``unread`` is recognised and refused with that sentence.

Positions: a file's ``pos_encoder.pe`` is the sinusoid of Vaswani et al. and nothing else, so it is not loaded but computed. Its length
is kept as the most frames the module knows; a table with other contents is refused, since ignoring it would change the motion.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..temporal.motion import MotionModel
from ..temporal.positions import sinusoid
from ..temporal.slots import BlockedUNet, widths
from ..temporal.transformer import TemporalConfig
from .files import kind, read_state

POSITIONS = re.compile(r"\.pos_encoder\.pe$")
SLOT = re.compile(r"^((?:(down|up)_blocks\.(\d+)|mid_block)\.motion_modules\.(\d+))\.temporal_transformer\.(.+)$")
PE_TOLERANCE = 0.01  # bfloat16 rounds 1 by at most 0.004


@dataclass(frozen=True)
class MotionFormat:
    """How one way of spelling the keys is recognised, and how it becomes AnimateDiff's own.

    Attributes:
        name: of the format.
        signature: a pattern that some key matches in this format and in none of those after it.
        renames: (pattern, replacement), each applied to every key.
        unread: why this version does not read it; empty if it does.
        unless: a pattern that no key may match; empty for none.
    """

    name: str
    signature: str
    renames: tuple[tuple[str, str], ...] = ()
    unread: str = ""
    unless: str = ""

    def owns(self, keys: Iterable[str]) -> bool:
        keys = list(keys)
        other = bool(self.unless) and any(re.search(self.unless, key) for key in keys)
        return not other and any(re.search(self.signature, key) for key in keys)

    def canonical(self, key: str) -> str:
        """One key in AnimateDiff's spelling."""
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key


_LATER = "which this version does not read yet"
FORMATS: tuple[MotionFormat, ...] = (
    MotionFormat("HotshotXL", r"temporal_attentions\.\d+\.", unread=f"a HotshotXL module, {_LATER}"),
    MotionFormat(
        "diffusers", r"motion_modules\.\d+\.transformer_blocks\.", unread=f"a motion adapter in diffusers' layout, {_LATER}"
    ),
    MotionFormat(
        "PIA", r"^conv_in\.weight$", unread=f"a PIA module (it has an input layer of its own), {_LATER}", unless=r"conv_out\."
    ),
    MotionFormat("CameraCtrl", r"\.qkv_merge\.|\.cc_projection\.", unread=f"a module with camera control, {_LATER}"),
    MotionFormat("AnimateLCM-I2V", r"^img_encoder\.", unread=f"an AnimateLCM image-to-video module, {_LATER}"),
    MotionFormat("AnimateDiff", r"temporal_transformer\..*pos_encoder\.pe$", renames=((r"^module\.", ""),)),
    MotionFormat("AnimateLCM", r"temporal_transformer\.", unread=f"a module without a position table (AnimateLCM), {_LATER}"),
)


@dataclass(frozen=True)
class Family:
    """What one generation of AnimateDiff's modules means beside its weights.

    Attributes:
        name: of the generation.
        middle: whether there is a module in the middle block.
        frames: length of the position table; None for any.
        clip_norms: whether the U-Net's residual norms and its last one ran over all frames of a clip in training.
        noise_schedule: a name in ``noise.NOISE_SCHEDULES``.
    """

    name: str
    middle: bool
    frames: int | None = None
    clip_norms: bool = False
    noise_schedule: str = "linear"

    def fits(self, middle: bool, frames: int) -> bool:
        return self.middle == middle and self.frames in (None, frames)


FAMILIES: tuple[Family, ...] = (
    Family("v2", middle=True),
    Family("v1", middle=False, frames=24, clip_norms=True),
    Family("v3", middle=False),  # 32 frames as released; retrained ones of other lengths are per frame as well
)

# base model -> widths of its levels, finest first
BASES: dict[str, tuple[int, ...]] = {"SD1.5": (320, 640, 1280, 1280), "SDXL": (320, 640, 1280)}


@dataclass(frozen=True)
class MotionModule:
    """A motion module file's contents.

    Attributes:
        name: of the file.
        family: a name in ``FAMILIES``.
        widths: channels by slot.
        config: what the temporal transformers have in common.
        state: weights by ``MotionModel``'s keys, in the precision of the file.
        noise_schedule: what it was trained with, a name in ``noise.NOISE_SCHEDULES``.
        clip_norms: whether the U-Net's residual norms and its last one must run over all frames of a clip.
        max_frames: the most frames it knows times for.
    """

    name: str
    family: str
    widths: Mapping[str, int]
    config: TemporalConfig
    state: Mapping[str, Tensor]
    noise_schedule: str
    clip_norms: bool
    max_frames: int

    def build(self, ops: Any = nn, attention: Callable[..., Tensor] = F.scaled_dot_product_attention) -> MotionModel:
        """The network with these weights; it shares their memory."""
        with torch.device("meta"):
            model = MotionModel(self.widths, self.config, ops, attention)
        model.load_state_dict(self.state, assign=True)
        return model.eval().requires_grad_(False)


def load_motion_module(path: Path) -> MotionModule:
    """Read a motion module of AnimateDiff v1, v2 or v3.

    Raises:
        ValueError: it cannot be read, is something else, or is not complete. One sentence each.
    """
    state, metadata = read_state(path)
    canonical = canonical_state(state, metadata, path.name)
    tables = {key: value for key, value in canonical.items() if POSITIONS.search(key)}
    weights = {key: value for key, value in canonical.items() if key not in tables}
    frames = _table_length(tables, path.name)
    slots = _slot_widths(weights, path.name)
    _check_readable_base(slots, path.name)
    config = _config(weights)
    _check_complete(weights, slots, config, path.name)
    family = next(family for family in FAMILIES if family.fits("mid_block.motion_modules.0" in slots, frames))
    return MotionModule(path.name, family.name, slots, config, weights, family.noise_schedule, family.clip_norms, frames)


def canonical_state(state: Mapping[str, Tensor], metadata: Mapping[str, str], name: str) -> dict[str, Tensor]:
    """The temporal transformers' tensors under AnimateDiff's own keys; a U-Net saved along with them is left out.

    Raises:
        ValueError: there are none, or they are in a format that is not read.
    """
    other = kind(state, metadata)
    layout = next((layout for layout in FORMATS if layout.owns(state)), None)
    if layout is None or (other is not None and "checkpoint" not in other):
        what = f"it is {other}" if other else f"its first keys are {', '.join(list(state)[:3]) or 'none'}"
        raise ValueError(f"{name} is no motion module: {what}; use an AnimateDiff v1, v2 or v3 module such as v3_sd15_mm.ckpt")
    if layout.unread:
        raise ValueError(f"{name} is {layout.unread}: use an AnimateDiff v1, v2 or v3 module for SD1.5")
    renamed = {layout.canonical(key): value for key, value in state.items()}
    return {key: value for key, value in renamed.items() if SLOT.match(key)}


def _table_length(tables: Mapping[str, Tensor], name: str) -> int:
    shapes = {tuple(table.shape[:-1]) for table in tables.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise ValueError(
            f"the position tables in {name} have different shapes {sorted(shapes)}: the file is broken or not AnimateDiff's"
        )
    length = next(iter(shapes))[1]
    for key, table in tables.items():
        expected = sinusoid(torch.arange(length), table.shape[-1])
        if not torch.allclose(table[0].float(), expected, atol=PE_TOLERANCE):
            raise ValueError(
                f"{key} in {name} is not AnimateDiff's sinusoid: a module with positions of its own cannot be used faithfully"
            )
    return length


def _slot_widths(weights: Mapping[str, Tensor], name: str) -> dict[str, int]:
    """Channels by slot, with every hole in the numbering refused."""
    matches = [match for match in map(SLOT.match, weights) if match]
    found = {match[1]: len(weights[match[0]]) for match in matches if match[5] == "norm.weight"}
    levels = 1 + max((int(match[3]) for match in matches if match[2]), default=-1)
    expected = ["mid_block.motion_modules.0"] if any(match[2] is None for match in matches) else []
    for side in ("down", "up"):
        count = 1 + max((int(match[4]) for match in matches if match[2] == side), default=-1)
        expected += [f"{side}_blocks.{level}.motion_modules.{index}" for level in range(levels) for index in range(max(count, 1))]
    absent = [slot for slot in expected if slot not in found]
    if absent:
        raise ValueError(
            f"{name} is not complete: {len(absent)} of {len(expected)} modules are missing, first {absent[0]}; download it again"
        )
    return {slot: found[slot] for slot in expected}


def _config(weights: Mapping[str, Tensor]) -> TemporalConfig:
    blocks = {int(match[1]) for match in (re.search(r"attention_blocks\.(\d+)\.", key) for key in weights) if match}
    hidden = next((len(value[0]) / len(value) for key, value in weights.items() if key.endswith("ff.net.2.weight")), 4)
    return TemporalConfig(attentions=max(len(blocks), 1), ff_mult=int(hidden))


def _check_complete(weights: Mapping[str, Tensor], slots: Mapping[str, int], config: TemporalConfig, name: str) -> None:
    with torch.device("meta"):
        wanted = {key: tuple(value.shape) for key, value in MotionModel(slots, config).state_dict().items()}
    given = {key: tuple(value.shape) for key, value in weights.items()}
    missing = sorted(set(wanted) - set(given))
    if missing:
        raise ValueError(f"{name} is not complete: {len(missing)} weights are missing, first {missing[0]}; download it again")
    strange = sorted(key for key in given if given[key] != wanted.get(key))
    if strange:
        raise ValueError(
            f"{name} holds {len(strange)} weights that AnimateDiff's modules do not have in that shape, first {strange[0]}"
        )


def _check_readable_base(slots: Mapping[str, int], name: str) -> None:
    if base_of(slots) == "SDXL":
        raise ValueError(
            f"{name} is a motion module for SDXL, {_LATER}: use an AnimateDiff v1, v2 or v3 module with an SD1.5 checkpoint"
        )


def levels(slots: Mapping[str, int]) -> tuple[int, ...]:
    """Widths of the levels on the way down, finest first."""
    found = {int(name.split(".")[1]): width for name, width in slots.items() if name.startswith("down_blocks.")}
    return tuple(found[level] for level in sorted(found))


def base_of(slots: Mapping[str, int]) -> str | None:
    """Which base model has such slots: a name in ``BASES``, or None."""
    return next((name for name, wanted in BASES.items() if levels(slots) == wanted), None)


def _described(slots: Mapping[str, int]) -> str:
    base = base_of(slots)
    channels = f"levels of {', '.join(map(str, levels(slots)))} channels"
    return f"{base} ({channels})" if base else f"a U-Net with {channels}"


def check_base(motion: MotionModule, unet: BlockedUNet) -> None:
    """Refuse a U-Net that a motion module was not made for.

    Raises:
        ValueError: widths or the number of slots differ. Says which base model each is.
    """
    there = widths(unet)
    ours = dict(motion.widths)
    if "mid_block.motion_modules.0" not in ours:
        there.pop("mid_block.motion_modules.0", None)
    if ours == there:
        return
    first = next(iter(sorted(set(ours.items()) ^ set(there.items()))))[0]
    same = levels(ours) == levels(there) and Counter(ours.values()) == Counter(there.values())
    detail = f" (they differ first at {first})" if same else ""
    raise ValueError(
        f"{motion.name} is for {_described(ours)} and the model is {_described(there)}{detail}:"
        " load a checkpoint of the module's base model"
    )
