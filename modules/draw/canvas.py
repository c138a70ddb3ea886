"""A sheet of paper that pictures are drawn on: its colours, text, pixels, numbers of frames; an IMAGE in the end."""

from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

PAPER, EMPTY, TEXT = (24, 26, 30), (44, 47, 54), "#d8d8d8"  # web/drawing.js has the same
INKS = ((64, 200, 190), (245, 170, 70), (170, 150, 250))  # neighbours differ, also where they only touch
TICK, NUMBER = 5, 19  # pixels above a strip at which a tick and its number begin


class Canvas:
    """A sheet of ``width`` by ``height`` pixels, dark with light text unless told otherwise."""

    def __init__(self, width: int, height: int, *, paper: Any = PAPER, ink: Any = TEXT):
        self.sheet = Image.new("RGB", (width, height), paper)
        self.draw = ImageDraw.Draw(self.sheet)
        self.ink = ink

    def text(self, x: float, y: float, text: str, align: Literal["left", "middle", "right"] = "left", ink: Any = None) -> None:
        """Write a line: ``x`` is where it begins, has its middle, or ends; ``y`` is its top."""
        part = {"left": 0.0, "middle": 0.5, "right": 1.0}[align]
        self.draw.text((x - part * self.draw.textlength(text), y), text, fill=ink or self.ink)

    def paste(self, pixels: Any, x: int, y: int) -> None:
        """Put pixels with their upper left corner there: a picture of Pillow's, bytes ``h w 3``, or a tensor ``h w 3`` in 0..1."""
        if isinstance(pixels, Tensor):
            pixels = (pixels * 255).round().byte().cpu().numpy()
        self.sheet.paste(Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels, (x, y))

    def frame_numbers(self, frames: int, left: int, width: int, top: int) -> None:
        """Ticks and numbers above a strip that begins at ``left``, ``top`` and shows so many frames."""
        for frame in ticks(frames, width):
            x = left + middle(frame, frames, width)
            self.draw.line((x, top - TICK, x, top - 2), fill=self.ink)
            self.text(x, top - NUMBER, str(frame), "middle")

    def image(self) -> Tensor:
        """The sheet as it is now. Returns ``1 h w 3`` in 0..1."""
        return torch.from_numpy(np.asarray(self.sheet).astype(np.float32) / 255)[None]


def middle(place: int, count: int, length: int) -> int:
    """The pixel in the middle of one of ``count`` equal parts of so many pixels."""
    return (2 * place + 1) * length // (2 * count)


def ticks(count: int, length: int) -> list[int]:
    """Places to write the numbers of, round ones and about 40 pixels apart.

    >>> ticks(160, 1200)
    [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150]
    """
    least = 40 * count / length
    apart = next(n * 10**power for power in range(9) for n in (1, 2, 5) if n * 10**power >= least)
    return list(range(0, count, apart))
