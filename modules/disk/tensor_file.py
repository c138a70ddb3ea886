"""Tensors as a safetensors file, written straight to where they go: no second copy in memory, no file of a library's own left behind.

The format: eight bytes with the header's length, the header as JSON (type, shape and place of every tensor, and texts by name under
``__metadata__``), the numbers. https://github.com/huggingface/safetensors#format
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .atomic import replacing

TYPES = {  # in the order of a file, wide ones first: every number is aligned
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
ALIGNED = 8  # bytes: where the numbers begin


class Damaged(ValueError):
    """A file is not, or no longer, what was written."""


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, dtype: torch.dtype | None = None
) -> None:
    """Write tensors of any shape and place as one file; there is never half of it under ``path``.

    Args:
        path: of the file.
        tensors: by name.
        metadata: texts by name.
        dtype: of the floating-point ones in the file; None for their own.

    Raises:
        NotWritten: see ``atomic.replacing``.
        TypeError: the format has no word for a tensor's type.
    """
    with replacing(path) as partial:
        write_tensors(partial, tensors, metadata, dtype)


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, dtype: torch.dtype | None = None
) -> None:
    """Write tensors to a file that is nobody's yet; see ``save_tensors``."""
    types = {name: dtype if dtype and value.is_floating_point() else value.dtype for name, value in tensors.items()}
    strange = [name for name in tensors if types[name] not in TYPES]
    if strange:
        raise TypeError(f"{strange[0]} is {types[strange[0]]}, which a safetensors file cannot hold")
    order = list(TYPES)
    names = sorted(tensors, key=lambda name: (order.index(types[name]), name))
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        begin, end = end, end + tensors[name].numel() * types[name].itemsize
        header[name] = {"dtype": TYPES[types[name]], "shape": list(tensors[name].shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNED)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(raw(tensors[name].detach().to("cpu", types[name])))


def raw(tensor: Tensor) -> memoryview:
    """The bytes of a tensor in main memory, in the order of its elements: ``tensor``: ``...``."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def load_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What such a file holds: its texts and its tensors, by name.

    Raises:
        Damaged: it cannot be read; one sentence.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
            return file.metadata() or {}, tensors
    except (SafetensorError, OSError) as error:
        reason = f"{type(error).__name__}: {error}" if isinstance(error, OSError) else str(error)
        raise Damaged(f"{path.name} cannot be read: it is cut short or no safetensors file ({reason})") from error
