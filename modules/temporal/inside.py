"""Temporal layers inside a U-Net's own layers: make-a-stable-diffusion-video's pseudo-3-D U-Net (lxj616, 2022), after Make-A-Video.

Every convolution is followed by one over three frames, and between the attention to the text and the feed-forward of every transformer
block stands an attention over all frames, without positions: the order of frames is known from the convolutions alone. Nothing is put
into slots; the layers' own ``forward`` is shadowed, as in ``slots.swap``, on this pack's U-Net and on ComfyUI's alike.

The norms of residual blocks and the last one ran over all frames of a clip there, which is the host's to see to.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..nets.unet import Attention
from .config import TemporalConfig
from .frames import Frames
from .motion import MotionModel
from .positions import Untold
from .slots import BlockedUNet, swap
from .transformer import TemporalAttention, even_part, part_pixels


class TimeConvolution(nn.Module):
    """A convolution over a frame and its two neighbours, zeros beyond the ends of the clip."""

    def __init__(self, channels: int, ops: Any = nn):
        super().__init__()
        self.temporal_conv = ops.Conv1d(channels, channels, 3, padding=1)

    def zero(self) -> None:
        """Become the identity."""
        nn.init.dirac_(self.temporal_conv.weight)
        nn.init.zeros_(self.temporal_conv.bias)

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        """Mix each frame of ``x``: ``n c h w`` with its neighbours, where ``n`` is ``(b f)``. Returns ``n c h w``."""
        frames.check(len(x))
        height, width = x.shape[-2:]
        pixels = rearrange(x, "(b f) c h w -> (b h w) c f", f=frames.count)
        clip = self.temporal_conv(pixels[..., : frames.count - frames.alone])
        if frames.alone:  # single pictures have no neighbours
            pictures = rearrange(pixels[..., -frames.alone :], "n c f -> (n f) c 1")
            alone = rearrange(self.temporal_conv(pictures), "(n f) c 1 -> n c f", f=frames.alone)
            clip = torch.cat([clip, alone], dim=-1)
        return rearrange(clip, "(b h w) c f -> (b f) c h w", h=height, w=width)


class TimeAttention(nn.Module):
    """An attention over the frames of each pixel."""

    def __init__(
        self, channels: int, config: TemporalConfig, ops: Any = nn, attention: Attention = F.scaled_dot_product_attention
    ):
        super().__init__()
        self.norm_temporal = ops.LayerNorm(channels)
        self.attn_temporal = TemporalAttention(channels, config, ops, attention)
        self.attn_temporal.pos_encoder = Untold()  # type: ignore[assignment]  the others have a place in a table

    def zero(self) -> None:
        """Change nothing."""
        nn.init.zeros_(self.attn_temporal.to_out[0].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.attn_temporal.to_out[0].bias)  # type: ignore[arg-type]

    def forward(self, tokens: Tensor, frames: Frames) -> Tensor:
        """What is to be added to ``tokens``: ``n p c``, where ``n`` is ``(b f)``. Returns ``n p c``."""
        frames.check(len(tokens))
        pixels = rearrange(tokens, "(b f) p c -> (b p) f c", f=frames.count)
        token = pixels.element_size() * pixels.shape[-1]
        most = part_pixels(pixels.device.type, token, frames.count, frames.rows, self.attn_temporal.heads)
        parts = pixels.split(even_part(len(pixels), most))
        done = [self.attn_temporal(self.norm_temporal(part), frames) for part in parts]
        return rearrange(torch.cat(done), "(b p) f c -> (b f) p c", p=tokens.shape[1])


class InsideModel(MotionModel):
    """The temporal layers of a pseudo-3-D U-Net, by the names that the layers they follow have in the U-Net.

    Args:
        convolutions: channels by name of a convolution.
        blocks: channels by name of a transformer block.
        heads: of the attentions.
        ops: where the layers come from.
        attention: ``(q, k, v) -> out``, all ``b heads n d``.
    """

    inside = True

    def __init__(
        self,
        convolutions: Mapping[str, int],
        blocks: Mapping[str, int],
        heads: int,
        ops: Any = nn,
        attention: Attention = F.scaled_dot_product_attention,
    ):
        config = TemporalConfig(kind="pseudo3d", heads=heads, attentions=1, positions="rotary", mask="full")
        super().__init__({}, config, ops, attention)
        self.layers = nn.ModuleDict()
        for name, channels in convolutions.items():
            self.layers[_key(name)] = TimeConvolution(channels, ops)
        for name, channels in blocks.items():
            self.layers[_key(name)] = TimeAttention(channels, config, ops, attention)
        self.names = (*convolutions, *blocks)

    def at(self, name: str) -> Any:
        """The temporal layer of one layer of the U-Net."""
        return self.layers[_key(name)]

    def slot_functions(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Nothing: slots stay empty."""
        return {}

    def join(self, unet: BlockedUNet) -> None:
        """Put the layers where they belong, until ``slots.empty``."""
        for place, name in enumerate(self.names):
            layer: Any = unet.get_submodule(name)  # type: ignore[attr-defined]
            if isinstance(self.at(name), TimeConvolution):
                swap(layer, self._after(place, name))
            else:
                self._between(layer, place, name)

    def _after(self, place: int, name: str) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
        def around(inner: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def forward(*args: Any, **kwargs: Any) -> Tensor:
                x = inner(*args, **kwargs)
                return x if self.frames is None else self.at(name)(x, self._counted(place))

            return forward

        return around

    def _between(self, block: Any, place: int, name: str) -> None:
        """The norm before the feed-forward sees the tokens with what is added; the feed-forward hands that on to the block's sum."""
        added: list[Tensor] = []

        def norm_around(inner: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def forward(tokens: Tensor) -> Tensor:
                added.clear()  # of a call that was interrupted
                if self.frames is None:
                    return inner(tokens)
                added.append(self.at(name)(tokens, self._counted(place)))
                return inner(tokens + added[0])

            return forward

        def ff_around(inner: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def forward(tokens: Tensor) -> Tensor:
                made = inner(tokens)
                return made + added.pop() if added else made

            return forward

        swap(block.norm3, norm_around)
        swap(block.ff, ff_around)

    def _counted(self, place: int) -> Frames:
        assert self.frames is not None, "asked before"
        if self.ran is not None:
            self.ran[place] += 1
        return self.frames


def _key(name: str) -> str:
    return name.replace(".", "/")  # a module dictionary takes no dots
