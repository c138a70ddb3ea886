"""Rules by part of the U-Net, as users write them: ``up 0.5; mid scale=1.2``."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

RULE = re.compile(r"^(all|down|mid|up)((?:\.\d+){0,2})$")
MOST = 10.0  # a factor beyond this is a slip of the hand
BLOCKS = (
    "Each line is a rule for a part of the U-Net, and later lines override earlier ones. A part is all, down, mid, up, a level such"
    " as up.1,"
    " or one place such as up.1.2."
)  # what tooltips say of such a text


@dataclass(frozen=True)
class BlockRule:
    """What one part of the U-Net gets.

    Attributes:
        place: ``all``, ``down``, ``mid``, ``up``, a level as in ``up.1``, or one slot as in ``up.1.2``.
        effect: factor on the effect, None to leave it.
        scales: factors on the attentions' scales, the last one going on; empty to leave them.
    """

    place: str
    effect: float | None = None
    scales: tuple[float, ...] = ()

    def holds(self, slot: str) -> bool:
        """Whether a slot, by AnimateDiff's name for it, is in this part."""
        side, *numbers = self.place.split(".")
        parts = slot.replace("_blocks", "").replace("_block", "").replace("motion_modules.", "").split(".")
        return side == "all" or parts[: 1 + len(numbers)] == [side, *numbers]


def parse_blocks(text: str) -> tuple[BlockRule, ...]:
    """Rules from text, one per line or between semicolons; later ones override earlier ones.

    ``up 0.5`` halves the effect on the way up, ``down.1.0 effect=0`` rests one slot, ``mid scale=1.2`` and ``up.2 scale=1.2,0.8`` change
    the temperature of both attentions or of each.

    Raises:
        ValueError: a line does not read so.

    >>> parse_blocks("up 0.5; mid scale=1.2")
    (BlockRule(place='up', effect=0.5, scales=()), BlockRule(place='mid', effect=None, scales=(1.2,)))
    """
    return tuple(_rule(line.strip()) for line in re.split(r"[\n;]", text) if line.strip())


def _rule(line: str) -> BlockRule:
    place, *words = line.split()
    if not RULE.match(place):
        raise ValueError(
            f"{line!r} names no part of the U-Net: start with all, down, mid, up, a level such as up.1, or a slot such as up.1.2"
        )
    effect: float | None = None
    scales: tuple[float, ...] = ()
    for word in words:
        key, _, value = word.rpartition("=")
        numbers = parse_numbers(value, f"{line!r}")
        if key == "scale" and numbers:
            scales = numbers
        elif key in ("", "effect") and len(numbers) == 1:
            effect = numbers[0]
        else:
            raise ValueError(f"{word!r} in {line!r} is not understood: write a number, effect=0.5, scale=1.2 or scale=1.2,0.8")
    if effect is None and not scales:
        raise ValueError(f"{line!r} changes nothing: add a number, effect=0.5 or scale=1.2")
    return BlockRule(place, effect, scales)


def parse_numbers(text: str, where: str = "the list") -> tuple[float, ...]:
    """Numbers between commas or spaces.

    Raises:
        ValueError: something else is there, or a number beyond +-10 or not finite.

    >>> parse_numbers("1, 0.5 0")
    (1.0, 0.5, 0.0)
    """
    numbers = []
    for word in text.replace(",", " ").split():
        try:
            number = float(word)
        except ValueError:
            raise ValueError(f"{word!r} in {where} is no number: write numbers such as 1, 0.5, 0") from None
        if not abs(number) <= MOST:
            raise ValueError(f"{word} in {where} is out of range: use numbers between -{MOST:g} and {MOST:g}")
        numbers.append(number)
    return tuple(numbers)


def block_factor(rules: Iterable[BlockRule], slot: str) -> float:
    """What the last rule that holds a slot makes of its effect; 1 where none does."""
    found = [rule.effect for rule in rules if rule.effect is not None and rule.holds(slot)]
    return found[-1] if found else 1.0
