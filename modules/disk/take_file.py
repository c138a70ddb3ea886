"""The state that an interrupted take goes on from."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..sampling.extent import Extent
from ..sampling.job import State
from .past_files import PastFiles
from .state import Sealed, load_sealed, load_state, save_state, state_before
from .tensor_file import Damaged

KEY = "longtake_take"  # in the metadata
MEMORY, DECODER = "memory/", "decoder/"
TENSORS = {"x", "ids", "held", "held_ids"}
FACTS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("row", "written", "finished", "frames", "in_flight", "pictures"), (int,)),
    **dict.fromkeys(("run", "plan", "parts"), (dict,)),
    "open_rows": (int, type(None)),
}


@dataclass(frozen=True)
class Saved:
    """What is in the file.

    Attributes:
        state: where the sampler is; None before its first row.
        held_ids: ``r``, int64, rising, finished frames that are kept: all that are not on disk, and the last ones that are.
        held: ``r ...``, what they are, on the model's scale.
        written: how many frames are on disk, from the first one on.
        finished: how many are finished.
        run: what the take was begun with.
        extent: the plan that it was made by.
        note: why this is not the last state; empty where it is.
        decoder: what the decoder keeps between what is on disk and what follows.
        parts: checksums of what the model remembers and lies in files of its own (``past_files.py``), by name; None while it lies in
            the model alone.
        pictures: how many are on disk: more than those of what is written where the take came to its end.
    """

    state: State | None
    held_ids: Tensor
    held: Tensor
    written: int
    finished: int
    run: dict[str, Any]
    extent: Extent
    note: str = ""
    decoder: Mapping[str, Tensor] = field(default_factory=dict)
    parts: Mapping[str, int] | None = field(default_factory=dict)
    pictures: int = 0

    @property
    def row(self) -> int:
        """Rows that are done."""
        return 0 if self.state is None else self.state.row

    def check(self, begun: "Saved") -> None:
        """Refuse what cannot be the state of a take that begins so: other frames, or numbers that do not go together.

        Args:
            begun: the take's beginning.

        Raises:
            ValueError: one sentence.
        """
        shapes = {tuple(tensor.shape[1:]) for tensor in (self.held, *([] if self.state is None else [self.state.x]))}
        if shapes != {tuple(begun.held.shape[1:])}:
            sizes = " and ".join(str(list(shape)) for shape in sorted(shapes))
            raise ValueError(
                f"the state holds frames of {sizes} and this take has frames of {list(begun.held.shape[1:])}: go on with the model that"
                " began it"
            )
        ids, now = self.held_ids, self.state or begun.state
        waiting = int((ids >= self.written).sum())
        sound = (
            ids.dtype == torch.int64
            and ids.shape == (len(self.held),)
            and bool((ids.diff() > 0).all())
            and 0 <= self.written <= self.finished
            and waiting == self.finished - self.written
            and (self.written == 0 or bool((ids == self.written - 1).any()))  # the last ones on disk are kept, too
            and self.row >= 0
            and (now is None or (now.ids.dtype, now.x.dtype) == (torch.int64, self.held.dtype))
            and self.held.is_floating_point()
            and bool(torch.isfinite(self.held).all())
        )
        if not sound:
            raise ValueError("the state does not say which frames are finished in a way that can be: it is another program's")

    def save(self, path: Path) -> None:
        """Write it; what was there before stays until this is whole, and beside it then.

        Raises:
            NotWritten: it cannot be written.
        """
        state, parts = self.state or State(0, torch.arange(0), self.held[:0]), self.parts or {}
        tensors = {"x": state.x, "ids": state.ids, "held": self.held, "held_ids": self.held_ids}
        tensors |= {MEMORY + name: tensor for name, tensor in state.memory.items() if name.partition("/")[0] not in parts}
        tensors |= {DECODER + name: tensor for name, tensor in self.decoder.items()}
        about = {"row": state.row, "written": self.written, "finished": self.finished, "run": self.run}
        about |= {"plan": self.extent.facts, "frames": self.extent.frames, "open_rows": self.extent.open_rows}
        about |= {"in_flight": self.extent.in_flight, "parts": dict(parts), "pictures": self.pictures}
        save_state(path, KEY, about, tensors)


def load(path: Path) -> Saved:
    """Read a state file with what lies beside it, or the one before it.

    Raises:
        ValueError: there is none that can be read.
    """

    def whole(file: Sealed) -> Sealed:
        _check(path.name, file)
        held = past_of(path).read(file.about["parts"])
        return replace(file, tensors=file.tensors | {MEMORY + name: tensor for name, tensor in held.items()})

    file = load_state(path, KEY, "state of a take", whole)
    about, tensors = file.about, file.tensors
    state = State(about["row"], tensors["ids"], tensors["x"], _below(MEMORY, tensors)) if about["row"] else None
    extent = Extent(about["plan"], about["frames"], about["open_rows"], about["in_flight"])
    numbers = about["written"], about["finished"], about["run"]
    beside = _below(DECODER, tensors), about["parts"], about["pictures"]
    return Saved(state, tensors["held_ids"], tensors["held"], *numbers, extent, file.note, *beside)


def _check(name: str, file: Sealed) -> None:
    """Refuse a state in which something is missing, or is of another kind."""
    about = file.about if isinstance(file.about, dict) else {}
    missing = sorted(TENSORS - file.tensors.keys()) + sorted(FACTS.keys() - about.keys())
    if missing:
        raise ValueError(f"{name} has no {missing[0]}: another version of this pack wrote it, which has to go on with it")
    wrong = next((fact for fact, kinds in FACTS.items() if type(about[fact]) not in kinds), None)
    if wrong:
        raise ValueError(f"{name} says that {wrong} is {str(about[wrong])[:40]!r}, which it cannot be: it is another program's")


def past_of(path: Path) -> PastFiles:
    """What the states of a take name and is too large for them, by the path of one of them."""
    return PastFiles(path.with_name(f"{path.name.rsplit('.', 2)[0]}.past"))


def parts_named(path: Path) -> set[str]:
    """The parts of the past that a state and the one before it name, as far as these can be read."""
    names: set[str] = set()
    for file in (path, state_before(path)):
        with suppress(Damaged, ValueError):
            names |= load_sealed(file, KEY, "state of a take").about.get("parts", {}).keys()
    return names


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
