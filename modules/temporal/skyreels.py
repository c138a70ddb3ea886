"""What SkyReels-V2's Diffusion Forcing models want beside a noise level per frame (arXiv:2504.13074).

Their asynchronous schedule needs nothing of its own: it is ``schedules.pyramid`` with ``lag = ar_step`` and ``block = causal_block_size``;
an ``ar_step`` of 0 is ``full_sequence``. Differs from the authors' code: blocks start behind the known frames and the last one may be
shorter, where theirs cuts frames off; the noise on known frames comes from the seed; causal attention goes block by block, so no
mask of tokens x tokens is ever made (5 GB in half precision for 97 frames at 960x544).
"""

from collections.abc import Callable

import torch
from torch import Tensor

SLOW = 16  # frames per second that have an embedding of their own
GUARD = 1e-4  # of a timestep: what a sigma in single precision may lack of a whole one

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]  # (q, k, v), each ``... n d`` -> ``... n d``


def whole_timesteps(t: Tensor) -> Tensor:
    """The whole timesteps that the authors' code tells the network, fractions cut off: ``t``: ``...``. Returns ``...``.

    >>> whole_timesteps(torch.tensor([20.0, 888.7, 999.99995])).tolist()
    [20.0, 888.0, 1000.0]
    """
    return (t + GUARD).floor()


def block_causal(attention: Attention, q: Tensor, k: Tensor, v: Tensor, blocks: Tensor) -> Tensor:
    """Attention in which a frame sees the frames of its own block and of those before it, and no others.

    Args:
        attention: without a mask.
        q: ``... n d``, tokens frame by frame.
        k: ``... n d``.
        v: ``... n d``.
        blocks: ``f``, the block that each frame belongs to, rising; every frame has ``n / f`` tokens.

    Returns:
        out: ``... n d``, as one call with the mask ``block of key <= block of query`` gives.

    Raises:
        ValueError: the tokens cannot be dealt out to the frames, or the blocks are not in order.
    """
    frames, tokens = len(blocks), q.shape[-2]
    if tokens % frames or bool((blocks.diff() < 0).any()):
        raise ValueError(
            f"{tokens} tokens cannot be dealt out to {frames} frames in rising blocks: causal attention is for clips only"
        )
    ends = (torch.searchsorted(blocks, blocks.unique(), right=True) * (tokens // frames)).tolist()
    parts = zip([0, *ends], ends, strict=False)
    return torch.cat([attention(q[..., low:high, :], k[..., :high, :], v[..., :high, :]) for low, high in parts], dim=-2)
