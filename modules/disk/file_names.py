"""What a file may be called and where it may lie, found out before hours of work."""

import os
import threading
from pathlib import Path


def check_name(name: str, what: str = "name") -> None:
    """Refuse a name that files cannot have everywhere; ``what`` it is, for the sentence.

    Raises:
        ValueError: it is empty, has marks that a file system keeps for itself, or would be hidden.
    """
    if not name or any(mark in name for mark in '/\\:*?"<>|') or name.startswith("."):
        raise ValueError(f"the {what} {name!r} cannot be a file name: use letters, digits, - and _")


def check_writable(folder: Path) -> None:
    """Make a folder, and refuse one that cannot be written to, now and not after hours of work.

    Raises:
        ValueError: why.
    """
    probe = folder / f".{os.getpid()}.{threading.get_ident()}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ValueError(f"nothing can be written to {folder} ({error.strerror}): give another folder") from error
