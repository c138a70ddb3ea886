"""What a frame is shown of several pictures that belong to several times: which of them, in what shares, and how strongly.

To add a way, write a function of (resolved keyframes, frames) and name it in ``BLENDS``.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .keyframes import Keyframes

Blend = Callable[[Keyframes, int], tuple[Tensor, Tensor]]


def blended(keyframes: Keyframes, count: int, how: str) -> tuple[Tensor, Tensor]:
    """Shares and strengths of every frame of a clip.

    Args:
        keyframes: the pictures and their times, in any order.
        count: frames of the clip.
        how: a name in ``BLENDS``.

    Returns:
        shares: ``f k``, summing to 1 or 0, of the pictures in the order in which they were given, and strength: ``f``.

    Raises:
        ValueError: the way is not known, or the keyframes do not fit the clip.
    """
    if how not in BLENDS:
        raise ValueError(f"the blend {how!r} is not known: choose one of {', '.join(BLENDS)}")
    shares, strength = BLENDS[how](keyframes.at(count), count)
    order = sorted(range(len(keyframes)), key=lambda place: keyframes.frames[place] % count)
    given = torch.empty_like(shares)
    given[:, order] = shares
    return given, strength


def _interpolated(keyframes: Keyframes, count: int) -> tuple[Tensor, Tensor]:
    """A frame sees the two pictures around it, in shares that change linearly from one keyframe to the next. Ends are held."""
    times = torch.tensor(keyframes.frames, dtype=torch.float32)
    frames = torch.arange(count, dtype=torch.float32).clamp(times[0], times[-1])
    after = torch.searchsorted(times, frames, right=True).clamp(max=len(times) - 1)
    before = (after - 1).clamp(min=0)
    span = (times[after] - times[before]).clamp_min(1)
    late = torch.where(after == before, torch.zeros_like(frames), (frames - times[before]) / span)
    shares = torch.zeros(count, len(times))
    rows = torch.arange(count)
    shares.index_put_((rows, before), 1 - late, accumulate=True)
    shares.index_put_((rows, after), late, accumulate=True)
    return shares, shares @ torch.tensor(keyframes.strengths)


def _nearest(keyframes: Keyframes, count: int) -> tuple[Tensor, Tensor]:
    """A frame sees the picture of the nearest keyframe alone. Of two as near it is the earlier one."""
    nearest = nearest_of(keyframes, count)
    return torch.nn.functional.one_hot(nearest, len(keyframes)).float(), torch.tensor(keyframes.strengths)[nearest]


def nearest_of(keyframes: Keyframes, count: int) -> Tensor:
    """For each frame the place of the keyframe that is nearest, of two as near the earlier one. Returns ``f``, int64.

    Args:
        keyframes: as ``Keyframes.at`` gives them.
        count: frames of the clip.
    """
    return (torch.arange(count)[:, None] - torch.tensor(keyframes.frames)).abs().argmin(dim=1)


def _reached(keyframes: Keyframes, count: int) -> tuple[Tensor, Tensor]:
    """A frame sees a picture as far as its keyframe reaches, and nothing beyond."""
    weights = keyframes.weights(count).T
    total = weights.sum(dim=1)
    return weights / torch.where(total > 0, total, torch.ones_like(total))[:, None], weights.amax(dim=1)


BLENDS: dict[str, Blend] = {"interpolate": _interpolated, "nearest": _nearest, "reach": _reached}
