"""Which frames of a clip are looked at, and what is done with clips that are too short.

A clip that asks for a frame rate takes the frames whose times are nearest to the moments asked for; one that asks for a stride counts
frames. To add a way with short clips, write a function of the place of the last frame, the frames wanted and the step between them, and
name it in ``SHORT``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .timing import TIE, Timing, even  # noqa: F401  for the examples

SLOWEST = 0.99  # of the frame rate asked for: a little less, such as 23.976 for 24, is taken as it is and repeats no frame
MOST = 4_000_000  # moments that are looked up to find where clips may begin


@dataclass(frozen=True)
class Pace:
    """How clips are sampled.

    Attributes:
        frames: how many.
        stride: frames of the source from one to the next.
        fps: if above 0, so many frames per second instead, whatever the source's rate.
    """

    frames: int
    stride: int
    fps: float = 0.0

    def rate(self, timing: Timing) -> float:
        """Frames per second that are taken: those asked for, or the source's own where it has hardly less."""
        return min(self.fps, timing.fps) if timing.fps >= SLOWEST * self.fps else self.fps

    def reaches(self, timing: Timing) -> bool:
        """Whether a source has as many frames per second as are asked for."""
        return self.frames == 1 or timing.fps >= self.fps * SLOWEST

    def needed(self) -> int:
        """Frames that a source must have, for a clip by stride.

        >>> Pace(frames=16, stride=4).needed()
        61
        """
        return (self.frames - 1) * self.stride + 1

    def too_short(self, timing: Timing) -> str:
        """What a source lacks for a clip at the pace asked for, in words; empty where it is long enough."""
        if not self.fps:
            count, needed = timing.count, self.needed()
            return f"it has {count} frame{'' if count == 1 else 's'}, and {needed} are needed" if count < needed else ""
        needed = (self.frames - 1) / self.rate(timing)
        there = float(timing.times[-1] - timing.times[0])
        if there + timing.interval / 2 + TIE >= needed:
            return ""
        return f"its frames span {there:.2f} s, and {needed:.2f} s are needed"

    def starts(self, timing: Timing) -> np.ndarray:
        """The frames that a clip may begin at, rising: all that it takes is there, sound, and no frame comes twice."""
        if self.too_short(timing):
            return np.empty(0, np.int64)
        sound = np.ones(timing.count, bool)
        sound[timing.bad] = False
        if not self.fps:
            places = np.arange(timing.count - self.needed() + 1)
            fine = np.ones(len(places), bool)
            for number in range(0, self.needed(), self.stride):
                fine &= sound[number : number + len(places)]
            return places[fine]
        asked = self._moments(timing)
        last = timing.times[-1] + timing.interval / 2 + TIE
        places = np.flatnonzero(timing.times + asked[-1] <= last)
        places = places[:: 1 + len(places) * self.frames // MOST]
        taken = timing.nearest(timing.times[places, None] + asked)
        return places[(np.diff(taken, axis=1) > 0).all(axis=1) & sound[taken].all(axis=1)]

    def taken(self, timing: Timing, start: int) -> tuple[int, ...]:
        """The frames of the clip that begins at one of ``starts``.

        >>> Pace(frames=4, stride=2).taken(even(30, 24.0), 3)
        (3, 5, 7, 9)
        >>> Pace(frames=4, stride=1, fps=15).taken(even(30, 30000 / 1001), 0)
        (0, 2, 4, 6)
        """
        if not self.fps:
            return tuple(range(start, start + self.needed(), self.stride))
        return tuple(timing.nearest(timing.times[start] + self._moments(timing)).tolist())

    def shortened(self, timing: Timing, way: str) -> tuple[int, ...]:
        """The frames of a clip from a source that is too short: ``way`` is a name in ``SHORT`` that has a function."""
        shorten = SHORT[way]
        assert shorten is not None, "whoever asks has refused the others"
        if not self.fps:
            return tuple(shorten(timing.count - 1, self.frames, self.stride).astype(int).tolist())
        moments = shorten(float(timing.times[-1] - timing.times[0]), self.frames, 1 / self.rate(timing))
        return tuple(timing.nearest(timing.times[0] + moments).tolist())

    def _moments(self, timing: Timing) -> np.ndarray:
        return np.arange(self.frames) / self.rate(timing)


def measured_rate(timing: Timing, taken: tuple[int, ...]) -> float:
    """Frames per second of frames that were taken: how many there are for the seconds from each to the next."""
    walked = float(np.abs(np.diff(timing.times[list(taken)])).sum())
    return (len(taken) - 1) / walked if walked else timing.fps


def one_of(places: int, drawn: float, variant: int, variants: int) -> int:
    """Where a clip begins.

    Args:
        places: where it may.
        drawn: a number in 0..1.
        variant: which of the clip's variants.
        variants: how many there are; each begins in a part of its own, so that no two are the same where there is room. 0: anywhere.

    >>> [one_of(9, 0.5, variant, 3) for variant in range(3)]
    [1, 4, 7]
    """
    low, high = (variant * places // variants, (variant + 1) * places // variants) if variants else (0, places)
    return low + int(drawn * (high - low))


def squeeze(last: float, frames: int, step: float) -> np.ndarray:  # noqa: ARG001  rows of the table share a signature
    """All of the clip, evenly, in smaller steps and repeating frames if need be: what AnimateDiff's training does.

    >>> squeeze(4, 8, 4).astype(int).tolist()
    [0, 0, 1, 1, 2, 2, 3, 4]
    """
    return np.linspace(0, last, frames)


def back_and_forth(last: float, frames: int, step: float) -> np.ndarray:
    """At the speed asked for, turning round at both ends.

    >>> back_and_forth(4, 8, 1).tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0, 3.0, 2.0, 1.0]
    """
    places = np.arange(frames) * float(step)
    return last - np.abs(places % (2 * last) - last) if last else np.zeros(frames)


REFUSE, LEAVE_OUT = "refuse", "leave out"
# what is done with sources that are too short: places from 0 to the last one, of so many frames with such a step between them
SHORT: dict[str, Callable[[float, int, float], np.ndarray] | None] = {
    REFUSE: None,
    LEAVE_OUT: None,
    "squeeze": squeeze,
    "back and forth": back_and_forth,
}
