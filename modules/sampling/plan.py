"""A schedule as samplers take it: rows, each a model call that shows some frames of the clip and takes them from level to level.

``noise_levels.py`` has plans of offsets, known for a whole clip or by a rule without an end; ``level_matrix.py`` those that are written
out; ``fifo.py`` the queue of FIFO-Diffusion. ``rollout.py`` carries any of them out.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .known_frames import reaching


@dataclass(frozen=True)
class Row:
    """A row of a noise-level matrix as one model call: the frames it shows, and which levels they have before and after.

    Attributes:
        ids: ``n``, int64, frames of the clip, rising. FIFO-Diffusion has frames before the first one, and behind the last.
        before: ``n``, levels at the call: whole numbers (int64), or levels in between (float).
        after: ``n``, levels afterwards; equal to ``before`` for frames that stay untouched.
        times: ``n``, when the temporal modules are told each frame is; None for ``ids``.
        keep: frames from this one on may be shown again, by this row's successors; those before it are done with, sink frames aside.
    """

    ids: Tensor
    before: Tensor
    after: Tensor
    times: Tensor | None = None
    keep: int = 0


class Plan(Protocol):
    """What samplers ask of a schedule."""

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

    def rows(self, window: int, sink_frames: int = 0, start: int = 0) -> Iterator[Row]:
        """The rows from number ``start`` on, in order.

        Args:
            window: most frames in a call.
            sink_frames: first frames of the clip that stay in the window after it has left them behind; the model is told that they
                stand right before it.
            start: how many rows are done already.

        Raises:
            ValueError: the window is shorter than the frames in flight, which would leave some unfinished. Raised before the first row.
        """
        ...


class ClipPlan(ABC):
    """A plan for a clip of which all is known beforehand, so that it can be drawn.

    Attributes:
        steps: denoising steps of each frame.
        known: ``f``, bool, frames that are given and clean all along.
    """

    steps: int
    known: Tensor

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

    def spans(self, window: int, sink_frames: int = 0) -> Tensor:
        """The first frame of each row's call, sink frames aside, and the one after its last; see ``rows``. Returns ``m 2``."""
        first, last = self._reaching()
        context = check_window(int((last - first).max()) + 1, window, sink_frames)
        return spans(first, last, window - sink_frames, self.frames, context=context, rising=self._rising)

    def rows(self, window: int, sink_frames: int = 0, start: int = 0) -> Iterator[Row]:
        """As ``Plan.rows``: each shows the frames it moves and ``window - in_flight()`` frames before them.

        So a frame is made from the same context whether the clip ends soon or goes on. Where later frames finish first
        (trapezoid), the rest of the window shows what lies on both sides.
        """
        return self._rows(self.spans(window, sink_frames), sink_frames, start)

    def _rows(self, shown: Tensor, sink_frames: int, start: int) -> Iterator[Row]:
        keep = shown[:, 0].flip(0).cummin(dim=0).values.flip(0)
        for number, (low, high) in enumerate(shown[start:].tolist(), start):
            ids, times = with_sink_frames(low, high, sink_frames)
            before, after = self.part(torch.tensor([number, number + 1]), ids)
            yield Row(ids, before, after, times, int(keep[number]))

    def _reaching(self) -> tuple[Tensor, Tensor]:
        return reaching(*self._busy(), self.known)


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
        yield Row(missed, levels, levels)


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


def spans(first: Tensor, last: Tensor, window: int, frames: int, *, context: int, rising: bool) -> Tensor:
    """The stretch of frames that each call shows.

    Where frames finish in their order, it is what moves and the ``context`` before it, so that a frame is made from the same context
    whether the clip ends soon or goes on. Where they do not, what moves stands in the middle of the window: context lies on both sides.

    Args:
        first: ``m``, first frame that moves in each call.
        last: ``m``, last one.
        window: frames there is room for.
        frames: of the clip.
        context: frames before those that move.
        rising: whether frames finish in their order.

    Returns:
        spans: ``m 2``, the first frame and the one after the last.
    """
    if rising:
        return torch.stack([(first - context).clamp_min(0), last + 1], dim=1)
    spare = window - (last + 1 - first)
    low = (first - (spare + 1) // 2).clamp(0, max(0, frames - window))
    return torch.stack([low, (low + window).clamp_max(frames)], dim=1)


def with_sink_frames(low: int, high: int, sink_frames: int) -> tuple[Tensor, Tensor | None]:
    """The frames ``low`` to ``high - 1`` behind those of the first ``sink_frames`` that lie before them.

    Returns:
        ids: ``n``, int64, and times: ``n``, in which they stand without a gap, or None where there is none.
    """
    kept = min(sink_frames, low)
    ids = torch.cat([torch.arange(kept), torch.arange(low, high)])
    return ids, (torch.arange(low - kept, high) if kept < low and kept else None)
