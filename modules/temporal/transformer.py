"""AnimateDiff's temporal transformer: every pixel's features attend to themselves over time.

Guo et al., arXiv:2307.04725, Section 4.2. State-dict layout of the original release. The group norm sees one frame at a time (as the
original's does, which folds frames into the batch first), so with a causal mask nothing leaks from later frames to earlier ones.
Training starts with ``proj_out`` at zero (``MotionModel.zero``): the module then changes nothing.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..unet import Attention, FeedForward
from .masks import MASKS
from .positions import POSITIONS


@dataclass(frozen=True)
class TemporalConfig:
    """What every temporal transformer of one motion model has in common."""

    heads: int = 8
    attentions: int = 2  # attention layers before the feed-forward
    ff_mult: int = 4
    groups: int = 32
    positions: str = "sinusoid"
    mask: str = "full"
    mask_frames: int = 0  # frames per block of ``block_causal``, frames to either side of ``local``

    def __post_init__(self) -> None:
        if self.mask not in MASKS:
            raise ValueError(f"mask is {self.mask!r}: choose one of {', '.join(MASKS)}")
        if self.positions not in POSITIONS:
            raise ValueError(f"positions is {self.positions!r}: choose one of {', '.join(POSITIONS)}")


@dataclass(frozen=True)
class Frames:
    """What one model call is about: how the batch axis divides into frames, when each frame is, who sees whom.

    Attributes:
        count: frames per clip; the batch axis is ``(b count)``.
        positions: ``f``, frame times as the position encoding wants them.
        mask: ``f f``, True where a frame (row) may see another (column); None for all.
    """

    count: int
    positions: Tensor
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if self.count < 1 or len(self.positions) != self.count:
            raise ValueError(
                f"{self.count} frames were announced and {len(self.positions)} positions given: they must agree, at least 1"
            )

    @classmethod
    def of(cls, count: int, device: torch.device | str = "cpu") -> "Frames":
        """``count`` frames in order, everyone sees everyone."""
        return cls(count, torch.arange(count, device=device))


class TemporalAttention(nn.Module):
    """Self-attention over frames."""

    def __init__(self, channels: int, config: TemporalConfig, ops: Any, attention: Attention):
        super().__init__()
        self.heads, self.attention = config.heads, attention
        self.to_q = ops.Linear(channels, channels, bias=False)
        self.to_k = ops.Linear(channels, channels, bias=False)
        self.to_v = ops.Linear(channels, channels, bias=False)
        self.to_out = nn.Sequential(ops.Linear(channels, channels), nn.Dropout(0.0))
        self.pos_encoder = POSITIONS[config.positions](channels, config.heads)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """Mix ``x``: ``n f c`` over ``f``. Returns ``n f c``."""
        x = self.pos_encoder.add(x, frames.positions)
        q, k, v = (
            rearrange(projection, "n f (heads d) -> n heads f d", heads=self.heads)
            for projection in (self.to_q(x), self.to_k(x), self.to_v(x))
        )
        q, k, bias = self.pos_encoder.attend(q, k, frames.positions)
        mask = frames.mask
        if bias is not None:
            mask = bias if mask is None else bias.masked_fill(~mask, float("-inf"))
        mixed = self.attention(q, k, v) if mask is None else F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.to_out(rearrange(mixed, "n heads f d -> n f (heads d)"))


class TemporalBlock(nn.Module):
    """Attentions, then a feed-forward, each around a residual."""

    def __init__(self, channels: int, config: TemporalConfig, ops: Any, attention: Attention):
        super().__init__()
        self.attention_blocks = nn.ModuleList(
            [TemporalAttention(channels, config, ops, attention) for _ in range(config.attentions)]
        )
        self.norms = nn.ModuleList([ops.LayerNorm(channels) for _ in range(config.attentions)])
        self.ff = FeedForward(channels, ops, config.ff_mult)
        self.ff_norm = ops.LayerNorm(channels)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """Transform ``x``: ``n f c``. Returns ``n f c``."""
        for attend, norm in zip(self.attention_blocks, self.norms, strict=True):
            x = x + attend(norm(x), frames)
        return x + self.ff(self.ff_norm(x))


class TemporalTransformer(nn.Module):
    """What one slot holds."""

    def __init__(
        self, channels: int, config: TemporalConfig, ops: Any = nn, attention: Attention = F.scaled_dot_product_attention
    ):
        super().__init__()
        self.norm = ops.GroupNorm(config.groups, channels, eps=1e-6)
        self.proj_in = ops.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(channels, config, ops, attention)])
        self.proj_out = ops.Linear(channels, channels)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """Let the frames of each clip see each other.

        Args:
            x: ``n c h w``, where ``n`` is ``(b f)``.
            frames: how ``n`` divides.

        Returns:
            x: ``n c h w``.

        Raises:
            ValueError: ``n`` is no multiple of the frame count.
        """
        clips, rest = divmod(x.shape[0], frames.count)
        if rest:
            raise ValueError(f"{x.shape[0]} images came to a motion module that was told of clips of {frames.count} frames")
        height, width = x.shape[-2:]
        tokens = rearrange(self.norm(x), "(b f) c h w -> (b h w) f c", f=frames.count)
        tokens = self.proj_in(tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens, frames)
        tokens = self.proj_out(tokens)
        return x + rearrange(tokens, "(b h w) f c -> (b f) c h w", b=clips, h=height, w=width)
