"""How motion modules are spelt: the layouts of their keys, each a row of ``FORMATS`` that leads to AnimateDiff's own.

To add a layout, append a row with its signature, which no other layout's files may match, and its renames. What the weights mean beside
their names is no matter of spelling: see ``families.py``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .files import MOTION_MODULE, Signature, kind

POSITIONS = re.compile(r"\.pos_encoder\.pe$")
SLOT = re.compile(r"^((?:(down|up)_blocks\.(\d+)|mid_block)\.motion_modules\.(\d+))\.temporal_transformer\.(.+)$")
ATTENTION = re.compile(r"^.+\.attention_blocks\.\d+\.")
LCM_TABLES = ".pos_encoder.pos_encoding"  # as AnimateLCM's trainer calls them
ADVICE = "use an AnimateDiff, HotshotXL, AnimateLCM or PIA motion module such as v3_sd15_mm.ckpt"


@dataclass(frozen=True)
class MotionFormat:
    """How one way of spelling the keys is recognised, and how it becomes AnimateDiff's own.

    Attributes:
        name: of the format.
        signature: of the keys of a file that holds a motion module.
        renames: (pattern, replacement), each applied to every key.
    """

    name: str
    signature: Signature
    renames: tuple[tuple[str, str], ...] = ()

    def canonical(self, key: str) -> str:
        """One key in AnimateDiff's spelling."""
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key


FORMATS: tuple[MotionFormat, ...] = (
    MotionFormat(
        "AnimateDiff",
        Signature((r"motion_modules\.\d+\.temporal_transformer\.",)),
        ((rf"{re.escape(LCM_TABLES)}$", ".pos_encoder.pe"),),
    ),
    MotionFormat(
        "HotshotXL",
        Signature((r"temporal_attentions\.\d+\.",)),
        (
            (r"temporal_attentions\.(\d+)\.", r"motion_modules.\1.temporal_transformer."),
            (r"\.pos_encoder\.positional_encoding$", ".pos_encoder.pe"),
        ),
    ),
    MotionFormat(
        "diffusers",
        Signature((r"motion_modules\.\d+\.(norm|proj_in|proj_out|transformer_blocks)\.",)),
        (
            (r"(motion_modules\.\d+)\.", r"\1.temporal_transformer."),
            (r"\.attn1\.", ".attention_blocks.0."),
            (r"\.attn2\.", ".attention_blocks.1."),
            (r"\.norm1\.", ".norms.0."),
            (r"\.norm2\.", ".norms.1."),
            (r"\.norm3\.", ".ff_norm."),
            (r"\.pos_embed\.pe$", ".attention_blocks.0.pos_encoder.pe"),  # one table serves both attentions
        ),
    ),
)


def format_of(state: Mapping[str, Tensor], metadata: Mapping[str, str], name: str) -> MotionFormat:
    """The row of ``FORMATS`` that a file's keys are spelt in.

    Raises:
        ValueError: it is no motion module. Says what it is and which node takes it, as far as this pack can tell.
    """
    what = kind(state, metadata)
    if what != MOTION_MODULE:
        said = f"it is {what}" if what else f"its first keys are {', '.join(list(state)[:3]) or 'none'}"
        raise ValueError(f"{name} cannot be loaded as a motion module: {said}; {ADVICE}")
    return next(layout for layout in FORMATS if layout.signature.matches(state))


def canonical_state(state: Mapping[str, Tensor], layout: MotionFormat) -> dict[str, Tensor]:
    """The temporal transformers' tensors under AnimateDiff's own keys; a U-Net saved along with them is left out."""
    renamed = {layout.canonical(key): value for key, value in state.items()}
    return {key: value for key, value in renamed.items() if SLOT.match(key)}


def every_table(tables: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A position table for every attention: in diffusers' layout one serves all of a block."""
    attentions = {match[0] for match in map(ATTENTION.match, weights) if match}
    spread = {}
    for attention in attentions:
        own = f"{attention}pos_encoder.pe"
        block = own.rsplit(".attention_blocks.", 1)[0]
        spread[own] = tables.get(own, tables.get(f"{block}.attention_blocks.0.pos_encoder.pe", torch.empty(0)))
    return spread
