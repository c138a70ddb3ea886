"""The file that an interrupted take goes on from: where it is, as one safetensors file that is always whole."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..sampling.job import State

KEY = "longtake_take"  # in the metadata
MEMORY = "memory/"


@dataclass(frozen=True)
class Saved:
    """What is in the file.

    Attributes:
        now: where the take is.
        recent: ``r ...``, the last finished frames, as a VAE takes them; those that are not on disk are among them.
        finished: how many frames are finished.
        written: how many of them are on disk.
        run: the settings that the take was begun with.
    """

    now: State
    recent: Tensor
    finished: int
    written: int
    run: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write it; what was there before stays until this is whole."""
        tensors = {"x": self.now.x, "ids": self.now.ids, "recent": self.recent}
        tensors |= {MEMORY + name: tensor for name, tensor in self.now.memory.items()}
        about = {"row": self.now.row, "finished": self.finished, "written": self.written, "run": self.run}
        whole = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, {KEY: json.dumps(about)})
        with replacing(path) as partial:
            partial.write_bytes(whole)


def load(path: Path) -> Saved:
    """Read a state file.

    Raises:
        ValueError: it is none.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except SafetensorError as error:
        raise ValueError(
            f"{path.name} cannot be read: it is cut short or no safetensors file ({error}): turn resume off"
        ) from error
    if about is None:
        raise ValueError(f"{path.name} is not the state of a take: choose another folder or prefix, or turn resume off")
    memory = {name.removeprefix(MEMORY): tensor for name, tensor in tensors.items() if name.startswith(MEMORY)}
    now = State(about["row"], tensors["ids"], tensors["x"], memory)
    return Saved(now, tensors["recent"], about["finished"], about["written"], about["run"])


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``; what is written there gets the final name at the end, or vanishes."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The names of the settings in which two runs differ."""
    return [name for name in now if now[name] != then.get(name)]
