"""A clip before it is read, and after."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from .motion_strength import motion_strength
from .sizes import Box, Size
from .source import ClipSource


@dataclass(frozen=True)
class Take:
    """A clip before it is read: everything that was drawn for it.

    Attributes:
        source: number of the source.
        indices: frames of the source.
        box: what is kept of each.
        size: what that becomes.
        flipped: whether it is mirrored.
        caption: the words for it.
        fps: frames per second of the clip.
    """

    source: int
    indices: tuple[int, ...]
    box: Box
    size: Size
    flipped: bool
    caption: str
    fps: float


@dataclass(frozen=True)
class Clip:
    """A clip as a trainer wants it.

    Attributes:
        pixels: ``f c h w`` in -1..1.
        source: what it was cut from.
        take: how.
        marked: ``f 1 h w`` in 0..1, which pixels training should look at most; None where that is not known.
    """

    pixels: Tensor
    source: ClipSource
    take: Take
    marked: Tensor | None = None

    @property
    def caption(self) -> str:
        """The words for it."""
        return self.take.caption

    @property
    def fps(self) -> float:
        """Frames per second of the clip, which are those of the source divided by the stride."""
        return self.take.fps

    @property
    def flipped(self) -> bool:
        """Whether it is mirrored."""
        return self.take.flipped

    @cached_property
    def motion(self) -> float:
        """How much moves, in pixels per frame; measured when it is first asked for."""
        return motion_strength(self.pixels)


@dataclass(frozen=True)
class ClipBatch:
    """Clips of one size.

    Attributes:
        pixels: ``b f c h w`` in -1..1.
        clips: each of them.
    """

    pixels: Tensor
    clips: tuple[Clip, ...]

    @property
    def captions(self) -> list[str]:
        """The words for each."""
        return [clip.caption for clip in self.clips]
