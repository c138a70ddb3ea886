"""Trained parts in the layouts that others read: AnimateDiff's own (ComfyUI packs), diffusers', PEFT's, and ComfyUI's LoRA loader.

The reverse of ``formats.FORMATS`` and ``motion_lora.RENAMES``: what is written here is read there as the same numbers, and by others
without a converter. Everything is safetensors, written under another name and renamed.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..disk.atomic import replacing
from ..disk.tensor_file import save_tensors
from ..temporal.positions import sinusoid
from ..temporal.slot_names import MIDDLE, levels
from .motion_lora import LowRank
from .peft import PEFT_METADATA

MOTION_LAYOUTS = ("AnimateDiff", "diffusers")
LORA_LAYOUTS = ("AnimateDiff", "PEFT")
ATTENTION = re.compile(r"attention_blocks\.(\d)\.(to_q|to_k|to_v|to_out)(?:\.0)?$")
TO_DIFFUSERS: tuple[tuple[str, str], ...] = (
    (r"\.temporal_transformer\.", "."),
    (r"\.attention_blocks\.0\.", ".attn1."),
    (r"\.attention_blocks\.1\.", ".attn2."),
    (r"\.norms\.0\.", ".norm1."),
    (r"\.norms\.1\.", ".norm2."),
    (r"\.ff_norm\.", ".norm3."),
)


def motion_state(state: Mapping[str, Tensor], frames: int, layout: str) -> dict[str, Tensor]:
    """A motion module's tensors as another program's loader wants them.

    Args:
        state: by ``MotionModel``'s keys.
        frames: the most frames that it knows times for; its position tables are that long.
        layout: a name in ``MOTION_LAYOUTS``.

    Raises:
        ValueError: the layout is not known.
    """
    _known(layout, MOTION_LAYOUTS, "motion module")
    whole = dict(state)
    for key, value in state.items():
        match = re.match(r"(.*\.transformer_blocks\.\d+\.)attention_blocks\.(\d)\.to_q\.weight$", key)
        if match:
            table = sinusoid(torch.arange(frames), value.shape[1])[None]
            if layout == "AnimateDiff":
                whole[f"{match[1]}attention_blocks.{match[2]}.pos_encoder.pe"] = table
            elif match[2] == "0":
                whole[f"{match[1]}pos_embed.pe"] = table
    return whole if layout == "AnimateDiff" else {_diffusers(key): value for key, value in whole.items()}


def adapter_config(widths: Mapping[str, int], frames: int, heads: int, groups: int) -> dict[str, Any]:
    """The ``config.json`` of diffusers' ``MotionAdapter`` for a motion module.

    Args:
        widths: channels by slot.
        frames: the most that it knows times for.
        heads: of its attention.
        groups: of its norms.
    """
    per_level = 1 + max(int(slot.rsplit(".", 1)[1]) for slot in widths if slot.startswith("down_blocks."))
    return {
        "_class_name": "MotionAdapter",
        "block_out_channels": list(levels(widths)),
        "motion_layers_per_block": per_level,
        "motion_max_seq_length": frames,
        "motion_mid_block_layers_per_block": 1,
        "motion_norm_num_groups": groups,
        "motion_num_attention_heads": heads,
        "use_motion_mid_block": MIDDLE in widths,
    }


def lora_state(deltas: Mapping[str, LowRank], layout: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A MotionLoRA's tensors and metadata; factors are multiplied into the up matrices.

    Args:
        deltas: by ``MotionModel``'s weight keys, of attentions alone.
        layout: a name in ``LORA_LAYOUTS``.

    Raises:
        ValueError: the layout is not known, or has no name for a weight.
    """
    _known(layout, LORA_LAYOUTS, "MotionLoRA")
    state: dict[str, Tensor] = {}
    for key, delta in deltas.items():
        layer = key.removesuffix(".weight")
        match = ATTENTION.search(layer)
        if match is None:
            raise ValueError(
                f"{key} is no attention's weight, and MotionLoRA files hold those alone: train the LoRA on attentions"
            )
        head = layer[: match.start()]
        for side, value in (("up", delta.factor * delta.up), ("down", delta.down)):
            if layout == "AnimateDiff":
                name = f"{head}attention_blocks.{match[1]}.processor.{match[2]}_lora.{side}.weight"
            else:
                name = f"unet.{_diffusers(layer)}.lora_{'A' if side == 'down' else 'B'}.weight"
            state[name] = value
    if layout == "AnimateDiff":
        return state, {}
    rank = len(next(iter(deltas.values())).down)
    names = sorted({_diffusers(key.removesuffix(".weight")) for key in deltas})
    settings = {"r": rank, "lora_alpha": rank, "target_modules": names}
    return state, {"format": "pt", PEFT_METADATA: json.dumps({f"unet.{key}": value for key, value in settings.items()})}


def adapter_state(deltas: Mapping[str, LowRank]) -> dict[str, Tensor]:
    """A domain adapter's tensors as AnimateDiff released its own, which ComfyUI's LoRA loader reads.

    Args:
        deltas: by diffusers' names of the image model's attentions, such as
            ``down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q``.
    """
    state: dict[str, Tensor] = {}
    for layer, delta in deltas.items():
        head, part = layer.removesuffix(".0").rsplit(".", 1)
        for side, value in (("up", delta.factor * delta.up), ("down", delta.down)):
            state[f"{head}.processor.{part}_lora.{side}.weight"] = value
    return state


def save(
    path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, dtype: torch.dtype | None = None
) -> None:
    """Write tensors as one file; there is never half of it under ``path``.

    Raises:
        NotWritten: it cannot be written, such as on a full disk.
    """
    save_tensors(path, state, metadata, dtype)


def save_diffusers_adapter(
    folder: Path, state: Mapping[str, Tensor], config: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a folder that ``MotionAdapter.from_pretrained`` opens: ``state`` in diffusers' layout, and its configuration."""
    save(folder / "diffusion_pytorch_model.safetensors", state, {**(metadata or {}), "format": "pt"})
    text = json.dumps(config, indent=2) + "\n"
    with replacing(folder / "config.json") as partial:
        partial.write_text(text, encoding="utf-8")


def _diffusers(key: str) -> str:
    for pattern, replacement in TO_DIFFUSERS:
        key = re.sub(pattern, replacement, key)
    return key


def _known(layout: str, layouts: tuple[str, ...], what: str) -> None:
    if layout not in layouts:
        raise ValueError(f"the layout {layout!r} of a {what} is not known: choose one of {', '.join(layouts)}")
