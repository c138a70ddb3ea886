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

from .aside import set_aside
from .atomic import ENDING, whole_files
from .file_names import check_name
from .past_files import PastFiles
from .state import state_before
from .take_file import parts_named, past_of

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
        """What the take goes on from."""
        return self.folder / f"{self.prefix}.state.safetensors"

    @property
    def open_state(self) -> Path:
        """What the take goes on from when it is made longer: the last state that knows nothing of its end."""
        return self.folder / f"{self.prefix}.open.safetensors"

    @property
    def past(self) -> PastFiles:
        """What a causal model remembers, which the states name."""
        return past_of(self.state)

    @property
    def lock(self) -> Path:
        """Held by whoever makes the take."""
        return self.folder / f".{self.prefix}.lock"

    def path(self, frame: int) -> Path:
        """The file of a frame, or of the batch that begins with it."""
        return self.folder / f"{self.prefix}_{frame:05}.{self.format}"

    def write(self, first: int, pictures: Tensor) -> None:
        """Write frames from number ``first`` on, together: ``pictures``: ``f h w c`` in 0..1.

        Raises:
            NotWritten: none of them could be.
        """
        with whole_files() as draft:
            if self.format == "mp4":
                assert self.mp4 is not None
                draft(self.path(first)).write_bytes(self.mp4(pictures, self.fps))
                return
            for number, picture in enumerate(pictures, start=first):
                draft(self.path(number)).write_bytes(encoded(picture, self.format))

    def lost(self, batch: range) -> list[int]:
        """Which frames of those that were written together have no file that is whole, by the numbers that their files are named by."""
        return [frame for frame in self.named(batch) if not whole(self.path(frame), self.format)]

    def named(self, batch: range) -> range:
        """The numbers that the files of frames which were written together are named by."""
        return batch[:1] if self.format == "mp4" else batch

    def all(self) -> list[Path]:
        """All files of a take with this name: frames of any format, and then what it goes on from."""
        name = re.compile(re.escape(self.prefix) + r"_\d{5,}\.(" + "|".join(FORMATS) + ")")
        states = [self.past.folder, state_before(self.state), self.open_state, state_before(self.open_state), self.state]
        return [path for path in self._there() if name.fullmatch(path.name)] + [path for path in states if path.exists()]

    def newest(self, batch: int) -> list[Path]:
        """The files of the last frames, as many as a batch of ``batch`` frames."""
        frames = [path for path in self.all() if path.suffix == f".{self.format}"]
        return sorted(frames, key=lambda path: (len(path.name), path.name))[-(1 if self.format == "mp4" else batch) :]

    def set_aside(self) -> Path | None:
        """Move an earlier take with this name to a folder of its own, from which it can be gone on with. Gives the folder."""
        return set_aside(self.all(), self.prefix)

    def sweep(self) -> None:
        """Remove what a killed run left half-written, and parts of the past that no state names; whoever calls this holds the lock."""
        name = rf"\.{re.escape(self.prefix)}(_\d{{5,}}\.\w+|\.(state|open)\.safetensors)\.[^.]+{re.escape(ENDING)}"
        for path in self._there():
            if re.fullmatch(name, path.name):
                path.unlink(missing_ok=True)
        self.keep_past()

    def keep_past(self) -> None:
        """Remove what no state names any more."""
        if self.past.folder.is_dir():
            self.past.keep(parts_named(self.state) | parts_named(self.open_state))

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


def _ends_png(content: bytes) -> bool:
    return content.startswith(b"\x89PNG") and content.endswith(b"IEND\xaeB`\x82")


def _ends_webp(content: bytes) -> bool:
    return content.startswith(b"RIFF") and int.from_bytes(content[4:8], "little") + 8 == len(content)


def _ends_mp4(content: bytes) -> bool:
    """Whether its boxes fill the file, and the one without which nothing plays is among them."""
    place, names = 0, []
    while 0 <= place <= len(content) - 8:
        names.append(content[place + 4 : place + 8])
        place += max(8, int.from_bytes(content[place : place + 4], "big"))
    return place == len(content) and b"moov" in names


FORMATS: dict[str, Callable[[bytes], bool]] = {"png": _ends_png, "webp": _ends_webp, "mp4": _ends_mp4}  # whether a file is whole


def whole(path: Path, format: str) -> bool:
    """Whether there is such a file, and all of it: not what a disk that failed has left."""
    try:
        return FORMATS[format](path.read_bytes())
    except FileNotFoundError:
        return False
