"""What stands beside each frame of a clip of which some frames are known, and its mask, as tables of functions.

To add a way to fill in or to mask, write a function of the keyframes' numbers and the length of the clip, and name it in ``HINTS`` or
``MASKS``; its docstring begins with a sentence for users, which menus show.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Places = Sequence[int]


def hold(frames: Places, count: int) -> Tensor:
    """Each keyframe is held until the next one, and the first before itself too.

    It is the article's, ``i // k`` for every k-th frame. Returns ``f k``.
    """
    held = torch.bucketize(torch.arange(count), torch.tensor(list(frames)), right=True) - 1
    return _chosen(held.clamp_min(0), len(frames))


def nearest(frames: Places, count: int) -> Tensor:
    """The nearest keyframe stands beside each frame, of two the earlier. Returns ``f k``."""
    distance = (torch.arange(count)[:, None] - torch.tensor(list(frames))).abs()
    return _chosen(distance.argmin(dim=1), len(frames))


def linear(frames: Places, count: int) -> Tensor:
    """Both neighbours are blended by time; outside of all keyframes the last one stands alone. Returns ``f k``."""
    at, places = torch.arange(count, dtype=torch.float64), torch.tensor(list(frames), dtype=torch.float64)
    if len(places) == 1:
        return torch.ones(count, 1)
    left = (torch.bucketize(at, places, right=True) - 1).clamp(0, len(places) - 2)
    share = ((at - places[left]) / (places[left + 1] - places[left])).clamp(0, 1).float()
    return _chosen(left, len(frames)) * (1 - share)[:, None] + _chosen(left + 1, len(frames)) * share[:, None]


def blank(frames: Places, count: int) -> Tensor:
    """Keyframes stand in their own places and zeros between them, as in Make-A-Video. Returns ``f k``."""
    return (torch.arange(count)[:, None] == torch.tensor(list(frames))).float()


def _chosen(index: Tensor, keys: int) -> Tensor:
    return torch.nn.functional.one_hot(index, keys).float()


# what stands beside a noisy frame: (numbers of the keyframes, frames of the clip) -> share of each keyframe, ``f k``
HINTS: dict[str, Callable[[Places, int], Tensor]] = {f.__name__: f for f in (hold, nearest, linear, blank)}


def given(frames: Places, count: int) -> Tensor:
    """1 on keyframes, 0 elsewhere. Returns ``f``."""
    marks = torch.zeros(count)
    marks[list(frames)] = 1
    return marks


def zeros(frames: Places, count: int) -> Tensor:  # noqa: ARG001  rows of one table share a signature
    """The mask is 0 everywhere: nothing is to be painted, as in the article. Returns ``f``."""
    return torch.zeros(count)


def between(frames: Places, count: int) -> Tensor:
    """The mask is 1 on frames between keyframes, as in Make-A-Video. Returns ``f``."""
    return 1 - given(frames, count)


def keyframes(frames: Places, count: int) -> Tensor:
    """The mask is 1 on keyframes, as in MoonShot. Returns ``f``."""
    return given(frames, count)


# the mask of each frame, as inpainting checkpoints mean it (1: to be made), ``f``
MASKS: dict[str, Callable[[Places, int], Tensor]] = {f.__name__: f for f in (zeros, between, keyframes)}
