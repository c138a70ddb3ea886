"""Motion modules: whatever layout and generation a file is of, read as one canonical thing.

How keys are spelt is a row of ``formats.FORMATS``, what the weights mean is a row of ``families.FAMILIES``. Everything that a file holds
is either checked and kept, or named in the error that refuses it.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..control.encoders import image_encoder_shapes
from ..control.first_frame import PIA_CHANNELS, PiaInput, PictureEncoder
from ..nets.unfilled import unfilled
from ..temporal.motion import MotionModel
from ..temporal.slot_names import MIDDLE, described, in_order, levels
from ..temporal.slots import BlockedUNet, widths
from ..temporal.transformer import TemporalConfig
from .camera import Camera
from .families import FAMILY, Contents, family_of
from .files import read_state
from .formats import LCM_TABLES, POSITIONS, SLOT, MotionFormat, canonical_state, every_table, format_of
from .positions import table_length, trained
from .schema import made
from .sound import check_weights, count_of, shape_of

CONV_IN, IMAGE_ENCODER = "conv_in.", "img_encoder."
ATTENTION = re.compile(r"\.attention_blocks\.(\d+)\.")
GROUPS = TemporalConfig().groups


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
        trained_frames: length of the clips it was trained on.
        lcm_steps: steps of the schedule it was distilled from (AnimateLCM); None where it was not.
        module_norms: whether the norm inside each motion module must run over all frames of a clip.
        conv_in: PIA's input layer for latent, mask and latent of the picture, as its ``weight`` and ``bias``; None for the U-Net's own.
        image_encoder: AnimateLCM-I2V's encoder of the reference picture, by its authors' keys without ``img_encoder.``; None for none.
        camera: a CameraCtrl module grafted on; None for none.
    """

    name: str
    family: str
    widths: Mapping[str, int]
    config: TemporalConfig
    state: Mapping[str, Tensor]
    noise_schedule: str
    clip_norms: bool
    max_frames: int
    trained_frames: int = 16
    lcm_steps: int | None = None
    module_norms: bool = False
    conv_in: Mapping[str, Tensor] | None = None
    image_encoder: Mapping[str, Tensor] | None = None
    camera: Camera | None = None

    def build(self, ops: Any = nn, attention: Callable[..., Tensor] = F.scaled_dot_product_attention) -> MotionModel:
        """The network with these weights; it shares their memory."""
        with unfilled():
            model = MotionModel(self.widths, replace(self.config, clip_norm=self.module_norms), ops, attention)
        model.load_state_dict(self.state, assign=True)
        model.camera = self.camera and self.camera.build(ops, attention)
        if self.conv_in is not None:
            state = {f"{CONV_IN}{key}": value for key, value in self.conv_in.items()}
            model.input_layer = _filled(lambda: PiaInput(len(state[f"{CONV_IN}bias"]), ops), state)
        if self.image_encoder is not None:
            model.picture_encoder = _filled(lambda: PictureEncoder(levels(self.widths), ops), self.image_encoder)
        return model.eval().requires_grad_(False)


def _filled(build: Callable[[], nn.Module], state: Mapping[str, Tensor]) -> nn.Module:
    with unfilled():
        network = build()
    network.load_state_dict(state, assign=True)
    return network


def load_motion_module(path: Path, family: str = "") -> MotionModule:
    """Read a motion module of any family in ``families.FAMILIES`` and any layout in ``formats.FORMATS``.

    Args:
        path: of the file.
        family: a name in ``FAMILIES``; empty for what the file says or shows.

    Raises:
        ValueError: it cannot be read, is something else, is not complete, or cannot be of that family. One sentence each.
    """
    state, metadata = read_state(path)
    layout = format_of(state, metadata, path.name)
    weights = canonical_state(state, layout)
    tables = {key: weights.pop(key) for key in list(weights) if POSITIONS.search(key)}
    slots = _slot_widths(weights, path.name)
    length = table_length(tables, path.name)
    config = _config(weights, path.name)
    if trained(tables) is not None:
        weights |= every_table(tables, weights)
        config = replace(config, table=length or 0)
    with unfilled():
        network = MotionModel(slots, config)
    check_weights(weights, {key: tuple(value.shape) for key, value in network.state_dict().items()}, path.name)
    conv_in, image_encoder = _conv_in(state, levels(slots)[0], path.name), _image_encoder(state, levels(slots), path.name)
    extras = bool(conv_in), bool(image_encoder), _lcm(path, state, layout)
    contents = Contents(layout.name, len(levels(slots)), MIDDLE in slots, length, *extras)
    row = family_of(contents, path.name, family or metadata.get(FAMILY, ""))
    return MotionModule(
        path.name,
        row.name,
        slots,
        config,
        weights,
        row.noise_schedule,
        row.clip_norms,
        length or row.max_frames,
        row.trained_frames,
        row.lcm_steps,
        row.module_norms,
        conv_in,
        image_encoder,
    )


def _lcm(path: Path, state: Mapping[str, Tensor], layout: MotionFormat) -> bool:
    """Whether spelling or name say that it is AnimateLCM: its trainer's spelling of tables, or its folder's or file's name in diffusers'
    layout, which has tables for all and says nothing else.
    """
    named = layout.name == "diffusers" and "lcm" in f"{path.parent.name}/{path.name}".lower()
    return named or any(key.endswith(LCM_TABLES) for key in state)


def _slot_widths(weights: Mapping[str, Tensor], name: str) -> dict[str, int]:
    named = {match[1] for match in map(SLOT.match, weights) if match}
    norms = {slot: f"{slot}.temporal_transformer.norm.weight" for slot in in_order(named, name)}
    found = {slot: shape_of(weights, key, 1, name)[0] for slot, key in norms.items()}
    odd = next((width for width in found.values() if width % GROUPS), None)
    if odd is not None:
        raise ValueError(f"{name} is for levels of {odd} channels: motion modules have multiples of {GROUPS}; download it again")
    return found


def _config(weights: Mapping[str, Tensor], name: str) -> TemporalConfig:
    blocks = count_of((int(match[1]) for match in map(ATTENTION.search, weights) if match), "attention", name)
    last = next((key for key in weights if key.endswith("ff.net.2.weight")), "")
    narrow, wide = shape_of(weights, last, 2, name)
    return made(TemporalConfig, {"attentions": max(blocks, 1), "ff_mult": wide // narrow}, name)


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _conv_in(state: Mapping[str, Tensor], width: int, name: str) -> dict[str, Tensor] | None:
    """PIA's input layer; None where the file has none, or only that of a whole U-Net saved along."""
    part = _part(state, CONV_IN)
    if "weight" not in part or shape_of(part, "weight", 4, f"the conv_in of {name}")[1] != PIA_CHANNELS:
        return None
    check_weights(part, {"weight": (width, PIA_CHANNELS, 3, 3), "bias": (width,)}, f"the conv_in of {name}")
    return part


def _image_encoder(state: Mapping[str, Tensor], widths: tuple[int, ...], name: str) -> dict[str, Tensor] | None:
    part = _part(state, IMAGE_ENCODER)
    if part:
        check_weights(part, image_encoder_shapes(widths), f"the img_encoder of {name}")
    return part or None


def graft_camera(motion: MotionModule, camera: Camera) -> MotionModule:
    """The motion module with a CameraCtrl module on it, in place of any that it had.

    Raises:
        ValueError: they are for different base models.
    """
    ours = {slot: width for slot, width in motion.widths.items() if slot != MIDDLE}
    if ours != camera.widths:
        raise ValueError(
            f"{camera.name} is for {described(camera.widths)} and {motion.name} is for {described(ours)}:"
            " put it onto the module it was trained with, such as v3_sd15_mm.ckpt"
        )
    return replace(motion, camera=camera)


def graft_picture(motion: MotionModule, donor: MotionModule) -> MotionModule:
    """The motion module with that by which another follows a picture: PIA's input layer, or AnimateLCM-I2V's encoder.

    Raises:
        ValueError: the other follows none, or they are for different base models.
    """
    if donor.conv_in is None and donor.image_encoder is None:
        raise ValueError(
            f"{donor.name} is a {donor.family} module, which follows no picture: choose PIA's file or AnimateLCM-I2V's"
        )
    if levels(motion.widths) != levels(donor.widths):
        raise ValueError(
            f"{donor.name} is for {described(donor.widths)} and {motion.name} is for {described(motion.widths)}: use two of one base"
        )
    return replace(motion, conv_in=donor.conv_in, image_encoder=donor.image_encoder)


def check_base(motion: MotionModule, unet: BlockedUNet) -> None:
    """Refuse a U-Net that a motion module was not made for.

    Raises:
        ValueError: widths or the number of slots differ. Says which base model each is.
    """
    if not isinstance(motion, MotionModule):
        raise ValueError(f"{motion!r} was given for a motion module: connect Load Motion Module")
    there = widths(unet)
    ours = dict(motion.widths)
    if MIDDLE not in ours:
        there.pop(MIDDLE, None)
    if ours == there:
        return
    first = next(iter(sorted(set(ours.items()) ^ set(there.items()))))[0]
    same = levels(ours) == levels(there) and Counter(ours.values()) == Counter(there.values())
    detail = f" (they differ first at {first})" if same else ""
    raise ValueError(
        f"{motion.name} is for {described(ours)} and the model is {described(there)}{detail}:"
        " load a checkpoint of the module's base model"
    )
