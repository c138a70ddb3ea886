"""Where frames come from: the base of the four readers, and the one for frames that are in memory already.

A reader tells how many frames there are and gives those that are asked for, one at a time, so that a long video in high resolution
never lies in memory as a whole. To add one, write a class like these and name it where ``find.py`` opens files.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from .timing import Timing, even

CHUNK = 1 << 20


class Unreadable(ValueError):
    """A file cannot be read, or not as far as was asked; says why."""


class Footage(ABC):
    """Frames of one size.

    Attributes:
        kind: what it is, in a word for reports.
        name: how sentences call it.
        timing: when each frame is shown, and with that how many there are.
        height, width: of a frame, in pixels, as it is looked at.
        notes: what a user should know of it, as sentences that begin with "it".
    """

    kind: ClassVar[str]
    name: str
    timing: Timing
    height: int
    width: int
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Frames in all, exactly."""
        return self.timing.count

    @property
    def fps(self) -> float:
        """Frames per second, as most of them follow each other."""
        return self.timing.fps

    @abstractmethod
    def pictures(self, indices: Sequence[int]) -> Iterator[Tensor]:
        """The frames of these numbers, which rise, each ``h w 3`` in 0..1.

        Raises:
            Unreadable: one of them cannot be had.
        """

    def marked(self, indices: Sequence[int]) -> Iterator[Tensor] | None:  # noqa: ARG002  most footage does not know
        """Which pixels of these frames training should look at most, ``h w`` each in 0..1; None where that is not known."""
        return None

    def otherwise(self) -> "Footage | None":
        """The same with something else in it than its words say, for training to trust the words; None where nobody knows how."""
        return None

    @abstractmethod
    def digest(self) -> str:
        """A text that differs where the frames differ; of files, SHA-256 of what is in them, wherever they lie."""


class Images(Footage):
    """Frames in memory.

    Args:
        images: ``f h w c`` in 0..1; what is beyond three channels is left away.
        fps: frames per second.
        name: how sentences call it.
    """

    kind = "images"

    def __init__(self, images: Tensor, fps: float, name: str = "images"):
        if images.ndim != 4 or not len(images) or images.shape[-1] not in (1, 3, 4):
            raise ValueError(
                f"a clip is made of frames, height, width and 1, 3 or 4 colours: this has the shape {list(images.shape)}"
            )
        if not (fps > 0 and torch.isfinite(images).all()):
            raise ValueError(f"{name} cannot be a clip: its frame rate ({fps:g}) must be above 0 and its pixels ordinary numbers")
        self.images, self.name, self.timing = images, name, even(len(images), fps)
        self.height, self.width = images.shape[1:3]

    def pictures(self, indices: Sequence[int]) -> Iterator[Tensor]:
        for index in indices:
            yield self.images[index, ..., :3].float().clamp(0, 1).expand(-1, -1, 3)

    def digest(self) -> str:
        whole = hashlib.sha256(f"images {list(self.images.shape)}".encode())
        for image in self.images.detach():  # one at a time: they may be many
            whole.update(image.float().cpu().contiguous().numpy().tobytes())
        return whole.hexdigest()


def file_digest(paths: Sequence[Path]) -> str:
    """SHA-256 of what is in the files, in this order.

    Raises:
        Unreadable: one is gone.
    """
    whole = hashlib.sha256()
    for path in paths:
        content = hashlib.sha256()
        try:
            with path.open("rb") as file:
                while block := file.read(CHUNK):
                    content.update(block)
        except OSError as error:
            raise Unreadable(f"{path.name} can no longer be read ({error.strerror})") from error
        whole.update(content.digest())
    return whole.hexdigest()
