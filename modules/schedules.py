"""A sampler as a matrix of noise levels: rows are model calls, columns are frames (Diffusion Forcing, arXiv:2407.01392).

A level counts denoising steps still to go: ``steps`` is pure noise, 0 is clean. Every schedule here is

    level[m, f] = clip(steps + offset[f] - m, 0, steps)

and differs only in when each frame starts, its offset. To add a schedule, write its offsets and name it in ``SCHEDULES``: menus and
property tests read that table. Differs from the reference code: its trapezoid mirrors around the wrong column and leaves one frame
as noise for even lengths; rows in which nothing moves are left out.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


def full_sequence(frames: int, steps: int, lag: float, block: int) -> Tensor:
    """All frames at once: ordinary video diffusion. Returns ``f``."""
    return torch.zeros(frames, dtype=torch.int64)


def autoregressive(frames: int, steps: int, lag: float, block: int) -> Tensor:
    """A block starts when the one before it is clean. Returns ``f``."""
    return _blocks(frames, block) * steps


def pyramid(frames: int, steps: int, lag: float, block: int) -> Tensor:
    """Each block ``lag`` steps behind the one before it; 0 is full_sequence, ``steps`` is autoregressive. Returns ``f``."""
    return _lagged(_blocks(frames, block), min(lag, steps))


def trapezoid(frames: int, steps: int, lag: float, block: int) -> Tensor:
    """Both ends lead and the middle follows: for filling between two known ends. Returns ``f``."""
    blocks = _blocks(frames, block)
    return _lagged(torch.minimum(blocks, blocks.max() - blocks), min(lag, steps))


def _blocks(frames: int, block: int) -> Tensor:
    return torch.arange(frames).div(block, rounding_mode="floor")


def _lagged(blocks: Tensor, lag: float) -> Tensor:
    return (blocks * lag + 1e-9).floor().long()  # 0.29 * 100 is 28.999999999999996


Offsets = Callable[[int, int, float, int], Tensor]
SCHEDULES: dict[str, Offsets] = {f.__name__: f for f in (pyramid, autoregressive, full_sequence, trapezoid)}


@dataclass(frozen=True)
class Call:
    """One model call: the window it shows, and which levels its frames have before and after.

    Attributes:
        low, high: the window is frames ``low`` to ``high - 1``.
        before: ``w``, levels at the call.
        after: ``w``, levels afterwards; equal to ``before`` for frames that stay untouched.
    """

    low: int
    high: int
    before: Tensor
    after: Tensor


@dataclass(frozen=True)
class NoiseLevels:
    """A schedule for a clip: when each frame starts, after a number of frames that are known from the beginning.

    Attributes:
        steps: denoising steps of each frame.
        offsets: ``f``, rows that each generated frame waits, at least 0; some frame waits 0.
        known: frames before the first generated one, clean all along.
    """

    steps: int
    offsets: Tensor
    known: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}: every frame takes at least 1 step from noise to clean")
        if self.offsets.ndim != 1 or len(self.offsets) < 1:
            raise ValueError("there must be at least 1 frame to generate")
        if int(self.offsets.min()) != 0:
            raise ValueError(f"the earliest frame waits {int(self.offsets.min())} rows: offsets start at 0")

    @classmethod
    def named(cls, name: str, frames: int, steps: int, *, lag: float = 1.0, block: int = 1, known: int = 0) -> "NoiseLevels":
        """A schedule of ``SCHEDULES`` for ``frames`` frames, of which the first ``known`` are given.

        Raises:
            ValueError: unknown name, or a number out of range.
        """
        if name not in SCHEDULES:
            raise ValueError(f"the schedule {name!r} is not known: choose one of {', '.join(SCHEDULES)}")
        for what, value, least in (
            ("frames", frames, 1),
            ("steps", steps, 1),
            ("block", block, 1),
            ("lag", lag, 0),
            ("known", known, 0),
        ):
            if not value >= least:
                raise ValueError(f"{what} is {value}: it must be at least {least}")
        if known >= frames:
            raise ValueError(
                f"{known} frames are known and the clip has {frames}: nothing is left to generate, ask for more frames"
            )
        return cls(steps, SCHEDULES[name](frames - known, steps, lag, block), known)

    @property
    def frames(self) -> int:
        """Length of the clip, known frames included."""
        return self.known + len(self.offsets)

    @property
    def rows(self) -> Tensor:
        """The rows in which a frame moves, as values of ``m`` in the formula. Returns ``m``, int64."""
        starts = self.offsets.unique()
        return (starts[:, None] + torch.arange(self.steps)).unique()

    def matrix(self) -> Tensor:
        """Every state on the way, the first all noise and the last all clean. Returns ``m f``, int64."""
        rows = torch.cat([self.rows, self.offsets.max()[None] + self.steps])
        levels = (self.steps + self.offsets - rows[:, None]).clamp(0, self.steps)
        return torch.cat([torch.zeros(len(rows), self.known, dtype=torch.int64), levels], dim=1)

    def in_flight(self) -> int:
        """The widest stretch of frames, from the first to the last, that any row moves: the least window."""
        if not self._rising():
            return max(int(moving[-1] - moving[0]) + 1 for moving in self._moving())
        first = torch.searchsorted(self.offsets, self.offsets - self.steps + 1)  # the widest row is one in which a frame starts
        last = torch.searchsorted(self.offsets, self.offsets, right=True)
        return int((last - first).max())

    def _rising(self) -> bool:
        return bool((self.offsets.diff() >= 0).all())

    def _moving(self) -> Iterator[Tensor]:
        """For each row, the clip's frames that it moves, in order."""
        rising = self._rising()
        for row in self.rows.tolist():
            if rising:  # two look-ups instead of a pass over all frames
                first = int(torch.searchsorted(self.offsets, row - self.steps + 1))
                last = int(torch.searchsorted(self.offsets, row, right=True))
                yield torch.arange(first, last) + self.known
            else:
                yield ((self.offsets <= row) & (row < self.offsets + self.steps)).nonzero().flatten() + self.known

    def calls(self, window: int) -> Iterator[Call]:
        """The model calls, in order: each shows the frames it moves and ``window - in_flight()`` frames before them.

        So a frame is made from the same context whether the clip ends soon or goes on. Where later frames finish first
        (trapezoid), the rest of the window shows what comes after.

        Raises:
            ValueError: the window is shorter than the frames in flight, which would leave some unfinished. Raised before the first call.
        """
        needed = self.in_flight()
        if window < needed:
            raise ValueError(
                f"the window holds {window} frames and this schedule has {needed} in flight at once: "
                f"use a window of at least {needed}, fewer steps, a smaller block or a larger lag"
            )
        return self._calls(window, window - needed)

    def _calls(self, window: int, context: int) -> Iterator[Call]:
        rising = self._rising()
        for row, moving in zip(self.rows.tolist(), self._moving(), strict=True):
            low, high = max(0, int(moving[0]) - context), int(moving[-1]) + 1
            if not rising:
                low = max(0, min(low, self.frames - window))
                high = min(self.frames, low + window)
            ids = torch.arange(low, high)
            offsets = self.offsets[(ids - self.known).clamp_min(0)]
            levels = [(self.steps + offsets - m).clamp(0, self.steps) for m in (row, row + 1)]
            before, after = (torch.where(ids < self.known, 0, level) for level in levels)
            yield Call(low, high, before, after)


def least_lag(steps: int, window: int, block: int = 1, context: int = 1) -> int:
    """The smallest whole lag whose pyramid leaves room for ``context`` clean frames in the window.

    >>> least_lag(12, 16, context=4)
    1
    """
    room = max(1, (window - context) // block)
    return max(1, math.ceil(steps / room))
