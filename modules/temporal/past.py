"""What recurrent modules remember from call to call of one sampling.

A window slides over a take, and a frame that has left it still acts through the state that it left behind. A ``Memory`` keeps these
states: one per slot, per clip of the batch and per frame, from the model's last call about that frame. It belongs to one sampling and
never to the modules, which other samplings use too. What no later call will ask for is dropped, so it is as large for a short take as
for a long one.
"""

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


class Memory:
    """The states of one motion model in one sampling; empty at first."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, Hashable], dict[int, Tensor]] = {}
        self._furthest = -1  # the last frame that any call has been about
        self._wanted: tuple[set[int], set[int]] = set(), set()  # frames whose states the last round wanted, and this one

    def __len__(self) -> int:
        """How many states it holds."""
        return sum(map(len, self._states.values()))

    def call(self, ids: Tensor, rows: Sequence[Hashable] = (0,)) -> "Past":
        """Begin a model call, and forget what it and those after it will not ask for.

        A round is all calls until a frame is shown that none has shown before. Samplers may go through a round's windows in any
        order, as FIFO-Diffusion does from the noisy end to the clean one. So a frame that was neither shown nor right before a shown
        one, in this round and the one before, has been left behind.

        Args:
            ids: ``f``, absolute numbers of the frames that the call is about, in order.
            rows: whose each clip of the batch is; clips of the same name in two calls are the same clip.
        """
        numbers = tuple(ids.tolist())
        before, now = self._wanted
        if max(numbers) > self._furthest:
            self._furthest, before, now = max(numbers), now, set()
        self._wanted = before, now | {*numbers, *(number - 1 for number in numbers)}
        for states in self._states.values():
            for number in states.keys() - self._wanted[0] - self._wanted[1]:
                del states[number]
        return Past(self, numbers, tuple(rows))

    def known(self, slot: str, row: Hashable, number: int) -> Tensor | None:
        """The state after a frame, or None. Returns ``s h w``."""
        return self._states.get((slot, row), {}).get(number)

    def keep(self, slot: str, row: Hashable, number: int, state: Tensor) -> None:
        """Remember the state after a frame: ``state``: ``s h w``."""
        self._states.setdefault((slot, row), {})[number] = state

    def tensors(self) -> dict[str, Tensor]:
        """All that it holds, by name; nothing while no module has kept anything. Names of clips are numbers, texts or tuples of them."""
        if not len(self):
            return {}
        before, now = (torch.tensor(sorted(frames), dtype=torch.int64) for frames in self._wanted)
        states = {
            json.dumps([slot, row, number]): state
            for (slot, row), frames in self._states.items()
            for number, state in frames.items()
        }
        return {"furthest": torch.tensor([self._furthest]), "wanted before": before, "wanted now": now, **states}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Hold what ``tensors`` gave, and nothing else."""
        self._states.clear()
        self._furthest, self._wanted = -1, (set(), set())
        if not tensors:
            return
        self._furthest = int(tensors["furthest"])
        self._wanted = set(tensors["wanted before"].tolist()), set(tensors["wanted now"].tolist())
        for name, state in tensors.items():
            if name.startswith("["):
                slot, row, number = json.loads(name)
                self.keep(slot, tuple(row) if isinstance(row, list) else row, number, state)


class Memories:
    """Those of all motion models of a sampling, as one thing that can be put down and taken up again (``remembering.py``).

    Args:
        each: by the model's place.
    """

    def __init__(self, each: dict[int, Memory]):
        self.each = each

    def tensors(self) -> dict[str, Tensor]:
        """All that they hold, by name."""
        return {f"{place}/{name}": tensor for place, memory in self.each.items() for name, tensor in memory.tensors().items()}

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """None: states are small."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Hold what ``tensors`` gave, and nothing else."""
        places = {int(name.partition("/")[0]) for name in tensors}
        for place in places | self.each.keys():
            own = {name.partition("/")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{place}/")}
            self.each.setdefault(place, Memory()).restore(own)


@dataclass(frozen=True)
class Past:
    """One call of the model with what came before it.

    Attributes:
        memory: of the sampling.
        ids: frame numbers of the call, in order.
        rows: whose each clip of the batch is.
    """

    memory: Memory
    ids: tuple[int, ...]
    rows: tuple[Hashable, ...]

    def at(self, slot: str) -> "SlotPast":
        """The same for one slot's module."""
        return SlotPast(self, slot)


@dataclass(frozen=True)
class SlotPast:
    """What one slot's module may know in one call of the frames before it."""

    call: Past
    slot: str

    def before(self, place: int, state: Tensor) -> Tensor:
        """What a frame goes on from: the state after the frame before it, from an earlier call if this one does not show that frame.

        Args:
            place: of the frame in the call.
            state: ``b s h w``, for where no other is known: after the call's frame before it, or what a clip begins with.

        Returns:
            state: ``b s h w``.

        Raises:
            ValueError: there are more or fewer clips than were announced, or a state is for pictures of another size.
        """
        rows, number = self.call.rows, self.call.ids[place] - 1
        if len(state) != len(rows):
            raise ValueError(f"{len(state)} clips came to a recurrent module that was told of {len(rows)}: they must agree")
        if place > 0 and self.call.ids[place - 1] == number:
            return state
        known = [self.call.memory.known(self.slot, row, number) for row in rows]
        if all(other is None for other in known):
            return state
        for other in known:
            if other is not None and other.shape != state.shape[1:]:
                raise ValueError(
                    f"the state after frame {number} is of {list(other.shape)} and this call works on {list(state.shape[1:])}: leave"
                    " out the node that changes the size of the U-Net's features during sampling, such as a deep shrink"
                )
        return torch.stack([mine if other is None else other.to(mine) for other, mine in zip(known, state, strict=True)])

    def keep(self, states: Sequence[Tensor]) -> None:
        """Remember the state after each frame of the call, ``b s h w`` each."""
        for number, state in zip(self.call.ids, states, strict=True):
            for row, mine in zip(self.call.rows, state.detach(), strict=True):
                self.call.memory.keep(self.slot, row, number, mine)
