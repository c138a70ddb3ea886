"""What the temporal attentions do while a module trains or samples: how sharp they are, where they look, how large their logits get.

Entropies are divided by the logarithm of the number of keys: 1 looks everywhere alike, 0 at a single frame. ``watching`` computes them
beside the model's own attention, which stays as fast as it is: with a softmax of its own, on a few rows of each call. What the numbers
mean for a training run is in ``alarms.py``.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..temporal.transformer import TemporalAttention

ROWS = 256  # pixels per call whose attention is looked at

_PLACE = re.compile(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?motion_modules\.(\d+).*attention_blocks\.(\d+)$")


@dataclass(frozen=True)
class Reading:
    """One attention at one time.

    Attributes:
        block: where it is, such as ``up.1.2/0``: level and slot as in block rules, then which attention of the module.
        entropy: by head, 0..1; a head that never had two keys to choose from has 1.
        max_logit: the largest magnitude of a logit.
        grad_q, grad_k: gradient norms of the projections, None where there are no gradients.
    """

    block: str
    entropy: tuple[float, ...]
    max_logit: float
    grad_q: float | None = None
    grad_k: float | None = None

    @property
    def mean(self) -> float:
        """The entropy over all heads."""
        return sum(self.entropy) / len(self.entropy)


def attention_weights(
    q: Tensor, k: Tensor, bias: Tensor | None = None, mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """What an attention computes inside, in single precision at least.

    Args:
        q: ``n heads f d``.
        k: ``n heads g d``.
        bias: ``n heads f g``, added to the logits, or None.
        mask: ``... f g``, True where a row may look, or None.

    Returns:
        weights: ``n heads f g``, rows sum to 1.
        logits: ``n heads f g``, 0 where the mask forbids.
        mask: ``... f g``, or None.
    """
    precise = torch.promote_types(q.dtype, torch.float32)
    logits = q.to(precise) @ k.to(precise).transpose(-1, -2) / math.sqrt(q.shape[-1])
    logits = logits if bias is None else logits + bias.to(precise)
    if mask is None:
        return logits.softmax(-1), logits, None
    return logits.masked_fill(~mask, -math.inf).softmax(-1), logits.masked_fill(~mask, 0.0), mask


def normalised_entropy(weights: Tensor, mask: Tensor | None = None) -> Tensor:
    """Entropy over the logarithm of the number of keys.

    Args:
        weights: ``... f g``, rows sum to 1.
        mask: ``... f g``, the keys of each row, or None for all.

    Returns:
        entropy: ``... f``, 0..1; NaN for rows with one key, which have nothing to choose.

    >>> normalised_entropy(torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    entropy = torch.special.entr(weights).sum(-1)
    keys = torch.full_like(entropy, weights.shape[-1]) if mask is None else mask.sum(-1).expand(entropy.shape).to(entropy)
    return torch.where(keys > 1, entropy / keys.log(), math.nan)


class Tally:
    """What has been seen of one attention; sums stay where the model is, so watching waits for nothing."""

    def __init__(self) -> None:
        self.entropy: Tensor | None = None
        self.rows: Tensor | None = None
        self.max_logit: Tensor | None = None
        self.map: Tensor | None = None
        self.calls = 0

    def add(self, q: Tensor, k: Tensor, bias: Tensor | None, mask: Tensor | None) -> None:
        """Look at ``q``: ``n heads f d``, ``k``: ``n heads f d``, ``bias``: ``n heads f f`` and ``mask``: ``... f f``."""
        weights, logits, mask = attention_weights(q, k, bias, mask)
        entropy = normalised_entropy(weights, mask)
        seen = ~entropy.isnan()
        total, rows = entropy.nan_to_num(0.0).sum((0, 2)), seen.sum((0, 2))
        top, picture = logits.abs().amax(), weights.mean(0)
        if self.entropy is None or self.rows is None or self.max_logit is None or self.map is None:
            self.entropy, self.rows, self.max_logit, self.map, self.calls = total, rows, top, picture, 1
            return
        self.entropy, self.rows = self.entropy + total, self.rows + rows
        self.max_logit = torch.maximum(self.max_logit, top)
        if picture.shape == self.map.shape:  # windows of another length have no place in the same picture
            self.map, self.calls = self.map + picture, self.calls + 1

    def reading(self, block: str) -> Reading:
        """Where things stand.

        Raises:
            ValueError: the attention has not run.
        """
        if self.entropy is None or self.rows is None or self.max_logit is None:
            raise ValueError(f"the attention {block} has not run while it was watched: call the model inside")
        mean = torch.where(self.rows > 0, self.entropy / self.rows.clamp_min(1), 1.0)
        return Reading(block, tuple(mean.tolist()), float(self.max_logit))


class Watch:
    """Everything seen inside one ``watching``.

    Attributes:
        attentions: the modules by block.
        tallies: what they did, by block.
    """

    def __init__(self, attentions: Mapping[str, TemporalAttention], rows: int = ROWS):
        self.attentions, self.rows = dict(attentions), rows
        self.tallies = {block: Tally() for block in attentions}

    def reset(self) -> None:
        """Forget what was seen."""
        self.tallies = {block: Tally() for block in self.attentions}

    def readings(self) -> tuple[Reading, ...]:
        """Of the attentions that ran, in the model's order, with gradient norms where there are gradients."""
        ran = [(block, tally) for block, tally in self.tallies.items() if tally.entropy is not None]
        return tuple(
            replace(tally.reading(block), **dict(zip(("grad_q", "grad_k"), gradient_norms(self.attentions[block]), strict=True)))
            for block, tally in ran
        )

    def map(self, block: str) -> Tensor:
        """Where the frames of one attention look, over all pixels that were looked at.

        Args:
            block: its name, as in ``readings``.

        Returns:
            weights: ``heads f g``, rows sum to 1.

        Raises:
            ValueError: there is none of this name, or it has not run.
        """
        if block not in self.tallies:
            raise ValueError(f"there is no attention {block!r}: choose one of {', '.join(self.tallies)}")
        tally = self.tallies[block]
        if tally.map is None:
            raise ValueError(f"the attention {block} has not run while it was watched: call the model inside")
        return tally.map / tally.calls

    def around(self, block: str, inner: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """``inner``, the mixing of one attention, with a look at its queries and keys."""
        attention = self.attentions[block]

        def mixed(q: Tensor, k: Tensor, v: Tensor, positions: Tensor, mask: Tensor | None, scale: Tensor | None = None) -> Tensor:
            with torch.no_grad(), torch.autocast(q.device.type, enabled=False):
                chosen = torch.linspace(0, len(q) - 1, min(self.rows, len(q)), device=q.device).round().long()
                some = None if scale is None else scale[chosen] if scale.ndim > 1 else scale
                seen = mask[chosen] if mask is not None and mask.ndim > 2 and len(mask) > 1 else mask
                self.tallies[block].add(*attention.compared(q[chosen], k[chosen], positions, some), seen)
            return inner(q, k, v, positions, mask, scale)

        return mixed


def attentions_of(motion: nn.Module) -> dict[str, TemporalAttention]:
    """The temporal attentions of a network by block.

    Raises:
        ValueError: it has none.
    """
    found = {_block(name): item for name, item in motion.named_modules() if isinstance(item, TemporalAttention)}
    if not found:
        raise ValueError("there is no temporal attention to watch: recurrent and convolutional modules have none")
    return found


def _block(name: str) -> str:
    place = _PLACE.search(name)
    if place is None:
        return name
    side, level, slot, attention = place.groups()
    return f"{side}.{slot}/{attention}" if level is None else f"{side}.{level}.{slot}/{attention}"


@contextmanager
def watching(motion: nn.Module, rows: int = ROWS) -> Iterator[Watch]:
    """While open, every call of the network's temporal attentions is looked at; afterwards they are as before, whatever happened.

    Args:
        motion: a ``MotionModel``, or anything that holds temporal attentions, whoever runs it.
        rows: pixels per call.

    Raises:
        ValueError: it has no temporal attention.
    """
    watch = Watch(attentions_of(motion), rows)
    before = {block: module.__dict__.get("_mixed") for block, module in watch.attentions.items()}
    try:
        for block, module in watch.attentions.items():
            module.__dict__["_mixed"] = watch.around(block, module._mixed)
        yield watch
    finally:
        for block, module in watch.attentions.items():
            module.__dict__.pop("_mixed", None)
            if before[block] is not None:
                module.__dict__["_mixed"] = before[block]


def gradient_norms(attention: TemporalAttention) -> tuple[float | None, float | None]:
    """The gradient norms of the query and the key projection; None where there is no gradient."""
    return _norm(attention.to_q), _norm(attention.to_k)


def _norm(layer: nn.Module) -> float | None:
    gradients = [parameter.grad for parameter in layer.parameters() if parameter.grad is not None]
    return float(torch.stack([gradient.float().norm() for gradient in gradients]).norm()) if gradients else None
