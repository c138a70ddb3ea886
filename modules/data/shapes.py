"""A procedural world: one coloured shape moving over a still, textured, grey background, known exactly at any length.

Built so that what goes wrong in long generation can be seen and measured: the background must be carried from frame to frame
(drift), the shape's outline and colour say whether the image is still valid and still what was asked for, and motion is a closed
formula of time (speed). Labels are words; a clip's label vector has a one for each of its three words.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..noise.seeded import frame_seed

SIZE = 32
SHAPES = ("disk", "square", "triangle", "ring")
COLOURS = {
    "red": (0.9, -0.7, -0.7),
    "green": (-0.7, 0.8, -0.7),
    "blue": (-0.6, -0.3, 1.0),
    "yellow": (0.9, 0.8, -0.7),
}
MOST_COLOUR = 1.55  # between the largest and the smallest channel, of every colour at least
MOTIONS = ("bouncing", "turning", "growing")
LABELS = (*SHAPES, *COLOURS, *MOTIONS)


@dataclass(frozen=True)
class Clips:
    """A batch of clips and the truth about them.

    Attributes:
        frames: ``b f 3 h w`` in -1..1.
        labels: ``b l``, ones at the words of ``LABELS``.
        background: ``b h w``, grey level in -1..1.
        centre: ``b f 2``, x and y in pixels.
        radius: ``b f`` in pixels.
        shape, colour, motion: ``b``, indices into the tables above.
    """

    frames: Tensor
    labels: Tensor
    background: Tensor
    centre: Tensor
    radius: Tensor
    shape: Tensor
    colour: Tensor
    motion: Tensor


def triangle_wave(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Reflect ``x``: ``...`` between ``low``: ``...`` and ``high``: ``...``: elastic walls, exact at any time. Returns ``...``."""
    span = high - low
    phase = torch.remainder(x - low, 2 * span)
    return low + torch.where(phase > span, 2 * span - phase, phase)


def coverage(shape: Tensor, centre: Tensor, radius: Tensor, angle: Tensor, size: int = SIZE) -> Tensor:
    """How much of each pixel a shape covers, anti-aliased.

    Args:
        shape: ``n``, index into ``SHAPES``.
        centre: ``n 2``, pixels.
        radius: ``n``, pixels.
        angle: ``n``, radians.
        size: pixels per side.

    Returns:
        cover: ``n size size`` in 0..1.
    """
    grid = torch.arange(size, dtype=torch.float32)
    x = grid[None, None, :] - centre[:, 0, None, None]
    y = grid[None, :, None] - centre[:, 1, None, None]
    cos, sin, r = (value[:, None, None] for value in (angle.cos(), angle.sin(), radius))
    u, v = cos * x + sin * y, cos * y - sin * x
    distance = (u**2 + v**2).sqrt()
    corners = (math.pi / 2, math.pi * 7 / 6, math.pi * 11 / 6)
    inside = torch.stack(
        [
            r - distance,
            0.88 * r - torch.maximum(u.abs(), v.abs()),
            0.62 * r - torch.stack([math.cos(a) * u + math.sin(a) * v for a in corners]).amax(0),
            torch.minimum(r - distance, distance - 0.5 * r),
        ]
    )
    return (inside[shape, torch.arange(len(shape))] + 0.5).clamp(0, 1)


def clips(count: int, frames: int, seed: int, index: int = 0, step: float = 1.0, further: Tensor | None = None) -> Clips:
    """Draw ``count`` clips; the same ``(seed, index)`` gives the same clips, and their first frames do not depend on ``frames``.

    Args:
        count: of clips.
        frames: of a clip.
        seed: of all.
        index: of this batch.
        step: time from frame to frame: with 0.25 the same scene runs at four times the frame rate.
        further: ``b``, how many places further in ``SHAPES`` the outline is that is drawn instead of the true one; None for none.
    """
    g = torch.Generator().manual_seed(frame_seed(seed, index, "shapes"))

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=g)

    shape = torch.randint(0, len(SHAPES), (count,), generator=g)
    colour = torch.randint(0, len(COLOURS), (count,), generator=g)
    motion = torch.randint(0, len(MOTIONS), (count,), generator=g)
    coarse = torch.rand(count, 1, 4, 4, generator=g)
    background = F.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic", align_corners=True)[:, 0].clamp(0, 1) - 1.0

    turning, growing = (motion == MOTIONS.index(name) for name in ("turning", "growing"))
    time = torch.arange(frames, dtype=torch.float32) * step
    size = uniform(4.5, 6.0)
    swell = triangle_wave(uniform(3.5, 7.0)[:, None] + uniform(0.15, 0.35)[:, None] * time, torch.tensor(3.5), torch.tensor(7.0))
    radius = torch.where(growing[:, None], swell, size[:, None].expand(-1, frames))

    heading, speed = uniform(0, 2 * math.pi), torch.where(growing, uniform(0.2, 0.5), uniform(0.6, 1.5))
    margin = torch.where(growing, torch.full((count,), 7.0), size)[:, None, None]
    velocity = speed[:, None] * torch.stack([heading.cos(), heading.sin()], -1)
    start = margin[:, 0] + uniform(0, 1, 2) * (SIZE - 1 - 2 * margin[:, 0])
    flight = triangle_wave(start[:, None] + velocity[:, None] * time[:, None], margin, SIZE - 1 - margin)

    orbit, rate = uniform(5.0, 8.5), uniform(0.6, 1.5)
    spin = torch.where(uniform(-1, 1) > 0, 1.0, -1.0) * rate / orbit
    phase = uniform(0, 2 * math.pi)[:, None] + spin[:, None] * time
    middle = (SIZE - 1) / 2 + uniform(-1.5, 1.5, 2)
    circle = middle[:, None] + orbit[:, None, None] * torch.stack([phase.cos(), phase.sin()], -1)
    centre = torch.where(turning[:, None, None], circle, flight)
    angle = torch.where(turning[:, None], phase, uniform(-0.3, 0.3)[:, None].expand(-1, frames))

    outline = shape if further is None else (shape + further) % len(SHAPES)
    cover = coverage(outline.repeat_interleave(frames), centre.flatten(0, 1), radius.flatten(), angle.flatten())
    cover = cover.view(count, frames, 1, SIZE, SIZE)
    paint = torch.tensor(list(COLOURS.values()))[colour][:, None, :, None, None]
    pictures = background[:, None, None] * (1 - cover) + paint * cover
    labels = torch.zeros(count, len(LABELS))
    for offset, choice in ((0, shape), (len(SHAPES), colour), (len(SHAPES) + len(COLOURS), motion)):
        labels[torch.arange(count), offset + choice] = 1.0
    return Clips(pictures, labels, background, centre, radius, shape, colour, motion)
