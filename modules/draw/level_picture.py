"""A schedule of noise levels as a picture, and what it costs: levels of every frame at every model call, and the calls of each frame."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..sampling.forcing import out_of_sight
from ..sampling.plan import ClipPlan
from .canvas import INKS, PAPER, Canvas, middle, ticks
from .pictures import heat_map

CELLS, LARGEST = (12, 36), 1600  # pixels: least and greatest side of a cell while there is room; side of the map
LEFT, TOP, RIGHT, GAP, STRIP, BOTTOM = 64, 60, 24, 10, 56, 28
NARROWEST = 560  # pixels, for the text
_BAR, _SHOWN = INKS[0], (92, 97, 108)


@dataclass(frozen=True)
class Cost:
    """What a take costs in model calls.

    Attributes:
        calls: in all.
        made: frames that are generated.
        in_flight: the least window.
        window: frames in a call, at most.
        moved: ``f``, calls that move each frame.
        shown: ``f``, calls that show each frame.
        out_of_sight: known frames that the window is too short for: number -> calls that make the frames before it, in all and without it.
    """

    calls: int
    made: int
    in_flight: int
    window: int
    moved: Tensor
    shown: Tensor
    out_of_sight: Mapping[int, tuple[int, int]]

    def lines(self) -> list[str]:
        """The same in words."""
        known = len(self.moved) - self.made
        frames = f"{self.made} frames to make" + (f" and {known} known" if known else "")
        spare = self.window - self.in_flight
        room = f"leaves {spare} for context" if spare else "has no room for context"
        return [
            f"{frames}: {self.calls} model calls, {self.calls / self.made:.3g} per new frame",
            f"{self.in_flight} in flight: the least window; a window of {self.window} {room},"
            f" {int(self.shown.sum()) / self.made:.3g} frames are computed per new frame",
            *out_of_sight(self.out_of_sight),
        ]


def cost_of(plan: ClipPlan, window: int = 0) -> Cost:
    """The cost of a take through a window of so many frames; 0 for the least.

    Raises:
        ValueError: the window is too short.
    """
    least = plan.in_flight()
    low, high, reach = plan.shown(window or least)
    change = torch.zeros(plan.frames + 1, dtype=torch.int64)
    change.index_add_(0, low, torch.ones_like(low)).index_add_(0, high, -torch.ones_like(high))
    seen = change.cumsum(0)[:-1]
    known = plan.known.nonzero().flatten()
    for frame in known.tolist():
        seen[frame] += ((high <= frame) & (frame < reach)).sum()
    return Cost(
        plan.rows_total, plan.frames - len(known), least, window or least, plan.moves(), seen, plan.out_of_sight(window or least)
    )


def draw_levels(plan: ClipPlan, window: int = 0) -> Tensor:
    """Frames to the right, model calls downwards, bright is noise; below, how many calls each frame takes.

    Args:
        plan: a schedule. Of a long take rows and columns are left out evenly.
        window: frames in a call; 0 for the least.

    Returns:
        image: ``1 h w 3`` in 0..1.
    """
    cost, rows, frames = cost_of(plan, window), plan.rows_total + 1, plan.frames
    across, down = (torch.linspace(0, n - 1, min(n, LARGEST)).round().long() for n in (frames, rows))
    cell = max(CELLS[0], min(CELLS[1], NARROWEST // max(rows, frames)))
    levels_map = heat_map(plan.part(down, across), top=plan.steps, cell=cell, longest=LARGEST)[0]
    tall, wide = levels_map.shape[:2]
    canvas = Canvas(max(LEFT + wide + RIGHT, NARROWEST), TOP + tall + GAP + STRIP + BOTTOM)
    for line, text in enumerate(cost.lines()):
        canvas.text(8, 6 + 14 * line, text)
    canvas.paste(levels_map, LEFT, TOP)
    canvas.paste(_strip(cost, across, wide), LEFT, TOP + tall + GAP)
    canvas.frame_numbers(frames, LEFT, wide, TOP)
    for row in ticks(rows, tall):
        canvas.text(LEFT - 8, TOP + middle(row, rows, tall) - 6, str(row), "right")
    _explain(canvas, str(int(cost.shown.max())), TOP + tall + GAP)
    return canvas.image()


def _strip(cost: Cost, across: Tensor, wide: int) -> np.ndarray:
    """A bar per frame: the calls that move it, before those that show it."""
    of_pixel = across[torch.arange(wide) * len(across) // wide]
    heights = torch.arange(STRIP, 0, -1)[:, None] / STRIP * int(cost.shown.max())
    strip = np.full((STRIP, wide, 3), PAPER, dtype=np.uint8)
    strip[(heights <= cost.shown[of_pixel]).numpy()] = _SHOWN
    strip[(heights <= cost.moved[of_pixel]).numpy()] = _BAR
    return strip


def _explain(canvas: Canvas, most: str, top: int) -> None:
    """What the strip of calls that begins at ``top`` shows."""
    canvas.text(LEFT - 8, top - 4, most, "right")
    canvas.text(LEFT - 8, top + STRIP - 12, "calls", "right")
    for x, colour, text in ((0, _BAR, "calls that move the frame"), (190, _SHOWN, "calls that show it, as context or waiting")):
        canvas.draw.rectangle((LEFT + x, top + STRIP + 9, LEFT + x + 8, top + STRIP + 17), fill=colour)
        canvas.text(LEFT + x + 14, top + STRIP + 7, text)
