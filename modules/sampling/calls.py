"""The model calls of a schedule: which frames of a clip each of them shows, and what a schedule has to offer to be sampled with."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Call:
    """One model call: the frames it shows, and which levels they have before and after.

    Attributes:
        ids: ``n``, int64, frames of the clip, rising.
        before: ``n``, levels at the call: whole numbers (int64), or levels in between (float).
        after: ``n``, levels afterwards; equal to ``before`` for frames that stay untouched.
        times: ``n``, when the temporal modules are told each frame is; None for ``ids``.
    """

    ids: Tensor
    before: Tensor
    after: Tensor
    times: Tensor | None = None


class Levels(Protocol):
    """What samplers ask of a schedule for a clip."""

    @property
    def steps(self) -> int:
        """Denoising steps of each frame: the level of pure noise."""
        ...

    @property
    def known(self) -> Tensor:
        """Which frames are given and clean all along, bool. Returns ``f``."""
        ...

    @property
    def frames(self) -> int:
        """Length of the clip, known frames included."""
        ...

    @property
    def calls_total(self) -> int:
        """Model calls of the whole clip."""
        ...

    def matrix(self) -> Tensor:
        """Every state on the way, the first all noise and the last all clean. Returns ``m f``."""
        ...

    def in_flight(self) -> int:
        """The widest stretch of frames, from the first to the last, that any row moves: the least window."""
        ...

    def calls(self, window: int, anchors: int = 0) -> Iterator[Call]:
        """The model calls, in order, through a window of so many frames; see ``NoiseLevels.calls``."""
        ...


def unseen(call: Call, following: int, known: Callable[[int], bool], most: int) -> Iterator[Call]:
    """Calls that show the known frames right before a call's, as far as none has: what a model that goes on from what it remembers has
    to see first. They move nothing.

    Args:
        call: the next one.
        following: number of the frame after the last that was shown.
        known: whether a frame was given.
        most: frames that are shown at once.
    """
    ids = call.ids.tolist()
    low = next((ids[place] for place in range(len(ids) - 1, 0, -1) if ids[place] - ids[place - 1] > 1), ids[0])  # behind anchors
    first = low
    while first > following and known(first - 1):
        first -= 1
    for start in range(first, low, most):
        missed = torch.arange(start, min(start + most, low))
        levels = call.before.new_zeros(len(missed))
        yield Call(missed, levels, levels)


def check_window(needed: int, window: int, anchors: int) -> int:
    """How many frames of context a window has room for beside those in flight, ``needed``, and ``anchors``.

    Raises:
        ValueError: none of them may be left out, and they do not fit.
    """
    if anchors < 0:
        raise ValueError(f"anchors is {anchors}: it must be at least 0")
    if window < needed + anchors:
        kept = f" and {anchors} anchors" if anchors else ""
        raise ValueError(
            f"the window holds {window} frames and this schedule has {needed} in flight{kept} at once: "
            f"use a window of at least {needed + anchors}, fewer steps, a smaller block or a larger lag"
        )
    return window - needed - anchors


def spans(first: Tensor, last: Tensor, window: int, frames: int, *, context: int, rising: bool) -> Tensor:
    """The stretch of frames that each call shows.

    Where frames finish in their order, it is what moves and the ``context`` before it, so that a frame is made from the same context
    whether the clip ends soon or goes on. Where they do not, what moves stands in the middle of the window: context lies on both sides.

    Args:
        first: ``m``, first frame that moves in each call.
        last: ``m``, last one.
        window: frames there is room for.
        frames: of the clip.
        context: frames before those that move.
        rising: whether frames finish in their order.

    Returns:
        spans: ``m 2``, the first frame and the one after the last.
    """
    if rising:
        return torch.stack([(first - context).clamp_min(0), last + 1], dim=1)
    spare = window - (last + 1 - first)
    low = (first - (spare + 1) // 2).clamp(0, max(0, frames - window))
    return torch.stack([low, (low + window).clamp_max(frames)], dim=1)


def anchored(low: int, high: int, anchors: int) -> tuple[Tensor, Tensor | None]:
    """The frames ``low`` to ``high - 1`` behind those of the first ``anchors`` that lie before them.

    Returns:
        ids: ``n``, int64, and times: ``n``, in which they stand without a gap, or None where there is none.
    """
    kept = min(anchors, low)
    ids = torch.cat([torch.arange(kept), torch.arange(low, high)])
    return ids, (torch.arange(low - kept, high) if kept < low and kept else None)
