"""Video files, read with PyAV when it is installed."""

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .footage import Footage, Unreadable, file_digest
from .video_index import index_of

VIDEO_ENDINGS = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".ogv", ".3gp"),
)


class VideoFile(Footage):
    """A video. Opening reads it through without decoding, where its container tells enough, and decodes its first and last frame.

    Args:
        path: of the file.
        every_frame: decode all of it now, so that damage in the middle is found before training.

    Raises:
        Unreadable: it is broken, cut short or no video, or PyAV is missing. One sentence.
    """

    kind = "video"

    def __init__(self, path: Path, *, every_frame: bool = False):
        self.path, self.name = path, path.name
        self.index = index_of(path, every_frame=every_frame)
        self.timing = self.index.timing
        _, first = next(self.index.numbered(path, 0))
        self.quarters = round(getattr(first, "rotation", 0) / 90) % 4
        self.height, self.width = (first.width, first.height) if self.quarters % 2 else (first.height, first.width)

    def pictures(self, indices: Sequence[int]) -> Iterator[Tensor]:
        wanted = deque(indices)
        frames = self.index.numbered(self.path, wanted[0]) if wanted else iter(())
        while wanted:
            number, frame = next(frames, (self.count, None))
            if number > wanted[0]:
                raise Unreadable(f"{self.name} is damaged: frame {wanted[0]} of {self.count} cannot be decoded")
            if number == wanted[0]:
                wanted.popleft()
                yield self._picture(frame)

    def digest(self) -> str:
        return file_digest([self.path])

    def _picture(self, frame: Any) -> Tensor:
        """``h w 3``, turned as the file says, which a phone does instead of turning its pixels."""
        pixels = np.rot90(frame.to_ndarray(format="rgb24"), self.quarters)
        return torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255
