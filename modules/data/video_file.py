"""Video files, read with PyAV when it is installed."""

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from .displayed import View
from .footage import Footage, Unreadable, file_digest
from .video_scan import index_of

VIDEO_ENDINGS = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".ogv", ".3gp"),
)


class VideoFile(Footage):
    """A video. Opening reads it through without decoding, where its container tells enough, and decodes its first and last frame.

    Args:
        path: of the file.
        every_frame: decode all of it now, so that damage in the middle is found before training.

    Raises:
        Unreadable: it is broken or no video, or PyAV is missing. One sentence.
    """

    kind = "video"

    def __init__(self, path: Path, *, every_frame: bool = False):
        self.path, self.name = path, path.name
        self.index = index_of(path, every_frame=every_frame)
        self.timing, self.display, self.notes = self.index.timing, self.index.display, self.index.notes
        self.height, self.width = self.display.height, self.display.width

    def pictures(self, indices: Sequence[int]) -> Iterator[Tensor]:
        wanted, view = deque(indices), View(self.display)
        frames = self.index.numbered(self.path, wanted[0]) if wanted else iter(())
        while wanted:
            number, frame, sound = next(frames, (self.count, None, False))
            if number > wanted[0] or (number == wanted[0] and not sound):
                near = self.timing.times[wanted[0]]
                raise Unreadable(f"{self.name} is damaged: frame {wanted[0]} of {self.count}, at {near:.2f} s, cannot be decoded")
            if number == wanted[0]:
                wanted.popleft()
                yield view.picture(frame)

    def digest(self) -> str:
        return file_digest([self.path])
