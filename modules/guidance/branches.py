"""The branches of history guidance as data: which finished frames one shows, how noisy, and what its guess counts.

To add a preset, write a function that gives branches and name it in ``PRESETS``: menus read that table.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

NAMED = {"all": ".."}
PART = re.compile(r"(?P<low>-?\d+)?(?:(?P<range>\.\.)(?P<high>-?\d+)?)?")
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
BRANCH = re.compile(rf"(?P<frames>[^@:]+)(?:@\s*(?P<level>{NUMBER})\s*)?:\s*(?P<weight>{NUMBER})")
END = re.compile(r"(?P<end>first|last)\s*(?P<count>\d+)")


@dataclass(frozen=True)
class Branch:
    """One variant of a call.

    Attributes:
        weight: what its guess counts; negative ones push away.
        level: noise that its frames are shown with, from 0, as the sampler shows them, to 1, the model's noisiest.
        frames: which finished frames of the window it shows: ``all``, ``none``, ``last 4``, ``first 4``, or numbers and ranges such as
            ``0..3+8``. Numbers are frames of the clip; negative ones count back from the newest finished frame, which is -1.
    """

    weight: float
    level: float = 0.0
    frames: str = "all"

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise ValueError(f"a branch has the weight {self.weight}: it must be a finite number")
        if not 0 <= self.level <= 1:
            raise ValueError(f"a branch has the level {self.level}: it must lie between 0, no noise, and 1, nothing but noise")
        chosen(self.frames, ())  # refuses what cannot be read


def chosen(frames: str, finished: Sequence[int]) -> frozenset[int]:
    """Which of the finished frames, in rising order, a branch shows; see ``Branch.frames``.

    >>> sorted(chosen("0..1+-2..-1", [0, 1, 2, 3, 4]))
    [0, 1, 3, 4]
    >>> sorted(chosen("last 2", [5, 6, 7]))
    [6, 7]
    """
    text = frames.strip().lower()
    if named := END.fullmatch(text):
        count = int(named["count"])
        return frozenset(finished[:count] if named["end"] == "first" else finished[max(0, len(finished) - count) :])
    kept: set[int] = set()
    for part in NAMED.get(text, text).split("+") if text != "none" else ():
        found = PART.fullmatch(part.strip())
        if found is None or not part.strip() or _falls(found["low"], found["high"]):
            raise ValueError(
                f"the frames {frames!r} cannot be read: write all, none, last 4, first 4, or numbers and rising ranges such as 0..3+8 or"
                " -4..-1"
            )
        low = _place(found["low"], finished, -math.inf)
        high = _place(found["high"] if found["range"] else found["low"], finished, math.inf)
        kept |= {frame for frame in finished if low <= frame <= high}
    return frozenset(kept)


def _falls(low: str | None, high: str | None) -> bool:
    if low is None or high is None or low.startswith("-") != high.startswith("-"):
        return False
    return int(low) > int(high)


def _place(number: str | None, finished: Sequence[int], missing: float) -> float:
    if number is None:
        return missing
    place = int(number)
    if place >= 0:
        return place
    return finished[place] if -place <= len(finished) else -math.inf


def vanilla(weight: float) -> tuple[Branch, ...]:
    """Towards what the history says, away from the guess without it; 1 is no guidance."""
    return (Branch(weight),)


def fractional(weight: float, level: float = 0.8) -> tuple[Branch, ...]:
    """The whole history counts once; beyond that only a noisy one, of which details are hidden first, so that motion is not frozen."""
    return Branch(1.0), Branch(weight - 1, level)


def stabilised(weight: float, level: float = 0.02) -> tuple[Branch, ...]:
    """``vanilla`` with the history slightly noisy, so that its own errors do not count."""
    return (Branch(weight, level),)


def temporal(frames: Sequence[str], weights: Sequence[float]) -> tuple[Branch, ...]:
    """Several parts of the history, each by itself: each is nearer to what the model was trained on than all of it together."""
    return tuple(Branch(weight, 0.0, part) for part, weight in zip(frames, weights, strict=True))


# (weight, level) -> branches
PRESETS: dict[str, Callable[[float, float], tuple[Branch, ...]]] = {
    "vanilla": lambda weight, _: vanilla(weight),
    "fractional": fractional,
    "stabilised": stabilised,
}


def read_branches(text: str) -> tuple[Branch, ...]:
    """Branches from text: ``frames@level:weight``, divided by commas; ``@level`` may be left out.

    >>> read_branches("all:1.5, last 4@0.8:0.5")[1]
    Branch(weight=0.5, level=0.8, frames='last 4')

    Raises:
        ValueError: one sentence.
    """
    items = [item.strip() for item in text.replace("\n", ",").split(",") if item.strip()]
    if not items:
        raise ValueError("there are no branches: write some as frames@level:weight, such as all:1.5, last 4@0.8:0.5")
    return tuple(map(_branch, items))


def _branch(item: str) -> Branch:
    found = BRANCH.fullmatch(item)
    if found is None:
        raise ValueError(f"the branch {item!r} cannot be read: write frames@level:weight, such as all:1.5 or last 4@0.8:0.5")
    return Branch(float(found["weight"]), float(found["level"] or 0), found["frames"].strip().lower())
