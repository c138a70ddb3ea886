"""Schedules without an end: the model calls of a take, one after the other, whatever its length and wherever it goes on.

A ``NoiseLevels`` knows when each frame of a clip starts. A stream only knows the rule, and works out what a row shows from the row's
number: nothing grows with the take, and a take that was interrupted goes on at any row.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .calls import Call, anchored, check_window
from .schedules import SCHEDULES, check_schedule

ENDLESS = (
    "pyramid",
    "autoregressive",
    "chunked",
    "ar_step",
    "fifo",
    "rolling",
    "progressive",
)  # frames start in order, without an end
FAR = 10**6  # frames ahead at which a lag that is too small to get anywhere is noticed


@dataclass(frozen=True)
class Stream:
    """A schedule for a take that need not end.

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
    def calls_total(self) -> int:
        """Model calls of the whole take; 0 if it has no end."""
        return self._offset(self.frames - self.known - 1) + self.steps if self.frames else 0

    @property
    def pace(self) -> float:
        """Model calls per frame, in the long run."""
        far = self.block * (FAR // self.block)
        return self._offset(far) / far

    def in_flight(self) -> int:
        """The most frames that any row moves: the least window."""
        return self._begun_at(self.steps - 1)  # no later row moves more than the first ones do together

    def begun(self, row: int) -> int:
        """How many frames the rows up to this one have begun, known ones included."""
        return self.known + self._begun_at(row)

    def continues(self, other: "Stream", row: int) -> bool:
        """Whether the calls before ``row`` are the same as those of the same schedule that ends elsewhere."""
        return self.in_flight() == other.in_flight() and self.begun(row - 1) == other.begun(row - 1)

    def calls(self, window: int, anchors: int = 0, row: int = 0) -> Iterator[Call]:
        """The model calls from ``row`` on, as ``NoiseLevels.calls`` of a clip as long as the take gives them.

        Raises:
            ValueError: the window is too short. Raised before the first call.
        """
        return self._calls(check_window(self.in_flight(), window, anchors), anchors, row)

    def _calls(self, context: int, anchors: int, row: int) -> Iterator[Call]:
        for begun, done in zip(self._counts(row), self._counts(row - self.steps), strict=False):
            if self.frames and row >= self.calls_total:
                return
            ids, times = anchored(max(0, self.known + done - context), self.known + begun, anchors)
            yield Call(ids, self._levels(ids, row), self._levels(ids, row + 1), times)
            row += 1

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
