"""A pseudo-3D module: a convolution over time, then an attention over time, as in Make-A-Video (arXiv:2209.14792, Section 3.2).

There every spatial convolution is followed by one over time, and every spatial attention by one over time; what fits a slot is one of
each, after the slot's layer. The convolution starts as the identity (Dirac), the attention's output starts at zero, so a video model
starts as the image model it is made of. Two things differ from the paper: the attention's order of frames is that of the model's
position encoding, and where frames see only the past the convolution's three taps are the frame and the two before it, not its
neighbours.
"""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..nets.unet import Attention
from .config import TemporalConfig
from .frames import Frames, Gain, Hint, resized
from .past import SlotPast
from .transformer import TemporalAttention, of_pixels, pixel_parts, rejoined

BOTH_SIDES = ("full", "local")  # masks under which a frame sees the next one


class Pseudo3D(nn.Module):
    """What one slot holds."""

    member = "pseudo3d"
    past_only = False
    recalls = False

    def __init__(
        self, channels: int, config: TemporalConfig, ops: Any = nn, attention: Attention = F.scaled_dot_product_attention
    ):
        super().__init__()
        self.heads = config.heads
        self.taps = (-1, 0, 1) if config.mask in BOTH_SIDES else (-2, -1, 0)
        self.temporal_conv = ops.Conv1d(channels, channels, len(self.taps))
        self.norm_temporal = ops.LayerNorm(channels)
        self.attn_temporal = TemporalAttention(channels, config, ops, attention)
        self._pass_on()

    def zero(self) -> None:
        """Become the identity."""
        self._pass_on()
        nn.init.zeros_(self.attn_temporal.to_out[0].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.attn_temporal.to_out[0].bias)  # type: ignore[arg-type]

    @torch.no_grad()
    def _pass_on(self) -> None:
        """Let the convolution give each frame as it is."""
        channels = torch.arange(len(self.temporal_conv.weight))
        self.temporal_conv.weight.zero_()
        self.temporal_conv.weight[channels, channels, self.taps.index(0)] = 1
        self.temporal_conv.bias.zero_()

    def forward(
        self,
        x: Tensor,
        frames: Frames,
        gain: Gain | None = None,
        hint: Hint | None = None,
        past: SlotPast | None = None,  # noqa: ARG002  frames that are not shown do not exist for it
    ) -> Tensor:
        """Mix the frames of each clip.

        Args:
            x: ``n c h w``, where ``n`` is ``(b f)``.
            frames: how ``n`` divides, who sees whom; windows are the attention's, the convolution reaches over their ends.
            gain: how strongly its change is added, and the temperature of its attention; None for all 1.
            hint: must be None.
            past: not used.

        Returns:
            x: ``n c h w``.

        Raises:
            ValueError: ``n`` is no multiple of the frame count, or there is a hint.
        """
        frames.check(len(x))
        if hint is not None:
            raise ValueError("camera features were given to a pseudo-3D module: they are for temporal transformers only")
        gain = gain or Gain()
        height, width = x.shape[-2:]
        scale = None if not gain.scales or gain.scales[0] is None else resized(gain.scales[0], height, width).flatten(1)
        pixels = rearrange(x, "(b f) c h w -> b f c (h w)", f=frames.count)
        seen = self._seen(frames).to(x.device)
        done = []
        for clips, part in pixel_parts(pixels, frames, self.heads):
            taken = pixels[clips, :, :, part]
            tokens = self._convolved(rearrange(taken, "b f c p -> (b p) f c"), seen)
            tokens = tokens + self.attn_temporal(self.norm_temporal(tokens), frames, of_pixels(scale, part, len(taken)))
            done.append(rearrange(tokens, "(b p) f c -> b f c p", b=len(taken)))
        mixed = rearrange(rejoined(done, len(pixels)), "b f c (h w) -> (b f) c h w", h=height)
        return mixed if gain.effect is None else x + gain.applied(mixed - x)

    def _convolved(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """``tokens``: ``n f c``, ``seen``: ``f k``, for each frame the places of what its taps see. Returns ``n f c``."""
        padded = F.pad(tokens, (0, 0, 0, 1))
        taps = padded[:, seen.flatten()].unflatten(1, seen.shape)
        return self.temporal_conv(rearrange(taps, "n f k c -> (n f) c k")).view(tokens.shape)

    def _seen(self, frames: Frames) -> Tensor:
        """For each frame the places of what its taps see, ``frames.count`` for nothing. Returns ``f k``."""
        each = (frames.count - frames.alone) // frames.streams
        taps, own = torch.tensor(self.taps), torch.arange(each)[:, None]
        clip = own + taps
        clip = torch.where((clip < 0) | (clip >= each), frames.count, clip)
        others = [torch.where(taps == 0, own + stream * each, clip) for stream in range(1, frames.streams)]
        pictures = torch.arange(each * frames.streams, frames.count)[:, None]
        return torch.cat([clip, *others, torch.where(taps == 0, pictures, frames.count)])
