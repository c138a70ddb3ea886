"""AnimateDiff's temporal transformer: every pixel's features attend to themselves over time.

Guo et al., arXiv:2307.04725, Section 4.2. State-dict layout of the original release. The group norm sees one frame at a time (as the
original's does, which folds frames into the batch first), so with a causal mask nothing leaks from later frames to earlier ones.
Training starts with ``proj_out`` at zero (``MotionModel.zero``): the module then changes nothing.

Pixels do not see each other here, so the module works through them in parts that fit a cache or a memory plan; the result does not
depend on the parts.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..nets.unet import Attention, FeedForward
from .config import TemporalConfig
from .frames import Frames, Gain, Hint, resized
from .normalise import QK_NORMS
from .past import SlotPast
from .positions import POSITIONS, Table

ROWS = 2**15  # some CUDA kernels of scaled_dot_product_attention refuse 2**16 batch entries and more
WORKSPACE = {
    "cpu": 32 * 2**20
}  # bytes that one part's tensors may take; measured: 4 to 128 MiB, least time at 32, more spills a CPU's caches
ANYWHERE = 512 * 2**20
COPIES = 20  # how many times a token's features exist at once, at the widest place of the feed-forward


class TemporalAttention(nn.Module):
    """Self-attention over frames."""

    def __init__(self, channels: int, config: TemporalConfig, ops: Any, attention: Attention):
        super().__init__()
        self.heads, self.attention = config.heads, attention
        self.to_q = ops.Linear(channels, channels, bias=False)
        self.to_k = ops.Linear(channels, channels, bias=False)
        self.to_v = ops.Linear(channels, channels, bias=False)
        self.to_out = nn.Sequential(ops.Linear(channels, channels), nn.Dropout(0.0))
        own = Table(channels, config.table) if config.table else None
        self.pos_encoder = own or POSITIONS[config.positions](channels, config.heads)
        self.qk_norm = QK_NORMS[config.qk_norm](channels // config.heads, ops) if config.qk_norm else None

    def forward(self, x: Tensor, frames: Frames, scale: Tensor | None = None, hint: Hint | None = None) -> Tensor:
        """Mix frames.

        Args:
            x: ``n f c``.
            frames: who sees whom; with windows, each window is mixed by itself and a frame's results are averaged.
            scale: ``... f``, what the keys are multiplied with, the same for all ``n`` or one each; None for 1.
            hint: what the tokens are told besides, or None.

        Returns:
            x: ``n f c``.
        """
        if frames.groups:
            return self.to_out(self._over_windows(x, frames, scale, hint))
        x = self.pos_encoder.add(x, frames.positions)
        x = x if hint is None else hint.merged(x)
        q, k, v = self.to_q(x), self.to_k(x), self.to_v(x)
        return self.to_out(self._mixed(q, k, v, frames.positions, frames.mask, scale))

    def _over_windows(self, x: Tensor, frames: Frames, scale: Tensor | None, hint: Hint | None) -> Tensor:
        """Each frame is projected once, however many windows it is in: what its place in a window adds is added afterwards."""
        x = x if hint is None else hint.merged(x)
        q, k, v = self.to_q(x), self.to_k(x), self.to_v(x)
        parts = []
        for group in frames.groups:
            terms = self._terms(group.positions, x, hint)
            wq, wk, wv = (group.taken(y) if t is None else group.taken(y) + t for y, t in zip((q, k, v), terms, strict=True))
            inside = None if scale is None else group.taken(scale.expand(len(x), -1)[..., None])[..., 0]
            mask = None if group.mask is None else group.mask.repeat(len(x), 1, 1)[:, None]
            parts.append(group.returned(self._mixed(wq, wk, wv, group.positions, mask, inside), len(x)))
        return frames.fused(parts)

    def _terms(self, positions: Tensor, like: Tensor, hint: Hint | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """What times add to queries, keys and values: projections are linear, so an added table can be projected by itself."""
        table = self.pos_encoder.table(positions, like)
        if table is None:
            return None, None, None
        table = table if hint is None else hint.carried(table)
        return self.to_q(table), self.to_k(table), self.to_v(table)

    def _mixed(
        self, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, mask: Tensor | None, scale: Tensor | None = None
    ) -> Tensor:
        q, k, bias = self.compared(q, k, positions, scale)
        v = rearrange(v, "n f (heads d) -> n heads f d", heads=self.heads)
        if bias is not None:
            mask = bias if mask is None else bias.masked_fill(~mask, float("-inf"))
        mixed = self.attention(q, k, v) if mask is None else F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return rearrange(mixed, "n heads f d -> n f (heads d)")

    def compared(
        self, q: Tensor, k: Tensor, positions: Tensor, scale: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Queries and keys as they meet: logits are their products over sqrt(d), and a bias.

        Args:
            q: ``n f c``.
            k: ``n f c``.
            positions: ``f``, frame times.
            scale: ``... f``, what the keys are multiplied with once they are normalised, or None.

        Returns:
            q: ``n heads f d``.
            k: ``n heads f d``.
            bias: ``n heads f f``, or None.
        """
        q, k = (rearrange(y, "n f (heads d) -> n heads f d", heads=self.heads) for y in (q, k))
        if self.qk_norm is not None:
            q, k = self.qk_norm(q, k)
        return self.pos_encoder.attend(q, _scaled(k, None if scale is None else scale[..., None, :]), positions)


def _scaled(k: Tensor, scale: Tensor | None) -> Tensor:
    return k if scale is None else k * scale[..., None].to(k)


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

    def forward(self, x: Tensor, frames: Frames, scales: tuple[Tensor | None, ...] = (), hint: Hint | None = None) -> Tensor:
        """Transform.

        Args:
            x: ``n f c``.
            frames: who sees whom.
            scales: for each attention what its keys are multiplied with, ``f`` or ``n f``, or None; empty for all None.
            hint: what the tokens of the first attention are told besides, or None.

        Returns:
            x: ``n f c``.
        """
        scales = scales or (None,) * len(self.attention_blocks)
        attended = self._viewed if frames.groups and frames.fuse_at == "module" else self._attended
        x = attended(x, frames, scales, hint)
        return x + self.ff(self.ff_norm(x))

    def _attended(self, x: Tensor, frames: Frames, scales: tuple[Tensor | None, ...], hint: Hint | None) -> Tensor:
        for attend, norm, scale in zip(self.attention_blocks, self.norms, scales, strict=True):
            x = x + attend(norm(x), frames, scale, hint)
            hint = None  # the first attention has passed it on
        return x

    def _viewed(self, x: Tensor, frames: Frames, scales: tuple[Tensor | None, ...], hint: Hint | None) -> Tensor:
        """Each window goes through all attentions by itself, as FreeNoise (arXiv:2310.15169, Section 3.3) has it."""
        parts = []
        for group in frames.groups:
            inside = tuple(None if s is None else group.taken(s.expand(len(x), -1)[..., None])[..., 0] for s in scales)
            mask = None if group.mask is None else group.mask.repeat(len(x), 1, 1)[:, None]
            window = Frames(group.index.shape[1], group.positions, mask)
            told = None if hint is None else hint.taken(group)
            parts.append(group.returned(self._attended(group.taken(x), window, inside, told), len(x)))
        return frames.fused(parts)


class TemporalTransformer(nn.Module):
    """What one slot holds."""

    member = "temporal_transformer"
    past_only = False
    recalls = False

    def __init__(
        self, channels: int, config: TemporalConfig, ops: Any = nn, attention: Attention = F.scaled_dot_product_attention
    ):
        super().__init__()
        self.clip_norm, self.heads = config.clip_norm, config.heads
        self.norm = ops.GroupNorm(config.groups, channels, eps=1e-6)
        self.proj_in = ops.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(channels, config, ops, attention)])
        self.proj_out = ops.Linear(channels, channels)

    def zero(self) -> None:
        """Become the identity."""
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(
        self,
        x: Tensor,
        frames: Frames,
        gain: Gain | None = None,
        hint: Hint | None = None,
        past: SlotPast | None = None,  # noqa: ARG002  frames that are not shown do not exist for an attention
    ) -> Tensor:
        """Let the frames of each clip see each other.

        Args:
            x: ``n c h w``, where ``n`` is ``(b f)``.
            frames: how ``n`` divides.
            gain: how strongly; None for all 1.
            hint: what the tokens are told besides, or None.
            past: not used.

        Returns:
            x: ``n c h w``.

        Raises:
            ValueError: ``n`` is no multiple of the frame count, or the hint is for another size.
        """
        frames.check(len(x))
        gain = gain or Gain()
        height, width = x.shape[-2:]
        scales = tuple(None if scale is None else resized(scale, height, width).flatten(1) for scale in gain.scales)
        pixels = rearrange(self._normed(x, frames.count), "(b f) c h w -> b f c (h w)", f=frames.count)
        mixed = self._mixed_over_time(pixels, frames, scales, hint)
        return x + gain.applied(rearrange(mixed, "b f c (h w) -> (b f) c h w", h=height))

    def _normed(self, x: Tensor, frames: int) -> Tensor:
        if not self.clip_norm:
            return self.norm(x)
        return rearrange(self.norm(rearrange(x, "(b f) c h w -> b c f h w", f=frames)), "b c f h w -> (b f) c h w")

    def _mixed_over_time(self, pixels: Tensor, frames: Frames, scales: tuple[Tensor | None, ...], hint: Hint | None) -> Tensor:
        """``pixels``: ``b f c p``. Returns ``b f c p``; without gradients in the same memory: no second copy of all frames is held."""
        in_place = not (torch.is_grad_enabled() and (pixels.requires_grad or self.proj_out.weight.requires_grad))
        done: list[Tensor] = []
        for clips, part in pixel_parts(pixels, frames, self.heads):
            taken = pixels[clips, :, :, part]
            tokens = self.proj_in(rearrange(taken, "b f c p -> (b p) f c").contiguous())
            told = None if hint is None else hint.of_pixels(part, pixels.shape[-1], len(taken))
            for block in self.transformer_blocks:
                tokens = block(tokens, frames, tuple(of_pixels(scale, part, len(taken)) for scale in scales), told)
            piece = rearrange(self.proj_out(tokens), "(b p) f c -> b f c p", b=len(taken))
            if in_place:
                taken.copy_(piece)
            else:
                done.append(piece)
        return pixels if in_place else rejoined(done, len(pixels))


def pixel_parts(pixels: Tensor, frames: Frames, heads: int) -> Iterator[tuple[slice, slice]]:
    """All clips and pixels of ``pixels``: ``b f c p`` if they fit, else clip by clip and so many pixels at once as do."""
    clips, count, channels, area = pixels.shape
    size = part_pixels(pixels.device.type, pixels.element_size() * channels, count, frames.rows, heads)
    if clips * area <= size:
        yield slice(None), slice(None)
        return
    size = even_part(area, size)
    for clip in range(clips):
        for start in range(0, area, size):
            yield slice(clip, clip + 1), slice(start, start + size)


def even_part(area: int, most: int) -> int:
    """Size of parts of ``area`` pixels, at most ``most`` each and as many as needed: a small last one would read all weights for little."""
    return math.ceil(area / math.ceil(area / most))


def part_pixels(device: str, token_bytes: int, frames: int, rows: int, heads: int) -> int:
    """How many pixels a temporal transformer takes at once.

    Args:
        device: where it runs, a torch device type.
        token_bytes: of one token's features.
        frames: of the clip.
        rows: windows per clip, 1 without.
        heads: of the attention.
    """
    return max(1, min(WORKSPACE.get(device, ANYWHERE) // (frames * token_bytes * COPIES), ROWS // (heads * rows)))


def rejoined(pieces: list[Tensor], clips: int) -> Tensor:
    """Parts of ``clips`` clips, ``b f c p`` each, in order. Returns ``b f c p``."""
    return pieces[0] if len(pieces) == 1 else rearrange(torch.cat(pieces, dim=-1), "1 f c (b p) -> b f c p", b=clips)


def of_pixels(scale: Tensor | None, part: slice, clips: int) -> Tensor | None:
    """``scale``: ``f p``, with one pixel if it is the same everywhere. Returns ``... f``, one for all pixels or ``n f``."""
    if scale is None:
        return None
    return scale[:, 0] if scale.shape[1] == 1 else scale[:, part].T.repeat(clips, 1)
