"""What size clips are trained in: buckets by aspect ratio, and what is cut off.

To add a way with mixed sizes, write a function of the sizes of all clips and of the size asked for that gives each clip's, and name it in
``SIZES``.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

STEEPEST = 2.0  # sides of a bucket, longer to shorter


class Size(NamedTuple):
    """Pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


class Box(NamedTuple):
    """What is kept of a frame."""

    left: int
    top: int
    width: int
    height: int


def buckets(target: Size, multiple: int) -> list[Size]:
    """The sizes of about as many pixels as ``target`` and no more, with sides that are multiples; ``target`` is one of them.

    >>> [str(size) for size in buckets(Size(256, 256), 64)]
    ['192x320', '256x256', '320x192']
    """
    area = target.width * target.height
    wide = [Size(width, area // width // multiple * multiple) for width in range(multiple, area // multiple + 1, multiple)]
    fitting = [size for size in wide if size.height and 1 / STEEPEST <= size.width / size.height <= STEEPEST]
    turned = [Size(size.height, size.width) for size in fitting]
    largest: dict[float, Size] = {}  # of each shape
    for size in [*fitting, *turned, target]:
        shape = size.width / size.height
        largest[shape] = max(largest.get(shape, size), size)
    full = [size for size in largest.values() if size == target or size.width * size.height > 0.8 * area]
    return sorted(full, key=lambda size: size.width / size.height)


def bucketed(sizes: Sequence[Size], target: Size, multiple: int) -> list[Size]:
    """The bucket whose shape is nearest to the clip's; of two that are equally near, the size asked for."""
    all_of_them = sorted(buckets(target, multiple), key=target.__ne__)
    return [min(all_of_them, key=lambda bucket, size=size: round(_difference(bucket, size), 9)) for size in sizes]


def _difference(one: Size, other: Size) -> float:
    return abs(math.log(one.width * other.height) - math.log(other.width * one.height))


def cropped(sizes: Sequence[Size], target: Size, multiple: int) -> list[Size]:  # noqa: ARG001  rows of the table share a signature
    """One size for all."""
    return [target] * len(sizes)


def only_one(sizes: Sequence[Size], target: Size, multiple: int) -> list[Size]:  # noqa: ARG001
    """One size for all, from clips of one size.

    Raises:
        ValueError: there are several.
    """
    different = list(dict.fromkeys(sizes))
    if len(different) > 1:
        listed = ", ".join(map(str, different[:4])) + (", ..." if len(different) > 4 else "")
        raise ValueError(f"the clips have {len(different)} sizes ({listed}): make them one, or choose buckets or crop for sizes")
    return [target] * len(sizes)


SIZES: dict[str, Callable[[Sequence[Size], Size, int], list[Size]]] = {"buckets": bucketed, "crop": cropped, "refuse": only_one}

# where a crop lies in what is too much, from two numbers in 0..1 that differ from clip to clip
CROPS: dict[str, Callable[[float, float], tuple[float, float]]] = {
    "centre": lambda x, y: (0.5, 0.5),
    "random": lambda x, y: (x, y),
}


def crop(whole: Size, target: Size, x: float, y: float) -> Box:
    """The largest part of a frame that has the target's shape.

    Args:
        whole: the frame's size.
        target: what it becomes.
        x: where the part lies, 0 on the left and 1 on the right.
        y: where the part lies, 0 at the top and 1 at the bottom.

    >>> crop(Size(640, 360), Size(256, 256), 0.5, 0.5)
    Box(left=140, top=0, width=360, height=360)
    """
    width = min(whole.width, max(1, round(whole.height * target.width / target.height)))
    height = min(whole.height, max(1, round(whole.width * target.height / target.width)))
    return Box(round(x * (whole.width - width)), round(y * (whole.height - height)), width, height)


def resized(picture: Tensor, box: Box, target: Size) -> Tensor:
    """A part of ``picture``: ``h w c``, in the target's size; untouched where it has that already. Returns ``c p q`` in 0..1."""
    part = picture[box.top : box.top + box.height, box.left : box.left + box.width]
    part = rearrange(part, "h w c -> 1 c h w")
    if (box.width, box.height) != target:
        part = F.interpolate(part, (target.height, target.width), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    return part[0]
