"""What nodes may ask of the run they are in: folders, progress, and whether the user cancelled.

A node called straight from Python is in a session too: one with ``./output``, ``./input`` and a progress bar.
"""

import logging
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ..run.bar import Bar, Report

log = logging.getLogger("longtake")
Interrupted = KeyboardInterrupt  # so that Ctrl-C and ``Session.cancel`` are the same thing to every node


@dataclass
class Session:
    """One user's run: where files are, who is told of progress, whether it was cancelled.

    Attributes:
        output: where results go; None for ``./output``.
        input: where the user's pictures lie; None for ``./input``.
        temp: where previews go; None for a folder of the session's own, which is removed with it.
        report: is told of progress.
        task: what is running.
    """

    output: Path | None = None
    input: Path | None = None
    temp: Path | None = None
    report: Callable[[Report], None] = field(default_factory=Bar)
    task: str = ""
    _cancelled: threading.Event = field(default_factory=threading.Event)
    _own_temp: "tempfile.TemporaryDirectory[str] | None" = field(default=None, init=False)

    def temp_directory(self) -> Path:
        """Where previews go; made when it is first asked for."""
        if self.temp is not None:
            return self.temp.absolute()
        if self._own_temp is None:
            self._own_temp = tempfile.TemporaryDirectory(prefix="longtake-", ignore_cleanup_errors=True)
        return Path(self._own_temp.name)

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


def show_files(text: str, files: Sequence[Path]) -> None:  # noqa: ARG001  there is nowhere to show them
    """Say what a node has written, also where it does not come to its end."""
    log.info(text)


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
    return current().temp_directory()
