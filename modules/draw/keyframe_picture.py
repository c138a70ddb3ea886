"""A timeline: keyframes above the frames of a clip that they are for, and how strongly each is followed where."""

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..control.keyframes import Keyframes
from .window_picture import ticks

WIDTH, LEFT, RIGHT = 960, 64, 20  # pixels
SIDE, SHOWN, GAP = 120, 12, 6  # a thumbnail's longer side at most, how many are shown at most, pixels between them
TITLE, LINES, AXIS, STRIP, BOTTOM = 28, 36, 24, 72, 12
_PAPER, _EMPTY, _TEXT = (24, 26, 30), (44, 47, 54), "#d8d8d8"
_INKS = ((64, 200, 190), (245, 170, 70), (170, 150, 250))


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
    picture = Image.new("RGB", (WIDTH, top + STRIP + BOTTOM), _PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((8, 8), _title(at, frames, len(shown)), fill=_TEXT)
    picture.paste(Image.fromarray(_strip(keyframes.weights(frames), wide)), (LEFT, top))
    for number, (place, thumbnail) in enumerate(zip(shown, thumbnails, strict=True)):
        centre, frame = LEFT + room * number + room // 2, _middle(at.frames[place], frames, wide)
        foot = TITLE + tall
        picture.paste(thumbnail, (centre - thumbnail.width // 2, foot - thumbnail.height))
        draw.line((centre, foot + 2, frame, foot + LINES - 2), fill=_INKS[place % len(_INKS)], width=2)
    _write(draw, at, frames, wide, top)
    return torch.from_numpy(np.asarray(picture).astype(np.float32) / 255)[None]


def _title(at: Keyframes, frames: int, shown: int) -> str:
    listed = ", ".join(map(str, at.frames[:SHOWN])) + (" ..." if len(at) > SHOWN else "")
    left_out = f" ({shown} of {len(at)} shown)" if shown < len(at) else ""
    return f"{len(at)} keyframes in {frames} frames: {listed}{left_out}"


def _thumbnail(image: Tensor, side: int) -> Image.Image:
    """``image``: ``h w c``."""
    pixels = (image[..., :3].float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    scale = side / max(pixels.shape[:2])
    return Image.fromarray(pixels).resize((max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))))


def _middle(frame: int, frames: int, wide: int) -> int:
    return LEFT + (2 * frame + 1) * wide // (2 * frames)


def _strip(weights: Tensor, wide: int) -> np.ndarray:
    """A bar per frame and keyframe, the strongest in front of none: ``weights``: ``k f``, heights against the greatest of them."""
    of_pixel = torch.arange(wide) * weights.shape[1] // wide
    heights = weights[:, of_pixel] / max(1.0, float(weights.max()))
    levels = torch.arange(STRIP, 0, -1)[:, None] / STRIP
    pixels = np.full((STRIP, wide, 3), _EMPTY, dtype=np.uint8)
    for place in range(len(weights)):
        pixels[(levels <= heights[place]).numpy()] = _INKS[place % len(_INKS)]
    return pixels


def _write(draw: ImageDraw.ImageDraw, at: Keyframes, frames: int, wide: int, top: int) -> None:
    """Numbers of frames above the strip, and strengths beside it."""
    for frame in ticks(frames, wide):
        x = _middle(frame, frames, wide)
        draw.line((x, top - 5, x, top - 2), fill=_TEXT)
        draw.text((x - draw.textlength(str(frame)) / 2, top - 19), str(frame), fill=_TEXT)
    most = f"{max(1.0, *at.strengths):g}"
    draw.text((LEFT - 8 - draw.textlength(most), top - 4), most, fill=_TEXT)
    draw.text((LEFT - 8 - draw.textlength("strength"), top + STRIP - 12), "strength", fill=_TEXT)
