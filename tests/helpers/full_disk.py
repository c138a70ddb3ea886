"""A disk on which nothing larger fits: the system itself refuses to write on."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """While open, no file of this process can become larger than ``size`` bytes."""
    resource = pytest.importorskip("resource", reason="this system cannot limit the size of files")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def small_tmpfs(folder: Path, size: str) -> Iterator[Callable[[str], object]]:
    """While open, ``folder`` is a file system of its own of that ``size``, such as ``"100k"``; gives what makes it another size."""
    folder.mkdir(parents=True)
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True, capture_output=True)
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("no tmpfs can be mounted here: run as root, or under unshare -rm")
    try:
        yield lambda other: subprocess.run(["mount", "-o", f"remount,size={other}", folder], check=True)
    finally:
        subprocess.run(["umount", folder], check=True)
