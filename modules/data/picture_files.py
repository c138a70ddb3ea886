"""Animations and sequences of pictures, read with Pillow: always there, and exact to the pixel."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from .footage import Footage, Unreadable, file_digest
from .timing import Timing, even

PICTURE_ENDINGS = (".png", ".apng", ".gif", ".webp", ".avif", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
ANIMATED_FORMATS = ("GIF", "WEBP", "PNG", "AVIF", "TIFF")  # a phone's JPEG may hold two views, which are no animation
PHOTOGRAPHS, ORIENTATION = ("JPEG", "MPO", "TIFF"), 0x0112
QUICKEST, UNTIMED = 10.0, 100.0  # milliseconds: what says to be shown so long or less is shown so long, as browsers have it
# what Pillow raises for broken files, by format; its bomb error is none of the others
BROKEN = (OSError, EOFError, SyntaxError, ValueError, IndexError, TypeError, Image.DecompressionBombError)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The file; whatever Pillow says of a broken one becomes one sentence."""
    try:
        with Image.open(path) as image:
            yield image
    except Unreadable:
        raise
    except BROKEN as error:
        reason = "no picture, or of a kind that is not known" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise Unreadable(f"{path.name} cannot be read: it is damaged or cut short ({reason})") from error


def flat(image: Image.Image) -> Tensor:
    """A picture's colours; where it is transparent, on black. Returns ``h w 3`` in 0..1."""
    if image.mode.startswith("I"):  # 16 bits
        return torch.from_numpy(np.asarray(image, dtype=np.float32) / 65535).clamp(0, 1)[..., None].expand(-1, -1, 3)
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, (0, 0, 0, 255)), seen)
    return torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 255)


def looks(path: Path) -> str:
    """What a picture file is at a glance: ``moving``, ``still`` or ``broken``."""
    try:
        with _opened(path) as image:
            moving = image.format in ANIMATED_FORMATS and (image.format == "GIF" or getattr(image, "n_frames", 1) > 1)
            return "moving" if moving else "still"
    except Unreadable:
        return "broken"


def turned(image: Image.Image) -> Image.Image:
    """A photograph as it is to be looked at. Other formats are not asked: some must be decoded whole to tell."""
    return ImageOps.exif_transpose(image) if image.format in PHOTOGRAPHS else image


class Animation(Footage):
    """A GIF, WebP, APNG, AVIF or a TIFF of several pages. All its frames are decoded once, when it is opened.

    Raises:
        Unreadable: it is broken. One sentence.
    """

    kind = "animation"

    def __init__(self, path: Path):
        self.path, self.name = path, path.name
        shown = []
        with _opened(path) as image:
            self.first = int(getattr(image, "default_image", False))  # of a PNG, for those who show no animations
            self.width, self.height = image.size
            for number in range(self.first, getattr(image, "n_frames", 1)):
                image.seek(number)
                image.load()
                told = float(image.info.get("duration") or 0)
                shown.append((told if told > QUICKEST else UNTIMED) / 1000)
        ends = np.cumsum(shown)
        self.timing = Timing(np.concatenate([[0.0], ends[:-1]]), float(ends[-1]))

    def pictures(self, indices: Sequence[int]) -> Iterator[Tensor]:
        with _opened(self.path) as image:
            for index in indices:
                image.seek(self.first + index)
                yield flat(image)

    def digest(self) -> str:
        return file_digest([self.path])


class Pictures(Footage):
    """A sequence of pictures, or one alone. Sizes are read when it is opened, and the first and the last picture whole.

    Args:
        files: in their order, at least one.
        fps: frames per second, which pictures do not tell.
        name: how sentences call it.
        every_frame: read all of them whole now.

    Raises:
        Unreadable: one is broken, or they differ in size. One sentence.
    """

    kind = "pictures"

    def __init__(self, files: Sequence[Path], fps: float, name: str, *, every_frame: bool = False):
        self.files, self.name, self.timing = list(files), name, even(len(files), fps)
        sizes = [self._size(path) for path in self.files]
        self.width, self.height = sizes[0]
        other = next((number for number, size in enumerate(sizes) if size != sizes[0]), None)
        if other is not None:
            raise Unreadable(
                f"its pictures differ in size: {self.files[0].name} is {self.width}x{self.height} and {self.files[other].name} is"
                f" {sizes[other][0]}x{sizes[other][1]}, and a clip has one size"
            )
        for _ in self.pictures(range(self.count) if every_frame else sorted({0, self.count - 1})):
            pass

    @staticmethod
    def _size(path: Path) -> tuple[int, int]:
        with _opened(path) as image:
            sideways = image.format in PHOTOGRAPHS and image.getexif().get(ORIENTATION, 1) >= 5
            return (image.height, image.width) if sideways else image.size

    def pictures(self, indices: Sequence[int]) -> Iterator[Tensor]:
        for index in indices:
            with _opened(self.files[index]) as image:
                picture = flat(turned(image))
            yield picture

    def digest(self) -> str:
        return file_digest(self.files)
