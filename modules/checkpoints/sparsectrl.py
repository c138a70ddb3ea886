"""SparseCtrl files (Guo et al., arXiv:2311.16933): the authors' ``v3_sd15_sparsectrl_*.ckpt``, diffusers' ``SparseControlNetModel``, those
of AnimateDiff for A1111, and those trained here.

They differ in the image layers (``sparse_names.py``) and in the temporal ones, which are spelt as in motion modules
(``formats.FORMATS``). Everything is renamed to ``sparsectrl.SparseControl``'s own keys and checked against them. What is trained here for
SD1.5 is written in the authors' layout; encoders of this pack's video models, which that has no names for, have their own keys and say
in their metadata how they are built.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..control.sparsectrl import SparseConfig, SparseControl
from ..nets.unfilled import unfilled
from ..temporal.config import TemporalConfig
from ..temporal.slots import BlockedUNet, is_attention
from .export import motion_state
from .files import SPARSECTRL, kind, read_state
from .formats import FORMATS, POSITIONS, canonical_state, every_table
from .positions import table_length, trained
from .schema import ENTRIES, json_object, made, shown
from .sound import check_weights, count_of, shape_of
from .sparse_names import own_names, released

LATENT, PIXELS = 4, 3  # channels of a condition
TRAINED, MOST = 16, 32  # frames of the clips it was trained on; times it knows where its file has no table
HEADS = 8  # of every attention of SD1.5
MOST_FRAMES = 65536
ATTENTION = re.compile(r"\.attention_blocks\.(\d+)\.")
STEM = re.compile(r"^condition\.blocks\.(\d+)\.weight$")
MOVING = re.compile(r"\.(motion_modules|temporal_attentions)\.")
TRANSFORMER = re.compile(r"^input_blocks\.(\d+)\.1\.transformer_blocks\.(\d+)\.")
OWN = "LongTake"  # the layout of encoders for this pack's video models
ABOUT, SHOWN = "longtake_sparse_control", "pictures"  # in metadata: how such an encoder is built; what it is shown
RGB, SCRIBBLE, DEPTH = "rgb", "scribble", "depth"
PICTURES = {RGB: "latents of colour pictures", SCRIBBLE: "pixels of scribbles", DEPTH: "pixels of depth maps"}


@dataclass(frozen=True)
class SparseControlFile:
    """A SparseCtrl file's contents.

    Attributes:
        name: of the file.
        layout: a name in ``formats.FORMATS``, or ``OWN``.
        config: the architecture.
        state: weights by ``SparseControl``'s keys, in the precision of the file.
        pictures: what it takes, a name in ``PICTURES``.
        max_frames: the most frames that its temporal modules know times for.
        trained_frames: length of the clips it was trained on.
    """

    name: str
    layout: str
    config: SparseConfig
    state: Mapping[str, Tensor]
    pictures: str
    max_frames: int = MOST
    trained_frames: int = TRAINED

    def build(self, ops: Any = nn, attention: Callable[..., Tensor] = F.scaled_dot_product_attention) -> SparseControl:
        """The network with these weights; it shares their memory."""
        with unfilled():
            network = SparseControl(self.config, ops, attention)
        network.load_state_dict(self.state, assign=True)
        return network.eval().requires_grad_(False)


def load_sparse_control(path: Path, pictures: str = "") -> SparseControlFile:
    """Read a SparseCtrl file.

    Args:
        path: of the file.
        pictures: what it is to be shown, a name in ``PICTURES``; empty for what the file says: latents for rgb, and for pixels depth
            where its name says so, else scribble.

    Raises:
        ValueError: it cannot be read, is something else, is not complete, or takes other pictures. One sentence each.
    """
    state, metadata = read_state(path)
    if ABOUT in metadata:
        return _own(path.name, state, metadata, pictures)
    what = kind(state, metadata)
    if what != SPARSECTRL:
        said = f"it is {what}" if what else f"its first keys are {', '.join(list(state)[:3]) or 'none'}"
        raise ValueError(f"{path.name} is no SparseCtrl encoder: {said}; use one such as v3_sd15_sparsectrl_rgb.ckpt")
    if "difference" in state:
        raise ValueError(
            f"{path.name} holds differences to the weights of an image model: use a file that holds the encoder itself"
        )
    state = {key.removeprefix("control_model."): value for key, value in state.items()}
    layout = next(layout for layout in FORMATS if layout.signature.matches(state))
    motion = canonical_state(state, layout)
    tables = {key: motion.pop(key) for key in list(motion) if POSITIONS.search(key)}
    image = [key for key in state if not MOVING.search(key)]
    names, blocks = own_names(image)
    if len(set(names.values())) < len(names):
        raise ValueError(f"{path.name} holds the same weights in two spellings: use one of the two files it was made of")
    weights = {names[key]: state[key] for key in image} | {f"motion.{key}": value for key, value in motion.items()}
    config, length = _config(weights, blocks, path.name), table_length(tables, path.name)
    if trained(tables) is not None:
        weights |= {f"motion.{key}": value for key, value in every_table(tables, motion).items()}
        config = replace(config, temporal=replace(config.temporal, table=length or 0))
    _check(weights, config, path.name)
    takes = _pictures(config, pictures, path.name, metadata.get(SHOWN, ""))
    return SparseControlFile(path.name, layout.name, config, weights, takes, length or MOST)


def _own(name: str, state: Mapping[str, Tensor], metadata: Mapping[str, str], pictures: str) -> SparseControlFile:
    """An encoder of this pack's own."""
    where = f"the description of {name}"
    about = json_object(metadata[ABOUT], where)
    frames = about.pop("frames", None)
    if type(frames) is not int or not 0 < frames <= MOST_FRAMES:
        raise ValueError(f"{where} is broken: its clips have {shown(frames)} frames; download the file again")
    config = made(SparseConfig, about, where)
    _check(state, config, name)
    return SparseControlFile(name, OWN, config, state, _pictures(config, pictures, name, metadata.get(SHOWN, "")), frames, frames)


def _check(weights: Mapping[str, Tensor], config: SparseConfig, name: str) -> None:
    with unfilled():
        network = SparseControl(config)
    check_weights(weights, {key: tuple(value.shape) for key, value in network.state_dict().items()}, name)


def _config(weights: Mapping[str, Tensor], blocks: int, name: str) -> SparseConfig:
    """The architecture that the shapes tell of; what they tell wrongly ``check_weights`` finds."""
    width, entering = shape_of(weights, "input_blocks.0.0.weight", 4, name)[:2]
    firsts = [f"input_blocks.{1 + level * (blocks + 1)}.0.in_layers.2.weight" for level in range(ENTRIES)]
    levels = [shape_of(weights, key, 4, name)[0] for key in firsts if key in weights]
    if "middle_block.1.proj_in.weight" not in weights:
        raise ValueError(f"{name} is not complete: 1 weight is missing (middle_block.1.proj_in.weight); download it again")
    if weights["middle_block.1.proj_in.weight"].ndim != 4 or width % 32 or not levels or blocks > ENTRIES:
        raise ValueError(f"{name} is for a base model whose attention layers this pack does not know: use one for SD1.5")
    transformers = {(int(match[1]), match[2]) for match in map(TRANSFORMER.match, weights) if match}
    depth = Counter(block for block, _ in transformers)
    context = next((key for key in weights if key.endswith("attn2.to_k.weight")), None)
    channels, stem = _condition(weights, name)
    unet = {
        "in_channels": entering,
        "model_channels": width,
        "channel_mult": [level // width for level in levels],
        "num_res_blocks": [blocks] * len(levels),
        "transformer_depth": [depth[1 + level * (blocks + 1) + place] for level in range(len(levels)) for place in range(blocks)],
        "transformer_depth_output": [0] * (len(levels) * (blocks + 1)),
        "num_heads": HEADS,
        "context_dim": context and shape_of(weights, context, 2, name)[1],
    }
    attentions = count_of((int(match[1]) for match in map(ATTENTION.search, weights) if match), "attention", name)
    temporal = {"attentions": max(attentions, 1)}
    facts = {"unet": unet, "condition": channels, "stem": stem, "temporal": temporal, "masked": _masked(weights, channels)}
    return made(SparseConfig, facts, name)


def _condition(weights: Mapping[str, Tensor], name: str) -> tuple[int, tuple[int, ...]]:
    """(channels of the condition, widths of the stem)."""
    latents = "condition.weight" in weights
    key, channels = ("condition.weight", LATENT) if latents else ("condition.conv_in.weight", PIXELS)
    if key not in weights or weights[key].ndim != 4 or weights[key].shape[1] not in (channels, channels + 1):
        found = f"a condition of the shape {list(weights[key].shape)}" if key in weights else "nothing that takes a condition"
        raise ValueError(f"{name} has {found}: 4 channels of a latent or 3 of a picture are known, each with a mask or without")
    if latents:
        return LATENT, ()
    count = count_of((int(match[1]) for match in map(STEM.match, weights) if match), "condition.blocks", name)
    widths = (shape_of(weights, f"condition.blocks.{place}.weight", 4, name)[0] for place in range(1, count, 2))
    return PIXELS, (weights[key].shape[0], *widths)


def _masked(weights: Mapping[str, Tensor], channels: int) -> bool:
    first = weights["condition.weight" if channels == LATENT else "condition.conv_in.weight"]
    return first.shape[1] == channels + 1


def _pictures(config: SparseConfig, asked: str, name: str, stated: str) -> str:
    """What it is shown: what is ``asked`` for, else what the file ``stated``, else what its name says.

    Raises:
        ValueError: it was trained on others than those asked for.
    """
    if asked not in ("", *PICTURES):
        raise ValueError(f"pictures is {asked!r}: choose one of {', '.join(PICTURES)}, or leave it to the file")
    latents = not config.stem
    if asked and (asked == RGB) != latents:
        takes = PICTURES[RGB] if latents else f"{PICTURES[SCRIBBLE]} or depth maps"
        raise ValueError(
            f"{name} takes {takes}, and {asked} was asked for: choose {RGB if latents else f'{SCRIBBLE} or {DEPTH}'}, or a file for {asked}"
        )
    fitting = stated in PICTURES and (stated == RGB) == latents
    return asked or (stated if fitting else RGB if latents else DEPTH if DEPTH in name.lower() else SCRIBBLE)


def base_config(unet: BlockedUNet) -> SparseConfig:
    """The architecture of the authors' encoder of latents for an image model.

    Args:
        unet: of the image model.

    Raises:
        ValueError: it is not built as SD1.5, which is all that the authors' layout has names for.
    """
    state: dict[str, Tensor] = unet.state_dict()  # type: ignore[attr-defined]
    weights = {key: value for key, value in state.items() if key.startswith(("input_blocks.", "middle_block.", "label"))}
    narrow = re.compile(r"^input_blocks\.(\d+)\.0\.op\.weight$")
    resizing = [int(match[1]) for match in map(narrow.match, weights) if match]
    attentions = [block for layer in unet.modules() if is_attention(layer) for block in layer.transformer_blocks]  # type: ignore[attr-defined]
    heads = {block.attn1.heads for block in attentions}
    projections = [value for key, value in weights.items() if key.endswith(".proj_in.weight")]
    labelled = any(key.startswith("label") for key in weights)
    if heads != {HEADS} or labelled or not resizing or any(value.ndim != 4 for value in projections):
        raise ValueError(
            "this model is not built as SD1.5, which SparseCtrl encoders are for: connect an SD1.5 checkpoint with a motion module, or a"
            " LongTake video model"
        )
    width = weights["input_blocks.0.0.weight"].shape[0]
    entrance = {"condition.weight": torch.empty(width, LATENT + 1, 3, 3, device="meta")}
    return _config({**weights, **entrance}, min(resizing) - 1, "this model")


def saved_state(
    config: SparseConfig, state: Mapping[str, Tensor], pictures: str, frames: int
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of an encoder's file: in the authors' layout where that has names for all of it, else in this pack's own.

    Args:
        config: of the encoder.
        state: its weights.
        pictures: what it is shown, a name in ``PICTURES``.
        frames: the most that its temporal modules know times for.
    """
    if not _authors(config):
        about = {**config.facts(), "frames": frames}
        return dict(state), {ABOUT: json.dumps(about), SHOWN: pictures}
    released_weights = released_by(config, state)
    moving = {key: value for key, value in released_weights.items() if ".motion_modules." in key}
    return {**released_weights, **motion_state(moving, frames, "AnimateDiff")}, {SHOWN: pictures}


def _authors(config: SparseConfig) -> bool:
    """Whether a file in the authors' layout, which tells shapes only, would be read as this architecture again."""
    unet = config.unet
    usual = replace(unet, label_channels=None, num_heads=HEADS, groups=32, use_scale_shift_norm=False, transformer_depth_middle=1)
    known = config.condition == (PIXELS if config.stem else LATENT) and len(set(unet.num_res_blocks)) == 1
    return known and unet == usual and config.temporal == TemporalConfig(attentions=1)


def released_state(network: SparseControl) -> dict[str, Tensor]:
    """The weights of a network as ``released_by`` names them."""
    return released_by(network.sparse, {key: value.detach() for key, value in network.state_dict().items()})


def released_by(sparse: SparseConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the authors' keys, as ``v3_sd15_sparsectrl_*.ckpt`` has them under ``controlnet``: for other programs.

    Raises:
        ValueError: the network has what that layout knows no keys for: labels, or levels with different numbers of blocks.
    """
    config = sparse.unet
    blocks = config.num_res_blocks[0]
    if config.label_channels or set(config.num_res_blocks) != {blocks}:
        raise ValueError(
            "a SparseCtrl file has no keys for labels or for levels of different depth: it can be saved for SD1.5 only"
        )
    return {
        key.removeprefix("motion.") if key.startswith("motion.") else released(key, blocks): value for key, value in state.items()
    }
