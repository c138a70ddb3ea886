"""How strongly an image prompt acts, where in the U-Net, and in which part of the sampling."""

from dataclasses import dataclass

from ..fields.setting import check, documented, sentences, setting
from ..fields.span import check_span, end_percent, start_percent
from ..temporal.block_rules import MOST, BlockRule, block_factor, parse_blocks
from .keyframe_blend import BLENDS


@documented
@dataclass(frozen=True)
class PromptSettings:
    """All that a user can set about one image prompt on one model.

    Attributes:
        blocks: factors by part of the U-Net.
    """

    scale: float = setting(
        1.0,
        "The scale says how strongly the pictures count beside the text: 1 is as trained, 0 is nothing at all, and 0.5 to 0.8 leaves"
        " room for"
        " the text.",
        least=-MOST,
        most=MOST,
        step=0.01,
    )
    start_percent: float = start_percent()
    end_percent: float = end_percent()
    blocks: tuple[BlockRule, ...] = ()
    blend: str = setting("interpolate", "The blend says what frames between keyframes see.", menu=sentences(BLENDS))

    def __post_init__(self) -> None:
        check(self)
        check_span(self)

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
