"""Tensors on disk, by what they were made from.

An entry's name is the SHA-256 of what it was made from and of who made it, so a changed frame, setting or VAE never meets an old entry.
An entry is written under another name, brought to the disk, and renamed: a process that is killed, or a machine that loses power, leaves
no half of one under a name that is looked for. What cannot be read all the same is made anew.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor

from ..disk.file_names import check_writable
from ..disk.state import load_sealed, save_sealed
from .cache_limit import used

ABOUT = "longtake_cache"
ABANDONED = 24 * 3600  # seconds after which a half-written file is nobody's
Tensors = dict[str, Tensor]


class TensorCache:
    """Tensors by a key, kept in a folder.

    Args:
        folder: where; made if it is not there.
        maker: what an entry depends on beside its key, such as ``weights_key`` of the VAE and the size of its tiles.

    Attributes:
        hits, misses, damaged: what happened so far; a damaged entry is a miss too.
        used: the entries that were read or written.

    Raises:
        ValueError: nothing can be written there.
    """

    def __init__(self, folder: Path, maker: str):
        self.folder, self.maker = folder, maker
        self.hits = self.misses = self.damaged = 0
        self.used: set[Path] = set()
        self._lock = Lock()
        check_writable(folder)
        for path in folder.glob("*/.*.partial"):
            with contextlib.suppress(FileNotFoundError):  # another process tidies up too
                if time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()

    def get(self, key: str, make: Callable[[], Tensors]) -> Tensors:
        """What was made for this key, from the disk if it is there.

        Args:
            key: what it is made from.
            make: makes it.

        Raises:
            ValueError: what was made has numbers that are not finite; it is not kept.
        """
        known = self.find(key)
        return self.keep(key, make()) if known is None else known

    def find(self, key: str) -> Tensors | None:
        """What was made for this key, if it is on the disk; may be called from any thread."""
        known = self._read(key)
        with self._lock:
            self.hits, self.misses = self.hits + (known is not None), self.misses + (known is None)
        return known

    def keep(self, key: str, made: Tensors) -> Tensors:
        """Write what was made for a key.

        Raises:
            ValueError: it has numbers that are not finite; it is not kept.
        """
        made = {name: value.detach().cpu().contiguous() for name, value in made.items()}
        check_finite(made)
        path = self._path(key)
        save_sealed(path, ABOUT, [self.maker, key], made)
        self.used.add(path)
        return made

    def holds(self, key: str) -> bool:
        """Whether there is an entry, which may still prove damaged."""
        return self._path(key).is_file()

    def text(self) -> str:
        """What happened so far."""
        damaged = f", {self.damaged} of them damaged" if self.damaged else ""
        return f"{self.hits} read from {self.folder}, {self.misses} made{damaged}"

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(json.dumps([self.maker, key]).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"

    def _read(self, key: str) -> Tensors | None:
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            entry = load_sealed(path, ABOUT, "cache entry")
            if entry.about == [self.maker, key]:
                check_finite(entry.tensors)
                used(path)
                self.used.add(path)
                return entry.tensors
        except ValueError:
            pass  # made anew, as one that says it is another's, or whose numbers are none
        with self._lock:
            self.damaged += 1
        return None


def check_finite(made: Tensors) -> None:
    """Refuse what training would go wrong with, steps later and with another reason.

    Raises:
        ValueError: there are numbers that are not finite.
    """
    strange = [name for name, value in made.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if strange:
        raise ValueError(f"the {strange[0]} came out with numbers that are not finite: run the model that makes them in float32")
