"""A sampler as a matrix of noise levels: rows are model calls, columns are frames (Diffusion Forcing, arXiv:2407.01392).

A level counts denoising steps still to go: ``steps`` is pure noise, 0 is clean. Every schedule here is

    level[m, f] = clip(steps + offset[f] - m, 0, steps)

and differs only in when each frame starts, its offset. To add a schedule, write its offsets and name it in ``SCHEDULES``: menus and
property tests read that table. Differs from the reference code: its trapezoid mirrors around the wrong column and leaves one frame
as noise for even lengths; rows in which nothing moves are left out.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

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
    """One model call: the frames it shows, and which levels they have before and after.

    Attributes:
        ids: ``n``, int64, frames of the clip, rising.
        before: ``n``, levels at the call: whole numbers (int64), or levels in between (float).
        after: ``n``, levels afterwards; equal to ``before`` for frames that stay untouched.
        times: ``n``, when the temporal modules are told each frame is; None for ``ids``.
    """

    ids: Tensor
    before: Tensor
    after: Tensor
    times: Tensor | None = None


class Levels(Protocol):
    """What samplers ask of a schedule for a clip."""

    @property
    def steps(self) -> int:
        """Denoising steps of each frame: the level of pure noise."""
        ...

    @property
    def known(self) -> Tensor:
        """Which frames are given and clean all along: ``f``, bool."""
        ...

    @property
    def frames(self) -> int:
        """Length of the clip, known frames included."""
        ...

    @property
    def calls_total(self) -> int:
        """Model calls of the whole clip."""
        ...

    def matrix(self) -> Tensor:
        """Every state on the way, the first all noise and the last all clean. Returns ``m f``."""
        ...

    def in_flight(self) -> int:
        """The widest stretch of frames, from the first to the last, that any row moves: the least window."""
        ...

    def calls(self, window: int, anchors: int = 0) -> Iterator[Call]:
        """The model calls, in order, through a window of so many frames; see ``NoiseLevels.calls``."""
        ...


def known_frames(known: int | Sequence[int] | Tensor, frames: int) -> Tensor:
    """Which frames are given.

    Args:
        known: how many at the start, or their numbers (negative ones count from the end), or a bool for each, ``f``.
        frames: length of the clip.

    Returns:
        known: ``f``, bool.

    Raises:
        ValueError: a number outside the clip, or nothing is left to generate.
    """
    if isinstance(known, Tensor):
        mask = known.bool()
        if len(mask) != frames:
            raise ValueError(f"{len(mask)} frames are marked as known or not, and the clip has {frames}: they must agree")
    else:
        if isinstance(known, int):
            if known < 0:
                raise ValueError(f"known is {known}: it must be at least 0")
            known = range(min(known, frames))
        outside = [i for i in known if not -frames <= i < frames]
        if outside:
            raise ValueError(f"frame {outside[0]} is known and the clip has frames 0 to {frames - 1}: choose a frame of the clip")
        mask = torch.zeros(frames, dtype=torch.bool)
        mask[list(known)] = True
    if bool(mask.all()):
        raise ValueError(
            f"{int(mask.sum())} frames are known and the clip has {frames}: nothing is left to generate, ask for more frames"
        )
    return mask


@dataclass(frozen=True)
class NoiseLevels:
    """A schedule for a clip: when each frame starts; some frames may be known from the beginning.

    Attributes:
        steps: denoising steps of each frame.
        offsets: ``f``, rows that each frame waits, at least 0; some generated frame waits 0. Of known frames they mean nothing.
        known: ``f``, bool, frames that are clean all along.
    """

    steps: int
    offsets: Tensor
    known: Tensor

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}: every frame takes at least 1 step from noise to clean")
        if self.offsets.ndim != 1 or len(self.offsets) != len(self.known):
            raise ValueError(f"{len(self.offsets)} offsets were given for {len(self.known)} frames: give one per frame")
        waits = int(self.offsets[~self.known].min())
        if waits != 0:
            raise ValueError(f"the earliest frame waits {waits} rows: offsets start at 0")

    @classmethod
    def named(
        cls,
        name: str,
        frames: int,
        steps: int,
        *,
        lag: float = 1.0,
        block: int = 1,
        known: int | Sequence[int] | Tensor = 0,
    ) -> "NoiseLevels":
        """A schedule of ``SCHEDULES`` for ``frames`` frames, of which some are ``known`` (``known_frames``).

        Raises:
            ValueError: unknown name, or a number out of range.
        """
        if name not in SCHEDULES:
            raise ValueError(f"the schedule {name!r} is not known: choose one of {', '.join(SCHEDULES)}")
        for what, value, least in (("frames", frames, 1), ("steps", steps, 1), ("block", block, 1), ("lag", lag, 0)):
            if not value >= least:
                raise ValueError(f"{what} is {value}: it must be at least {least}")
        mask = known_frames(known, frames)
        offsets = torch.zeros(frames, dtype=torch.int64)
        offsets[~mask] = SCHEDULES[name](int((~mask).sum()), steps, lag, block)
        return cls(steps, offsets, mask)

    @property
    def frames(self) -> int:
        """Length of the clip, known frames included."""
        return len(self.offsets)

    @property
    def rows(self) -> Tensor:
        """The rows in which a frame moves, as values of ``m`` in the formula. Returns ``m``, int64."""
        starts = self.offsets[~self.known].unique()
        return (starts[:, None] + torch.arange(self.steps)).unique()

    @property
    def calls_total(self) -> int:
        """Model calls of the whole clip."""
        return len(self.rows)

    def matrix(self) -> Tensor:
        """Every state on the way, the first all noise and the last all clean. Returns ``m f``, int64."""
        rows = torch.cat([self.rows, self.offsets[~self.known].max()[None] + self.steps])
        return self._levels(torch.arange(self.frames), rows[:, None])

    def in_flight(self) -> int:
        """The widest stretch of frames, from the first to the last, that any row moves: the least window."""
        if not self._rising():
            return max(int(moving[-1] - moving[0]) + 1 for moving in self._moving())
        ids = (~self.known).nonzero().flatten()
        offsets = self.offsets[ids]
        first = torch.searchsorted(offsets, offsets - self.steps + 1)  # the widest row is one in which a frame starts
        last = torch.searchsorted(offsets, offsets, right=True)
        return int((ids[last - 1] - ids[first]).max()) + 1

    def calls(self, window: int, anchors: int = 0) -> Iterator[Call]:
        """The model calls, in order: each shows the frames it moves and ``window - in_flight()`` frames before them.

        So a frame is made from the same context whether the clip ends soon or goes on. Where later frames finish first
        (trapezoid), the rest of the window shows what comes after.

        Args:
            window: most frames in a call.
            anchors: first frames of the clip that stay in the window after it has left them behind; the model is told that they
                stand right before it.

        Raises:
            ValueError: the window is shorter than the frames in flight, which would leave some unfinished. Raised before the first call.
        """
        return self._calls(window, check_window(self.in_flight(), window, anchors), anchors)

    def _calls(self, window: int, context: int, anchors: int) -> Iterator[Call]:
        rising = self._rising()
        for row, moving in zip(self.rows.tolist(), self._moving(), strict=True):
            low, high = max(0, int(moving[0]) - context), int(moving[-1]) + 1
            if not rising:
                low = max(0, min(low, self.frames - window))
                high = min(self.frames, low + window)
            ids, times = anchored(low, high, anchors)
            yield Call(ids, self._levels(ids, row), self._levels(ids, row + 1), times)

    def _levels(self, ids: Tensor, rows: Tensor | int) -> Tensor:
        levels = (self.steps + self.offsets[ids] - rows).clamp(0, self.steps)
        return torch.where(self.known[ids], 0, levels)

    def _rising(self) -> bool:
        offsets = self.offsets[~self.known]
        return bool((offsets.diff() >= 0).all())

    def _moving(self) -> Iterator[Tensor]:
        """For each row, the clip's frames that it moves, in order."""
        rising, ids = self._rising(), (~self.known).nonzero().flatten()
        offsets = self.offsets[ids]
        for row in self.rows.tolist():
            if rising:  # two look-ups instead of a pass over all frames
                first = int(torch.searchsorted(offsets, row - self.steps + 1))
                last = int(torch.searchsorted(offsets, row, right=True))
                yield ids[first:last]
            else:
                yield ids[(offsets <= row) & (row < offsets + self.steps)]


def check_window(needed: int, window: int, anchors: int) -> int:
    """How many frames of context a window has room for beside those in flight, ``needed``, and ``anchors``.

    Raises:
        ValueError: none of them may be left out, and they do not fit.
    """
    if anchors < 0:
        raise ValueError(f"anchors is {anchors}: it must be at least 0")
    if window < needed + anchors:
        kept = f" and {anchors} anchors" if anchors else ""
        raise ValueError(
            f"the window holds {window} frames and this schedule has {needed} in flight{kept} at once: "
            f"use a window of at least {needed + anchors}, fewer steps, a smaller block or a larger lag"
        )
    return window - needed - anchors


def anchored(low: int, high: int, anchors: int) -> tuple[Tensor, Tensor | None]:
    """The frames ``low`` to ``high - 1`` behind those of the first ``anchors`` that lie before them.

    Returns:
        ids: ``n``, int64, and times: ``n``, in which they stand without a gap, or None where there is none.
    """
    kept = min(anchors, low)
    ids = torch.cat([torch.arange(kept), torch.arange(low, high)])
    return ids, (torch.arange(low - kept, high) if kept < low and kept else None)


def least_lag(steps: int, window: int, block: int = 1, context: int = 1) -> int:
    """The smallest whole lag whose pyramid leaves room for ``context`` clean frames in the window.

    >>> least_lag(12, 16, context=4)
    1
    """
    room = max(1, (window - context) // block)
    return max(1, math.ceil(steps / room))
