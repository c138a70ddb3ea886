"""A spatial U-Net with the state-dict layout of Stable Diffusion 1.5's, of any width.

Frames lie in the batch axis and every frame has its own timestep, so the network knows nothing of time; motion comes from
temporal modules put into its slots (``modules/temporal``). ComfyUI's ``UNetModel`` built from ``UNetConfig.comfyui`` and given the
same weights computes the same function.

Sources: Rombach et al., arXiv:2112.10752 (layout); Ho et al., arXiv:2006.11239 (residual blocks, timestep embedding). Differs from
the reference in one free number: ``groups`` of the normalisations, which is 32 there and should be smaller for narrow models
(32 groups of one channel each would erase every image's mean brightness).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .unet_config import UNetConfig

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def timestep_embedding(t: Tensor, channels: int, period: float = 10000.0) -> Tensor:
    """Cosines, then sines, of ``t`` at geometric frequencies (arXiv:2006.11239, Section B).

    Args:
        t: ``n``, one timestep per frame, in the units the model was trained with (0..999 as a rule).
        channels: even.
        period: the longest wavelength is ``2 pi period``.

    Returns:
        embedding: ``n channels``.
    """
    half = channels // 2
    frequencies = torch.exp(-math.log(period) / half * torch.arange(half, dtype=torch.float32, device=t.device))
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class ResBlock(nn.Module):
    """Two convolutions around the timestep embedding."""

    def __init__(self, channels: int, out_channels: int, embedding: int, config: UNetConfig, ops: Any):
        super().__init__()
        self.channels, self.out_channels, self.scale_shift = channels, out_channels, config.use_scale_shift_norm
        self.in_layers = nn.Sequential(
            ops.GroupNorm(config.groups, channels), nn.SiLU(), ops.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), ops.Linear(embedding, out_channels * (2 if self.scale_shift else 1)))
        self.out_layers = nn.Sequential(
            ops.GroupNorm(config.groups, out_channels),
            nn.SiLU(),
            nn.Dropout(0.0),  # holds the place: the convolution is number 3 in every published checkpoint
            ops.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        self.skip_connection = nn.Identity() if channels == out_channels else ops.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Transform ``x``: ``n c h w`` with ``emb``: ``n d``. Returns ``n k h w``."""
        h = self.in_layers(x)
        emb = self.emb_layers(emb).to(h.dtype)[..., None, None]
        if self.scale_shift:
            scale, shift = emb.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + emb)
        return self.skip_connection(x) + h


class CrossAttention(nn.Module):
    """Multi-head attention from image tokens to a context."""

    def __init__(self, channels: int, context_dim: int, heads: int, ops: Any, attention: Attention):
        super().__init__()
        self.heads, self.attention = heads, attention
        self.to_q = ops.Linear(channels, channels, bias=False)
        self.to_k = ops.Linear(context_dim, channels, bias=False)
        self.to_v = ops.Linear(context_dim, channels, bias=False)
        self.to_out = nn.Sequential(ops.Linear(channels, channels), nn.Dropout(0.0))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Attend from ``x``: ``b n c`` to ``context``: ``b k d``. Returns ``b n c``."""
        q, k, v = (
            rearrange(projection, "b n (heads d) -> b heads n d", heads=self.heads)
            for projection in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        return self.to_out(rearrange(self.attention(q, k, v), "b heads n d -> b n (heads d)"))


class GEGLU(nn.Module):
    """Gated GELU (Shazeer, arXiv:2002.05202, Equation 6)."""

    def __init__(self, channels: int, hidden: int, ops: Any):
        super().__init__()
        self.proj = ops.Linear(channels, hidden * 2)

    def forward(self, x: Tensor) -> Tensor:
        """Gate ``x``: ``... c``. Returns ``... hidden``."""
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU and a projection back."""

    def __init__(self, channels: int, ops: Any, mult: int = 4):
        super().__init__()
        self.net = nn.Sequential(GEGLU(channels, channels * mult, ops), nn.Dropout(0.0), ops.Linear(channels * mult, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``x``: ``... c``. Returns ``... c``."""
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention, attention to the context, feed-forward."""

    def __init__(self, channels: int, config: UNetConfig, ops: Any, attention: Attention):
        super().__init__()
        self.attn1 = CrossAttention(channels, channels, config.num_heads, ops, attention)
        self.attn2 = CrossAttention(channels, config.context_dim or channels, config.num_heads, ops, attention)
        self.ff = FeedForward(channels, ops)
        self.norm1, self.norm2, self.norm3 = (ops.LayerNorm(channels) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Transform ``x``: ``b n c`` given ``context``: ``b k d``. Returns ``b n c``."""
        n = self.norm1(x)
        x = x + self.attn1(n, n)
        n = self.norm2(x)
        x = x + self.attn2(n, n if context is None else context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Transformer blocks over the pixels of each frame."""

    def __init__(self, channels: int, depth: int, config: UNetConfig, ops: Any, attention: Attention):
        super().__init__()
        self.norm = ops.GroupNorm(config.groups, channels, eps=1e-6)
        self.proj_in = ops.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, config, ops, attention) for _ in range(depth)])
        self.proj_out = ops.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Transform ``x``: ``n c h w`` given ``context``: ``n k d``. Returns ``n c h w``."""
        height = x.shape[-2]
        tokens = rearrange(self.proj_in(self.norm(x)), "n c h w -> n (h w) c")
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        return x + self.proj_out(rearrange(tokens, "n (h w) c -> n c h w", h=height).contiguous())


class Downsample(nn.Module):
    """Half the size, by a strided convolution."""

    def __init__(self, channels: int, ops: Any):
        super().__init__()
        self.op = ops.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Shrink ``x``: ``n c h w``. Returns ``n c p q``."""
        return self.op(x)


class Upsample(nn.Module):
    """Nearest-neighbour enlargement to a given size, then a convolution."""

    def __init__(self, channels: int, ops: Any):
        super().__init__()
        self.conv = ops.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Enlarge ``x``: ``n c h w`` to ``size``. Returns ``n c p q``."""
        return self.conv(F.interpolate(x, size=tuple(size), mode="nearest"))


class Block(nn.Sequential):
    """The layers of one numbered block; each gets the inputs that its kind takes."""

    def forward(self, x: Tensor, emb: Tensor, context: Tensor | None = None, size: Sequence[int] | None = None) -> Tensor:
        """Run the layers on ``x``: ``n c h w`` with ``emb``: ``n d``, ``context``: ``n k e``. Returns ``n o p q``."""
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, emb)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context)
            elif isinstance(layer, Upsample):
                x = layer(x, size or [side * 2 for side in x.shape[-2:]])
            else:
                x = layer(x)
        return x


class UNet(nn.Module):
    """Predict, for every frame by itself, what its noise level's training target is.

    Args:
        config: the architecture.
        ops: where the layers come from: ``torch.nn``, or a host's casting layers of the same names.
        attention: ``(q, k, v) -> out``, all ``b heads n d``.
    """

    def __init__(self, config: UNetConfig, ops: Any = nn, attention: Attention = F.scaled_dot_product_attention):
        super().__init__()
        self.config = config
        width = config.model_channels
        emb = width * 4
        self.time_embed = nn.Sequential(ops.Linear(width, emb), nn.SiLU(), ops.Linear(emb, emb))
        if config.label_channels:
            self.label_emb = nn.Sequential(nn.Sequential(ops.Linear(config.label_channels, emb), nn.SiLU(), ops.Linear(emb, emb)))
        depths, depths_up = list(config.transformer_depth), list(config.transformer_depth_output)
        channels, skips = width, [width]
        self.input_blocks = nn.ModuleList([Block(ops.Conv2d(config.in_channels, width, 3, padding=1))])

        def layers(inputs: int, outputs: int, depth: int) -> list[nn.Module]:
            attend = [SpatialTransformer(outputs, depth, config, ops, attention)] if depth else []
            return [ResBlock(inputs, outputs, emb, config, ops), *attend]

        last = len(config.channel_mult) - 1
        for level, mult in enumerate(config.channel_mult):
            for _ in range(config.num_res_blocks[level]):
                self.input_blocks.append(Block(*layers(channels, width * mult, depths.pop(0))))
                channels = width * mult
                skips.append(channels)
            if level != last:
                self.input_blocks.append(Block(Downsample(channels, ops)))
                skips.append(channels)
        middle = layers(channels, channels, config.transformer_depth_middle)
        self.middle_block = Block(*middle, ResBlock(channels, channels, emb, config, ops))
        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(config.channel_mult))):
            for index in range(config.num_res_blocks[level] + 1):
                block = layers(channels + skips.pop(), width * mult, depths_up.pop())
                channels = width * mult
                if level and index == config.num_res_blocks[level]:
                    block.append(Upsample(channels, ops))
                self.output_blocks.append(Block(*block))
        self.out = nn.Sequential(
            ops.GroupNorm(config.groups, channels), nn.SiLU(), ops.Conv2d(channels, config.out_channels, 3, padding=1)
        )

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor | None = None,
        y: Tensor | None = None,
        added: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Predict the target of every frame.

        Args:
            x: ``n c h w``, noisy frames scaled as the noise schedule says.
            t: ``n``, timestep of each frame.
            context: ``n k d``, text or label tokens, or None.
            y: ``n l``, label vector of each frame; required when the model has labels.
            added: what a control adds to each skip, in the order in which they are made, and last to the middle: ``n ...`` each; or None.

        Returns:
            target: ``n o h w``.

        Raises:
            ValueError: the model takes a label vector and none was given, or the other way round.
        """
        if (y is None) == bool(self.config.label_channels):
            given, wanted = ("no", "a") if y is None else ("a", "no")
            raise ValueError(f"{given} label vector was given to a model that takes {wanted} label vector")
        emb = self.time_embed(timestep_embedding(t, self.config.model_channels).to(x.dtype))
        if y is not None:
            emb = emb + self.label_emb(y.to(x.dtype))
        skips = []
        h = x
        for block in self.input_blocks:
            h = block(h, emb, context)
            skips.append(h)
        h = self.middle_block(h, emb, context)
        if added is not None:
            *more, last = added
            skips, h = [skip + residual for skip, residual in zip(skips, more, strict=True)], h + last
        for block, scale in zip(self.output_blocks, self.config.skip_scales(), strict=True):
            skip = skips.pop()
            h = torch.cat([h, skip if scale == 1 else scale * skip], dim=1)
            h = block(h, emb, context, skips[-1].shape[-2:] if skips else None)
        return self.out(h)
