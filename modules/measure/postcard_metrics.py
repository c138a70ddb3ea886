"""How good generated postcards are, measured on the pictures alone, against a world that is known exactly.

A traveller is looked for as it is drawn: each in every colour, at every time of day and in a few poses, wherever it may be. The one
whose pixels differ least from the picture's is recognised, if they differ little enough and what is around it differs more. Scene and
time of day are those whose pictures, seen as few large pixels of some mean and variance, are likeliest to look so. The camera's speed
is that at which the marks on the road or the foam move on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.postcard_scenes import SCENES, SIDE, TIMES, Sheet
from ..data.postcard_travellers import COLOURS, TRAVELLERS, Pen
from ..data.postcards import drawn

POSES = {
    "car": (0.0,),
    "boat": (0.0, 2.2, 4.4, 8.8),
    "balloon": (1.0, 4.5),
    "bird": (0.0, 0.9, 1.75, 2.6, 4.3, 5.2),
    "rocket": (0.7, 2.1),
}
MIDDLE, PARTS = 32.0, (0.0, 0.5)  # where templates are drawn, and how much further, in pixels
ACROSS = range(16, 47)  # places that a traveller may be at, pixels from the left
MARGIN = 2  # pixels above and below its way
WORST = 0.02  # mean squared difference, pixels in 0..1, above which nothing is recognised
STANDS_OUT = 0.01  # squared difference by which what is around a traveller is less like it, at least
COARSE = 8  # pixels to a side that scenes are told by
SPREAD = 1e-3  # variance that every large pixel has at least
EXAMPLES = 24  # pictures behind each scene's and time's mean
MARKS = (59, 60)  # rows of the road's dashes and of the foam, from the first to before the last
LAP = 16.0  # pixels from one mark to the next
FASTEST = 4.0  # pixels per frame that the camera is looked for at


@dataclass(frozen=True)
class Seen:
    """What is recognised in each picture; indices into the world's tables.

    Attributes:
        error: ``f``, mean squared difference from the traveller that fits best.
        traveller, colour: ``f``, that traveller.
        place: ``f 2``, where it is, x and y in pixels.
        valid: ``f``, whether it differs little enough to be one.
        scene, time: ``f``.
    """

    error: Tensor
    traveller: Tensor
    colour: Tensor
    place: Tensor
    valid: Tensor
    scene: Tensor
    time: Tensor


@dataclass(frozen=True)
class Templates:
    """A traveller as it is drawn.

    Attributes:
        pictures: ``k 3 h w`` in 0..1.
        mask: ``k 1 h w``, which pixels are its own.
        colour: ``k``, index of each one's.
        top, left: where the cut begins in the picture that they were drawn in.
    """

    pictures: Tensor
    mask: Tensor
    colour: Tensor
    top: int
    left: int


def _drawn_on(time: str, who: str, colour: str, pose: float, part: Sequence[float], ground: int) -> np.ndarray:
    sheet = Sheet(TIMES[time])
    sheet.box(0, 0, SIDE, SIDE, (ground, ground, ground))
    TRAVELLERS[who].draw(Pen(sheet, MIDDLE + part[0], MIDDLE + part[1], COLOURS[colour]), pose)
    return sheet.picture()


@lru_cache(maxsize=8)
def templates(who: str) -> Templates:
    """All looks of a traveller, cut to its size; pixels that show what is behind it are not its own."""
    pictures, masks, colours = [], [], []
    for time in TIMES:
        for number, colour in enumerate(COLOURS):
            for pose, *part in product(POSES[who], PARTS, PARTS):
                one, other = (_drawn_on(time, who, colour, pose, part, ground) for ground in (0, 255))
                pictures.append(one)
                masks.append((one == other).all(-1))
                colours.append(number)
    mask = torch.from_numpy(np.stack(masks))
    rows, columns = (mask.any(0).any(axis).nonzero().flatten() for axis in (1, 0))
    part = (..., slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    return Templates(stacked[part], mask[:, None].float()[part], torch.tensor(colours), int(rows[0]), int(columns[0]))


def _errors(pictures: Tensor, looks: Templates) -> Tensor:
    """Mean squared difference at every place: ``pictures``: ``f 3 h w``. Returns ``f k p q``."""
    count = 3 * looks.mask.sum(dim=(1, 2, 3))
    own = looks.pictures * looks.mask
    squares = F.conv2d(pictures.square().sum(1, keepdim=True), looks.mask)
    return (squares - 2 * F.conv2d(pictures, own) + own.square().sum(dim=(1, 2, 3))[:, None, None]) / count[:, None, None]


def _around(pictures: Tensor, looks: Templates, look: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """How far what is around a traveller differs from its own mean colour: ``pictures``: ``f 3 h w``, others ``f``. Returns ``f``."""
    tall, wide = looks.mask.shape[2:]
    shell = F.max_pool2d(looks.mask, 5, 1, 2) - F.max_pool2d(looks.mask, 3, 1, 1)
    own = (looks.pictures * looks.mask).sum((2, 3)) / looks.mask.sum((2, 3))
    places = zip(pictures, row.tolist(), column.tolist(), strict=True)
    parts = torch.stack([picture[:, y : y + tall, x : x + wide] for picture, y, x in places])
    apart = (parts - own[look][..., None, None]).square().mean(1, keepdim=True) * shell[look]
    return apart.sum((1, 2, 3)) / shell[look].sum((1, 2, 3)).clamp_min(1)


def _found(pictures: Tensor, who: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The best look of one traveller: its error ``f``, its colour ``f``, its place ``f 2``, how far its surroundings differ ``f``."""
    looks, row = templates(who), TRAVELLERS[who]
    tall, wide = looks.mask.shape[2:]
    above, before = int(MIDDLE) - looks.top, int(MIDDLE) - looks.left  # from a template's corner to its traveller's place
    low, high = math.floor(row.height - row.sway) - MARGIN, math.ceil(row.height + row.sway) + MARGIN
    top, left = max(0, low - above), max(0, ACROSS[0] - before)
    part = pictures[..., top : min(SIDE, high - above + tall + 1), left : min(SIDE, ACROSS[-1] - before + wide + 1)]
    errors = _errors(part, looks)
    best, place = errors.flatten(1).min(1)
    columns, rows = errors.shape[3], errors.shape[2]
    look, y, x = place // (columns * rows), place // columns % rows, place % columns
    around = _around(part, looks, look, y, x)
    return best, looks.colour[look], torch.stack([x + left + before, y + top + above], dim=-1).float(), around


@lru_cache(maxsize=1)
def _looks() -> tuple[Tensor, Tensor]:
    """Mean and variance of each scene's pictures at each time, scenes after one another: both ``n d``."""
    found = []
    for scene in SCENES:
        for time in TIMES:
            cards = [drawn(7, number, scene=scene, time=time) for number in range(EXAMPLES)]
            found.append(torch.from_numpy(np.stack([card.draw(0) for card in cards])).permute(0, 3, 1, 2).float() / 255)
    rows = torch.stack([_coarse(pictures) for pictures in found])
    return rows.mean(1), rows.var(1) + SPREAD


def _coarse(pictures: Tensor) -> Tensor:
    """Few large pixels: ``pictures``: ``f 3 h w``. Returns ``f d``."""
    return F.avg_pool2d(pictures, COARSE).flatten(1)


def recognise(images: Tensor) -> Seen:
    """What each picture shows: ``images``: ``f h w 3`` in 0..1, 64 by 64 pixels.

    Raises:
        ValueError: pictures of another size.
    """
    if images.ndim != 4 or tuple(images.shape[1:]) != (SIDE, SIDE, 3):
        raise ValueError(f"pictures of the shape {list(images.shape)} were given: postcards are {SIDE} by {SIDE} pixels, f h w 3")
    pictures = images.float().permute(0, 3, 1, 2)
    found = [_found(pictures, who) for who in TRAVELLERS]
    error, traveller = torch.stack([item[0] for item in found]).min(0)
    picked = torch.arange(len(images))
    colour, place = (torch.stack([item[part] for item in found])[traveller, picked] for part in (1, 2))
    mean, variance = _looks()
    nearest = ((_coarse(pictures)[:, None] - mean).square() / variance + variance.log()).sum(-1).argmin(1)
    outside = torch.stack([item[3] for item in found])[traveller, picked]
    valid = (error < WORST) & (outside > error + STANDS_OUT)
    return Seen(error, traveller, colour, place, valid, nearest // len(TIMES), nearest % len(TIMES))


def scroll_speed(images: Tensor) -> Tensor:
    """How far the land moves from each picture to the next, pixels: ``images``: ``f h w 3``. Returns ``f-1``, from 0 to ``FASTEST``."""
    rows = images[:, MARKS[0] : MARKS[1]].float().mean(dim=(1, 3))
    waves = torch.fft.rfft(rows - rows.mean(1, keepdim=True))
    turned = waves[1:] * waves[:-1].conj()
    turned = turned / turned.abs().clamp_min(1e-8)
    shifts = torch.arange(0, FASTEST + 0.05, 0.05)
    steps = torch.exp(-2j * math.pi * torch.outer(shifts, torch.arange(waves.shape[1])) / rows.shape[1])
    # only whole laps fit the picture's width, so harmonics of a lap are what the marks consist of
    harmonics = torch.arange(1, 4) * round(rows.shape[1] / LAP)
    weight = (waves[1:].abs() * waves[:-1].abs())[:, harmonics]
    match = (weight[:, None] * (turned[:, None, harmonics] * steps[None, :, harmonics]).real).sum(-1)
    return shifts[match.argmax(1)]


def sharpness(images: Tensor) -> Tensor:
    """Root of the mean squared difference between neighbouring pixels of each picture: ``images``: ``f h w 3``. Returns ``f``."""
    squares = [torch.diff(images.float(), dim=axis).square().mean(dim=(1, 2, 3)) for axis in (1, 2)]
    return torch.stack(squares).sum(0).sqrt()
