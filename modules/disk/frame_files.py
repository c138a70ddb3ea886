"""Frames as files, as they come: a picture per frame, or a piece of video per batch. No file is ever half-written.

Files are named by the number of their first frame, so a frame that is made again has the file it had before.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from .atomic import whole_files
from .file_names import check_name
from .state import state_before

FORMATS = ("png", "webp", "mp4")
Mp4 = Callable[[Tensor, float], bytes]  # frames ``f h w c`` in 0..1 and their rate -> a whole file


@dataclass(frozen=True)
class FrameFiles:
    """The files of one take.

    Attributes:
        folder: where they are.
        prefix: of their names.
        format: a name in ``FORMATS``; webp is without loss.
        fps: of mp4.
        mp4: makes such files.
    """

    folder: Path
    prefix: str
    format: str = "png"
    fps: float = 12.0
    mp4: Mp4 | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"the format {self.format!r} is not offered: choose one of {', '.join(FORMATS)}")
        check_name(self.prefix, "file name prefix")

    @property
    def state(self) -> Path:
        """The file that the take goes on from."""
        return self.folder / f"{self.prefix}.state.safetensors"

    def path(self, frame: int) -> Path:
        """The file of a frame, or of the batch that begins with it."""
        return self.folder / f"{self.prefix}_{frame:05}.{self.format}"

    def write(self, first: int, pictures: Tensor) -> None:
        """Write frames from number ``first`` on: ``pictures``: ``f h w c`` in 0..1."""
        with whole_files() as draft:
            if self.format == "mp4":
                assert self.mp4 is not None
                draft(self.path(first)).write_bytes(self.mp4(pictures, self.fps))
                return
            for number, picture in enumerate(pictures, start=first):
                draft(self.path(number)).write_bytes(encoded(picture, self.format))

    def missing(self, written: int, batch: int) -> int | None:
        """The first of the frames below ``written`` that has no file; None if all have."""
        there = {path.name for path in self.all()}
        each = batch if self.format == "mp4" else 1
        return next((frame for frame in range(0, written, each) if self.path(frame).name not in there), None)

    def all(self) -> list[Path]:
        """All frames of a take with this name, of any format."""
        name = re.compile(re.escape(self.prefix) + r"_\d{5,}\.(" + "|".join(FORMATS) + ")")
        return [path for path in self._there() if name.fullmatch(path.name)]

    def clear(self) -> None:
        """Remove an earlier take with this name."""
        for path in (*self.all(), self.state, state_before(self.state)):
            path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what a killed run left half-written."""
        for path in self._there():
            if path.name.startswith(f".{self.prefix}") and path.suffix == ".partial":
                path.unlink(missing_ok=True)

    def _there(self) -> list[Path]:
        return sorted(self.folder.iterdir()) if self.folder.is_dir() else []


def encoded(picture: Tensor, format: str) -> bytes:
    """A frame as the contents of a file, eight bits per colour, rounded down as ComfyUI does: ``picture``: ``h w c`` in 0..1."""
    pixels = (picture.detach().float().cpu() * 255).clamp(0, 255).to(torch.uint8).numpy()
    buffer = BytesIO()
    if format == "png":
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=4)
    else:
        Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, quality=80)
    return buffer.getvalue()
