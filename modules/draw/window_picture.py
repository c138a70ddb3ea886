"""A picture of a window plan for one clip: sampling steps downwards, frames to the right, a bar for each window."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from torch import Tensor

from ..temporal.windows import WindowPlan
from .canvas import EMPTY, INKS, PAPER, Canvas
from .window_text import Row, rows_of, settings_of

LARGEST = 2048  # pixels to a side
LEFT, TOP, RIGHT, BOTTOM = 92, 40, 20, 24
FEW = 6  # rows that get tall bars
GAP = 6  # pixels between rows


def draw_plan(plan: WindowPlan | None, frames: int, steps: int) -> Tensor:
    """Each window as a bar over its frames, bright where it counts most; steps with equal windows share a row.

    Args:
        plan: with a length; None for a clip in one window.
        frames: length of the clip, at least 1; from 1,937 on a pixel is more than one frame.
        steps: sampling steps, at least 1; those for which there is no room are left out, which the picture says.

    Returns:
        image: ``1 h w 3`` in 0..1.
    """
    rows = rows_of(plan, frames, steps)
    width = min(frames * max(1, min(32, 1200 // frames)), LARGEST - LEFT - RIGHT)
    strips = list(_strips(rows, frames, width))
    height = TOP + sum(len(strip) + GAP for strip in strips) + BOTTOM
    canvas = Canvas(LEFT + width + RIGHT, height)
    canvas.text(8, 6, _title(plan, frames))
    canvas.frame_numbers(frames, LEFT, width, TOP)
    y = TOP
    for row, strip in zip(rows, strips, strict=False):
        canvas.paste(strip, LEFT, y)
        canvas.text(8, y + len(strip) // 2 - 6, row.name)
        y += len(strip) + GAP
    if len(strips) < len(rows):
        canvas.text(8, y + 4, f"and {steps - rows[len(strips)].first} more steps")
    return canvas.image()


def _title(plan: WindowPlan | None, frames: int) -> str:
    if plan is None or frames <= plan.length:
        return f"{frames} frames in one window"
    return f"{frames} frames: {settings_of(plan)}. Bright counts more."


def _strips(rows: list[Row], frames: int, width: int) -> Iterator[np.ndarray]:
    """The bars of each row, as many rows as there is room for."""
    room = LARGEST - TOP - BOTTOM
    for row in rows:
        strip = _strip(row, frames, width, 24 if len(rows) <= FEW else 11)
        room -= len(strip) + GAP
        if room < 0:
            return
        yield strip


def _strip(row: Row, frames: int, width: int, tall: int) -> np.ndarray:
    """The bars of one row as pixels: lanes of ``tall`` pixels under each other, so that no two windows cover each other."""
    lanes = _lanes(row.windows, frames)
    owner = np.full((max(lanes) + 1, frames), -1)
    weight = np.zeros(owner.shape, dtype=np.float32)
    for number, (lane, window) in enumerate(zip(lanes, row.windows, strict=True)):
        owner[lane, window] = number
        weight[lane, window] = row.weights[number]
    of_pixel = np.arange(width) * frames // width
    owner, weight = owner[:, of_pixel], weight[:, of_pixel]
    colour = np.array(INKS, dtype=np.float32)[owner % len(INKS)] * (0.25 + 0.75 * weight[..., None])
    colour[owner < 0] = EMPTY
    if width >= 2 * frames:  # a thin line between frames, while there is room for it
        colour[:, 1:][:, of_pixel[1:] != of_pixel[:-1]] *= 0.7
    pixels = colour.astype(np.uint8).repeat(tall, axis=0)
    pixels[tall - 1 :: tall] = PAPER
    return pixels


def _lanes(windows: list[list[int]], frames: int) -> list[int]:
    """For each window, the first line in which it covers no other."""
    taken: list[np.ndarray] = []
    lanes = []
    for window in windows:
        pieces = [slice(first, last + 1) for first, last in _pieces(window)]
        lane = next((i for i, line in enumerate(taken) if not any(line[piece].any() for piece in pieces)), len(taken))
        if lane == len(taken):
            taken.append(np.zeros(frames, dtype=bool))
        for piece in pieces:
            taken[lane][piece] = True
        lanes.append(lane)
    return lanes


def _pieces(window: list[int]) -> Iterator[tuple[int, int]]:
    """First and last frame of each stretch of a window: two where it crosses the seam of a loop."""
    first = window[0]
    for frame, following in pairwise(window):
        if following < frame:
            yield first, frame
            first = following
    yield first, window[-1]
