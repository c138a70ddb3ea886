"""ComfyUI's hooks of self-attentions by which a frame looks at references: a patch, and a replacement where it looks in part."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

from ....modules.control.reference import ReferenceRows, ReferenceSettings, renormalised
from ....modules.temporal.chunks import ROWS

Block = tuple[str, int, int]  # side, number of the block, and of the transformer in it


def place_of(extra: Mapping[str, Any]) -> Block:
    """Which self-attention ComfyUI's hooks are called for."""
    return (*extra["block"], extra["block_index"])


def with_patches(options: dict[str, Any], looking: "Looking") -> dict[str, Any]:
    """Transformer options with the references beside each frame's own features, and a strength where that is not 1 throughout.

    A self-attention that another pack has replaced keeps to what it was made for: it gives values back, or counts on as many keys as
    queries.
    """
    patches, replaced = options.get("patches", {}), options.get("patches_replace", {})
    before = replaced.get("attn1", {})
    free = {block: seen for block, seen in looking.features.items() if block not in before and block[:2] not in before}
    looking = replace(looking, features=free)
    mixing = {block: Mixing(looking) for block in looking.partial}
    return {
        **options,
        "patches": {**patches, "attn1_patch": [*patches.get("attn1_patch", []), looking]},
        "patches_replace": {**replaced, "attn1": {**before, **mixing}},
        ROWS: torch.arange(len(looking.rows.strength), device=looking.rows.strength.device),
    }


@dataclass(frozen=True, eq=False)
class Looking:
    """Keys and values of the references beside a frame's own; ComfyUI's signature of an ``attn1_patch``.

    Attributes:
        features: of the references' pass, by place; a place that is not in it does not look.
        rows: what each row of the call looks at.
        settings: how.
        slots: of each place AnimateDiff's name.
    """

    features: Mapping[Block, Tensor]
    rows: ReferenceRows
    settings: ReferenceSettings
    slots: Mapping[Block, str]

    def __deepcopy__(self, memo: dict[int, Any]) -> "Looking":
        return self

    def strength(self, block: Block) -> Tensor:
        """How strongly each row looks in a place: ``n``."""
        return self.rows.strength * self.settings.factor(self.slots[block])

    @property
    def partial(self) -> list[Block]:
        """The places in which some row looks with a strength other than 1."""
        return [block for block in self.features if not bool((self.strength(block) == 1).all())]

    def of(self, extra: Mapping[str, Any], count: int) -> tuple[ReferenceRows, Tensor]:
        """The rows of a layer's call, and how strongly they look there: ``m``.

        Raises:
            RuntimeError: another node cuts the batch up.
        """
        rows = extra[ROWS]
        if len(rows) != count:
            raise RuntimeError(
                f"a self-attention got {count} rows and Reference Attention knows of {len(rows)}: another node cuts the batch up; leave it"
                " out"
            )
        return self.rows.rows(rows), self.strength(place_of(extra))[rows]

    def __call__(self, n: Tensor, context: Tensor, value: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        if place_of(extra) not in self.features:
            return n, context, value
        mine, strength = self.of(extra, len(n))
        if not bool(strength.any()):
            return n, context, value
        seen = mine.tokens(self.features[place_of(extra)]).to(n)
        if self.settings.adain:
            same = value is context
            n, context = renormalised(n, seen, strength), renormalised(context, seen, strength)
            value = context if same else value
        return n, torch.cat([context, seen], dim=1), torch.cat([value, seen], dim=1)


@dataclass(frozen=True, eq=False)
class Mixing:
    """Attention with the references and without them, in each row's share; ComfyUI's signature of a replacement.

    Attributes:
        looking: at what.
    """

    looking: Looking

    def __deepcopy__(self, memo: dict[int, Any]) -> "Mixing":
        return self

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        def attention(k: Tensor, v: Tensor) -> Tensor:
            heads, precision = extra["n_heads"], extra["attn_precision"]
            return optimized_attention(q, k, v, heads, attn_precision=precision, transformer_options=extra)

        mine, strength = self.looking.of(extra, len(q))
        if not bool(strength.any()):
            return attention(k, v)
        own = k.shape[1] - mine.places.shape[1] * self.looking.features[place_of(extra)].shape[1]
        return torch.lerp(attention(k[:, :own], v[:, :own]), attention(k, v), strength.to(q)[:, None, None])
