"""How much a cache may take on the disk, and what goes first: the entries that were not used for the longest."""

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

GB = 1e9  # bytes, as disks are sold


def used(path: Path) -> None:
    """Note that an entry was used just now."""
    with contextlib.suppress(OSError):  # deleted meanwhile, or on a disk that is only read
        os.utime(path)


def trim(folder: Path, most: float, spared: Collection[Path]) -> str:
    """Delete what was not used for the longest until the rest takes at most so much.

    Args:
        folder: of the cache, with all below it.
        most: GB; 0 for no limit.
        spared: entries that stay, whatever they take.

    Returns:
        A sentence about what was deleted, or that what stays takes more; empty for neither.
    """
    if not most:
        return ""
    entries = sorted(_entries(folder))
    total, gone, freed = sum(size for _, size, _ in entries), 0, 0
    for _, size, path in entries:
        if total - freed <= most * GB:
            break
        if path not in spared:
            path.unlink(missing_ok=True)
            gone, freed = gone + 1, freed + size
    left = (total - freed) / GB
    deleted = f"{gone} entries not used for the longest were deleted from it ({freed / GB:.3g} GB). " if gone else ""
    over = f"It takes {left:.3g} GB, all for these clips, more than cache_gb allows ({most:g}). " if left > most else ""
    return f"Cache: {deleted}{over}".strip() if gone or over else ""


def _entries(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """When each entry was used last, its bytes, and where it is."""
    for path in folder.glob("**/*.safetensors"):
        with contextlib.suppress(FileNotFoundError):  # another process tidies up too
            stat = path.stat()
            yield stat.st_mtime, stat.st_size, path
