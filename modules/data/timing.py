"""When the frames of footage are shown: seconds from the start of the file, as players count them, however the file spaces its frames."""

from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np

PAUSE = 1.5  # of the usual interval: what is longer is a pause, or frames are missing
TIE = 1e-6  # seconds: of two frames that are equally near, the earlier one, whatever the rounding


@dataclass(frozen=True, eq=False)
class Timing:
    """When each frame is shown.

    Attributes:
        times: of the frames, rising.
        end: when the last frame is taken away.
        bad: numbers of frames that are known to be damaged.
    """

    times: np.ndarray
    end: float
    bad: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def count(self) -> int:
        """Frames in all."""
        return len(self.times)

    @property
    def length(self) -> float:
        """Seconds that they are shown."""
        return self.end - float(self.times[0])

    @cached_property
    def interval(self) -> float:
        """Seconds from a frame to the next, pauses left out.

        >>> Timing(np.array([0.0, 0.1, 0.2, 0.3]), end=3.3).interval.__round__(6)
        0.1
        """
        steps = np.diff(self.times)
        return float(steps[steps <= PAUSE * np.median(steps)].mean()) if len(steps) else self.length

    @property
    def fps(self) -> float:
        """Frames per second, pauses left out."""
        return 1 / self.interval

    @cached_property
    def uneven(self) -> bool:
        """Whether some frames follow each other much faster or slower than most."""
        steps = np.diff(self.times)
        return bool(len(steps)) and not self.interval / PAUSE <= steps.min() <= steps.max() <= PAUSE * self.interval

    def nearest(self, moments: np.ndarray) -> np.ndarray:
        """The numbers of the frames whose times are nearest to ``moments``, in the same shape."""
        return np.searchsorted((self.times[1:] + self.times[:-1]) / 2, moments - TIE)

    def between(self, start: float, end: float) -> tuple[int, int]:
        """The frames from one time up to another, each at the edge of frames that is nearest: the first, and the one behind the last."""
        edges = Timing(np.append(self.times, self.end), self.end)
        first, stop = edges.nearest(np.array([start, end])).tolist()
        return (min(first, self.count - 1) if start < self.end else self.count), stop

    def part(self, first: int, stop: int) -> "Timing":
        """The frames of these numbers alone."""
        end = float(self.times[stop]) if stop < self.count else self.end
        return Timing(self.times[first:stop], end, self.bad[(self.bad >= first) & (self.bad < stop)] - first)


@lru_cache(maxsize=256)
def even(count: int, fps: float) -> Timing:
    """``count`` frames, ``fps`` a second.

    >>> even(3, 4.0).times.tolist(), even(3, 4.0).end
    ([0.0, 0.25, 0.5], 0.75)
    """
    return Timing(np.arange(count) / fps, count / fps)
