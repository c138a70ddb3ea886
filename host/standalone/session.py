"""What nodes may ask of the run they are in: folders, progress, and whether the user cancelled.

A node called straight from Python is in a session too: one with ``./output``, ``./input`` and a progress bar.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from torch import Tensor

Interrupted = KeyboardInterrupt  # so that Ctrl-C and ``Session.cancel`` are the same thing to every node


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
    preview: Tensor | None = None


class Bar:
    """A progress bar for terminals; on anything else it writes nothing.

    Args:
        stream: where to, standard error by default.
    """

    def __init__(self, stream: TextIO | None = None):
        self.stream = stream or sys.stderr
        self.start, self.task, self.width = time.monotonic(), "", 0

    def __call__(self, report: Report) -> None:
        """Draw the bar anew."""
        if not self.stream.isatty():
            return
        if report.task != self.task or report.done <= 1:
            self.start, self.task = time.monotonic(), report.task
        filled = 24 * report.done // report.total if report.total else report.done % 25
        seconds = time.monotonic() - self.start
        share = f"{report.done}/{report.total}" if report.total else f"{report.done}"
        line = f"{report.task} [{'#' * filled}{'.' * (24 - filled)}] {share}, {seconds:.0f} s".strip()
        self.stream.write("\r" + line.ljust(self.width))
        self.width = len(line)
        self.clear(end=0 < report.total <= report.done)
        self.stream.flush()

    def clear(self, *, end: bool = True) -> None:
        """Leave the line of the bar, so that what is written next stands below it."""
        if end and self.width and self.stream.isatty():
            self.stream.write("\n")
            self.width = 0


@dataclass
class Session:
    """One user's run: where files are, who is told of progress, whether it was cancelled."""

    output: Path | None = None
    input: Path | None = None
    temp: Path | None = None
    report: Callable[[Report], None] = field(default_factory=Bar)
    task: str = ""
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Stop at the next model call or node; may be called from another thread or from ``report``."""
        self._cancelled.set()

    def resume(self) -> None:
        """Forget an earlier ``cancel``."""
        self._cancelled.clear()

    def check(self) -> None:
        """Raise if cancelled.

        Raises:
            Interrupted: it was.
        """
        if self._cancelled.is_set():
            raise Interrupted("cancelled")

    @contextmanager
    def active(self) -> Iterator["Session"]:
        """While open, nodes find themselves in this session."""
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)


_default = Session()
_current: ContextVar[Session] = ContextVar("longtake_session", default=_default)


def current() -> Session:
    """The session that the caller is in."""
    return _current.get()


class Progress:
    """Tells the user how far a node is, and lets the user stop it.

    Args:
        total: what counts as done; 0 where there is no end.
    """

    def __init__(self, total: int):
        self.total = total

    def update(self, done: int, preview: Tensor | None = None) -> None:
        """Say how much is done in all, with a picture if there is one.

        Args:
            done: from 0 to ``total``.
            preview: ``h w c`` in 0..1.

        Raises:
            Interrupted: the user cancelled.
        """
        session = current()
        session.report(Report(session.task, done, self.total, preview))
        session.check()


def check_interrupt() -> None:
    """Raise ``Interrupted`` if the user cancelled."""
    current().check()


def output_directory() -> Path:
    """Where results go: ``./output`` unless the run says otherwise."""
    return (current().output or Path("output")).absolute()


def input_directory() -> Path:
    """Where the user's pictures lie: ``./input`` unless the run says otherwise."""
    return (current().input or Path("input")).absolute()


def temp_directory() -> Path:
    """Where previews go."""
    return (current().temp or Path(tempfile.gettempdir()) / "longtake").absolute()
