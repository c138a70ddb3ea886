"""How strongly an image prompt acts, where in the U-Net, and in which part of the sampling."""

from dataclasses import dataclass

from ..temporal.settings import MOST, BlockRule, block_factor, parse_blocks
from .keyframe_blend import BLENDS


@dataclass(frozen=True)
class PromptSettings:
    """All that a user can set about one image prompt on one model.

    Attributes:
        scale: factor on what is seen of the picture; 1 as trained, 0 for nothing.
        start_percent: before this part of the sampling it rests.
        end_percent: after it, too.
        blocks: factors by part of the U-Net.
        blend: a name in ``BLENDS``: what frames between keyframes see.
    """

    scale: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0
    blocks: tuple[BlockRule, ...] = ()
    blend: str = "interpolate"

    def __post_init__(self) -> None:
        if not abs(self.scale) <= MOST:
            raise ValueError(
                f"scale is {self.scale}: it must lie between -{MOST:g} and {MOST:g}; 1 is the image prompt as trained"
            )
        if not 0 <= self.start_percent < self.end_percent <= 1:
            raise ValueError(
                f"start_percent is {self.start_percent} and end_percent {self.end_percent}: they must lie between 0 and 1, and start first"
            )
        if self.blend not in BLENDS:
            raise ValueError(f"the blend {self.blend!r} is not known: choose one of {', '.join(BLENDS)}")

    def factor(self, slot: str) -> float:
        """What the attention in a block gets, by AnimateDiff's name for its slot; 1 where no rule holds it."""
        return block_factor(self.blocks, slot)


def parse_scales(text: str) -> tuple[BlockRule, ...]:
    """Factors by part of the U-Net, one rule a line.

    Raises:
        ValueError: a line does not read so, or changes a temperature, which image prompts have not.

    >>> parse_scales("up 0.5; mid 0")
    (BlockRule(place='up', effect=0.5, scales=()), BlockRule(place='mid', effect=0.0, scales=()))
    """
    rules = parse_blocks(text)
    for rule in rules:
        if rule.scales:
            raise ValueError(
                f"the rule for {rule.place} sets a scale of attentions: write a factor alone, such as {rule.place} 0.5"
            )
    return rules
