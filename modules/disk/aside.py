"""Old files make room for new ones and are kept: in a folder of their own, with the date in its name."""

import time
from collections.abc import Sequence
from pathlib import Path

from .atomic import folder_to_disk, translated


def set_aside(paths: Sequence[Path], name: str) -> Path | None:
    """Move files that belong together into a new folder beside them, the last ones last.

    Args:
        paths: files or folders of one folder; those that are not there are passed over.
        name: of what they belong to, with which the folder's name begins.

    Returns:
        folder: where they are now; None where there were none.

    Raises:
        NotWritten: they cannot be moved.
    """
    there = [path for path in paths if path.exists()]
    if not there:
        return None
    with translated(there):
        folder = _new(there[0].parent, f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
        for path in there:
            path.rename(folder / path.name)
        for item in (folder, folder.parent):
            folder_to_disk(item)
    return folder


def _new(where: Path, name: str) -> Path:
    number = 1
    while True:
        folder = where / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder
