"""A sampler as a matrix of noise levels: rows are model calls, columns are frames (Diffusion Forcing, arXiv:2407.01392).

A level counts denoising steps still to go: ``steps`` is pure noise, 0 is clean. Every schedule here is

    level[m, f] = clip(steps + offset[f] - m, 0, steps)

and differs only in when each frame starts, its offset. To add a schedule, write its offsets and name it in ``SCHEDULES``: menus and
property tests read that table; if frames start in their order and without an end, name it in ``stream.ENDLESS`` too. Matrices that are
no offsets are in ``level_matrix.py``. Differs from the reference code: its trapezoid mirrors around the wrong column and leaves one
frame as noise for even lengths; rows in which nothing moves are left out.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .calls import Call, anchored, check_window, spans
from .calls import Levels as Levels  # offered here too
from .known_frames import gaps, known_frames, only_at_the_start, reaching


def full_sequence(index: Tensor, steps: int, lag: float, block: int) -> Tensor:
    """All frames at once: ordinary video diffusion. ``index``: ``n``. Returns ``n``."""
    return torch.zeros_like(index)


def autoregressive(index: Tensor, steps: int, lag: float, block: int) -> Tensor:
    """A block starts when the one before it is clean. ``index``: ``n``. Returns ``n``."""
    return _blocks(index, block) * steps


def pyramid(index: Tensor, steps: int, lag: float, block: int) -> Tensor:
    """Each block ``lag`` steps behind the one before; 0: full_sequence, ``steps``: autoregressive. ``index``: ``n``. Returns ``n``."""
    return _lagged(_blocks(index, block), min(lag, steps))


def trapezoid(index: Tensor, steps: int, lag: float, block: int) -> Tensor:
    """Both ends lead and the middle follows: for filling between two known ends. ``index``: ``n``. Returns ``n``."""
    blocks = _blocks(index, block)
    return _lagged(torch.minimum(blocks, blocks.max() - blocks), min(lag, steps))


def chunked(index: Tensor, steps: int, lag: float, block: int) -> Tensor:
    """A pyramid inside each block, and a block starts when the whole one before it is clean (Diffusion Forcing's ``chunk_size``).

    ``index``: ``n``. Returns ``n``.
    """
    lag = min(lag, steps)
    whole = steps + int(_lagged(torch.tensor(block - 1), lag))
    return _blocks(index, block) * whole + _lagged(index % block, lag)


def ar_step(index: Tensor, steps: int, lag: float, block: int) -> Tensor:
    """SkyReels-V2 (arXiv:2504.13074) and AR-Diffusion for video (arXiv:2503.07418): ``lag`` is their ``ar_step``, in whole steps.

    ``block`` is SkyReels' ``causal_block_size``; a last block that is not full is generated too, not cut off. ``index``: ``n``.
    Returns ``n``.
    """
    return _blocks(index, block) * int(min(lag, steps))


def fifo(index: Tensor, steps: int, lag: float, block: int) -> Tensor:
    """FIFO-Diffusion's queue (arXiv:2405.11473): every call moves ``steps`` frames one level; one leaves, one joins as pure noise.

    ``index``: ``n``. Returns ``n``.
    """
    return index.clone()


def rolling(index: Tensor, steps: int, lag: float, block: int) -> Tensor:
    """Rolling Diffusion (arXiv:2402.09470): ``lag`` is M, the steps between two shifts, and W = ``steps`` / M frames are in flight.

    ``index``: ``n``. Returns ``n``.
    """
    return index * _sharing(steps, lag)


def progressive(index: Tensor, steps: int, lag: float, block: int) -> Tensor:
    """PA-VDM (arXiv:2410.08151): ``lag`` is the steps between two shifts of ``block`` frames, ``steps`` / lag chunks are in flight.

    ``index``: ``n``. Returns ``n``.
    """
    return _blocks(index, block) * _sharing(steps, lag)


def _blocks(index: Tensor, block: int) -> Tensor:
    return index.div(block, rounding_mode="floor")


def _lagged(blocks: Tensor, lag: float) -> Tensor:
    return (blocks.double() * lag + 1e-9).floor().long()  # 0.29 * 100 is 28.999999999999996


def _sharing(steps: int, lag: float) -> int:
    """The least number of steps, ``lag`` or more, that shares ``steps`` into whole shifts."""
    return next(shift for shift in range(max(1, math.ceil(min(lag, steps))), steps + 1) if steps % shift == 0)


# (numbers of the generated frames from 0, steps, lag, frames in a block) -> the rows that each frame waits
Offsets = Callable[[Tensor, int, float, int], Tensor]
SCHEDULES: dict[str, Offsets] = {
    f.__name__: f for f in (pyramid, autoregressive, full_sequence, trapezoid, chunked, ar_step, fifo, rolling, progressive)
}


def between(known: Tensor, steps: int, lag: float, block: int, window: int = 0) -> Tensor:
    """In-betweening: each gap between known frames is filled from its known neighbours inward.

    Args:
        known: ``f``, bool.
        steps: of each frame.
        lag: steps between neighbouring blocks.
        block: frames that move together, counted from the gap's known end.
        window: neighbouring gaps are filled at the same time as far as so many frames hold them with the known frames beside them, the
            others after them; 0 fills all at the same time.

    Returns:
        offsets: ``f``, 0 for known frames.
    """
    offsets = torch.zeros(len(known), dtype=torch.int64)
    start, low = 0, 0
    for number, (first, end) in enumerate(gaps(known)):
        if number == 0:
            low = max(0, first - 1)
        elif window and min(end + 1, len(known)) - low > window:
            start, low = int(offsets.max()) + steps, first - 1
        index = torch.arange(end - first)
        left, right = first > 0, end < len(known)
        onward = pyramid(index, steps, lag, block)
        own = trapezoid(index, steps, lag, block) if left == right else onward if left else onward.flip(0)
        offsets[first:end] = start + own
    return offsets


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
        window: int = 0,
    ) -> "NoiseLevels":
        """A schedule of ``SCHEDULES`` for ``frames`` frames, of which some are ``known`` (``known_frames``).

        A trapezoid with known frames beyond the start of the clip is filled gap by gap (``between``, for which ``window`` is).

        Raises:
            ValueError: unknown name, or a number out of range.
        """
        check_schedule(name, frames, steps, lag, block)
        mask = known_frames(known, frames)
        if name == "trapezoid" and not only_at_the_start(mask):
            return cls(steps, between(mask, steps, lag, block, window), mask)
        offsets = torch.zeros(frames, dtype=torch.int64)
        offsets[~mask] = SCHEDULES[name](torch.arange(int((~mask).sum())), steps, lag, block)
        return cls(steps, offsets, mask)

    @property
    def frames(self) -> int:
        """Length of the clip, known frames included."""
        return len(self.offsets)

    @property
    def rows(self) -> Tensor:
        """The rows in which a frame moves, as values of ``m`` in the formula. Returns ``m``, int64."""
        starts = self.offsets[~self.known]
        change = torch.zeros(int(starts.max()) + self.steps + 1, dtype=torch.int64)
        one = torch.ones_like(starts)
        change.index_add_(0, starts, one).index_add_(0, starts + self.steps, -one)
        return (change.cumsum(0) > 0).nonzero().flatten()

    @property
    def calls_total(self) -> int:
        """Model calls of the whole clip."""
        return len(self.rows)

    def matrix(self) -> Tensor:
        """Every state on the way, the first all noise and the last all clean. Returns ``m f``, int64."""
        return self.part(torch.arange(self.calls_total + 1), torch.arange(self.frames))

    def part(self, rows: Tensor, ids: Tensor) -> Tensor:
        """Some rows and columns of the matrix: ``rows``: ``m``, from 0, ``ids``: ``f``. Returns ``m f``, int64."""
        all_rows = torch.cat([self.rows, self.offsets[~self.known].max()[None] + self.steps])
        return self._levels(ids, all_rows[rows][:, None])

    def moves(self) -> Tensor:
        """How many calls move each frame. Returns ``f``."""
        return torch.where(self.known, 0, self.steps)

    def in_flight(self) -> int:
        """The widest stretch of frames, from the first to the last, that any row moves: the least window.

        In a gap between known frames these belong to it: what is filled in has to see them.
        """
        first, last = self._moving()
        return int((last - first).max()) + 1

    def spans(self, window: int, anchors: int = 0) -> Tensor:
        """The first frame of each model call, anchors aside, and the one after its last; see ``calls``. Returns ``m 2``."""
        first, last = self._moving()
        context = check_window(int((last - first).max()) + 1, window, anchors)
        return spans(first, last, window - anchors, self.frames, context=context, rising=self._rising())

    def calls(self, window: int, anchors: int = 0) -> Iterator[Call]:
        """The model calls, in order: each shows the frames it moves and ``window - in_flight()`` frames before them.

        So a frame is made from the same context whether the clip ends soon or goes on. Where later frames finish first
        (trapezoid), the rest of the window shows what lies on both sides.

        Args:
            window: most frames in a call.
            anchors: first frames of the clip that stay in the window after it has left them behind; the model is told that they
                stand right before it.

        Raises:
            ValueError: the window is shorter than the frames in flight, which would leave some unfinished. Raised before the first call.
        """
        return self._calls(self.spans(window, anchors), anchors)

    def _calls(self, shown: Tensor, anchors: int) -> Iterator[Call]:
        for row, (low, high) in zip(self.rows.tolist(), shown.tolist(), strict=True):
            ids, times = anchored(low, high, anchors)
            yield Call(ids, self._levels(ids, row), self._levels(ids, row + 1), times)

    def _levels(self, ids: Tensor, rows: Tensor | int) -> Tensor:
        levels = (self.steps + self.offsets[ids] - rows).clamp(0, self.steps)
        return torch.where(self.known[ids], 0, levels)

    def _rising(self) -> bool:
        offsets = self.offsets[~self.known]
        return bool((offsets.diff() >= 0).all())

    def _moving(self) -> tuple[Tensor, Tensor]:
        """First and last frame that each row moves, ``m`` each; with the known frames beside them, where there are some to lead to."""
        ids, rows = (~self.known).nonzero().flatten(), self.rows
        offsets = self.offsets[ids]
        if self._rising():
            first = ids[torch.searchsorted(offsets, rows - self.steps, right=True)]
            last = ids[torch.searchsorted(offsets, rows, right=True) - 1]
        else:
            moving = [ids[(offsets <= row) & (row < offsets + self.steps)] for row in rows.tolist()]
            first, last = torch.stack([frames[0] for frames in moving]), torch.stack([frames[-1] for frames in moving])
        return reaching(first, last, self.known)


def check_schedule(name: str, frames: int, steps: int, lag: float, block: int) -> None:
    """Refuse what no schedule can be made of.

    Raises:
        ValueError: one sentence.
    """
    if name not in SCHEDULES:
        raise ValueError(f"the schedule {name!r} is not known: choose one of {', '.join(SCHEDULES)}")
    for what, value, least in (("frames", frames, 1), ("steps", steps, 1), ("block", block, 1), ("lag", lag, 0)):
        if not value >= least:
            raise ValueError(f"{what} is {value}: it must be at least {least}")


def least_lag(steps: int, window: int, block: int = 1, context: int = 1) -> int:
    """The smallest whole lag whose pyramid leaves room for ``context`` clean frames in the window.

    >>> least_lag(12, 16, context=4)
    1
    """
    room = max(1, (window - context) // block)
    return max(1, math.ceil(steps / room))
