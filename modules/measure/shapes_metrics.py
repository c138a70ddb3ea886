"""How good generated clips of the procedural world are, measured on the pictures alone, against the known truth.

An object is what is coloured (the background is grey). Its area gives its radius, its centroid its place; then every shape at every
angle is drawn there, and the best overlap tells which shape it is and whether it is one at all.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ..data.shapes import COLOURS, MOST_COLOUR, Clips, coverage

BUCKETS = ((4, 16), (16, 48), (48, 96), (96, 160))
VALID_OVERLAP = 0.75
# Area of each shape of radius 1, and the angles that tell its turned copies apart.
_AREAS = (math.pi, (2 * 0.88) ** 2, 3 * math.sqrt(3) * 0.62**2, math.pi * 0.75)
_TURNS = (0.0, math.pi / 2, 2 * math.pi / 3, 0.0)


@dataclass(frozen=True)
class Seen:
    """What is recognised in each frame.

    Attributes:
        overlap: ``b f``, intersection over union with the best-fitting shape, 0..1.
        shape: ``b f``, index of that shape.
        colour: ``b f``, index of the nearest colour.
        centre: ``b f 2``, pixels.
        valid: ``b f``, True where the overlap is high and the size is one that exists.
    """

    overlap: Tensor
    shape: Tensor
    colour: Tensor
    centre: Tensor
    valid: Tensor


def recognise(frames: Tensor) -> Seen:
    """Find the object in every frame. ``frames``: ``b f 3 h w`` in -1..1."""
    count, length = frames.shape[:2]
    flat = frames.flatten(0, 1)
    cover = ((flat.amax(1) - flat.amin(1)) / MOST_COLOUR).clamp(0, 1)
    cover = torch.where(cover > 0.15, cover, torch.zeros_like(cover))
    mass = cover.sum((1, 2)).clamp_min(1e-3)
    grid = torch.arange(frames.shape[-1], dtype=torch.float32)
    centre = torch.stack([(cover.sum(1) * grid).sum(1), (cover.sum(2) * grid).sum(1)], dim=-1) / mass[:, None]
    overlaps = []
    for shape, (area, turn) in enumerate(zip(_AREAS, _TURNS, strict=True)):
        radius = (mass / area).sqrt().clamp(2, 12)
        angles = [0.0] if turn == 0 else [turn * part / 10 for part in range(10)]
        kind = torch.full((len(flat),), shape)
        fits = [
            _overlap(cover, coverage(kind, centre, radius, torch.full_like(radius, angle), frames.shape[-1])) for angle in angles
        ]
        overlaps.append(torch.stack(fits).amax(0))
    overlap, best = torch.stack(overlaps).max(0)
    palette = torch.tensor(list(COLOURS.values()))
    mean = (flat * cover[:, None]).sum((2, 3)) / mass[:, None]
    colour = torch.cdist(mean, palette).argmin(1)
    radius = (mass / torch.tensor(_AREAS)[best]).sqrt()
    valid = (overlap > VALID_OVERLAP) & (radius > 2.8) & (radius < 8)
    return Seen(
        overlap.view(count, length),
        best.view(count, length),
        colour.view(count, length),
        centre.view(count, length, 2),
        valid.view(count, length),
    )


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    return torch.minimum(a, b).sum((1, 2)) / torch.maximum(a, b).sum((1, 2)).clamp_min(1e-6)


@dataclass(frozen=True)
class Quality:
    """One row of the table: means over the clips, in one bucket of frames."""

    valid: float  # share of frames that show a shape
    kept: float  # share of frames that show the shape and the colour that were asked for
    speed: float  # median over clips of path length, relative to the truth
    drift: float  # root mean square error of the background's temporal median, in grey levels of -1..1
    contrast: float  # standard deviation of the background relative to the truth, median over clips


def quality(frames: Tensor, truth: Clips, buckets: Sequence[tuple[int, int]] = BUCKETS) -> dict[str, dict[str, float]]:
    """The measures of clips that were asked to be like ``truth``, per bucket of frames. ``frames``: ``b f 3 h w`` in -1..1."""
    seen = recognise(frames)
    result = {}
    for low, high in buckets:
        if frames.shape[1] < high:
            continue
        part = slice(low, high)
        right = (seen.shape == truth.shape[:, None]) & (seen.colour == truth.colour[:, None]) & seen.valid
        paths = [_path(centre[:, part]) for centre in (seen.centre, truth.centre)]
        median = frames[:, part].mean(2).median(1).values
        expected = truth.frames[:, part].mean(2).median(1).values
        row = Quality(
            valid=seen.valid[:, part].float().mean().item(),
            kept=right[:, part].float().mean().item(),
            speed=(paths[0] / paths[1]).median().item(),
            drift=(median - expected).square().mean((1, 2)).sqrt().mean().item(),
            contrast=(median.flatten(1).std(1) / expected.flatten(1).std(1)).median().item(),
        )
        result[f"{low}-{high}"] = asdict(row)
    return result


def _path(centre: Tensor) -> Tensor:
    return centre.diff(dim=1).norm(dim=-1).mean(1)
