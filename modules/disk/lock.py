"""One writer at a time: whoever makes a take or trains a run holds its lock, and a second one is told who does.

The operating system holds the lock for as long as the process lives, so a killed process leaves a file and no lock: it is taken over.
"""

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .atomic import make_folder, translated

if os.name == "nt":
    import msvcrt

    FAR = 2**30  # the byte that is locked: one that is cannot be read, and the owner's name is to be

    def _take(file: BinaryIO) -> None:
        file.seek(FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _take(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


HELD = (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)  # what systems say of a lock that somebody has
_mine: set[BinaryIO] = set()


class Taken(ValueError):
    """Somebody else is writing there."""


@contextmanager
def owned(path: Path, what: str) -> Iterator[None]:
    """Hold a lock while open.

    Args:
        path: of the lock's file, which names its owner; gone afterwards.
        what: is being written, for the sentence.

    Raises:
        Taken: another process, or another thread of this one, is writing it now.
        NotWritten: the folder cannot be written to, or its file system has no locks.
    """
    with translated([path]):
        make_folder(path.parent)
        file = _taken(path, what)
        while not _is(file, path):  # its last owner removed it in between: whoever comes next would make another
            file.close()
            file = _taken(path, what)
        file.truncate(0)
        owner = {"process": os.getpid(), "computer": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        file.write(json.dumps(owner).encode())
        file.flush()
    _mine.add(file)
    try:
        yield
    finally:
        _mine.discard(file)
        if os.name == "nt":
            file.close()  # what is open cannot be removed there
        with suppress(OSError):  # a file that stays is no lock
            path.unlink()
        file.close()


def _taken(path: Path, what: str) -> BinaryIO:
    file = path.open("a+b")
    try:
        _take(file)
    except OSError as error:
        file.seek(0)
        owner = _named(file.read(1000))
        file.close()
        if error.errno not in HELD:
            raise
        raise Taken(f"{what} is being written by {owner}: wait until it is done, stop it, or give another name") from error
    return file


def _is(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _named(owner: bytes) -> str:
    try:
        said = json.loads(owner)
        return f"process {said['process']} on {said['computer']} since {said['since']}"
    except (ValueError, TypeError, KeyError):
        return "another process"  # which has not said its name yet


def _in_child() -> None:
    """A forked process, such as one that reads clips, has no part in its parent's locks, which would outlive the parent in it."""
    for file in _mine:
        os.close(file.fileno())
    _mine.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
