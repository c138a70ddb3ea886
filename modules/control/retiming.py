"""A clip at another frame rate: when each of its frames is, and which of them have to be put in between."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import groupby

import torch
from torch import Tensor

Between = Callable[[int, Sequence[float]], Tensor]  # (pair, how late) -> ``m ...``: frames between frame pair and the next


def retimed(frames: int, from_fps: float, to_fps: float) -> tuple[Fraction, ...]:
    """When a clip's frames are at another rate: the first at 0, each next ``1 / to_fps`` later, none past the last that there is.

    Args:
        frames: of the clip.
        from_fps: its frames per second.
        to_fps: wanted.

    Returns:
        times: in frames of the clip, exactly; a whole number is a frame that there is.

    Raises:
        ValueError: a rate is not above 0, or there are no frames.

    >>> [str(time) for time in retimed(3, 16, 24)]
    ['0', '2/3', '4/3', '2']
    """
    for name, rate in (("from_fps", from_fps), ("to_fps", to_fps)):
        if not (rate > 0 and math.isfinite(rate)):
            raise ValueError(f"{name} is {rate}: it must be above 0; 8 is usual for AnimateDiff, 24 for film")
    if frames < 1:
        raise ValueError("there are no frames: connect images")
    ratio = Fraction(str(to_fps)) / Fraction(str(from_fps))
    return tuple(number / ratio for number in range(math.floor((frames - 1) * ratio) + 1))


def at_times(images: Tensor, times: Sequence[Fraction], between: Between) -> Tensor:
    """The clip at these times, pair by pair: nothing is made that is not kept.

    Args:
        images: ``f ...``.
        times: in frames of the clip, in order, none past its last.
        between: makes frames between two neighbours; it is asked once for a pair, for shares above 0 and below 1, in order.

    Returns:
        images: ``n ...``, one for each time; those that there are, are bit for bit as they were.
    """
    made = images.new_empty(len(times), *images.shape[1:])
    for whole, group in groupby(enumerate(times), key=lambda item: item[1].denominator == 1):
        for pair, several in groupby(group, key=lambda item: math.floor(item[1])):
            places, found = zip(*several, strict=True)
            made[list(places)] = (
                images[pair].to(made)[None] if whole else between(pair, [float(time - pair) for time in found]).to(made)
            )
    return made


def mixtures(images: Tensor) -> Between:
    """Frames in between as mixtures of their neighbours, what an interpolator that knows nothing of motion makes: ``images``: ``f ...``."""

    def between(pair: int, late: Sequence[float]) -> Tensor:
        return torch.stack([torch.lerp(images[pair], images[pair + 1], share) for share in late])

    return between
