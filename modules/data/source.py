"""A clip that training can draw from: frames, the words for them, and how fast they go."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from .footage import Footage, Images, Unreadable
from .report import Report
from .timing import Timing, even


@dataclass(frozen=True)
class ClipSource:
    """A stretch of footage.

    Attributes:
        footage: where the frames come from.
        name: how reports call it.
        caption: the words for it; None when there are none.
        timing: when each frame of the stretch is shown.
        first: the stretch's first frame in the footage.
    """

    footage: Footage
    name: str
    caption: str | None
    timing: Timing
    first: int = 0

    @classmethod
    def of(
        cls, footage: Footage, name: str, caption: str | None = None, *, fps: float = 0.0, start: float = 0.0, end: float = 0.0
    ) -> "ClipSource":
        """A stretch between two times, each at the edge between two frames that is nearest.

        Args:
            footage: where the frames come from.
            name: how reports call it.
            caption: the words for it.
            fps: frames per second, where the footage's own times are wrong.
            start: in seconds.
            end: in seconds; 0 for the end of the footage.

        Raises:
            Unreadable: there is nothing between these times.
        """
        timing = even(footage.count, fps) if fps else footage.timing
        first, stop = timing.between(start, end or timing.end)
        if first >= stop:
            raise Unreadable(f"there is no frame from {start:g} s to {end or timing.end:g} s: it ends at {timing.end:.2f} s")
        return cls(footage, name, caption, timing.part(first, stop), first)

    @property
    def count(self) -> int:
        """Frames of the stretch."""
        return self.timing.count

    @property
    def fps(self) -> float:
        """Frames per second, as most of them follow each other."""
        return self.timing.fps

    @cached_property
    def key(self) -> str:
        """A text that differs where the frames differ, and is the same wherever the file lies and whatever it is called.

        Raises:
            Unreadable: the file is gone.
        """
        return hashlib.sha256(f"{self.footage.digest()} {self.first} {self.count}".encode()).hexdigest()

    def pictures(self, indices: Sequence[int]) -> Iterator[Tensor]:
        """The frames of these numbers, which rise, each ``h w 3`` in 0..1; no other is held in memory.

        Raises:
            Unreadable: one of them cannot be had.
        """
        return self.footage.pictures([self.first + index for index in indices])

    def marked(self, indices: Sequence[int]) -> Iterator[Tensor] | None:
        """Which pixels of these frames training should look at most, ``h w`` each in 0..1; None where that is not known."""
        return self.footage.marked([self.first + index for index in indices])

    def frames(self, indices: Sequence[int]) -> Tensor:
        """The frames of these numbers, in any order, each as often as it is named. Returns ``f h w 3`` in 0..1.

        Raises:
            Unreadable: one of them cannot be had.
        """
        needed = sorted(set(indices))
        pictures = dict(zip(needed, self.pictures(needed), strict=True))
        return torch.stack([pictures[index] for index in indices])


@dataclass
class Found:
    """What a search gave: the clips in their order, and an account of it."""

    sources: list[ClipSource]
    report: Report = field(default_factory=Report)

    def and_then(self, other: "Found") -> "Found":
        """Both, one after the other."""
        return Found([*self.sources, *other.sources], self.report.with_more(other.report))


def from_images(images: Tensor, caption: str, fps: float, name: str = "images") -> Found:
    """Frames from a graph as one clip.

    Args:
        images: ``f h w c`` in 0..1.
        caption: the words for it; empty for none.
        fps: frames per second.
        name: how reports call it.

    Raises:
        ValueError: they are no clip.
    """
    source = ClipSource.of(Images(images, fps, name), name, caption.strip() or None)
    return Found([source], Report(found=1))


def read_text(path: Path) -> str:
    """The words in a text file, on one line.

    Raises:
        Unreadable: it is in no encoding of Unicode's.
    """
    content = path.read_bytes()
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))  # what Windows calls Unicode
    try:
        return " ".join(content.decode("utf-16" if wide else "utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise Unreadable(f"its caption {path.name} is no UTF-8 text: save it as UTF-8") from error
