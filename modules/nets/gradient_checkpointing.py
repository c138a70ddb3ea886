"""Layers that keep their input only, and compute again when the gradient comes back (Chen et al., arXiv:1604.06174).

By then the call that a layer belonged to is long over, and what it was told for that call with it: ``as_now`` remembers that.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Forward = Callable[..., Any]
PARTS = {
    0: 4,
    4 * 2**20: 8,
}  # portions that a layer's input is divided into to be computed again, by its bytes: many small ones only take time


def as_now(holders: Sequence[Any]) -> Callable[[], AbstractContextManager[None]]:
    """A function that opens the present once more: while it is open, the holders' attributes are what they are now.

    Weights and parts of networks are not touched, only what is said to them for a call.
    """
    now = [_told(holder) for holder in holders]

    @contextmanager
    def again() -> Iterator[None]:
        later = [_told(holder) for holder in holders]
        try:
            for holder, state in zip(holders, now, strict=True):
                vars(holder).update(state)
            yield
        finally:
            for holder, state in zip(holders, later, strict=True):
                vars(holder).update(state)

    return again


def _told(holder: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(holder).items() if not name.startswith("_") and name != "forward"}


def recomputed(inner: Forward, *args: Any, again: Callable[[], AbstractContextManager[None]] = nullcontext, **kwargs: Any) -> Any:
    """``inner(*args, **kwargs)``, of which only the arguments are kept if gradients are to come back through it."""
    if not torch.is_grad_enabled():
        return inner(*args, **kwargs)
    args, kwargs = tuple(map(_kept, args)), {name: _kept(value) for name, value in kwargs.items()}
    return checkpoint(
        inner, *args, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: (nullcontext(), again()), **kwargs
    )


def _kept(value: Any) -> Any:
    """Options are copied: hosts write into them which layer is at work."""
    return {**value} if isinstance(value, dict) else value


@contextmanager
def shadowed(layers: Iterable[nn.Module], around: Callable[[Forward], Forward]) -> Iterator[None]:
    """While open, ``layer.forward`` is ``around(layer.forward)``; afterwards it is what it was, unless another has changed it since."""
    done: list[tuple[nn.Module, Forward, Forward | None]] = []
    try:
        for layer in layers:
            before, mine = vars(layer).get("forward"), around(layer.forward)
            vars(layer)["forward"] = mine
            done.append((layer, mine, before))
        yield
    finally:
        for layer, mine, before in reversed(done):
            if vars(layer).get("forward") is mine:
                vars(layer).pop("forward")
                if before is not None:
                    vars(layer)["forward"] = before


def portion(count: int, x: Tensor) -> int:
    """How many of a layer's ``count`` frames, or pixels, are computed again at once, where its input is ``x``: ``n ...``."""
    parts = max(parts for least, parts in PARTS.items() if x.numel() * x.element_size() >= least)
    return max(1, -(-count // parts))


def parts_of(count: int, size: int) -> Iterator[slice]:
    """``count`` things, ``size`` at a time."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
