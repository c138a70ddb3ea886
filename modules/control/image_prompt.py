"""Image prompts: attention to a picture beside attention to the text, with keys and values of its own and the same queries.

``Attn(Q, K_text, V_text) + scale * Attn(Q, K_image, V_image)``: IP-Adapter (Ye et al., arXiv:2308.06721, Equation 5), which MoonShot
(Zhang et al., arXiv:2401.01827, Section 3.2) takes over for clips. A picture becomes a few tokens by one of three projections; each
attention to the text gets a layer for keys and one for values. State dicts have the keys of IP-Adapter's files.

Nothing here is about hosts: a layer is found by structure, as ``temporal/slots.py`` does, in ComfyUI's U-Net and in this pack's own.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..temporal.slots import BlockedUNet, is_attention, slots

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
HEAD = 64  # features of a head in every resampler that was published
KINDS = {"plain": "image_embeds", "plus": "penultimate_hidden_states", "full": "penultimate_hidden_states"}  # what each looks at


@dataclass(frozen=True)
class PromptShape:
    """The sizes of an image prompt's network.

    Attributes:
        kind: a name in ``KINDS``.
        clip: features of the image encoder that it was trained with.
        context: features of a token, as the base model's text has.
        tokens: that a picture becomes; 0 for as many as the image encoder gives (full).
        widths: of the attentions to the text, in IP-Adapter's order.
        hidden: width of the resampler (plus).
        depth: its blocks.
        heads: of its attentions.
    """

    kind: str
    clip: int
    context: int
    tokens: int
    widths: tuple[int, ...]
    hidden: int = 0
    depth: int = 0
    heads: int = 1


class ImageProjection(nn.Module):
    """A linear layer from the encoder's embedding of a picture to a few tokens (plain).

    Args:
        shape: of the whole network.
        ops: where the layers come from.
    """

    def __init__(self, shape: PromptShape, ops: Any = nn):
        super().__init__()
        self.proj = ops.Linear(shape.clip, shape.tokens * shape.context)
        self.norm = ops.LayerNorm(shape.context)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: ``k e``. Returns ``k n d``."""
        return self.norm(rearrange(self.proj(x), "k (n d) -> k n d", d=self.norm.normalized_shape[0]))


class FullProjection(nn.Module):
    """Two layers on every one of the encoder's tokens (full).

    Args:
        shape: of the whole network.
        ops: where the layers come from.
    """

    def __init__(self, shape: PromptShape, ops: Any = nn):
        super().__init__()
        self.proj = nn.Sequential(
            ops.Linear(shape.clip, shape.clip), nn.GELU(), ops.Linear(shape.clip, shape.context), ops.LayerNorm(shape.context)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``x``: ``k n e``. Returns ``k n d``."""
        return self.proj(x)


class PerceiverAttention(nn.Module):
    """Learned tokens look at the picture's tokens and at each other (Flamingo, arXiv:2204.14198, Section 2.1)."""

    def __init__(self, width: int, heads: int, ops: Any, attention: Attention):
        super().__init__()
        self.heads, self.attention = heads, attention
        self.norm1, self.norm2 = ops.LayerNorm(width), ops.LayerNorm(width)
        self.to_q = ops.Linear(width, heads * HEAD, bias=False)
        self.to_kv = ops.Linear(width, heads * HEAD * 2, bias=False)
        self.to_out = ops.Linear(heads * HEAD, width, bias=False)

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        """``x``: ``k n d``, ``latents``: ``k m d``. Returns ``k m d``."""
        latents = self.norm2(latents)
        both = self.to_kv(torch.cat([self.norm1(x), latents], dim=1)).chunk(2, dim=-1)
        q, k, v = (rearrange(part, "k n (h d) -> k h n d", h=self.heads) for part in (self.to_q(latents), *both))
        return self.to_out(rearrange(self.attention(q, k, v), "k h n d -> k n (h d)"))


class Resampler(nn.Module):
    """A fixed number of learned tokens that gather what is in the picture (plus).

    Args:
        shape: of the whole network.
        ops: where the layers come from.
        attention: ``(q, k, v) -> out``, all ``b heads n d``.
    """

    def __init__(self, shape: PromptShape, ops: Any = nn, attention: Attention = F.scaled_dot_product_attention):
        super().__init__()
        width = shape.hidden
        self.latents = nn.Parameter(torch.empty(1, shape.tokens, width))
        if not self.latents.is_meta:  # torch takes seconds to learn how to draw numbers that are not there
            self.latents.data = torch.randn(1, shape.tokens, width) / width**0.5
        self.proj_in = ops.Linear(shape.clip, width)
        self.layers = nn.ModuleList(
            [
                nn.ModuleList([PerceiverAttention(width, shape.heads, ops, attention), _feed_forward(width, ops)])
                for _ in range(shape.depth)
            ]
        )
        self.proj_out = ops.Linear(width, shape.context)
        self.norm_out = ops.LayerNorm(shape.context)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: ``k n e``. Returns ``k m d``."""
        latents, x = self.latents.expand(len(x), -1, -1).to(x), self.proj_in(x)
        for attend, feed in self.layers:  # type: ignore[misc]
            latents = latents + attend(x, latents)
            latents = latents + feed(latents)
        return self.norm_out(self.proj_out(latents))


def _feed_forward(width: int, ops: Any) -> nn.Sequential:
    return nn.Sequential(
        ops.LayerNorm(width), ops.Linear(width, 4 * width, bias=False), nn.GELU(), ops.Linear(4 * width, width, bias=False)
    )


class KeyValue(nn.Module):
    """Keys and values of image tokens for one attention."""

    def __init__(self, context: int, width: int, ops: Any = nn):
        super().__init__()
        self.to_k_ip = ops.Linear(context, width, bias=False)
        self.to_v_ip = ops.Linear(context, width, bias=False)


class ImagePromptModel(nn.Module):
    """The networks of one file; the state dict has its keys.

    Args:
        shape: the sizes.
        ops: where the layers come from.
        attention: ``(q, k, v) -> out``, all ``b heads n d``, for the resampler.
    """

    def __init__(self, shape: PromptShape, ops: Any = nn, attention: Attention = F.scaled_dot_product_attention):
        super().__init__()
        self.shape = shape
        self.image_proj: nn.Module = (
            Resampler(shape, ops, attention)
            if shape.kind == "plus"
            else (ImageProjection if shape.kind == "plain" else FullProjection)(shape, ops)
        )
        self.ip_adapter = nn.ModuleDict(
            {str(2 * place + 1): KeyValue(shape.context, width, ops) for place, width in enumerate(shape.widths)}
        )

    def tokens(self, seen: Tensor) -> Tensor:
        """What the base model is shown of pictures: ``seen``: ``k ... e``, as ``KINDS`` says. Returns ``k n d``."""
        return self.image_proj(seen)

    def layers(self) -> list[KeyValue]:
        """Keys and values, in IP-Adapter's order."""
        return list(self.ip_adapter.values())  # type: ignore[arg-type]

    def like(self, unet: BlockedUNet) -> "ImagePromptModel":
        """Start from the base model's own keys and values of text, as IP-Adapter's training does. Returns itself."""
        with torch.no_grad():
            for mine, theirs in zip(self.layers(), cross_layers(unet), strict=True):
                mine.to_k_ip.weight.copy_(theirs.attention.to_k.weight)
                mine.to_v_ip.weight.copy_(theirs.attention.to_v.weight)
        return self


@dataclass(frozen=True)
class CrossLayer:
    """An attention to the text.

    Attributes:
        slot: AnimateDiff's name for the place of its block.
        block: ComfyUI's: side, number of the block, number of the transformer block in it.
        attention: with ``to_q``, ``to_k``, ``to_v``, ``to_out`` and ``heads``.
    """

    slot: str
    block: tuple[str, int, int]
    attention: Any


def cross_layers(unet: BlockedUNet) -> tuple[CrossLayer, ...]:
    """Every attention to the text in the order in which IP-Adapter's files count them: the way down, the way up, the middle.

    It is that of diffusers' ``attn_processors``, where the middle block is made last. The n-th, from 0, has the number 2n + 1 there.

    Raises:
        ValueError: the model is no U-Net of Stable Diffusion's family.
    """
    names = {layer: name for name, layer in slots(unet).items()}

    def of(side: str, blocks: Sequence[nn.Module]) -> Iterator[CrossLayer]:
        for number, block in enumerate(blocks):
            for layer in filter(is_attention, block.children()):
                for place, inner in enumerate(layer.transformer_blocks):  # type: ignore[arg-type]
                    yield CrossLayer(names[layer], (side, number, place), inner.attn2)

    return (*of("input", unet.input_blocks), *of("output", unet.output_blocks), *of("middle", [unet.middle_block]))


def widths_of(layers: Sequence[CrossLayer]) -> tuple[tuple[int, ...], int]:
    """(width of each, features of a text token) of attentions to the text."""
    return tuple(layer.attention.to_q.out_features for layer in layers), layers[0].attention.to_k.in_features


@dataclass(frozen=True, eq=False)
class Mixture:
    """What each row of a call is shown of some pictures.

    Attributes:
        tokens: ``k n d``; the last is what stands for no picture.
        shares: ``r k``, how much of each picture a row sees.
        gain: ``r``, how strongly.
    """

    tokens: Tensor
    shares: Tensor
    gain: Tensor

    def rows(self, chosen: Tensor) -> "Mixture":
        """The same for some rows: ``chosen``: ``m``, int64."""
        return Mixture(self.tokens, self.shares[chosen], self.gain[chosen])

    def attended(
        self, q: Tensor, layer: KeyValue, heads: int, attention: Callable[[Tensor, Tensor, Tensor, int], Tensor]
    ) -> Tensor:
        """What a layer sees of the pictures, before its output projection.

        Keys and values are linear in the tokens, so they are computed once per picture and mixed afterwards.

        Args:
            q: ``r p c``, the queries that the text has too.
            layer: keys and values.
            heads: of the attention.
            attention: ``(q, k, v, heads) -> out``, all ``r n c``.

        Returns:
            out: ``r p c``.
        """
        tokens, shares = self.tokens.to(q), self.shares.to(q)
        k, v = (torch.einsum("rk,knc->rnc", shares, project(tokens)) for project in (layer.to_k_ip, layer.to_v_ip))
        return attention(q, k, v, heads) * self.gain.to(q)[:, None, None]


def heads_apart(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Attention of several heads: ``q``: ``r p c``, ``k``: ``r n c``, ``v``: ``r n c``. Returns ``r p c``."""
    q, k, v = (rearrange(part, "r n (h d) -> r h n d", h=heads) for part in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "r h n d -> r n (h d)")
