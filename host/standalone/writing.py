"""Numbering files as ComfyUI does."""

import os
import re
import time
from pathlib import Path


def _fill_in(prefix: str, width: int, height: int) -> str:
    now = time.localtime()
    names = {
        "width": str(width),
        "height": str(height),
        "year": str(now.tm_year),
        "month": f"{now.tm_mon:02}",
        "day": f"{now.tm_mday:02}",
        "hour": f"{now.tm_hour:02}",
        "minute": f"{now.tm_min:02}",
        "second": f"{now.tm_sec:02}",
    }
    return re.sub(r"%(\w+)%", lambda match: names.get(match[1], match[0]), prefix)


def next_name(prefix: str, directory: Path, width: int, height: int) -> tuple[Path, int]:
    """The file name, without its number, and the first number that is free.

    Args:
        prefix: may hold folders, and ``%width%``, ``%height%``, ``%year%`` to ``%second%``.
        directory: the folder that the prefix is relative to.
        width: of the pictures.
        height: of the pictures.

    Raises:
        ValueError: the prefix leads out of the directory, or names no file.
    """
    filled = _fill_in(prefix, width, height)
    path = Path(os.path.normpath(directory / filled))
    if not filled.strip() or filled.endswith(("/", os.sep)) or Path(os.path.normpath(directory)) not in path.parents:
        raise ValueError(
            f"the file name prefix {prefix!r} is no file below {directory}: use a plain name, after folders if need be"
        )
    pattern = re.compile(re.escape(path.name) + r"_(\d+)(?:[_.]|$)", re.IGNORECASE if os.name == "nt" else 0)
    there = path.parent.iterdir() if path.parent.is_dir() else ()
    taken = [int(match[1]) for match in (pattern.match(item.name) for item in there) if match]
    return path, max(taken, default=0) + 1


def numbered(path: Path, number: int, ending: str) -> Path:
    """The file of one number.

    >>> numbered(Path("out/clip"), 3, "png").name
    'clip_00003_.png'
    """
    return path.with_name(f"{path.name}_{number:05}_.{ending}")
