"""A sampler as a matrix of noise levels: rows are model calls, columns are frames (Diffusion Forcing, arXiv:2407.01392).

A level counts denoising steps still to go: ``steps`` is pure noise, 0 is clean. Every schedule here is

    level[m, f] = clip(steps + offset[f] - m, 0, steps)

and differs only in when each frame starts, its offset. To add a schedule, write its offsets and name it in ``SCHEDULES``: menus and
property tests read that table, and menus show the first sentence of its docstring. If frames start in their order and without an end, name
it in ``ENDLESS`` too. The schedules as samplers take them are in ``noise_levels.py``, matrices that are no offsets in ``level_matrix.py``.
Differs from the reference code: its trapezoid mirrors around the wrong column and leaves one frame as noise for even lengths; rows in which
nothing moves are left out.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .known_frames import gaps


def full_sequence(index: Tensor, steps: int, lag: float, block: int) -> Tensor:
    """All frames move together, as in ordinary video diffusion. ``index``: ``n``. Returns ``n``."""
    return torch.zeros_like(index)


def autoregressive(index: Tensor, steps: int, lag: float, block: int) -> Tensor:
    """A block starts when the one before it is clean. ``index``: ``n``. Returns ``n``."""
    return _blocks(index, block) * steps


def pyramid(index: Tensor, steps: int, lag: float, block: int) -> Tensor:
    """Each block is a little noisier than the one before it, for takes of any length.

    It is ``lag`` steps behind: 0 is full_sequence, ``steps`` autoregressive. ``index``: ``n``. Returns ``n``.
    """
    return _lagged(_blocks(index, block), min(lag, steps))


def trapezoid(index: Tensor, steps: int, lag: float, block: int) -> Tensor:
    """Both ends lead and the middle follows, which fills gaps between known frames. ``index``: ``n``. Returns ``n``."""
    blocks = _blocks(index, block)
    return _lagged(torch.minimum(blocks, blocks.max() - blocks), min(lag, steps))


def chunked(index: Tensor, steps: int, lag: float, block: int) -> Tensor:
    """Each block is a pyramid, and starts when the whole one before it is clean.

    Diffusion Forcing's ``chunk_size`` is ``block``. ``index``: ``n``. Returns ``n``.
    """
    lag = min(lag, steps)
    whole = steps + int(_lagged(torch.tensor(block - 1), lag))
    return _blocks(index, block) * whole + _lagged(index % block, lag)


def ar_step(index: Tensor, steps: int, lag: float, block: int) -> Tensor:
    """It is as in SkyReels-V2 and AR-Diffusion for video: lag is their ar_step, in whole steps, and block their causal_block_size.

    arXiv:2504.13074, arXiv:2503.07418; a last block that is not full is generated too, not cut off. ``index``: ``n``.
    Returns ``n``.
    """
    return _blocks(index, block) * int(min(lag, steps))


def fifo(index: Tensor, steps: int, lag: float, block: int) -> Tensor:
    """As many frames as steps stand in a queue, and every call takes one out of it; lag and block do nothing.

    FIFO-Diffusion (arXiv:2405.11473): every call moves each by a level, and another joins as pure noise. ``index``: ``n``. Returns ``n``.
    """
    return index.clone()


def rolling(index: Tensor, steps: int, lag: float, block: int) -> Tensor:
    """It is Rolling Diffusion, with steps / lag frames in flight.

    arXiv:2402.09470: ``lag`` is M, the steps between two shifts, and W = ``steps`` / M. ``index``: ``n``. Returns ``n``.
    """
    return index * _sharing(steps, lag)


def progressive(index: Tensor, steps: int, lag: float, block: int) -> Tensor:
    """It is PA-VDM, with steps / lag blocks in flight.

    arXiv:2410.08151: ``lag`` is the steps between two shifts of ``block`` frames. ``index``: ``n``. Returns ``n``.
    """
    return _blocks(index, block) * _sharing(steps, lag)


def _blocks(index: Tensor, block: int) -> Tensor:
    return index.div(block, rounding_mode="floor")


def _lagged(blocks: Tensor, lag: float) -> Tensor:
    return (blocks.double() * lag + 1e-9).floor().long()  # 0.29 * 100 is 28.999999999999996


def _sharing(steps: int, lag: float) -> int:
    """The least number of steps, ``lag`` or more, that shares ``steps`` into whole shifts."""
    return next(shift for shift in range(max(1, math.ceil(min(lag, steps))), steps + 1) if steps % shift == 0)


# (numbers of the generated frames from 0, steps, lag, frames in a block) -> the rows that each frame waits
Offsets = Callable[[Tensor, int, float, int], Tensor]
SCHEDULES: dict[str, Offsets] = {
    f.__name__: f for f in (pyramid, autoregressive, full_sequence, trapezoid, chunked, ar_step, fifo, rolling, progressive)
}
ENDLESS = ("pyramid", "autoregressive", "chunked", "ar_step", "fifo", "rolling", "progressive")  # start in order, without an end
# Schedules whose authors show the model frames that have not begun, as pure noise, as far as the window reaches: DFoT
# (arXiv:2502.06764) pads its window so, SkyReels-V2 and AR-Diffusion have all of it in every call. In the others the window is what moves.
SHOWS_WAITING = ("pyramid", "autoregressive", "chunked", "ar_step")


def between(known: Tensor, steps: int, lag: float, block: int, window: int = 0) -> Tensor:
    """In-betweening: each gap between known frames is filled from its known neighbours inward.

    Args:
        known: ``f``, bool.
        steps: of each frame.
        lag: steps between neighbouring blocks.
        block: frames that move together, counted from the gap's known end.
        window: neighbouring gaps are filled at the same time as far as so many frames hold them with the known frames beside them, the
            others after them; 0 fills all at the same time.

    Returns:
        offsets: ``f``, 0 for known frames.
    """
    offsets = torch.zeros(len(known), dtype=torch.int64)
    start, low = 0, 0
    for number, (first, end) in enumerate(gaps(known)):
        if number == 0:
            low = max(0, first - 1)
        elif window and min(end + 1, len(known)) - low > window:
            start, low = int(offsets.max()) + steps, first - 1
        index = torch.arange(end - first)
        left, right = first > 0, end < len(known)
        onward = pyramid(index, steps, lag, block)
        own = trapezoid(index, steps, lag, block) if left == right else onward if left else onward.flip(0)
        offsets[first:end] = start + own
    return offsets


def check_schedule(name: str, frames: int, steps: int, lag: float, block: int) -> None:
    """Refuse what no schedule can be made of.

    Raises:
        ValueError: one sentence.
    """
    if name not in SCHEDULES:
        raise ValueError(f"the schedule {name!r} is not known: choose one of {', '.join(SCHEDULES)}")
    for what, value, least in (("frames", frames, 1), ("steps", steps, 1), ("block", block, 1), ("lag", lag, 0)):
        if not value >= least:
            raise ValueError(f"{what} is {value}: it must be at least {least}")
