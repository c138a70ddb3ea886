"""A picture of a data set: a clip in each row, with what training will be told of it."""

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor

from .clips import ClipDataset
from .take import Clip

CELL, LINE, GAP = 112, 16, 2  # pixels: the longer side of a picture, a line of text, between pictures


def sample_clips(dataset: ClipDataset, count: int) -> list[Clip]:
    """Clips from sources evenly spread over a data set, fewer where some turn out to be damaged."""
    numbers = torch.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().long().tolist()
    clips = [dataset.sound(dataset.take(number), dataset.read) for number in numbers]
    return [clip for clip in clips if clip is not None]


def clip_sheet(clips: Sequence[Clip], pictures: int = 8) -> Tensor:
    """The clips below each other, each with evenly spread frames, its size, frame rate, motion and caption. Returns ``1 h w 3``.

    Args:
        clips: of any sizes.
        pictures: at most so many of each.
    """
    columns = max((min(pictures, len(clip.pixels)) for clip in clips), default=1)
    paper = Image.new("RGB", (max(320, columns * (CELL + GAP)), max(1, len(clips)) * (CELL + LINE + GAP)), "white")
    draw = ImageDraw.Draw(paper)
    for row, clip in enumerate(clips):
        top = row * (CELL + LINE + GAP)
        for column, picture in enumerate(_small(clip.pixels, pictures)):
            paper.paste(picture, (column * (CELL + GAP), top + LINE))
        mirrored = ", mirrored" if clip.flipped else ""
        about = f"{clip.take.size}, {clip.fps:.3g} fps, {clip.motion:.2f} px/frame{mirrored}: {clip.caption or '(no caption)'}"
        draw.text((2, top + 2), about.encode("latin-1", "replace").decode("latin-1"), fill="black")  # what Pillow's own font has
    return torch.from_numpy(np.asarray(paper).astype(np.float32) / 255)[None]


def _small(pixels: Tensor, pictures: int) -> list[Image.Image]:
    chosen = pixels[torch.linspace(0, len(pixels) - 1, min(pictures, len(pixels))).round().long()]
    scale = CELL / max(chosen.shape[-2:])
    height, width = (max(1, round(side * scale)) for side in chosen.shape[-2:])
    colours = (rearrange(chosen, "f c h w -> f h w c") / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
    return [Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC) for picture in colours]
