"""Checkpoints of a training run: states (``disk/state.py``) that say which run they are of."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..disk.atomic import leftovers
from ..disk.state import Sealed, load_state, mend, save_state

log = logging.getLogger("longtake")
MARK = "longtake_run"
# what the description of a checkpoint holds, and of which types
FACTS: dict[str, tuple[type, ...]] = {
    "task": (dict,),
    "settings": (dict,),
    "done": (int,),
    "slowed": (int, float),
    "scaler": (dict,),
    "watch": (dict,),
    "changes": (list,),
    "looks": (list,),
    "run": (str,),
}
ANOTHER = "give this run another name, or set restart, which keeps the old checkpoint beside it"


def write(path: Path, about: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write a checkpoint; the one before it stays until this one is whole.

    Args:
        path: of the file.
        about: JSON-able.
        state: tensors of any shape and place.

    Raises:
        NotWritten: the file cannot be written, such as on a full disk.
    """
    save_state(path, MARK, about, state)


def tidy(path: Path) -> None:
    """Take away what a process that was killed while it wrote this checkpoint has left; no other run may be writing it."""
    for partial in leftovers(path):
        partial.unlink(missing_ok=True)


def read(path: Path) -> Sealed:
    """What ``write`` wrote, or where that is damaged the checkpoint before; its description is as ``FACTS`` says.

    Raises:
        ValueError: the file is broken, or something else.
    """
    state = load_state(path, MARK, "training checkpoint")
    about = state.about
    wrong = next(
        (name for name, kinds in FACTS.items() if not isinstance(about, dict) or type(about.get(name)) not in kinds), None
    )
    if wrong is not None:
        raise ValueError(f"{path.name} is no training checkpoint of this version: its {wrong} is not there; {ANOTHER}")
    if state.note:
        log.warning(state.note)
        mend(path)
    return state


def check(state: Sealed, wanted: Mapping[str, Tensor], name: str) -> None:
    """Refuse a checkpoint from which not every weight could be taken as it was.

    Args:
        state: that was read.
        wanted: what it must hold, tensors of the types and shapes that are needed; it may hold more.
        name: of its file.

    Raises:
        ValueError: something is missing, of another shape or not finite, or its steps cannot be.
    """
    state.check_shapes(wanted, name)
    strange = next((key for key in wanted if not torch.isfinite(state.tensors[key]).all()), None)
    if strange is not None:
        raise ValueError(f"{name} holds {strange} with numbers that are not finite, so nothing can go on from it; {ANOTHER}")
    done, losses = state.about["done"], state.tensors.get("losses", torch.zeros(0))
    if losses.dtype != torch.float64 or list(losses.shape) != [done] or not 0 < state.about["slowed"] <= 1:
        raise ValueError(f"{name} says that {done} steps are done and holds {len(losses)} losses; {ANOTHER}")


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


def flat(prefix: str, values: Mapping[str, Any]) -> dict[str, Tensor]:
    """An optimizer's state of one parameter, groups within it (bitsandbytes) by longer names, as tensors."""
    found: dict[str, Tensor] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(f"{prefix}{key}/", value)
        else:
            found[prefix + key] = value if isinstance(value, Tensor) else torch.tensor(value)
    return found


def nested(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The way back; single whole numbers, which only were tensors in the file, are numbers again."""
    found: dict[str, Any] = {}
    for name, value in tensors.items():
        *groups, key = name.split("/")
        inner = found
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[key] = int(value) if value.ndim == 0 and value.dtype == torch.int64 else value
    return found


def below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it: shapes ``...`` as they are."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
