"""Frames of a clip that are given: how they are named, and the gaps that they leave."""

import re
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def known_frames(known: int | Sequence[int] | Tensor, frames: int) -> Tensor:
    """Which frames are given.

    Args:
        known: how many at the start, or their numbers (negative ones count from the end), or a bool for each, ``f``.
        frames: length of the clip.

    Returns:
        known: ``f``, bool.

    Raises:
        ValueError: a number outside the clip, or nothing is left to generate.
    """
    if isinstance(known, Tensor):
        mask = known.bool()
        if len(mask) != frames:
            raise ValueError(f"{len(mask)} frames are marked as known or not, and the clip has {frames}: they must agree")
    else:
        if isinstance(known, int):
            if known < 0:
                raise ValueError(f"known is {known}: it must be at least 0")
            known = range(min(known, frames))
        outside = [i for i in known if not -frames <= i < frames]
        if outside:
            raise ValueError(f"frame {outside[0]} is known and the clip has frames 0 to {frames - 1}: choose a frame of the clip")
        mask = torch.zeros(frames, dtype=torch.bool)
        mask[list(known)] = True
    if bool(mask.all()):
        raise ValueError(
            f"{int(mask.sum())} frames are known and the clip has {frames}: nothing is left to generate, ask for more frames"
        )
    return mask


def numbers_of(text: str) -> list[int]:
    """Frame numbers as users write them: separated by commas or spaces, negative ones counting from the end.

    >>> numbers_of("0, 8 -1")
    [0, 8, -1]

    Raises:
        ValueError: something else is among them.
    """
    words = text.replace(",", " ").split()
    for word in words:
        if not re.fullmatch(r"[+-]?\d+", word):
            raise ValueError(f"{word!r} is no frame number: write whole numbers such as 0, 16, -1 (the last frame)")
    return [int(word) for word in words]


def only_at_the_start(known: Tensor) -> bool:
    """Whether no given frame comes after one that is not: ``known``: ``f``, bool."""
    return not bool((known[1:] & ~known[:-1]).any())


def reaching(first: Tensor, last: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Stretches of frames with the given frames beside them, if some are given elsewhere than at the start: what leads to them sees them.

    Args:
        first: ``m``, first frame of each.
        last: ``m``, last frame of each.
        known: ``f``, bool.

    Returns:
        first: ``m``, and last: ``m``.
    """
    if only_at_the_start(known):
        return first, last
    beside = torch.nn.functional.pad(known, (1, 1)).long()  # frame i stands at i + 1
    return first - beside[first], last + beside[last + 2]


def gaps(known: Tensor) -> Iterator[tuple[int, int]]:
    """First frame of each stretch that is not given, and the frame after its last: ``known``: ``f``, bool."""
    edges = torch.cat([torch.tensor([True]), known.bool().cpu(), torch.tensor([True])]).int().diff()
    yield from zip((edges == -1).nonzero().flatten().tolist(), (edges == 1).nonzero().flatten().tolist(), strict=True)
