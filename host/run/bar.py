"""How far a run is, for people: a bar in a terminal, a line every few seconds anywhere else."""

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from torch import Tensor

EVERY = 5.0  # seconds between lines


@dataclass(frozen=True)
class Report:
    """How far a node is.

    Attributes:
        task: what is running, such as ``node 4 (LongTakeRollout)``; empty for a node called from Python.
        done, total: in the node's own unit; a total of 0 is for what has no end.
        preview: ``h w c`` in 0..1, or None.
    """

    task: str
    done: int
    total: int
    preview: "Tensor | None" = None


class Bar:
    """A progress bar.

    Args:
        stream: where to, standard error by default.
        every: seconds between lines where the stream is no terminal; a task that takes less says nothing.
    """

    def __init__(self, stream: TextIO | None = None, every: float = EVERY):
        self.stream, self.every = stream or sys.stderr, every
        self.task, self.done, self.width = "", 0, 0
        self.start = self.said = time.monotonic()

    def __call__(self, report: Report) -> None:
        """Say how far it is."""
        now = time.monotonic()
        if report.task != self.task or report.done < self.done:
            self.start = self.said = now
        self.task, self.done = report.task, report.done
        share = f"{report.done}/{report.total}" if report.total else f"{report.done}"
        text = f"{share}, {now - self.start:.0f} s"
        if self.stream.isatty():
            self._draw(report, text)
        elif now - self.said >= self.every:
            self.said = now
            self.stream.write(f"{report.task} {text}".strip() + "\n")
            self.stream.flush()

    def _draw(self, report: Report, text: str) -> None:
        filled = 24 * report.done // report.total if report.total else report.done % 25
        line = f"{report.task} [{'#' * filled}{'.' * (24 - filled)}] {text}".strip()
        self.stream.write("\r" + line.ljust(self.width))
        self.width = len(line)
        self.clear(end=0 < report.total <= report.done)
        self.stream.flush()

    def clear(self, *, end: bool = True) -> None:
        """Leave the line of the bar, so that what is written next stands below it."""
        if end and self.width and self.stream.isatty():
            self.stream.write("\n")
            self.width = 0
