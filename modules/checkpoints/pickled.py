"""PyTorch's own files, of which nothing is run and nothing unfolds into more than the file holds.

``torch.load`` with ``weights_only`` runs no code. It does call a few harmless names, and a file of a hundred bytes can make those ask for
all memory (``bytearray(10**11)``); archives may be packed, and one number may stand for a tensor of any size. So the names that a file
calls are read first, and only those that files of plain weights call are allowed; archives are mapped, never unpacked.
"""

import pickle
import pickletools
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

ZIP = b"PK\x03\x04"  # what torch.save has begun its files with since 1.6
OLD = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # and before
OLD_PARTS = 5  # pickles in an old file: the magic number, protocol, system, content, names of the storages
# what files of plain weights call
PLAIN = re.compile(
    r"^(collections (OrderedDict|Counter)|torch\._utils _rebuild_(tensor|tensor_v2|parameter)|torch (Size|device)"
    r"|torch \w+Storage|torch\.storage (Untyped|Typed)Storage|torch (b?float|u?int|complex)\d+(_\w+)?|torch bool)$"
)
# what reading a damaged file ends in, here and in torch
DAMAGED = (
    RuntimeError,
    EOFError,
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zipfile.BadZipFile,
)


def read_pickled(path: Path) -> Any:
    """What ``torch.save`` wrote, on the CPU.

    Raises:
        ValueError: the file is damaged, or holds more than plain weights. One sentence.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(len(ZIP)) == ZIP
            file.seek(0)
            strange = next((name for name in (_zipped if zipped else _old)(file) if not PLAIN.match(name)), None)
        if strange is None:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path.name} is damaged, or was written by a version of torch newer than this one: download it again"
        ) from error
    except DAMAGED as error:
        raise ValueError(f"{path.name} cannot be read: it is cut short or no PyTorch file; download it again") from error
    raise ValueError(
        f"{path.name} is damaged or holds Python objects beside its weights ({strange[:80]!r}), which could run code or fill the memory and"
        " are not loaded: use a safetensors file"
    )


def _zipped(file: IO[bytes]) -> Iterator[str]:
    """The names that an archive calls; ``ValueError`` where something in it is packed, so that it may be of any size."""
    with zipfile.ZipFile(file) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise ValueError("packed")
        for part in archive.namelist():
            if part.endswith(".pkl"):
                yield from _called(archive.read(part))


def _old(file: IO[bytes]) -> Iterator[str]:
    """The names that a file from before the archives calls; ``ValueError`` where it is none."""
    if file.read(len(OLD)) != OLD:
        raise ValueError("no magic number")
    for _ in range(OLD_PARTS - 1):
        yield from _called(file)


def _called(content: bytes | IO[bytes]) -> Iterator[str]:
    for code, argument, _ in pickletools.genops(content):
        if code.name in {"GLOBAL", "INST"}:
            yield str(argument)
        elif code.name == "STACK_GLOBAL":
            yield "a name put together"
