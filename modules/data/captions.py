"""Captions: what is done where there are none, and what a mirrored clip's says.

To add a way with flips, write a row of ``FLIPS``: the caption of the mirrored clip, or None where it must not be mirrored.
"""

import re
from collections.abc import Callable, Sequence

from .report import counted

# words that are wrong of a mirrored clip; "right" may mean something else, but a clip that is not mirrored does no harm
_OTHER = {
    "left": "right",
    "right": "left",
    "clockwise": "counterclockwise",
    **dict.fromkeys(("anticlockwise", "anti-clockwise", "counterclockwise", "counter-clockwise"), "clockwise"),
}
_SIDE = re.compile(r"\b(left|right|(?:anti-?|counter-?)?clockwise)(?=\b|ward|most|hand|wing)", re.IGNORECASE)
_WRITING = re.compile(r"\b(text|letter|word|writing|written|sign|logo|subtitle|caption|watermark)s?\b", re.IGNORECASE)


def names_a_side(caption: str) -> bool:
    """Whether a mirrored clip would not be what the caption says: it names a side, a turn, or writing.

    >>> names_a_side("a dog runs leftwards"), names_a_side("a dog runs")
    (True, False)
    """
    return bool(_SIDE.search(caption) or _WRITING.search(caption))


def with_sides_swapped(caption: str) -> str:
    """What the caption says of the mirrored clip.

    >>> with_sides_swapped("Left hand, turning clockwise")
    'Right hand, turning counterclockwise'
    """

    def other(match: re.Match[str]) -> str:
        word = _OTHER[match[1].lower()]
        return word.capitalize() if match[1][0].isupper() else word

    return _SIDE.sub(other, caption)


FLIPS: dict[str, Callable[[str], str | None]] = {
    "never": lambda caption: None,
    "unless a side is named": lambda caption: None if names_a_side(caption) else caption,
    "swap left and right in captions": lambda caption: None if _WRITING.search(caption) else with_sides_swapped(caption),
    "always allowed": lambda caption: caption,
}

NEEDED, NOT_NEEDED = "refuse", "train without"
MISSING = (NEEDED, NOT_NEEDED)


def filled_in(captions: Sequence[str | None], names: Sequence[str], *, missing: str, instead: str, before: str) -> list[str]:
    """Every clip's caption.

    Args:
        captions: of the clips; None where there is none.
        names: of the clips.
        missing: an entry of ``MISSING``, for clips that have none and get none from ``instead``.
        instead: the caption of clips that have none.
        before: what every caption begins with.

    Raises:
        ValueError: a clip has none and must have one.
    """
    without = [name for name, caption in zip(names, captions, strict=True) if not (caption or instead.strip())]
    if without and missing == NEEDED:
        raise ValueError(
            f"{counted(len(without), 'clip')} of {len(names)} {'has' if len(without) == 1 else 'have'} no caption ({without[0]}"
            f"{' and others' if len(without) > 1 else ''}): write a text file of the clip's name beside it, or give a caption for all"
        )
    return [" ".join(f"{before} {caption or instead}".split()) for caption in captions]
