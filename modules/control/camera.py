"""Paths of a camera: read from a file, made of simple moves, joined, and as rays through the pixels of a picture.

Poses are those of RealEstate10K (Zhou et al., arXiv:1805.09817): matrices from world to camera, x to the right, y down, z into the
picture, and lenses in parts of the picture's size. Rays are in Pluecker coordinates, as CameraCtrl wants them (He et al.,
arXiv:2404.02101, Section 3.1).

To add a move, append a row to ``MOVES``; menus and tests read it.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

BASE_FRAMES = 16  # a move of speed 1 takes so many frames, one of CameraCtrl's clips, for the next two
BASE_ANGLE = math.pi / 3
BASE_SHIFT = 1.5  # in units of RealEstate10K's worlds, where this is a few steps
LENS = (0.474812461, 0.844111024, 0.5, 0.5)  # usual in RealEstate10K, for pictures of 16:9
NUMBERS = 19  # in a line of a file: time, lens, two that are not used, three rows of the matrix
HALF_TURN = 3.1


@dataclass(frozen=True, eq=False)
class CameraPath:
    """Where a camera is in every frame, and its lens.

    Attributes:
        poses: ``f 4 4``, float64, from world to camera.
        lenses: ``f 4``, float64: focal lengths and centre, as parts of the picture's width, height, width and height.
        aspect: width over height of the pictures that the lenses are for.
    """

    poses: Tensor
    lenses: Tensor
    aspect: float = 16 / 9

    def __len__(self) -> int:
        return len(self.poses)

    def at(self, ids: Tensor) -> "CameraPath":
        """The path of some frames: ``ids``: ``n``, frame numbers; before the first and after the last the camera stands still."""
        places = ids.to(self.poses.device).clamp(0, len(self) - 1)
        return replace(self, poses=self.poses[places], lenses=self.lenses[places])

    def then(self, other: "CameraPath") -> "CameraPath":
        """This path and, from where it ends, the other one's moves and changes of lens; its first frame is this one's last."""
        last, scale = self.lenses[-1], torch.ones_like(other.lenses)
        scale[:, :2] = last[:2] / other.lenses[0, :2]
        offset = torch.cat([torch.zeros_like(last[:2]), last[2:] - other.lenses[0, 2:]])
        poses = other.poses @ torch.linalg.inv(other.poses[0]) @ self.poses[-1]
        lenses = other.lenses * scale + offset
        return replace(self, poses=torch.cat([self.poses, poses[1:]]), lenses=torch.cat([self.lenses, lenses[1:]]))

    def resampled(self, frames: int) -> "CameraPath":
        """The same way in ``frames`` frames: the camera's place goes straight between poses, its direction turns evenly.

        Raises:
            ValueError: it turns around between two poses, so that nobody knows which way.
        """
        if frames == len(self):
            return self
        times = torch.linspace(0, len(self) - 1, frames, dtype=torch.float64)
        first = times.floor().long().clamp(max=max(0, len(self) - 2))
        following, part = (first + 1).clamp(max=len(self) - 1), (times - first)[:, None]
        world = torch.linalg.inv(self.poses)
        turn = _logarithm(world[first, :3, :3].mT @ world[following, :3, :3])
        poses = torch.eye(4, dtype=torch.float64).repeat(frames, 1, 1)
        poses[:, :3, :3] = world[first, :3, :3] @ torch.linalg.matrix_exp(part[..., None] * turn)
        poses[:, :3, 3] = torch.lerp(world[first, :3, 3], world[following, :3, 3], part)
        lenses = torch.lerp(self.lenses[first], self.lenses[following], part)
        return replace(self, poses=torch.linalg.inv(poses), lenses=lenses)


def _logarithm(rotations: Tensor) -> Tensor:
    """``rotations``: ``n 3 3``. Returns ``n 3 3``, their generators: an angle times the cross product with an axis."""
    angle = ((rotations.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1).acos()
    if (angle > HALF_TURN).any():
        raise ValueError(
            "the camera turns around from one pose to the next: give it poses in between, or as many frames as poses"
        )
    return (rotations - rotations.mT) / 2 / torch.sinc(angle / math.pi)[:, None, None]


@dataclass(frozen=True)
class Move:
    """One simple move, as it changes what the camera sees from frame to frame.

    Attributes:
        turn: of the world around the camera's axes, in ``BASE_ANGLE``.
        shift: of the world along them, in ``BASE_SHIFT``.
        zoom: doublings of the focal length.
    """

    turn: tuple[float, float, float] = (0, 0, 0)
    shift: tuple[float, float, float] = (0, 0, 0)
    zoom: float = 0


MOVES = {
    "static": Move(),
    "pan left": Move(turn=(0, 1, 0)),
    "pan right": Move(turn=(0, -1, 0)),
    "tilt up": Move(turn=(-1, 0, 0)),
    "tilt down": Move(turn=(1, 0, 0)),
    "roll clockwise": Move(turn=(0, 0, -1)),
    "roll anticlockwise": Move(turn=(0, 0, 1)),
    "move left": Move(shift=(1, 0, 0)),
    "move right": Move(shift=(-1, 0, 0)),
    "move up": Move(shift=(0, 1, 0)),
    "move down": Move(shift=(0, -1, 0)),
    "move forward": Move(shift=(0, 0, -2)),
    "move backward": Move(shift=(0, 0, 2)),
    "zoom in": Move(zoom=1),
    "zoom out": Move(zoom=-1),
}


def parse_moves(text: str) -> tuple[tuple[str, float], ...]:
    """Moves from text, one per line or between semicolons, each with a factor on its speed, 1 if there is none.

    Raises:
        ValueError: a line does not read so.

    >>> parse_moves("pan left; roll clockwise 0.5")
    (('pan left', 1.0), ('roll clockwise', 0.5))
    """
    return tuple(_move(line.strip()) for line in re.split(r"[\n;]", text) if line.strip())


def _move(line: str) -> tuple[str, float]:
    match = re.fullmatch(r"([a-z ]+?)(?:\s+([-+]?(?:\d+\.?\d*|\.\d+)))?", line)
    if match is None or match[1] not in MOVES:
        raise ValueError(
            f"{line!r} is no move: write one of {', '.join(MOVES)}, then a factor on its speed such as 0.5 if you like"
        )
    return match[1], float(match[2] or 1)


def moved(moves: Sequence[tuple[str, float]], frames: int, speed: float = 1.0) -> CameraPath:
    """The path of moves that happen at the same time, from a camera that looks straight ahead.

    Args:
        moves: names in ``MOVES`` and factors on their speed.
        frames: at least 1.
        speed: of all; at 1 the camera turns by 60 degrees, moves by 1.5 (forward by 3), or doubles its focal length in 16 frames.

    Raises:
        ValueError: a name is not known.
    """
    strange = [name for name, _ in moves if name not in MOVES]
    if strange:
        raise ValueError(f"there is no camera move {strange[0]!r}: choose one of {', '.join(MOVES)}")
    steps = torch.arange(frames, dtype=torch.float64)[:, None] / BASE_FRAMES * speed
    turn, shift = (
        torch.tensor([getattr(MOVES[name], part) for name, _ in moves], dtype=torch.float64).reshape(-1, 3)
        for part in ("turn", "shift")
    )
    factors = torch.tensor([factor for _, factor in moves], dtype=torch.float64)
    poses = torch.eye(4, dtype=torch.float64).repeat(frames, 1, 1)
    poses[:, :3, :3] = _rotations(steps * BASE_ANGLE * (factors @ turn))
    poses[:, :3, 3] = steps * BASE_SHIFT * (factors @ shift)
    lenses = torch.tensor(LENS, dtype=torch.float64).repeat(frames, 1)
    lenses[:, :2] *= 2 ** (steps * sum(MOVES[name].zoom * factor for name, factor in moves))
    return CameraPath(poses, lenses)


def _rotations(angles: Tensor) -> Tensor:
    """Around x first, then y, then z, by ``angles``: ``f 3``. Returns ``f 3 3``."""
    whole = torch.eye(3, dtype=angles.dtype).expand(len(angles), 3, 3)
    for axis in range(3):
        one, two = (axis + 1) % 3, (axis + 2) % 3
        turn = torch.eye(3, dtype=angles.dtype).repeat(len(angles), 1, 1)
        turn[:, one, one] = turn[:, two, two] = angles[:, axis].cos()
        turn[:, two, one] = angles[:, axis].sin()
        turn[:, one, two] = -angles[:, axis].sin()
        whole = turn @ whole
    return whole


def read_path(text: str, name: str, aspect: float = 16 / 9) -> CameraPath:
    """The path in a RealEstate10K file: a title, then a line of 19 numbers for each frame.

    Args:
        text: of the file.
        name: of the file, for what is said about it.
        aspect: width over height of the video it was made from, which the file does not tell.

    Raises:
        ValueError: a line is something else, or its matrix is no rotation. One sentence, with the number of the line.
    """
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if lines and len(lines[0][1]) != NUMBERS:
        lines = lines[1:]  # the title, which is the video's address
    if not lines:
        raise ValueError(
            f"{name} holds no camera poses: use a file of RealEstate10K's kind, a title and then 19 numbers in each line"
        )
    rows = torch.tensor([_row(words, f"line {number} of {name}") for number, words in lines], dtype=torch.float64)
    poses = torch.eye(4, dtype=torch.float64).repeat(len(rows), 1, 1)
    poses[:, :3] = rows[:, 7:].reshape(-1, 3, 4)
    turns = poses[:, :3, :3]
    skewed = (turns @ turns.mT - torch.eye(3)).abs().amax(dim=(1, 2)).gt(0.01) | torch.linalg.det(turns).lt(0)
    if skewed.any():
        number = lines[int(skewed.nonzero()[0])][0]
        raise ValueError(
            f"line {number} of {name} does not turn the camera but distorts it: numbers 8 to 19 must be the rows of a rotation, each"
            " followed by a shift"
        )
    return CameraPath(poses, rows[:, 1:5], aspect)


def _row(words: list[str], where: str) -> list[float]:
    if len(words) != NUMBERS:
        raise ValueError(
            f"{where} has {len(words)} entries: a camera pose is {NUMBERS} numbers (time, lens, 0 0, three rows of a matrix)"
        )
    try:
        row = [float(word) for word in words]
    except ValueError:
        raise ValueError(f"{where} is not all numbers: a camera pose is {NUMBERS} of them") from None
    if not all(map(math.isfinite, row)):
        raise ValueError(f"{where} has a number that is not finite: a camera pose is {NUMBERS} ordinary numbers")
    if min(row[1:3]) <= 0:
        raise ValueError(f"{where} has focal lengths {row[1]:g} and {row[2]:g}: numbers 2 and 3 must be above 0")
    return row


def rays(path: CameraPath, height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Pluecker coordinates ``(o x d, d)`` of the ray through each pixel's centre, from the camera's place ``o`` in direction ``d``.

    The world is that of the first frame's camera. Pictures of another shape than the lens is for are cut out of its middle.

    Args:
        path: of the camera.
        height: of the picture in pixels.
        width: of the picture in pixels.
        device: where to compute.

    Returns:
        rays: ``f 6 height width``, float32.
    """
    wide = path.aspect / (width / height)
    fx, fy, cx, cy = path.lenses.float().to(device)[:, :, None].unbind(1)
    x = ((torch.arange(width, device=device) + 0.5) / width - cx) / (fx * max(1.0, wide))
    y = ((torch.arange(height, device=device) + 0.5) / height - cy) / (fy * max(1.0, 1 / wide))
    seen = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None], x.new_ones(1)), dim=-1)
    world = (path.poses[0] @ torch.linalg.inv(path.poses)).float().to(device)
    direction = torch.einsum("fij,fhwj->fhwi", world[:, :3, :3], torch.nn.functional.normalize(seen, dim=-1))
    origin = world[:, None, None, :3, 3].expand_as(direction)
    return torch.cat([torch.linalg.cross(origin, direction), direction], dim=-1).permute(0, 3, 1, 2)
