"""The branches of history guidance as data: which finished frames one shows, how noisy, and what its guess counts.

Presets are made of ``vanilla``, ``fractional`` and ``temporal``, see ``history_settings.py``.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

NAMED = {"all": ".."}
PART = re.compile(r"(?P<low>-?\d+|h\d+)?(?:(?P<range>\.\.)(?P<high>-?\d+|h\d+)?)?")
END = re.compile(r"(?P<end>first|last)\s*(?P<count>\d+)")
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
LEVELS = rf"{NUMBER}(?:\s*\.\.\s*{NUMBER})*"
BRANCH = re.compile(
    rf"(?P<frames>[^@:>]+)(?:@\s*(?:(?P<given>{LEVELS})\s*/\s*)?(?P<level>{LEVELS})\s*)?(?:>\s*(?P<against>{LEVELS})\s*)?"
    rf"(?::\s*(?P<weight>{NUMBER}))?"
)

Levels = float | tuple[float, ...]  # of a branch's frames: of all, or along the line through these from the oldest to the newest


@dataclass(frozen=True)
class Branch:
    """One variant of a call: a segment of the history in time and in noise (DFoT, arXiv:2502.06764, Section 4 and its repository).

    Attributes:
        weight: what its guess counts, less the guess with noise ``against``; negative ones push away.
        level: noise that its frames are shown with, from 0, as the sampler shows them, to 1, which hides them. Several are of the
            oldest frame, the newest, and those at even distances between them; what lies between is interpolated.
        frames: which finished frames of the window it shows: ``all``, ``none``, ``last 4``, ``first 4``, or numbers and ranges such as
            ``0..3+8``. Numbers are frames of the clip; negative ones count back from the newest finished frame, which is -1, and those
            after an h from the oldest finished frame in the window, which is h0.
        given: noise of frames that were given and not generated; None for the same as of the others.
        against: noise of the frames in the guess that it is compared with; 1 is the guess without history.
    """

    weight: float
    level: Levels = 0.0
    frames: str = "all"
    given: Levels | None = None
    against: Levels = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise ValueError(f"a branch has the weight {self.weight}: it must be a finite number")
        for levels in (self.level, self.against, *(() if self.given is None else (self.given,))):
            for level in points(levels):
                if not 0 <= level <= 1:
                    raise ValueError(f"a branch has the level {level}: it must lie between 0, no noise, and 1, nothing but noise")
        chosen(self.frames, ())  # refuses what cannot be read

    def levels(self, finished: Sequence[int], given: Sequence[bool]) -> tuple[dict[int, float], dict[int, float]]:
        """The noise of its frames, by number, in its guess and in the one that it is compared with.

        Args:
            finished: numbers of the finished frames of a call, rising.
            given: whether each was given.
        """
        mine = sorted(chosen(self.frames, finished))
        known = dict(zip(finished, given, strict=True))
        made, told = (along(levels, len(mine)) for levels in (self.level, self.level if self.given is None else self.given))
        start = {number: told[place] if known[number] else made[place] for place, number in enumerate(mine)}
        return start, dict(zip(mine, along(self.against, len(mine)), strict=True))


def points(levels: Levels) -> tuple[float, ...]:
    """One level or several, as several."""
    return levels if isinstance(levels, tuple) else (levels,)


def along(levels: Levels, count: int) -> list[float]:
    """The levels of so many frames, from the oldest to the newest; the only one of them is the newest.

    >>> along((0.0, 1.0), 5), along((0.2, 0.8), 1), along(0.5, 2)
    ([0.0, 0.25, 0.5, 0.75, 1.0], [0.8], [0.5, 0.5])
    """
    known = points(levels)
    if count < 2 or len(known) == 1:
        return [known[-1]] * count
    places = [place * (len(known) - 1) / (count - 1) for place in range(count)]
    low = [min(int(place), len(known) - 2) for place in places]
    return [known[i] + (known[i + 1] - known[i]) * (place - i) for place, i in zip(places, low, strict=True)]


def chosen(frames: str, finished: Sequence[int]) -> frozenset[int]:
    """Which of the finished frames, in rising order, a branch shows; see ``Branch.frames``.

    >>> sorted(chosen("0..1+-2..-1", [0, 1, 2, 3, 4]))
    [0, 1, 3, 4]
    >>> sorted(chosen("last 2", [5, 6, 7])), sorted(chosen("h0..h1", [5, 6, 7]))
    ([6, 7], [5, 6])
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
                f"the frames {frames!r} cannot be read: write all, none, last 4, first 4, or numbers and rising ranges such as 0..3+8,"
                " -4..-1 or h0..h2"
            )
        low = _place(found["low"], finished, -math.inf)
        high = _place(found["high"] if found["range"] else found["low"], finished, math.inf)
        kept |= {frame for frame in finished if low <= frame <= high}
    return frozenset(kept)


def _falls(low: str | None, high: str | None) -> bool:
    if low is None or high is None or _way(low) != _way(high):
        return False
    return int(low.lstrip("h")) > int(high.lstrip("h"))


def _way(number: str) -> str:
    return number[0] if number[0] in "-h" else ""


def _place(number: str | None, finished: Sequence[int], missing: float) -> float:
    if number is None:
        return missing
    place, way = int(number.lstrip("h")), _way(number)
    if not way:
        return place
    inside = place < len(finished) if way == "h" else -place <= len(finished)
    return finished[place] if inside else (math.inf if way == "h" else -math.inf)


def vanilla(weight: float, context_noise: float = 0.0, given: float | None = None) -> tuple[Branch, ...]:
    """Towards what the history says, away from the guess without it; 1 is no guidance.

    The history has so much ``context_noise``, its given frames as much as ``given``, so that its own errors do not count.
    """
    return (Branch(weight, context_noise, given=given),)


def fractional(weight: float, level: float = 0.8, context_noise: float = 0.0, given: float | None = None) -> tuple[Branch, ...]:
    """The whole history counts once; beyond that only a noisy one, of which details are hidden first, so that motion is not frozen."""
    return Branch(1.0, context_noise, given=given), Branch(weight - 1, level)


def temporal(
    frames: Sequence[str], weights: Sequence[float], context_noise: float = 0.0, given: float | None = None
) -> tuple[Branch, ...]:
    """Several parts of the history, each by itself: each is nearer to what the model was trained on than all of it together."""
    return tuple(Branch(weight, context_noise, part, given) for part, weight in zip(frames, weights, strict=True))


def read_branches(text: str) -> tuple[Branch, ...]:
    """Branches from text: ``frames@level:weight``, divided by commas; ``@level`` may be left out.

    In the place of a level may stand several from the oldest frame to the newest, ``0.2..0.8``; before it those of given frames,
    ``0/0.02``; and after it what the guess is compared with, ``all@0>0.5:1``.

    >>> read_branches("all:1.5, last 4@0.8:0.5")[1]
    Branch(weight=0.5, level=0.8, frames='last 4', given=None, against=1.0)

    Raises:
        ValueError: one sentence.
    """
    items = items_of(text)
    if not items:
        raise ValueError("there are no branches: write some as frames@level:weight, such as all:1.5, last 4@0.8:0.5")
    return tuple(map(_branch, items))


def items_of(text: str) -> tuple[str, ...]:
    """What stands between commas, or on lines."""
    return tuple(item.strip() for item in text.replace("\n", ",").split(",") if item.strip())


def _branch(item: str) -> Branch:
    found = BRANCH.fullmatch(item)
    if found is None or found["weight"] is None:
        raise ValueError(f"the branch {item!r} cannot be read: write frames@level:weight, such as all:1.5 or last 4@0.8:0.5")
    level, given, against = (None if found[name] is None else _levels(found[name]) for name in ("level", "given", "against"))
    return Branch(
        float(found["weight"]),
        0.0 if level is None else level,
        found["frames"].strip().lower(),
        given,
        1.0 if against is None else against,
    )


def _levels(text: str) -> Levels:
    numbers = [float(number) for number in re.split(r"\s*\.\.\s*", text)]
    return tuple(numbers) if len(numbers) > 1 else numbers[0]
