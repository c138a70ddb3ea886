"""Checkpoints of a training run: one safetensors file, written under another name and renamed, with a JSON text beside the tensors."""

import glob
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

MARK = "longtake_run"


def write(path: Path, about: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write a checkpoint; the one before it stays until this one is whole.

    Args:
        path: of the file.
        about: JSON-able.
        state: tensors of any shape and place.

    Raises:
        ValueError: the file cannot be written, such as on a full disk.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata={MARK: json.dumps(about, sort_keys=True)})
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        kept = "the checkpoint before it stands" if path.exists() else "there is none before it"
        raise ValueError(
            f"the checkpoint {path} cannot be written ({error}); {kept}: make room or choose another folder"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def tidy(path: Path) -> None:
    """Take away what a process that was killed while it wrote this checkpoint has left; no other run may be writing it."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        partial.unlink(missing_ok=True)


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What ``write`` wrote.

    Raises:
        ValueError: the file is broken, or something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(MARK, "null"))
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a dict
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} cannot be read: it is cut short or no safetensors file ({error})") from error
    if not isinstance(about, dict) or "settings" not in about:
        raise ValueError(f"{path.name} is no training checkpoint: give another name, or the checkpoint of this run")
    if "task" not in about:
        raise ValueError(
            f"{path.name} was written by an earlier trainer of this pack, which this one cannot go on with: give this run another name,"
            " and the earlier run's finished model as its start, if there is one"
        )
    return about, state


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Names of entries that two JSON-able descriptions have otherwise, with the names of what they are in.

    >>> differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}})
    ['b.c']
    """
    names: list[str] = []
    for key in dict.fromkeys([*one, *other]):
        mine, theirs = one.get(key), other.get(key)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            names += differences(mine, theirs, f"{prefix}{key}.")
        elif json.dumps(mine, sort_keys=True) != json.dumps(theirs, sort_keys=True):
            names.append(prefix + key)
    return names
