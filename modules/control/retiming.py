"""A clip at another frame rate: which frames an interpolator has to put in between, which are kept, and when each of them is."""

import math
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from .hint_tables import linear
from .hints import every, mixed

MOST = 16  # what ComfyUI's FrameInterpolate multiplies at most
FINE = 4  # frames to choose from per frame where no multiplier up to MOST meets all times: none is further off than an eighth of a frame


@dataclass(frozen=True)
class Retiming:
    """How a clip goes from one frame rate to another over frames that an interpolator puts in between.

    Attributes:
        multiplier: frames that the interpolator makes of each, at least 1; 1 for no interpolator.
        places: of the frames that are kept, among those that it gives.
        times: when the frames that are kept should be, in seconds from the first.
        error: how far the frame furthest from its time is off, in seconds; 0 where all are exactly then.
    """

    multiplier: int
    places: tuple[int, ...]
    times: tuple[float, ...]
    error: float

    def chosen(self, images: Tensor, frames: int) -> Tensor:
        """The frames that are kept.

        Args:
            images: ``n ...``, what the interpolator gave.
            frames: that it was given.

        Returns:
            images: ``f ...``.

        Raises:
            ValueError: it gave another number of frames than ``(frames - 1) * multiplier + 1``.
        """
        due = (frames - 1) * self.multiplier + 1
        if len(images) != due:
            raise ValueError(
                f"the interpolator made {len(images)} frames of {frames} and {due} were due: it is of a version that this node"
                " does not know"
            )
        return images[list(self.places)]


def retimed(frames: int, from_fps: float, to_fps: float) -> Retiming:
    """Which frames a clip has at another rate: the first at 0, each next ``1 / to_fps`` later, none past the last that there is.

    The multiplier is the least with a frame at each of these times; where that is more than ``MOST``, the nearest frames are taken.

    Args:
        frames: of the clip.
        from_fps: its frames per second.
        to_fps: wanted.

    Raises:
        ValueError: a rate is not above 0, they are too far apart, or there are no frames.

    >>> retimed(5, 8, 16).places
    (0, 1, 2, 3, 4, 5, 6, 7, 8)
    >>> retimed(5, 16, 24).multiplier, retimed(5, 16, 24).places
    (3, (0, 2, 4, 6, 8, 10, 12))
    """
    for name, rate in (("from_fps", from_fps), ("to_fps", to_fps)):
        if not (rate > 0 and math.isfinite(rate)):
            raise ValueError(f"{name} is {rate}: it must be above 0; 8 is usual for AnimateDiff, 24 for film")
    if frames < 1:
        raise ValueError("there are no frames: connect images")
    ratio = Fraction(str(to_fps)) / Fraction(str(from_fps))
    if ratio > MOST:
        raise ValueError(
            f"{from_fps:g} to {to_fps:g} frames per second is {float(ratio):.3g} times as many: {MOST} times is the most in one go;"
            f" use two"
            " nodes one after the other"
        )
    multiplier = ratio.numerator if ratio.numerator <= MOST else max(FINE, math.ceil(ratio))
    wanted = [number / ratio for number in range(math.floor((frames - 1) * ratio) + 1)]  # in frames of the clip
    places = [math.floor(at * multiplier + Fraction(1, 2)) for at in wanted]
    error = max(abs(Fraction(place, multiplier) - at) for place, at in zip(places, wanted, strict=True))
    times = tuple(number / to_fps for number in range(len(wanted)))
    return Retiming(multiplier, tuple(places), times, float(error) / from_fps)


def blended(images: Tensor, multiplier: int) -> Tensor:
    """Frames in between as mixtures of their neighbours: what an interpolator that knows nothing of motion makes.

    Args:
        images: ``f ...``.
        multiplier: at least 1.

    Returns:
        images: ``n ...``, where ``n`` is ``(f - 1) * multiplier + 1``; those that were given are bit for bit as they were.
    """
    if len(images) < 2 or multiplier == 1:
        return images
    places = every(len(images), multiplier)
    return mixed(images, linear(places, places[-1] + 1))
