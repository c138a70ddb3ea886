"""Short texts that tell values apart, for settings that are compared with those of an earlier run."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor


def fingerprint(value: Any) -> str:
    """The same text for equal values, also in another process: tensors count with all their numbers, strange objects with their kind.

    >>> fingerprint({"a": [1, 2.0, None]}) == fingerprint({"a": [1, 2.0, None]})
    True
    """
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()[:16]


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        whole = value.detach().cpu().contiguous()
        digest.update(f"tensor {whole.dtype} {list(whole.shape)}".encode())
        digest.update(whole.flatten().view(torch.uint8).numpy().tobytes() if whole.numel() else b"")
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            digest.update(f"key {key}".encode())
            _feed(digest, value[key])
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        digest.update(f"{len(value)} of".encode())
        for item in value:
            _feed(digest, item)
    elif isinstance(value, partial):
        _feed(digest, (value.func, value.args, value.keywords))
    elif is_dataclass(value) and not isinstance(value, type):
        digest.update(f"a {type(value).__name__}".encode())
        _feed(digest, {field.name: getattr(value, field.name) for field in fields(value)})
    elif value is None or isinstance(value, str | bytes | int | float | bool):
        digest.update(f"{type(value).__name__} {value!r}".encode())
    else:
        digest.update(f"a {getattr(value, '__qualname__', type(value).__name__)}".encode())
