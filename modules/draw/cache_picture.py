"""A picture of what a causal model sees: a line for each block, its cached frames by number, and when they are said to be."""

from collections.abc import Iterable, Sequence

import numpy as np
from torch import Tensor

from ..sampling.causal_seen import Seen
from .canvas import EMPTY, INKS, PAPER, TEXT, Canvas, ticks

PAST, SINK, OWN = INKS
LINE, LEFT, TOP, GAP, RIGHT, BOTTOM = 12, 92, 58, 40, 20, 12
ROOM = 2048  # pixels to a side
WIDTH = 560  # of each half


def draw_cache(parts: Iterable[Seen], frames: int) -> Tensor:
    """Left the frames of the take that each block sees, right when it is told they are, before its first frame and after it.

    Args:
        parts: from ``seen``; those for which there is no room are left out, which the picture says.
        frames: of the take.

    Returns:
        image: ``1 h w 3`` in 0..1.
    """
    every = list(parts)
    shown = every[: (ROOM - TOP - BOTTOM - LINE) // LINE]
    span = max((-position for part in shown for position in part.positions), default=0)
    ahead = max((position for part in shown for position in part.positions), default=0) + 1
    cells = int(min(span, ROOM) + ahead)
    canvas = Canvas(LEFT + 2 * WIDTH + GAP + RIGHT, TOP + LINE * (len(shown) + (len(shown) < len(every))) + BOTTOM)
    for x, colour, word in ((0, PAST, "past"), (60, SINK, "sink frames"), (160, OWN, "the block itself")):
        canvas.paste(np.full((9, 9, 3), colour, dtype=np.uint8), LEFT + x, 9)
        canvas.text(LEFT + x + 14, 6, word)
    canvas.text(LEFT + 290, 6, "frames of the take")
    canvas.text(LEFT + WIDTH + GAP, 6, "when they are said to be, from the block's first frame")
    canvas.frame_numbers(frames, LEFT, WIDTH, TOP)
    for tick in ticks(cells, WIDTH):
        canvas.text(
            LEFT + WIDTH + GAP + (2 * tick + 1) * WIDTH // (2 * cells), TOP - 19, str(tick - int(min(span, ROOM))), "middle"
        )
    for line, part in enumerate(shown):
        y = TOP + LINE * line
        if line % 2 == 0 or part.again:
            canvas.text(8, y - 1, f"again {part.ids[0]}-{part.ids[-1]}" if part.again else f"{part.ids[0]}-{part.ids[-1]}")
        colours = [OWN if frame in part.ids else SINK if place < part.sinks else PAST for place, frame in enumerate(part.frames)]
        canvas.paste(_strip(part.frames, colours, frames), LEFT, y)
        moved = [int(position + min(span, ROOM)) for position in part.positions]
        canvas.paste(_strip(moved, colours, cells), LEFT + WIDTH + GAP, y)
        if part.again:
            canvas.text(LEFT + WIDTH + 8, y - 1, f"P{part.shot + 1}", ink=TEXT)
    if len(shown) < len(every):
        canvas.text(8, TOP + LINE * len(shown), f"and {len(every) - len(shown)} more lines")
    return canvas.image()


def _strip(places: Sequence[int], colours: Sequence[tuple[int, int, int]], count: int) -> np.ndarray:
    """A line of ``count`` cells, those at ``places`` coloured. Pixels ``h w 3``."""
    cells = np.full((count, 3), EMPTY, dtype=np.uint8)
    for place, colour in zip(places, colours, strict=True):
        if 0 <= place < count:
            cells[place] = colour
    pixels = cells[np.arange(WIDTH) * count // WIDTH][None].repeat(LINE, axis=0)
    pixels[-2:] = PAPER
    return pixels


def cache_text(parts: Sequence[Seen], calls: int) -> str:
    """The same in words, a line for each kind of part."""
    last = parts[-1]
    again = [part for part in parts if part.again]
    furthest = -min(position for part in parts for position in part.positions)
    lines = [
        f"{calls} model calls for {last.ids.stop} latent frames, at most {max(len(part.frames) for part in parts)} frames seen, the"
        f" furthest said to be {furthest:g} frames before the block",
        f"{last.evicted} frames have left the cache at the end, which holds {_ranges(last.frames)}",
    ]
    lines += [f"prompt {part.shot + 1}: frames {part.ids[0]} to {part.ids[-1]} are shown once more" for part in again]
    return "\n".join(lines)


def _ranges(frames: Sequence[int]) -> str:
    """Numbers in short.

    >>> _ranges([0, 1, 2, 7, 9, 10])
    '0-2, 7, 9-10'
    """
    found: list[list[int]] = []
    for frame in frames:
        if found and frame == found[-1][-1] + 1:
            found[-1].append(frame)
        else:
            found.append([frame])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in found)
