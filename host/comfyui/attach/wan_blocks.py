"""Changing what the blocks of ComfyUI's Wan network get, in a call of the network: on a copy of its transformer options.

Older versions do not say in which block an attention is; so each block is told an attention of its own.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

OVERRIDE = "optimized_attention_override"
Attention = Callable[..., Tensor]  # ``(q, k, v) -> out``
Around = Callable[[Attention, Tensor, Tensor, Tensor], Tensor]  # ``(attention, q, k, v) -> out``


def around_blocks(
    options: dict[str, Any], layers: int, change: Callable[[int, dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """Options whose blocks get ``change(layer, args)``; what another pack has put around a block stays around it."""
    others = options.get("patches_replace", {})
    dit = dict(others.get("dit", {}))
    for layer in range(layers):
        dit["double_block", layer] = _around_block(dit.get(("double_block", layer)), layer, change)
    return {**options, "patches_replace": {**others, "dit": dit}}


def _around_block(
    other: Callable[..., Any] | None, layer: int, change: Callable[[int, dict[str, Any]], dict[str, Any]]
) -> Callable[..., Any]:
    def around(args: dict[str, Any], extra: dict[str, Any]) -> Any:
        args = change(layer, dict(args))
        return extra["original_block"](args) if other is None else other(args, extra)

    return around


def with_self_attention(args: dict[str, Any], around: Around) -> dict[str, Any]:
    """The arguments of a block whose self-attention, its first, goes through ``around``; another pack's override is within."""
    options = args["transformer_options"]
    other, calls = options.get(OVERRIDE), 0

    def override(function: Attention, q: Tensor, k: Tensor, v: Tensor, *rest: Any, **kwargs: Any) -> Tensor:
        nonlocal calls
        calls += 1

        def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return function(q, k, v, *rest, **kwargs) if other is None else other(function, q, k, v, *rest, **kwargs)

        return around(attention, q, k, v) if calls == 1 else attention(q, k, v)

    return {**args, "transformer_options": {**options, OVERRIDE: override}}
