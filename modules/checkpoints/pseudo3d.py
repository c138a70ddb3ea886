"""Pseudo-3-D U-Nets of make-a-stable-diffusion-video and TempoFunk, as diffusers saves them: a folder with ``unet/config.json`` and
``unet/diffusion_pytorch_model.bin`` or ``.safetensors``.

They are Stable Diffusion's inpainting U-Net, whose weights keep their diffusers names but for a ``spatial_conv`` in those of convolutions,
and temporal layers beside them. Here the first become the U-Net that everything in this pack works on, the second an ``InsideModel``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..nets.unet import Attention, UNet
from ..nets.unet_config import UNetConfig
from ..nets.unfilled import unfilled
from ..temporal.inside import InsideModel
from .files import kind, read_state
from .schema import ENTRIES, json_object, made, shown
from .sound import check_weights, count_of, shape_of

GROUPS = 32  # of every norm, in all of these files
FOLDER = re.compile(r"(^|[/\\])unet[/\\]diffusion_pytorch_model[^/\\]*$")  # where in a diffusers folder the U-Net is
TEMPORAL = re.compile(r"\.(temporal_conv|attn_temporal|norm_temporal)\.")
RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
TWICE = ".Conv2d_0."  # a second name for a downsampler's convolution in files of 2022
HEADS = 8  # of Stable Diffusion 1's attentions, where the folder says nothing


@dataclass(frozen=True)
class Pseudo3DModel:
    """A file's contents.

    Attributes:
        name: of the file's folder.
        config: of the U-Net.
        unet: its weights, by this pack's and ComfyUI's names.
        temporal: those of the temporal layers, by ``InsideModel``'s names.
    """

    name: str
    config: UNetConfig
    unet: Mapping[str, Tensor]
    temporal: Mapping[str, Tensor]

    def build_temporal(self, ops: Any = nn, attention: Attention = F.scaled_dot_product_attention) -> InsideModel:
        """The temporal layers with these weights."""
        made = new_inside(self.config, ops, attention)
        made.load_state_dict(dict(self.temporal))
        return made

    def build(self, ops: Any = nn, attention: Attention = F.scaled_dot_product_attention) -> tuple[UNet, InsideModel]:
        """Both networks with these weights, not yet joined."""
        unet = UNet(self.config, ops, attention)
        unet.load_state_dict(dict(self.unet))
        return unet, self.build_temporal(ops, attention)


def new_inside(config: UNetConfig, ops: Any = nn, attention: Attention = F.scaled_dot_product_attention) -> InsideModel:
    """Temporal layers for a U-Net, with fresh weights: one after every convolution but 1x1 projections, one in every transformer block."""
    with unfilled():
        unet = UNet(config)
    return _inside_of(unet, config, ops, attention)


def _inside_of(
    unet: UNet, config: UNetConfig, ops: Any = nn, attention: Attention = F.scaled_dot_product_attention
) -> InsideModel:
    layers = [(name, layer) for name, layer in unet.named_modules() if isinstance(layer, nn.Conv2d)]
    convolutions = {name: layer.out_channels for name, layer in layers if not name.endswith((".proj_in", ".proj_out"))}
    blocks = {
        name: layer.norm3.normalized_shape[0]
        for name, layer in unet.named_modules()
        if hasattr(layer, "norm3") and isinstance(layer.norm3, nn.LayerNorm)
    }
    return InsideModel(convolutions, blocks, config.num_heads, ops, attention)


def load_pseudo3d(path: Path) -> Pseudo3DModel:
    """Read the U-Net of a diffusers folder.

    Args:
        path: of its weights; ``config.json`` beside them is read where it is, else sizes are taken from the weights.

    Raises:
        ValueError: there is no such file, it cannot be read, it is cut short, or it is another kind of model. One sentence each.
    """
    state, metadata = read_state(path)
    if not any(".temporal_conv." in key for key in state) or not any(".attn_temporal." in key for key in state):
        what = kind(state, metadata)
        raise ValueError(
            f"{path.name} is no pseudo-3-D U-Net of make-a-stable-diffusion-video or TempoFunk"
            + (f": it is {what}" if what else f" (its first keys are {', '.join(list(state)[:3]) or 'none'})")
        )
    config = _config(path, state)
    spatial, temporal = {}, {}
    for key, value in state.items():
        if TWICE in key:
            continue
        layer = _layer(key, config)
        if TEMPORAL.search(key):
            temporal[_inside(layer)] = value
        else:
            spatial[layer.replace(".spatial_conv.", ".")] = value
    with unfilled():
        unet = UNet(config)
        inside = _inside_of(unet, config)
    for given, network in ((spatial, unet), (temporal, inside)):
        check_weights(given, {key: tuple(value.shape) for key, value in network.state_dict().items()}, path.name)
    name = path.parent.parent.name if FOLDER.search(str(path)) else path.stem
    return Pseudo3DModel(name, config, spatial, temporal)


def _inside(layer: str) -> str:
    """The key of a temporal weight in ``InsideModel``: the layer that it follows is its name there."""
    owner, member, rest = re.split(r"\.(temporal_conv|attn_temporal|norm_temporal)\.", layer, maxsplit=1)
    return f"layers.{owner.replace('.', '/')}.{member}.{rest}"


def _layer(key: str, config: UNetConfig) -> str:
    """A diffusers key by the name of the same layer in Stable Diffusion's own U-Net; other keys as they are."""
    for theirs, ours in ENDS.items():
        if key.startswith(theirs + "."):
            return ours + key[len(theirs) :]
    match = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)$", key)
    if match:
        side, level, part, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        return _on_the_way(side, level, part, index, rest, config)
    match = re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)$", key)
    if match:
        place = 2 * int(match[2]) + (match[1] == "attentions")
        return f"middle_block.{place}.{_member(match[1], match[3])}"
    return key


def _on_the_way(side: str, level: int, part: str, index: int, rest: str, config: UNetConfig) -> str:
    blocks = config.num_res_blocks[0] + 1  # per level: resizing beside residual blocks down, one residual block more up
    if side == "down":
        number = 1 + level * blocks + (config.num_res_blocks[0] if part == "downsamplers" else index)
        if part == "downsamplers":
            return f"input_blocks.{number}.0.op.{rest.removeprefix('conv.')}"
        return f"input_blocks.{number}.{int(part == 'attentions')}.{_member(part, rest)}"
    number = level * blocks + (blocks - 1 if part == "upsamplers" else index)
    if part == "upsamplers":
        attends = config.transformer_depth_output[::-1][number] > 0
        return f"output_blocks.{number}.{1 + attends}.{rest}"
    return f"output_blocks.{number}.{int(part == 'attentions')}.{_member(part, rest)}"


def _member(part: str, rest: str) -> str:
    if part != "resnets":
        return rest
    first, _, last = rest.partition(".")
    return f"{RESIDUAL.get(first, first)}.{last}"


def _config(path: Path, state: Mapping[str, Tensor]) -> UNetConfig:
    """The architecture, from the weights' shapes and what ``config.json`` beside them says of the heads.

    Raises:
        ValueError: weights that say it are missing, or the description is broken.
    """
    counted = {(int(m[1]), int(m[2])) for key in state if (m := re.match(r"down_blocks\.(\d+)\.resnets\.(\d+)\.", key))}
    levels = count_of((level for level, _ in counted), "down_blocks", path.name)
    base, channels = shape_of(state, "conv_in.spatial_conv.weight", 4, path.name)[:2]
    if not 0 < levels <= ENTRIES:
        raise ValueError(f"{path.name} has {levels} levels: U-Nets have 1 to {ENTRIES}; download it again")
    per_level = [sum(level == where for where, _ in counted) for level in range(levels)]
    if len(set(per_level)) > 1:
        raise ValueError(
            f"{path.name} is not complete: its levels have {', '.join(map(str, per_level))} residual blocks; download it again"
        )
    first = "down_blocks.{}.resnets.0.conv1.spatial_conv.weight"
    wide = [shape_of(state, first.format(level), 4, path.name)[0] for level in range(levels)]
    attends = [any(key.startswith(f"down_blocks.{level}.attentions.") for key in state) for level in range(levels)]
    words = next((key for key in state if key.endswith("attn2.to_k.weight")), None)
    blocks = per_level[0]
    facts = {
        "in_channels": channels,
        "out_channels": shape_of(state, "conv_out.spatial_conv.weight", 4, path.name)[0],
        "model_channels": base,
        "channel_mult": [width // base for width in wide],
        "num_res_blocks": [blocks] * levels,
        "transformer_depth": [int(attend) for attend in attends for _ in range(blocks)],
        "transformer_depth_output": [int(attend) for attend in attends for _ in range(blocks + 1)],
        "transformer_depth_middle": 1,
        "num_heads": _heads(path),
        "context_dim": words and shape_of(state, words, 2, path.name)[1],
        "groups": GROUPS,
    }
    return made(UNetConfig, facts, path.name)


def _heads(path: Path) -> int:
    """Heads of the attentions: what diffusers calls ``attention_head_dim`` here."""
    described = path.with_name("config.json")
    if not described.is_file():
        return HEADS
    try:
        text = described.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{described} cannot be read ({error}): download it again") from error
    heads = json_object(text, str(described)).get("attention_head_dim", HEADS)
    if type(heads) is not int or heads < 1:
        raise ValueError(
            f"attention_head_dim is {shown(heads)} in {described}: pseudo-3-D U-Nets have one number of heads, such as {HEADS}"
        )
    return heads
