"""In which order the sources come: each as often as any other, in batches of one size.

Every size has passes of its own, which take each of its sources once; a batch that the end of a pass leaves unfilled is filled from the
next one. In as many steps as there are sources, a *round*, each source comes exactly as often as a batch has places: one that is alone in
its size fills a whole batch, and that batch comes once in a round. The order is sorted by numbers drawn for each source, so it needs no
random state and is the same on every machine.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

from ..noise.seeded import frame_seed
from .sizes import Size


class Order:
    """The sources of each step.

    Args:
        sizes: of the sources' clips; a batch is of one.
        batch: sources in a batch.
        seed: of the order.
    """

    def __init__(self, sizes: Sequence[Size], batch: int, seed: int):
        self.batch, self.seed, self.round = batch, seed, len(sizes)
        self.members: dict[Size, list[int]] = {}
        for source, size in enumerate(sizes):
            self.members.setdefault(size, []).append(source)
        self._steps, self._pass = lru_cache(maxsize=2)(self._laid_out), lru_cache(maxsize=64)(self._shuffled)

    @property
    def epoch(self) -> int:
        """Steps until every source was seen about once."""
        return math.ceil(self.round / self.batch)

    def step(self, step: int) -> list[int]:
        """The sources of a step, all of one size."""
        number, place = divmod(step, self.round)
        size, within = self._steps(number)[place]
        members = len(self.members[size])
        first = (number * members + within) * self.batch
        return [self._ordered(size, *divmod(position, members)) for position in range(first, first + self.batch)]

    def _laid_out(self, number: int) -> list[tuple[Size, int]]:
        """The batches of a round, those of each size evenly spread over it: their size and which of that size's they are."""
        laid = []
        for size, members in self.members.items():
            shift = frame_seed(self.seed, number, f"round {members[0]}") / 2**63
            laid += [((within + shift) / len(members), members[0], size, within) for within in range(len(members))]
        return [(size, within) for _, _, size, within in sorted(laid)]

    def _shuffled(self, size: Size, passed: int) -> list[int]:
        return sorted(self.members[size], key=lambda source: frame_seed(self.seed, passed, f"order {source}"))

    def _ordered(self, size: Size, passed: int, place: int) -> int:
        """A source of a pass: none that the same batch has from the end of the pass before, where enough others are there."""
        order, members = self._pass(size, passed), len(self.members[size])
        shared = passed * members % self.batch  # places of the batch that the pass before has filled
        head = (self.batch - shared) % self.batch
        if not shared or place >= members - self.batch + 1:
            return order[place]
        beside = set(self._pass(size, passed - 1)[-shared:])
        clashing = [number for number in range(min(head, members)) if order[number] in beside]
        free = [number for number in range(head, members - self.batch + 1) if order[number] not in beside]
        changed = {**dict(zip(clashing, free, strict=False)), **dict(zip(free, clashing, strict=False))}
        return order[changed.get(place, place)]
