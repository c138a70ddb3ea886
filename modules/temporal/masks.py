"""Which frames a frame may look at. True means "may"; every frame may look at itself.

Masks are functions of absolute frame numbers, so a window of a long video gets its part of the long video's mask. To add one,
write a function and name it in ``MASKS``.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def full(ids: Tensor) -> Tensor:
    """Everything: ``ids``: ``f`` frame numbers. Returns ``f f``."""
    return torch.ones(len(ids), len(ids), dtype=torch.bool, device=ids.device)


def causal(ids: Tensor) -> Tensor:
    """The past and the present: ``ids``: ``f`` frame numbers. Returns ``f f``.

    >>> causal(torch.arange(3)).int().tolist()
    [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    return ids[:, None] >= ids[None, :]


def block_causal(ids: Tensor, block: int = 4) -> Tensor:
    """The past and one's own block of ``block`` frames: ``ids``: ``f``. Returns ``f f``."""
    blocks = ids.div(block, rounding_mode="floor")
    return blocks[:, None] >= blocks[None, :]


def local(ids: Tensor, reach: int = 2, *, inside: Tensor | None = None) -> Tensor:
    """At most ``reach`` frames away: a window of ``2 reach + 1``.

    Args:
        ids: ``f``, frame numbers.
        reach: frames to either side.
        inside: ``f f``, a mask that must hold too, such as ``causal(ids)``.

    Returns:
        mask: ``f f``.
    """
    near = (ids[:, None] - ids[None, :]).abs() <= reach
    return near if inside is None else near & inside


def with_sink_frames(mask: Tensor, ids: Tensor, sink_frames: Tensor) -> Tensor:
    """Let every frame also look at the sink frames, whatever the mask says.

    Args:
        mask: ``f f``.
        ids: ``f``, frame numbers.
        sink_frames: ``k``, numbers of the sink frames; those outside the window do nothing.

    Returns:
        mask: ``f f``.
    """
    return mask | torch.isin(ids, sink_frames)[None, :]


# (frame numbers, frames per block or to either side) -> mask
MASKS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "full": lambda ids, _: full(ids),
    "causal": lambda ids, _: causal(ids),
    "block_causal": lambda ids, frames: block_causal(ids, frames),
    "local": lambda ids, frames: local(ids, frames),
    "local_causal": lambda ids, frames: local(ids, frames, inside=causal(ids)),
}
