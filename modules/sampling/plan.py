"""A schedule as samplers take it: rows, each a model call that shows some frames of the clip and takes them from level to level.

``noise_levels.py`` has plans of offsets, known for a whole clip or by a rule without an end; ``level_matrix.py`` those that are written
out; ``fifo.py`` the queue of FIFO-Diffusion. ``rollout.py`` carries any of them out.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .extent import Extent
from .known_frames import gaps, only_at_the_start, reaching


@dataclass(frozen=True)
class Row:
    """A row of a noise-level matrix as one model call: the frames it shows, and which levels they have before and after.

    Attributes:
        ids: ``n``, int64, frames of the clip, rising. FIFO-Diffusion has frames before the first one, and behind the last.
        before: ``n``, levels at the call: whole numbers (int64), or levels in between (float).
        after: ``n``, levels afterwards; equal to ``before`` for frames that stay untouched.
        times: ``n``, when the temporal modules are told each frame is; None for ``ids``.
        given: ``n``, bool, frames that are known from the beginning; None for none.
        keep: frames from this one on may be shown again, by this row's successors; those before it are done with, sink frames aside.
        shot: number of the prompt that the call reads, where a take has several.
    """

    ids: Tensor
    before: Tensor
    after: Tensor
    times: Tensor | None = None
    given: Tensor | None = None
    keep: int = 0
    shot: int = 0


class Plan(Protocol):
    """What samplers ask of a schedule."""

    def extent(self, window: int, sink_frames: int = 0, *, ahead: bool = True) -> Extent:
        """How far it goes, for takes that are interrupted and go on, or are made longer later; arguments as those of ``rows``."""
        ...

    @property
    def steps(self) -> int:
        """Denoising steps of each frame: the level of pure noise."""
        ...

    @property
    def frames(self) -> int:
        """Length of the clip, known frames included; 0 for no end."""
        ...

    @property
    def rows_total(self) -> int:
        """Rows in all, each a model call; 0 for no end."""
        ...

    def is_known(self, ids: Tensor) -> Tensor:
        """Which frames are given and clean all along, bool: ``ids``: ``n``. Returns ``n``."""
        ...

    def in_flight(self) -> int:
        """The widest stretch of frames, from the first to the last, that any row moves: the least window."""
        ...

    def rows(self, window: int, sink_frames: int = 0, start: int = 0, *, ahead: bool = True) -> Iterator[Row]:
        """The rows from number ``start`` on, in order.

        Args:
            window: most frames in a call.
            sink_frames: first frames of the clip that stay in the window after it has left them behind; the model is told that they
                stand right before it.
            start: how many rows are done already.
            ahead: whether frames behind those that move are shown, as far as the window reaches: known ones, and where the schedule's
                authors show them those that have not begun. Models in which no frame sees later ones have no use for them.

        Raises:
            ValueError: the window is shorter than the frames in flight, which would leave some unfinished. Raised before the first row.
        """
        ...


class Shown(NamedTuple):
    """The frames that each row's call shows, sink frames aside.

    Attributes:
        low: ``m``, the first one.
        high: ``m``, the one after the last of those that are shown without a gap.
        reach: ``m``, known frames from ``high`` to the one before this are shown too.
    """

    low: Tensor
    high: Tensor
    reach: Tensor


class ClipPlan(ABC):
    """A plan for a clip of which all is known beforehand, so that it can be drawn.

    Attributes:
        steps: denoising steps of each frame.
        known: ``f``, bool, frames that are given and clean all along.
        waiting: whether frames that have not begun are shown as far as the window reaches.
    """

    steps: int
    known: Tensor
    waiting: bool

    @abstractmethod
    def extent(self, window: int, sink_frames: int = 0, *, ahead: bool = True) -> Extent:
        """As ``Plan.extent``."""

    @property
    def frames(self) -> int:
        """Length of the clip, known frames included."""
        return len(self.known)

    @property
    @abstractmethod
    def rows_total(self) -> int:
        """Rows in all, each a model call."""

    @abstractmethod
    def part(self, rows: Tensor, ids: Tensor) -> Tensor:
        """Some rows and columns of the matrix: ``rows``: ``m``, from 0, ``ids``: ``f``. Returns ``m f``."""

    @abstractmethod
    def moves(self) -> Tensor:
        """How many rows move each frame. Returns ``f``."""

    @abstractmethod
    def _busy(self) -> tuple[Tensor, Tensor]:
        """First and last frame that each row moves or must not lose, ``m`` each."""

    @property
    @abstractmethod
    def _rising(self) -> bool:
        """Whether frames finish in their order."""

    def is_known(self, ids: Tensor) -> Tensor:
        """Which of some frames are given: ``ids``: ``n``. Returns ``n``, bool."""
        return self.known[ids]

    def matrix(self) -> Tensor:
        """Every state on the way, the first all noise and the last all clean. Returns ``m f``."""
        return self.part(torch.arange(self.rows_total + 1), torch.arange(self.frames))

    def in_flight(self) -> int:
        """The widest stretch of frames, from the first to the last, that any row moves: the least window.

        In a gap between known frames these belong to it: what is filled in has to see them.
        """
        first, last = self._reaching()
        return int((last - first).max()) + 1

    def shown(self, window: int, sink_frames: int = 0, *, ahead: bool = True) -> Shown:
        """The frames that each row's call shows, sink frames aside; see ``Plan.rows``.

        Where frames finish in their order, it is what moves and the ``window - in_flight()`` frames before it: so a frame is made from
        the same context whether the clip ends soon or goes on. Where they do not (trapezoid), what moves stands in the middle of the
        window, and what lies on both sides is shown.
        """
        first, last = self._reaching()
        context = check_window(int((last - first).max()) + 1, window, sink_frames)
        room = window - sink_frames
        if not self._rising:
            spare = room - (last + 1 - first)
            low = (first - (spare + 1) // 2).clamp(0, max(0, self.frames - room))
            high = (low + room).clamp_max(self.frames)
            return Shown(low, high, high)
        low, high = (first - context).clamp_min(0), last + 1
        if not ahead:
            return Shown(low, high, high)
        low = self._led(low, first, high, room)
        reach = (low + room).clamp_max(self.frames)
        return Shown(low, reach if self.waiting else high, reach)

    def _led(self, low: Tensor, first: Tensor, high: Tensor, room: int) -> Tensor:
        """Where windows begin so that they hold the next known frame too, if it can be had for context that is missed less: what lies
        before the last known frame, or half of it. Where the window is not full they are moved back to known frames that it has room for.

        ``low``, ``first``, ``high``: ``m``. Returns ``m``.
        """
        if only_at_the_start(self.known):
            return low
        known = self.known.nonzero().flatten()
        before, behind = torch.searchsorted(known, first, right=True) - 1, torch.searchsorted(known, high)
        last_known = torch.where(before >= 0, known[before.clamp_min(0)], -1)
        needed = known[behind.clamp_max(len(known) - 1)] + 1 - room
        spared = torch.maximum(last_known, (low + first) // 2)
        low = torch.where((behind < len(known)) & (needed > low) & (needed <= spared), needed, low)
        end = (low + room).clamp_max(self.frames)
        if not self.waiting:
            end = torch.maximum(high, torch.minimum(end, known[(torch.searchsorted(known, end) - 1).clamp_min(0)] + 1))
        least = (end - room).clamp_min(0)
        return torch.where(torch.searchsorted(known, low) > torch.searchsorted(known, least), least, low)

    def out_of_sight(self, window: int, sink_frames: int = 0) -> dict[int, tuple[int, int]]:
        """Known frames that the window is too short for: number -> rows that move frames in the gap before it, in all and without it."""
        first, last = self._busy()
        low, high, reach = self.shown(window, sink_frames)
        found = {}
        for start, end in gaps(self.known):
            inside = (last >= start) & (first < end)
            blind = inside & ((low > end) | (torch.maximum(high, reach) <= end))
            if end < self.frames and blind.any():
                found[end] = int(inside.sum()), int(blind.sum())
        return found

    def rows(self, window: int, sink_frames: int = 0, start: int = 0, *, ahead: bool = True) -> Iterator[Row]:
        """As ``Plan.rows``."""
        return self._rows(self.shown(window, sink_frames, ahead=ahead), sink_frames, start)

    def _rows(self, shown: Shown, sink_frames: int, start: int) -> Iterator[Row]:
        keep = shown.low.flip(0).cummin(dim=0).values.flip(0)
        known = self.known.nonzero().flatten()
        low, high = shown.low.tolist(), shown.high.tolist()
        nearest, furthest = (torch.searchsorted(known, edge).tolist() for edge in (shown.high, shown.reach))
        for number in range(start, len(keep)):
            window = torch.cat([torch.arange(low[number], high[number]), known[nearest[number] : furthest[number]]])
            ids, times = with_sink_frames(window, sink_frames)
            before, after = self.part(torch.tensor([number, number + 1]), ids)
            yield Row(ids, before, after, times, self.known[ids], int(keep[number]))

    def _reaching(self) -> tuple[Tensor, Tensor]:
        return reaching(*self._busy(), self.known)


def together(plan: Plan) -> bool:
    """Whether all frames of a clip are at one noise level all along: all are made, and all move in every row."""
    return plan.frames > 0 and plan.rows_total == plan.steps and not bool(plan.is_known(torch.arange(plan.frames)).any())


def unseen(row: Row, following: int, plan: Plan, most: int) -> Iterator[Row]:
    """Rows that show the known frames right before a row's, as far as none has: what a model that goes on from what it remembers has to
    see first. They move nothing.

    Args:
        row: the next one.
        following: number of the frame after the last that was shown.
        plan: that the row is of.
        most: frames that are shown at once.
    """
    ids = row.ids.tolist()
    low = next(
        (ids[place] for place in range(len(ids) - 1, 0, -1) if ids[place] - ids[place - 1] > 1), ids[0]
    )  # behind sink frames
    first = low
    while first > following and bool(plan.is_known(torch.tensor([first - 1]))):
        first -= 1
    for start in range(first, low, most):
        missed = torch.arange(start, min(start + most, low))
        levels = row.before.new_zeros(len(missed))
        yield Row(missed, levels, levels, given=torch.ones_like(missed, dtype=torch.bool))


def check_window(needed: int, window: int, sink_frames: int) -> int:
    """How many frames of context a window has room for beside those in flight, ``needed``, and ``sink_frames``.

    Raises:
        ValueError: none of them may be left out, and they do not fit.
    """
    if sink_frames < 0:
        raise ValueError(f"sink_frames is {sink_frames}: it must be at least 0")
    if window < needed + sink_frames:
        kept = f" and {sink_frames} sink frames" if sink_frames else ""
        raise ValueError(
            f"the window holds {window} frames and this schedule has {needed} in flight{kept} at once: "
            f"use a window of at least {needed + sink_frames}, fewer steps, a smaller block or a larger lag"
        )
    return window - needed - sink_frames


def with_sink_frames(ids: Tensor, sink_frames: int) -> tuple[Tensor, Tensor | None]:
    """A window's frames behind those of the first ``sink_frames`` that lie before them.

    Args:
        ids: ``n``, the window's.
        sink_frames: how many stay for good.

    Returns:
        ids: ``k``, int64, and times: ``k``, in which they stand without a gap, or None where there is none.
    """
    low = int(ids[0])
    kept = min(sink_frames, low)
    times = torch.cat([torch.arange(low - kept, low), ids]) if 0 < kept < low else None
    return torch.cat([torch.arange(kept), ids]), times
