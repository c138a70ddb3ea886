"""A timeline: keyframes above the frames of a clip that they are for, and how strongly each is followed where."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..control.keyframes import Keyframes
from .canvas import EMPTY, INKS, Canvas, middle

WIDTH, LEFT, RIGHT = 960, 64, 20  # pixels
SIDE, SHOWN, GAP = 120, 12, 6  # a thumbnail's longer side at most, how many are shown at most, pixels between them
TITLE, LINES, AXIS, STRIP, BOTTOM = 28, 36, 24, 72, 12


def draw_keyframes(keyframes: Keyframes, frames: int) -> Tensor:
    """The timeline of a clip.

    Args:
        keyframes: for it; from 13 on some are left out evenly, but not from the strengths.
        frames: length of the clip, at least 1.

    Returns:
        image: ``1 h w 3`` in 0..1.

    Raises:
        ValueError: the keyframes do not fit the clip.
    """
    at = keyframes.at(frames)
    shown = torch.linspace(0, len(at) - 1, min(len(at), SHOWN)).round().long().tolist()
    wide = WIDTH - LEFT - RIGHT
    room = wide // len(shown)
    thumbnails = [_thumbnail(at.images[place], min(SIDE, room - GAP)) for place in shown]
    tall = max(thumbnail.height for thumbnail in thumbnails)
    top = TITLE + tall + LINES + AXIS
    canvas = Canvas(WIDTH, top + STRIP + BOTTOM)
    canvas.text(8, 8, _title(at, frames, len(shown)))
    canvas.paste(_strip(keyframes.weights(frames), wide), LEFT, top)
    for number, (place, thumbnail) in enumerate(zip(shown, thumbnails, strict=True)):
        centre, frame = LEFT + room * number + room // 2, LEFT + middle(at.frames[place], frames, wide)
        foot = TITLE + tall
        canvas.paste(thumbnail, centre - thumbnail.width // 2, foot - thumbnail.height)
        canvas.draw.line((centre, foot + 2, frame, foot + LINES - 2), fill=INKS[place % len(INKS)], width=2)
    canvas.frame_numbers(frames, LEFT, wide, top)
    canvas.text(LEFT - 8, top - 4, f"{max(1.0, *at.strengths):g}", "right")
    canvas.text(LEFT - 8, top + STRIP - 12, "strength", "right")
    return canvas.image()


def _title(at: Keyframes, frames: int, shown: int) -> str:
    listed = ", ".join(map(str, at.frames[:SHOWN])) + (" ..." if len(at) > SHOWN else "")
    left_out = f" ({shown} of {len(at)} shown)" if shown < len(at) else ""
    return f"{len(at)} keyframes in {frames} frames: {listed}{left_out}"


def _thumbnail(image: Tensor, side: int) -> Image.Image:
    """``image``: ``h w c``."""
    pixels = (image[..., :3].float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    scale = side / max(pixels.shape[:2])
    return Image.fromarray(pixels).resize((max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))))


def _strip(weights: Tensor, wide: int) -> np.ndarray:
    """A bar per frame and keyframe, the strongest in front of none: ``weights``: ``k f``, heights against the greatest of them."""
    of_pixel = torch.arange(wide) * weights.shape[1] // wide
    heights = weights[:, of_pixel] / max(1.0, float(weights.max()))
    levels = torch.arange(STRIP, 0, -1)[:, None] / STRIP
    pixels = np.full((STRIP, wide, 3), EMPTY, dtype=np.uint8)
    for place in range(len(weights)):
        pixels[(levels <= heights[place]).numpy()] = INKS[place % len(INKS)]
    return pixels
