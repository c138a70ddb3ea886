"""Short texts that tell values apart, for settings that are compared with those of an earlier run.

What a value is made of counts, whatever it is: the numbers of tensors, the weights of networks, what functions have bound, what objects
hold. Left out is what differs from process to process and makes no frame another: where something lies, numbers drawn to name it, and
fields of dataclasses that take no part in comparisons.
"""

import enum
import functools
import hashlib
import types
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .tensor_file import raw

Known = Callable[[Any], Any]  # what stands for a value, or the value itself
VOLATILE = (uuid.UUID, torch.device, torch.Generator, weakref.ReferenceType, types.ModuleType, types.GeneratorType)
PLAIN = (str, bytes, int, float, complex, type(None), range, slice, PurePath, torch.dtype, np.generic)


def fingerprint(value: Any, known: Known = lambda value: value) -> str:
    """The same text for equal values, also in another process.

    Args:
        value: anything.
        known: says what stands for objects that hold more than they are, such as a host's models.

    >>> fingerprint({"a": [1, 2.0, None]}) == fingerprint({"a": [1, 2.0, None]})
    True
    """
    return _Digest(known).of(value)


class _Digest:
    """One text in the making; ``above`` are the objects that hold what is looked at."""

    def __init__(self, known: Known):
        self.hash, self.known = hashlib.sha256(), known
        self.above: list[int] = []

    def of(self, value: Any) -> str:
        self._feed(value)
        return self.hash.hexdigest()[:16]

    def _say(self, text: str) -> None:
        self.hash.update(f"{text}\0".encode("utf-8", "surrogatepass"))

    def _feed(self, value: Any) -> None:
        if isinstance(value, enum.Enum):
            self._say(f"{type(value).__qualname__} {value.name}")
        elif isinstance(value, PLAIN):
            self._say(f"{type(value).__name__} {value!r}")
        elif isinstance(value, VOLATILE):
            self._say(f"some {type(value).__name__}")
        elif id(value) in self.above:
            self._say(f"again {self.above.index(id(value))}")
        else:
            self.above.append(id(value))
            self._feed_parts(self.known(value))
            self.above.pop()

    def _feed_parts(self, value: Any) -> None:
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(np.ascontiguousarray(value))
        if isinstance(value, Tensor) and not hasattr(value, "__tensor_flatten__"):  # others are made of tensors: quantised ones
            self._say(f"tensor {value.dtype} {list(value.shape)}")
            self.hash.update(raw(value.detach().cpu().as_subclass(Tensor)))
            return
        kind, parts = next(parts for kinds, parts in MADE_OF if isinstance(value, kinds))(value)
        self._say(f"{kind}, {len(parts)} parts")
        for part in parts:
            self._feed(part)


def _code(code: types.CodeType) -> tuple[Any, ...]:
    """What tells the code of two functions of one name apart, in any version of Python: two lambdas of one line, for example."""
    constants = [_code(item) if isinstance(item, types.CodeType) else item for item in code.co_consts]
    return code.co_names, code.co_varnames, constants


def _bound(function: types.FunctionType) -> list[Any]:
    """The values that a function took from around it."""
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # not filled yet
            cells.append(None)
    return cells


def _fields(value: Any) -> tuple[str, list[Any]]:
    if not is_dataclass(value):
        slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()) if hasattr(value, name)]
        return type(value).__qualname__, [getattr(value, "__dict__", None), [(name, getattr(value, name)) for name in slots]]
    return type(value).__qualname__, [(item.name, getattr(value, item.name)) for item in fields(value) if item.compare]


# what a value is made of, the first row that fits: its kind, and its parts
MADE_OF: tuple[tuple[Any, Callable[[Any], tuple[str, Sequence[Any]]]], ...] = (
    (nn.Module, lambda it: (type(it).__qualname__, [dict(it.named_parameters()), dict(it.named_buffers())])),
    (Mapping, lambda it: ("names", [(key, it[key]) for key in sorted(it, key=str)])),
    (Set, lambda it: ("set", sorted(fingerprint(item) for item in it))),
    (Sequence, lambda it: ("list", it)),
    (type, lambda it: (f"{it.__module__}.{it.__qualname__}", [])),
    (types.BuiltinFunctionType, lambda it: (it.__qualname__, [it.__self__])),
    (functools.partial, lambda it: ("partial", [it.func, it.args, it.keywords])),
    (types.MethodType, lambda it: ("method", [it.__func__, it.__self__])),
    (
        types.FunctionType,
        lambda it: (
            f"{it.__module__}.{it.__qualname__}",
            [_code(it.__code__), it.__defaults__, it.__kwdefaults__, _bound(it)],
        ),
    ),
    (object, _fields),
)
