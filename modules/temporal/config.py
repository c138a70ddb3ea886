"""What the temporal modules of one motion model have in common, as a file says it."""

from dataclasses import asdict, dataclass
from typing import Any

from .masks import MASKS
from .normalise import QK_NORMS
from .positions import POSITIONS

LATER = {
    "kind": "transformer",
    "hidden": 0,
    "qk_norm": "",
    "table": 0,
}  # fields of the configuration that the first files did not have


@dataclass(frozen=True)
class TemporalConfig:
    """What every temporal module of one motion model has in common. Transformers take all of it but ``hidden``."""

    heads: int = 8
    attentions: int = 2  # attention layers before the feed-forward
    ff_mult: int = 4
    groups: int = 32
    positions: str = "sinusoid"
    mask: str = "full"
    mask_frames: int = 0  # frames per block of ``block_causal``, frames to either side of ``local``
    clip_norm: bool = False  # the module's first norm runs over all frames of a clip, as in AnimateDiff's SDXL beta
    kind: str = "transformer"  # what sits in the slots, a name in kinds.KINDS
    hidden: int = 0  # channels of a recurrent module's state; 0 for those of its slot
    table: int = 0  # rows of the module's own table of positions, in the place of the sinusoid; 0 for the sinusoid
    qk_norm: str = ""  # how queries and keys are normalised, a name in normalise.QK_NORMS; empty for not at all

    def __post_init__(self) -> None:
        if self.mask not in MASKS:
            raise ValueError(f"mask is {self.mask!r}: choose one of {', '.join(MASKS)}")
        if self.positions not in POSITIONS:
            raise ValueError(f"positions is {self.positions!r}: choose one of {', '.join(POSITIONS)}")
        if self.table < 0 or (self.table and self.positions != "sinusoid"):
            raise ValueError(
                f"table is {self.table}: it stands for the sinusoid, and has a row for each frame; 0 for the sinusoid itself"
            )
        if self.hidden < 0:
            raise ValueError(f"hidden is {self.hidden}: a state has at least 1 channel, or 0 for as many as its slot")
        if self.qk_norm and self.qk_norm not in QK_NORMS:
            raise ValueError(f"qk_norm is {self.qk_norm!r}: choose one of {', '.join(QK_NORMS)}, or leave it empty")

    def facts(self) -> dict[str, Any]:
        """The fields by name. Those that came later are left out where they say nothing new, so that files stay as they were."""
        return {name: value for name, value in asdict(self).items() if name not in LATER or value != LATER[name]}
