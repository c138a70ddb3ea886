"""Pictures of what goes on: heat maps, contact sheets, curves. Everything is IMAGE, ``f h w c`` in 0..1."""

import math
from collections.abc import Mapping, Sequence

import torch
from einops import rearrange
from torch import Tensor

from .canvas import Canvas

# Dark blue, teal, green, yellow: readable in grey and for colour-blind eyes.
_RAMP = torch.tensor([[0.18, 0.08, 0.33], [0.19, 0.41, 0.56], [0.21, 0.72, 0.47], [0.99, 0.91, 0.14]])
_INK = ("#1b6ca8", "#c8553d", "#3a7d44", "#7b4b94", "#8a6d1b", "#444444")


def heat_map(values: Tensor, *, top: float, cell: int = 8, longest: int = 2048) -> Tensor:
    """A matrix as coloured cells: rows downwards, 0 dark and ``top`` bright.

    Args:
        values: ``m n``.
        top: value of the brightest colour.
        cell: side of a cell in pixels; made smaller where the picture would be longer than ``longest``.
        longest: most pixels per side; where even one pixel per cell is too many, cells are skipped evenly.

    Returns:
        image: ``1 h w 3``.
    """
    cell = max(1, min(cell, longest // max(values.shape)))
    rows, columns = (torch.linspace(0, n - 1, min(n, longest)).round().long() for n in values.shape)
    place = (values[rows][:, columns].float() / max(top, 1e-9)).clamp(0, 1) * (len(_RAMP) - 1)
    low = place.floor().long().clamp(max=len(_RAMP) - 2)
    colours = torch.lerp(_RAMP[low], _RAMP[low + 1], (place - low)[..., None])
    return colours.repeat_interleave(cell, 0).repeat_interleave(cell, 1)[None]


def contact_sheet(images: Tensor, *, columns: int = 8, count: int = 40, gap: int = 2) -> Tensor:
    """Frames evenly spread over a clip, first and last included, side by side.

    Args:
        images: ``f h w c`` in 0..1.
        columns: pictures per row.
        count: most pictures.
        gap: white pixels between them.

    Returns:
        sheet: ``1 p q c``.
    """
    chosen = images[torch.linspace(0, len(images) - 1, min(count, len(images))).round().long()]
    columns = min(columns, len(chosen))
    missing = -len(chosen) % columns
    framed = torch.nn.functional.pad(chosen, (0, 0, 0, gap, 0, gap), value=1.0)
    framed = torch.cat([framed, framed.new_ones(missing, *framed.shape[1:])])
    return rearrange(framed, "(r n) h w c -> 1 (r h) (n w) c", n=columns)


def marked(values: Sequence[float], most: int = 8) -> list[str]:
    """Values of an axis in as few digits, three to ``most``, as tell them apart.

    >>> marked([0.5, 0.75, 1.0])
    ['0.5', '0.75', '1']
    >>> marked([0.99981, 0.99984, 0.99987])
    ['0.99981', '0.99984', '0.99987']
    """
    written = [[f"{value:.{digits}g}" for value in values] for digits in range(3, most + 1)]
    return next((marks for marks in written if len(set(marks)) == len(marks)), written[-1])


def curves(
    series: Mapping[str, Sequence[float]], *, title: str = "", logarithmic: bool = True, size: tuple[int, int] = (800, 480)
) -> Tensor:
    """Curves over their index, one colour each, named in the corner. Returns ``1 h w 3``."""
    canvas = Canvas(*size, paper="white", ink="#444444")
    left, top, right, bottom = 64, 28, size[0] - 16, size[1] - 32
    canvas.draw.rectangle((left, top, right, bottom), outline="#999999")
    canvas.text(left, 8, title, ink="black")
    scale = (lambda value: math.log10(max(value, 1e-12))) if logarithmic else float
    finite = [scale(value) for values in series.values() for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    high = high if high > low else low + 1
    longest = max((len(values) for values in series.values()), default=1)
    marks = [low + (high - low) * place / 4 for place in range(5)]
    for place, mark in enumerate(marked([10**value if logarithmic else value for value in marks])):
        y = bottom - (bottom - top) * place / 4
        canvas.draw.line((left, y, right, y), fill="#e5e5e5")
        canvas.text(6, y - 6, mark)
    canvas.text(right - 50, bottom + 8, str(longest))
    for number, (name, values) in enumerate(series.items()):
        ink = _INK[number % len(_INK)]
        points = [
            (left + (right - left) * index / max(1, longest - 1), bottom - (bottom - top) * (scale(value) - low) / (high - low))
            for index, value in enumerate(values)
            if math.isfinite(value)
        ]
        if len(points) > 1:
            canvas.draw.line(points, fill=ink, width=2)
        canvas.text(left + 8, top + 6 + 14 * number, name, ink=ink)
    return canvas.image()


def smoothed(values: Sequence[float], memory: float = 0.98) -> list[float]:
    """An exponential moving average that starts unbiased.

    >>> smoothed([1.0, 1.0, 1.0])
    [1.0, 1.0, 1.0]
    """
    total, weight, out = 0.0, 0.0, []
    for value in values:
        total, weight = memory * total + value, memory * weight + 1
        out.append(total / weight)
    return out
