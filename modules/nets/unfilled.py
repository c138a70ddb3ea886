"""Networks before they have numbers: for the shapes of their weights, and for weights that are put in as they are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

DRAWS = {
    *(nn.init.kaiming_uniform_, nn.init.uniform_, nn.init.normal_, nn.init.constant_),
    *(Tensor.uniform_, Tensor.normal_, Tensor.fill_, Tensor.zero_),
}


class _NothingDrawn(TorchFunctionMode):
    """What fills a tensor leaves it as it is: on the meta device that takes most of a network's making, and does nothing."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        return (args[0] if args else given["tensor"]) if func in DRAWS else func(*args, **given)


@contextmanager
def unfilled() -> Iterator[None]:
    """Networks that are made while open have shapes and no numbers (PyTorch's ``meta`` device)."""
    with torch.device("meta"), _NothingDrawn():
        yield
