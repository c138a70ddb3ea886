"""The state that an interrupted take goes on from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..sampling.job import State
from .state import load_state, save_state

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
        """Write it; what was there before stays until this is whole, and beside it then."""
        tensors = {"x": self.now.x, "ids": self.now.ids, "recent": self.recent}
        tensors |= {MEMORY + name: tensor for name, tensor in self.now.memory.items()}
        about = {"row": self.now.row, "finished": self.finished, "written": self.written, "run": self.run}
        save_state(path, KEY, about, tensors)


def load(path: Path) -> Saved:
    """Read a state file.

    Raises:
        ValueError: it is none.
    """
    state = load_state(path, KEY, "state of a take")
    about, tensors = state.about, state.tensors
    memory = {name.removeprefix(MEMORY): tensor for name, tensor in tensors.items() if name.startswith(MEMORY)}
    now = State(about["row"], tensors["ids"], tensors["x"], memory)
    return Saved(now, tensors["recent"], about["finished"], about["written"], about["run"])


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The names of the settings in which two runs differ."""
    return [name for name in now if now[name] != then.get(name)]
