"""A picture of a camera's path: from above and from the side, a small pyramid for each frame, from blue to orange."""

import numpy as np
import torch
from PIL import ImageDraw
from torch import Tensor

from ..control.camera import CameraPath
from .canvas import Canvas

SIDE, EDGE = 360, 36  # pixels of one view, and of its margin
PYRAMIDS = 24  # at most so many, evenly spread
LONG = 0.09  # a pyramid, in parts of the view
_FIRST, _LAST = np.array([80, 160, 250]), np.array([250, 160, 60])
VIEWS = {"from above: x to the right, forward is up": (0, 2), "from the side: forward to the right, y": (2, 1)}


def draw_path(path: CameraPath) -> Tensor:
    """Where the camera goes and looks, in the world of its first frame. Returns ``1 h w 3`` in 0..1."""
    world = path.poses[0] @ torch.linalg.inv(path.poses)
    canvas = Canvas(SIDE * len(VIEWS), SIDE)
    for number, (title, axes) in enumerate(VIEWS.items()):
        _draw_view(canvas.draw, world, path.lenses, axes, SIDE * number)
        canvas.text(SIDE * number + 8, 8, title)
    canvas.text(8, SIDE - 20, f"{len(path)} frames, from blue to orange")
    return canvas.image()


def _draw_view(draw: ImageDraw.ImageDraw, world: Tensor, lenses: Tensor, axes: tuple[int, int], left: int) -> None:
    """``world``: ``f 4 4``, ``lenses``: ``f 4``, into the square that starts at ``left``."""
    places = world[:, axes, 3]
    middle = (places.amin(0) + places.amax(0)) / 2
    span = float((places.amax(0) - places.amin(0)).max().clamp_min(0.5)) * (1 + 3 * LONG)
    scale = (SIDE - 2 * EDGE) / span
    down = -1 if axes[1] == 2 else 1  # y points down already, forward is drawn upwards
    centre = torch.tensor([left + SIDE / 2, SIDE / 2], dtype=world.dtype)

    def shown(points: Tensor) -> list[tuple[float, float]]:
        flat = (points[:, axes] - middle) * scale * torch.tensor([1, down]) + centre
        return [(float(x), float(y)) for x, y in flat]

    draw.line(shown(world[:, :3, 3]), fill="#6a6e78", width=1)
    for frame in torch.linspace(0, len(world) - 1, min(PYRAMIDS, len(world))).round().long().tolist():
        ink = tuple(int(part) for part in _FIRST + (_LAST - _FIRST) * frame / max(1, len(world) - 1))
        tip, *corners = shown(_pyramid(world[frame], lenses[frame], LONG * span))
        for corner, following in zip(corners, [*corners[1:], corners[0]], strict=True):
            draw.line((tip, corner, following), fill=ink, width=1)


def _pyramid(world: Tensor, lens: Tensor, length: float) -> Tensor:
    """The camera and the corners of its picture: ``world``: ``4 4``, ``lens``: ``4``. Returns ``5 3``."""
    half = 0.5 / lens[:2]
    signs = torch.tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=world.dtype)
    corners = torch.cat([signs * half, torch.ones_like(signs[:, :1])], dim=1)
    corners = torch.cat([torch.zeros_like(corners[:1]), corners * length / corners.norm(dim=1, keepdim=True)])
    return corners @ world[:3, :3].T + world[:3, 3]
