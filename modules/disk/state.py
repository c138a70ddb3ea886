"""States to go on from: tensors and a description in one file that is always whole, in which one wrong bit is noticed.

The state before is kept beside the last one, and taken where the last one is damaged.
"""

import json
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from .atomic import NotWritten, file_to_disk, replacing
from .tensor_file import Damaged, load_tensors, raw, save_tensors, write_tensors

SUMS = "longtake_sums"  # in the metadata: the description's checksum, and type, shape and checksum of every tensor


@dataclass(frozen=True)
class Sealed:
    """What a file of states holds.

    Attributes:
        about: its description, JSON-able.
        tensors: by name, of any shape.
        note: why this is the state before the last one; empty where it is the last one.
        sums: the checksums of all that, as they stand in the file.
    """

    about: Any
    tensors: dict[str, Tensor]
    note: str = ""
    sums: str = ""

    def check_shapes(self, wanted: Mapping[str, Tensor], name: str) -> None:
        """Refuse a state that lacks something or has something of another shape, before it is copied and quietly broadcast.

        Args:
            wanted: tensors of the types and shapes that must be there, by name; the state may hold more.
            name: of the file, for messages.

        Raises:
            ValueError: what is wrong, in one sentence.
        """
        for key, like in wanted.items():
            if key not in self.tensors:
                raise ValueError(f"{name} lacks {key}: it is the state of something else, give another name")
            if kind(self.tensors[key]) != kind(like):
                raise ValueError(
                    f"{name} holds {key} as {kind(self.tensors[key])} and {kind(like)} is needed: it is the state of something else, give"
                    " another name"
                )


def kind(tensor: Tensor) -> str:
    """Type and shape of a tensor, in words: ``tensor``: ``...``.

    >>> import torch
    >>> kind(torch.zeros(2, 3))
    'float32 2x3'
    """
    return f"{str(tensor.dtype).removeprefix('torch.')} {'x'.join(map(str, tensor.shape)) or 'alone'}"


def save_sealed(path: Path, mark: str, about: Any, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors with a description and checksums of both. Gives the checksums, as ``Sealed.sums``.

    Args:
        path: of the file.
        mark: name of the description in the metadata, which tells such files from others.
        about: the description, JSON-able.
        tensors: of any shape and place, by name.

    Raises:
        NotWritten: see ``atomic.replacing``.
    """
    held = _on_cpu(tensors)
    metadata = _metadata(mark, about, held)
    save_tensors(path, held, metadata)
    return metadata[SUMS]


def load_sealed(path: Path, mark: str, what: str) -> Sealed:
    """What ``save_sealed`` wrote, every bit of it.

    Args:
        path: of the file.
        mark: see ``save_sealed``.
        what: such a file is, in words.

    Raises:
        Damaged: it is cut short, a bit is wrong, or a tensor is missing.
        ValueError: it is something else.
    """
    metadata, tensors = load_tensors(path)
    if mark not in metadata:
        raise ValueError(f"{path.name} is no {what}: give another name")
    if SUMS not in metadata:
        raise Damaged(f"{path.name} has no checksums: it is damaged, or another program or an earlier version wrote it")
    try:
        whole, table = json.loads(metadata[SUMS])
        same = zlib.crc32(metadata[mark].encode()) == whole
        wrong = [name for name in {**table, **tensors} if name not in tensors or table.get(name) != _sum(tensors[name])]
        about = json.loads(metadata[mark])
    except (TypeError, ValueError, AttributeError) as error:
        raise Damaged(f"{path.name} is damaged: what it says of itself cannot be read") from error
    if not same or wrong:
        raise Damaged(f"{path.name} is damaged: {wrong[0] if wrong else 'its description'} is not what was written")
    return Sealed(about, tensors, sums=metadata[SUMS])


def state_before(path: Path) -> Path:
    """Where the state before the last one is kept."""
    return path.with_name(f"{path.name}.before")


def has_state(path: Path) -> bool:
    """Whether there is anything to go on from."""
    return path.exists() or state_before(path).exists()


def save_state(path: Path, mark: str, about: Any, tensors: Mapping[str, Tensor]) -> None:
    """Write a state as ``save_sealed`` does; the one that was there becomes the state before, when this one is whole.

    Raises:
        NotWritten: see ``atomic.replacing``; the last state is kept.
    """
    held = _on_cpu(tensors)
    metadata = _metadata(mark, about, held)
    try:
        _write(path, held, metadata)
    except NotWritten as error:
        if not (error.full and path.exists() and state_before(path).exists()):
            raise
        state_before(path).unlink()  # gives its room to the new one
        _write(path, held, metadata)


def load_state(path: Path, mark: str, what: str, whole: Callable[[Sealed], Sealed] = lambda state: state) -> Sealed:
    """The last state, or the one before where the last one is damaged or a kill came before it had its name; see ``load_sealed``.

    Args:
        path: see ``load_sealed``.
        mark: the same.
        what: the same.
        whole: adds what belongs to a state and lies in other files; raises ``Damaged`` where it cannot.

    Raises:
        ValueError: neither can be read; says what is wrong with the last one.
    """
    before = state_before(path)
    if not path.exists() and before.exists():
        return whole(load_sealed(before, mark, what))
    try:
        return whole(load_sealed(path, mark, what))
    except Damaged as error:
        try:
            state = whole(load_sealed(before, mark, what))
        except ValueError:
            raise error from None
        return replace(state, note=f"{error}, so the {what} before it was taken")


def mend(path: Path) -> None:
    """Make the state before the last one: for whoever goes on from it, or the next save would keep the damaged one instead.

    Raises:
        NotWritten: the folder cannot be written to.
    """
    with replacing(path) as partial:
        shutil.copyfile(state_before(path), partial)


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    with replacing(path) as partial:
        write_tensors(partial, tensors, metadata)
        file_to_disk(partial)
        if path.exists():
            path.replace(state_before(path))


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _metadata(mark: str, about: Any, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    text = json.dumps(about, sort_keys=True)
    sums = [zlib.crc32(text.encode()), {name: _sum(value) for name, value in tensors.items()}]
    return {mark: text, SUMS: json.dumps(sums, sort_keys=True)}


def _sum(tensor: Tensor) -> list[Any]:
    return [kind(tensor), zlib.crc32(raw(tensor))]
