"""Files that are whole or not there, whatever stops the process or the machine.

A file is written under another name, brought to the disk (``fsync``), renamed, and its folder brought to the disk: until then the file
that was there before stands. What a killed process leaves under such other names is ``leftovers``.
"""

import errno
import glob
import os
import secrets
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ENDING = ".partial"
MAKE_ROOM, OTHER_FOLDER = "make room", "choose another folder"
REMEDIES = {
    errno.ENOSPC: MAKE_ROOM,
    errno.EDQUOT: MAKE_ROOM,
    errno.EFBIG: MAKE_ROOM,
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EACCES: OTHER_FOLDER,
    errno.EPERM: OTHER_FOLDER,
    errno.EROFS: OTHER_FOLDER,
    errno.ENOLCK: OTHER_FOLDER,
    errno.ENOTSUP: OTHER_FOLDER,
}
NOT_FOR_FOLDERS = (errno.EINVAL, errno.ENOTSUP)  # what file systems answer that keep names without being asked


class NotWritten(ValueError):
    """A file could not be written; what was there before is as it was.

    Args:
        sentence: what happened.
        full: whether it is room that is lacking.
    """

    def __init__(self, sentence: str, full: bool = False):
        super().__init__(sentence)
        self.full = full


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``: what is written there gets the final name at the end, or vanishes.

    Args:
        path: of the file; its folder is made if need be.

    Raises:
        NotWritten: the disk is full, the folder cannot be written to, and so on: one sentence with what to do.
    """
    with whole_files() as draft:
        yield draft(path)


@contextmanager
def whole_files() -> Iterator[Callable[[Path], Path]]:
    """Several files at once: gives every final path a temporary one beside it; they get their names in order at the end, or all vanish.

    Raises:
        NotWritten: see ``replacing``.

    >>> with whole_files() as draft:  # doctest: +SKIP
    ...     draft(Path("a.png")).write_bytes(b"...")
    """
    drafts: dict[Path, Path] = {}

    def draft(path: Path) -> Path:
        make_folder(path.parent)
        drafts[path] = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{ENDING}")
        return drafts[path]

    try:
        with translated(drafts):
            yield draft
            for partial in drafts.values():
                file_to_disk(partial)
            for path, partial in drafts.items():
                partial.replace(path)
            for folder in dict.fromkeys(path.parent for path in drafts):
                folder_to_disk(folder)
    finally:
        for partial in drafts.values():
            with suppress(OSError):  # whatever kept it from being written has been said, or is being said
                partial.unlink()


def append(path: Path, text: str) -> None:
    """Write more at the end of a text file, in one piece: after a kill it is there or, at the very end of the file, cut short.

    Raises:
        NotWritten: see ``replacing``.
    """
    with translated([path]):
        make_folder(path.parent)
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write(text)


def leftovers(path: Path) -> list[Path]:
    """Temporary files of ``path`` that lie beside it: of a process that was killed, or of one that is writing now."""
    found = path.parent.glob(f".{glob.escape(path.name)}.*{ENDING}")
    return sorted(
        item for item in found if "." not in item.name[len(path.name) + 2 : -len(ENDING)]
    )  # or it is that of a longer name


def make_folder(folder: Path) -> None:
    """Make a folder with all above it, so that it is there after a crash, too.

    Raises:
        OSError: it cannot be made.
    """
    new = [item for item in (folder, *folder.parents) if not item.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for item in reversed(new):
        folder_to_disk(item.parent)


def file_to_disk(path: Path) -> None:
    """Return when the file's contents would survive a loss of power."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def folder_to_disk(folder: Path) -> None:
    """Return when the names in the folder would survive a loss of power."""
    if os.name == "nt":
        return  # folders cannot be opened there, and NTFS writes renames to its journal
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NOT_FOR_FOLDERS:
            raise
    finally:
        os.close(handle)


@contextmanager
def translated(paths: Collection[Path]) -> Iterator[None]:
    """Make one sentence of what the system says while ``paths`` are written.

    Raises:
        NotWritten: instead of an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        there = any(os.path.exists(path) for path in paths)  # noqa: PTH110  Path.exists raises for names that are too long
        kept = "what was there before is kept" if there else "there was none before"
        remedy = REMEDIES.get(error.errno or 0, "look after the disk, or choose another folder")
        first = next(iter(paths), "a file")
        sentence = f"{first} cannot be written ({error.strerror or error}); {kept}: {remedy} and try again"
        raise NotWritten(sentence, full=remedy == MAKE_ROOM) from error
