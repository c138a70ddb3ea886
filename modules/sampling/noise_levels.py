"""Plans of offsets: each frame starts some rows after the first, and takes a step in every row from then on until it is clean.

A ``NoiseLevels`` knows when each frame of a clip starts. An ``EndlessLevels`` only knows the rule, and works out what a row shows from
the row's number: nothing grows with the take, and a take that was interrupted goes on at any row.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .extent import Extent
from .known_frames import known_frames, only_at_the_start
from .plan import ClipPlan, Row, check_window, with_sink_frames
from .schedules import ENDLESS, SCHEDULES, SHOWS_WAITING, between, check_schedule

FAR = 10**6  # frames ahead at which a lag that is too small to get anywhere is noticed


@dataclass(frozen=True)
class NoiseLevels(ClipPlan):
    """A schedule for a clip: when each frame starts; some frames may be known from the beginning.

    Attributes:
        steps: denoising steps of each frame.
        offsets: ``f``, rows that each frame waits, at least 0; some generated frame waits 0. Of known frames they mean nothing.
        known: ``f``, bool, frames that are clean all along.
        waiting: whether frames that have not begun are shown as far as the window reaches.
    """

    steps: int
    offsets: Tensor
    known: Tensor
    waiting: bool = False

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
        return cls(steps, offsets, mask, name in SHOWS_WAITING)

    def extent(self, window: int, sink_frames: int = 0, *, ahead: bool = True) -> Extent:
        """As ``Plan.extent``: where frames finish in their order, the rows before the last one begins do not know of the clip's end."""
        facts = {"steps": self.steps, "waiting": self.waiting, "known": self.known.tolist()}
        facts |= {"offsets": self.offsets.masked_fill(self.known, 0).tolist()}
        rows = torch.searchsorted(self.moments, self.offsets[~self.known][-1])
        if ahead and self.waiting:
            low = self.shown(window, sink_frames).low
            rows = rows.minimum((low + window - sink_frames <= self.frames).cumprod(0).sum())
        alike = self._rising and only_at_the_start(self.known)
        return Extent(facts, self.frames, int(rows) if alike else 0, self.in_flight())

    @cached_property
    def moments(self) -> Tensor:
        """The ``m`` of the formula in which some frame moves, one for each row: rows in which none does are left out. Returns ``m``."""
        starts = self.offsets[~self.known]
        change = torch.zeros(int(starts.max()) + self.steps + 1, dtype=torch.int64)
        one = torch.ones_like(starts)
        change.index_add_(0, starts, one).index_add_(0, starts + self.steps, -one)
        return (change.cumsum(0) > 0).nonzero().flatten()

    @property
    def rows_total(self) -> int:
        """Rows of the whole clip, each a model call."""
        return len(self.moments)

    def part(self, rows: Tensor, ids: Tensor) -> Tensor:
        """Some rows and columns of the matrix: ``rows``: ``m``, from 0, ``ids``: ``f``. Returns ``m f``, int64."""
        done = int(self.moments[-1]) + 1
        now = torch.where(rows < self.rows_total, self.moments[rows.clamp_max(self.rows_total - 1)], done)
        levels = (self.steps + self.offsets[ids] - now[:, None]).clamp(0, self.steps)
        return torch.where(self.known[ids], 0, levels)

    def moves(self) -> Tensor:
        """How many rows move each frame. Returns ``f``."""
        return torch.where(self.known, 0, self.steps)

    @property
    def _rising(self) -> bool:
        offsets = self.offsets[~self.known]
        return bool((offsets.diff() >= 0).all())

    def _busy(self) -> tuple[Tensor, Tensor]:
        ids, rows = (~self.known).nonzero().flatten(), self.moments
        offsets = self.offsets[ids]
        if self._rising:
            return ids[torch.searchsorted(offsets, rows - self.steps, right=True)], ids[
                torch.searchsorted(offsets, rows, right=True) - 1
            ]
        moving = [ids[(offsets <= row) & (row < offsets + self.steps)] for row in rows.tolist()]
        return torch.stack([frames[0] for frames in moving]), torch.stack([frames[-1] for frames in moving])


@dataclass(frozen=True)
class EndlessLevels:
    """A schedule for a take that need not end, a ``Plan``.

    Attributes:
        name: in ``ENDLESS``.
        steps: denoising steps of each frame.
        lag: see the schedule.
        block: the same.
        known: frames at the start that are given.
        frames: where the take ends, known frames included; 0 for never.

    Raises:
        ValueError: there is no such take.
    """

    name: str
    steps: int
    lag: float = 1.0
    block: int = 1
    known: int = 0
    frames: int = 0

    def __post_init__(self) -> None:
        if self.name in SCHEDULES and self.name not in ENDLESS:
            raise ValueError(
                f"{self.name} needs to know where the take ends before it can begin: for a take without an end use {', '.join(ENDLESS)}"
            )
        check_schedule(self.name, self.frames or 1, self.steps, self.lag, self.block)
        if self.known < 0:
            raise ValueError(f"known is {self.known}: it must be at least 0")
        if self.frames and self.known >= self.frames:
            raise ValueError(
                f"{self.known} frames are known and the take has {self.frames}: nothing is left to generate, ask for more frames"
            )
        if self._offset(FAR) < self.steps:
            raise ValueError(
                f"lag is {self.lag}, with which all frames are at the same noise level and none is ever finished first: for a take without"
                " an end use a larger lag"
            )

    @property
    def rows_total(self) -> int:
        """Rows of the whole take, each a model call; 0 if it has no end."""
        return self._offset(self.frames - self.known - 1) + self.steps if self.frames else 0

    def extent(self, window: int, sink_frames: int = 0, *, ahead: bool = True) -> Extent:
        """As ``Plan.extent``: the rows before one that would begin or show a frame behind the end."""
        facts = {"schedule": self.name, "steps": self.steps, "lag": self.lag, "block": self.block, "known": self.known}
        if not self.frames:
            return Extent(facts, 0, None, self.in_flight())
        rows, room = self._offset(self.frames - self.known), window - sink_frames
        if ahead and self.name in SHOWS_WAITING:
            rows = bisect_right(
                range(rows), self.frames - room, key=lambda row: self._low(self._begun_at(row - self.steps), room)
            )
        return Extent(facts, self.frames, rows, self.in_flight())

    @property
    def pace(self) -> float:
        """Model calls per frame, in the long run."""
        far = self.block * (FAR // self.block)
        return self._offset(far) / far

    def is_known(self, ids: Tensor) -> Tensor:
        """Which of some frames are given: ``ids``: ``n``. Returns ``n``, bool."""
        return ids < self.known

    def in_flight(self) -> int:
        """The most frames that any row moves: the least window."""
        return self._least

    @cached_property
    def _least(self) -> int:
        return self._begun_at(self.steps - 1)  # no later row moves more than the first ones do together

    def rows(self, window: int, sink_frames: int = 0, start: int = 0, *, ahead: bool = True) -> Iterator[Row]:
        """As ``Plan.rows``: those of a ``NoiseLevels`` for a clip as long as the take."""
        check_window(self.in_flight(), window, sink_frames)
        return self._rows(window - sink_frames, sink_frames, start, ahead)

    def _rows(self, room: int, sink_frames: int, row: int, ahead: bool) -> Iterator[Row]:
        for begun, done in zip(self._counts(row), self._counts(row - self.steps), strict=False):
            if self.frames and row >= self.rows_total:
                return
            low, high = self._span(begun, done, room, ahead)
            ids, times = with_sink_frames(torch.arange(low, high), sink_frames)
            yield Row(ids, self._levels(ids, row), self._levels(ids, row + 1), times, self.is_known(ids), low)
            row += 1

    def _low(self, done: int, room: int) -> int:
        """The first frame that is shown, sink frames aside, when so many of those that are made are done."""
        return max(0, self.known + done - (room - self.in_flight()))

    def _span(self, begun: int, done: int, room: int, ahead: bool) -> tuple[int, int]:
        low, high = self._low(done, room), self.known + begun
        if ahead and self.name in SHOWS_WAITING:
            high = min(low + room, self.frames or low + room)
        return low, high

    def _counts(self, row: int) -> Iterator[int]:
        """How many generated frames have begun by this row, by the next one and so on."""
        count = self._begun_at(row)
        following = self._offset(count)
        while True:
            while following <= row and not (self.frames and count >= self.frames - self.known):
                count, following = count + 1, self._offset(count + 1)
            yield count
            row += 1

    def _levels(self, ids: Tensor, row: int) -> Tensor:
        index = (ids - self.known).clamp_min(0)
        levels = (self.steps + self._offsets(index) - row).clamp(0, self.steps)
        return torch.where(ids < self.known, 0, levels)

    def _offsets(self, index: Tensor) -> Tensor:
        return SCHEDULES[self.name](index, self.steps, self.lag, self.block)

    def _offset(self, index: int) -> int:
        return int(self._offsets(torch.tensor([index])))

    def _begun_at(self, row: int) -> int:
        """How many generated frames have begun by a row."""
        if row < 0:
            return 0
        high = 1
        while self._offset(high) <= row:
            high *= 2
        found = bisect_right(range(high), row, key=self._offset)
        return min(found, self.frames - self.known) if self.frames else found
