"""Queries and keys brought to one length before they meet, so that no training step can make the attention's logits explode.

A module that was trained without it is another function with it, and it cannot be folded into the weights afterwards: it is for modules
trained from scratch, and a file says that it wants it (``TemporalConfig.qk_norm``). To add a kind, write a class that takes the features
of a head and the layers' factory, and name it in ``QK_NORMS``.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

FRAMES = 16  # clip length that the first gain is for; it is learned from there


class L2(nn.Module):
    """Unit length and one learned gain (Henry et al., arXiv:2010.04245, Equation 5): logits are ``g cos(q, k)``, at most ``g``."""

    def __init__(self, features: int, ops: Any):  # noqa: ARG002  rows of one table share a signature
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(math.log2(FRAMES**2 - FRAMES)))  # the paper's for sequences of that length
        self.undone = features**0.5  # every attention divides by it

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise.

        Args:
            q: ``n heads f d``.
            k: ``n heads f d``.

        Returns:
            q: ``n heads f d``, of length gain times sqrt(d).
            k: ``n heads f d``, of length 1.
        """
        return _unit(q) * (self.gain * self.undone).to(q), _unit(k)


def _unit(x: Tensor) -> Tensor:
    """In single precision: a half-precision square overflows at 256."""
    return x * x.float().square().sum(-1, keepdim=True).clamp_min(1e-8).rsqrt().to(x)


class LayerNorms(nn.Module):
    """A layer norm over the features of each head, without bias (ViT-22B, Dehghani et al., arXiv:2302.05442, Section 2)."""

    def __init__(self, features: int, ops: Any):
        super().__init__()
        self.q = ops.LayerNorm(features, bias=False)
        self.k = ops.LayerNorm(features, bias=False)

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise.

        Args:
            q: ``n heads f d``.
            k: ``n heads f d``.

        Returns:
            q: ``n heads f d``.
            k: ``n heads f d``.
        """
        return self.q(q), self.k(k)


QK_NORMS: dict[str, type[L2] | type[LayerNorms]] = {"l2": L2, "layer": LayerNorms}
