"""Which frames of a clip are looked at, and what is done with clips that are too short.

To add a way with short clips, write a function of the frames there are, the frames wanted and the step between them, and name it in
``SHORT``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SLOWEST = 0.99  # of the frame rate asked for: a little less, such as 23.976 for 24, repeats no frame of a clip


@dataclass(frozen=True)
class Pace:
    """How a clip is sampled.

    Attributes:
        frames: how many.
        stride: frames of the source from one to the next.
        fps: if above 0, so many frames per second instead, whatever the source's rate.
    """

    frames: int
    stride: int
    fps: float = 0.0

    def step(self, fps: float) -> float:
        """Frames of a source of this rate from one frame to the next."""
        return max(1.0, fps / self.fps) if self.fps else float(self.stride)

    def reaches(self, fps: float) -> bool:
        """Whether a source of this rate has as many frames per second as are asked for."""
        return self.frames == 1 or fps >= self.fps * SLOWEST

    def needed(self, fps: float) -> int:
        """Frames that a source of this rate must have.

        >>> Pace(frames=16, stride=4).needed(24)
        61
        >>> Pace(frames=16, stride=1, fps=8).needed(24)
        46
        """
        return int((self.frames - 1) * self.step(fps) + 1e-6) + 1


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


def spread(start: int, frames: int, step: float) -> tuple[int, ...]:
    """Numbers of frames, evenly spaced from ``start`` on.

    >>> spread(2, 4, 2.5)
    (2, 4, 7, 9)
    """
    return tuple(start + int(place * step + 1e-6) for place in range(frames))


def squeeze(count: int, frames: int, step: float) -> tuple[int, ...]:  # noqa: ARG001  rows of the table share a signature
    """All of the clip, evenly, in smaller steps and repeating frames if need be: what AnimateDiff's training does.

    >>> squeeze(5, 8, 4)
    (0, 0, 1, 1, 2, 2, 3, 4)
    """
    return tuple(np.linspace(0, count - 1, frames, dtype=int).tolist())


def back_and_forth(count: int, frames: int, step: float) -> tuple[int, ...]:
    """At the speed asked for, turning round at both ends.

    >>> back_and_forth(5, 8, 1)
    (0, 1, 2, 3, 4, 3, 2, 1)
    """
    there = count - 1
    return tuple(there - abs(place % (2 * there) - there) if there else 0 for place in spread(0, frames, step))


REFUSE, LEAVE_OUT = "refuse", "leave out"
SHORT: dict[str, Callable[[int, int, float], tuple[int, ...]] | None] = {
    REFUSE: None,
    LEAVE_OUT: None,
    "squeeze": squeeze,
    "back and forth": back_and_forth,
}
