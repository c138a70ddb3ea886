"""Data that needs no files: a coloured shape moving over a soft grey background, at any size and length, with its words.

The world is that of ``train/shapes.py``, whose words and outlines it shares, drawn in any resolution and known as a closed formula of
time: a frame costs the same wherever it lies in the clip. Lengths are in parts of the picture's side. To add a way of moving, write its
path and name it in ``PATHS``.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..fields.setting import check, documented, setting
from ..noise.seeded import frame_seed
from .clips import ClipDataset
from .footage import Footage
from .report import Report
from .settings import ClipSettings
from .shapes import COLOURS, SHAPES, coverage, triangle_wave
from .source import ClipSource, Found
from .timing import even

Draw = Callable[[str, float, float], float]
RADIUS = 0.16
FPS = 8.0


def bouncing(draw: Draw, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Straight on at constant speed, off the walls, at each ``time``: ``f``.

    Returns:
        centre: ``f 2``.
        radius: ``f``.
        angle: ``f``.
    """
    heading, speed = draw("heading", 0, 2 * math.pi), draw("speed", 0.02, 0.05)
    low, high = torch.tensor(RADIUS), torch.tensor(1 - RADIUS)
    velocity = torch.tensor([math.cos(heading), math.sin(heading)]) * speed
    start = torch.tensor([draw("x", RADIUS, 1 - RADIUS), draw("y", RADIUS, 1 - RADIUS)])
    still = torch.zeros_like(time)
    return triangle_wave(start + velocity * time[:, None], low, high), still + RADIUS, still + draw("tilt", -0.3, 0.3)


def turning(draw: Draw, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Round the middle at constant speed, at each ``time``: ``f``.

    Returns:
        centre: ``f 2``.
        radius: ``f``.
        angle: ``f``.
    """
    orbit, speed = draw("orbit", 0.16, 0.28), draw("speed", 0.02, 0.05)
    phase = draw("phase", 0, 2 * math.pi) + math.copysign(speed / orbit, draw("sense", -1, 1)) * time
    circle = 0.5 + orbit * torch.stack([phase.cos(), phase.sin()], dim=-1)
    return circle, torch.zeros_like(time) + RADIUS, phase


def growing(draw: Draw, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Larger and smaller, drifting a little, at each ``time``: ``f``.

    Returns:
        centre: ``f 2``.
        radius: ``f``.
        angle: ``f``.
    """
    low, high = torch.tensor(0.11), torch.tensor(0.22)
    radius = triangle_wave(draw("size", 0.11, 0.22) + draw("growth", 0.005, 0.011) * time, low, high)
    middle = torch.tensor([draw("x", 0.3, 0.7), draw("y", 0.3, 0.7)])
    return middle.expand(len(time), 2), radius, torch.zeros_like(time) + draw("tilt", -0.3, 0.3)


PATHS = {path.__name__: path for path in (bouncing, turning, growing)}


class MovingShape(Footage):
    """One clip of that world.

    Args:
        number: which one.
        count: frames.
        side: pixels of its height and width.
        seed: of the world.
    """

    kind = "shapes"

    def __init__(self, number: int, count: int, side: int, seed: int):
        self.number, self.seed, self.timing = number, seed, even(count, FPS)
        self.height = self.width = side
        self.shape, self.colour, self.path = (self._choice(what) for what in (SHAPES, tuple(COLOURS), tuple(PATHS)))
        self.caption = f"a {self.colour} {self.shape}, {self.path}"
        self.name = f"shape {number}: {self.caption}"
        g = torch.Generator().manual_seed(frame_seed(seed, number, "background"))
        coarse = 0.5 * torch.rand(1, 1, 4, 4, generator=g)
        self.background = F.interpolate(coarse, (side, side), mode="bicubic", align_corners=True)[0, 0].clamp(0, 0.5)

    def draw(self, what: str, low: float, high: float) -> float:
        """One of the clip's numbers."""
        return low + (high - low) * frame_seed(self.seed, self.number, f"shape {what}") / 2**63

    def _choice(self, words: Sequence[str]) -> str:
        return words[frame_seed(self.seed, self.number, f"shape {words[0]}") % len(words)]

    def pictures(self, indices: Sequence[int]) -> Iterator[Tensor]:
        paint = torch.tensor(COLOURS[self.colour]) / 2 + 0.5
        for index in indices:
            centre, radius, angle = PATHS[self.path](self.draw, torch.tensor([float(index)]))
            shape = torch.tensor([SHAPES.index(self.shape)])
            cover = coverage(shape, centre * self.width - 0.5, radius * self.width, angle, self.width)[0, :, :, None]
            yield self.background[..., None] * (1 - cover) + paint * cover

    def digest(self) -> str:
        about = f"moving shape {self.seed} {self.number} {self.count} {self.width}"
        return hashlib.sha256(about.encode()).hexdigest()


def moving_shapes(clips: int, count: int, side: int, seed: int = 0) -> Found:
    """Clips of coloured shapes that move.

    Args:
        clips: how many.
        count: frames of each.
        side: pixels of height and width.
        seed: of the world; clip ``i`` of a seed is the same however many there are.

    Raises:
        ValueError: there are none, or they are too small to show a shape.
    """
    if clips < 1 or count < 1 or side < 16:
        raise ValueError(
            f"{clips} clips of {count} frames, {side} pixels wide, cannot be: at least one, of one frame, 16 pixels wide"
        )
    shapes = [MovingShape(number, count, side, seed) for number in range(clips)]
    return Found([ClipSource.of(shape, shape.name, shape.caption) for shape in shapes], Report(found=clips))


@documented
@dataclass(frozen=True)
class ShapesSettings:
    """Clips of the procedural world."""

    count: int = setting(64, "So many clips are made.", least=1, most=1_000_000)
    frames: int = setting(16, "A clip has so many frames.", least=1, most=4096)
    size: int = setting(256, "A clip is so many pixels wide and high.", least=16, most=2048, step=8)
    stride: int = setting(1, "So many moments lie from one frame to the next; more of them make motion faster.", least=1, most=64)
    seed: int = setting(0, "The seed is that of the shapes and their order.", least=0, most=2**64 - 1, control=False)
    caption_before: str = setting("", "Every caption begins with this; it may be empty.")

    def __post_init__(self) -> None:
        check(self)

    def clips(self) -> ClipDataset:
        """The clips."""
        settings = ClipSettings(
            frames=self.frames,
            stride=self.stride,
            width=self.size,
            height=self.size,
            variants=1,
            caption_before=self.caption_before,
            seed=self.seed,
        )
        return ClipDataset(moving_shapes(self.count, settings.pace.needed(), self.size, self.seed), settings)
