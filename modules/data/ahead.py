"""The clips of coming steps, read by threads while a step is computed: the same clips in the same order, whatever the threads do."""

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from .clips import ClipDataset
from .take import Take

T = TypeVar("T")
Place = tuple[int, int, int]  # of a clip: its step, the batch of that, and where in it
Failures = list[tuple[str, str]]  # names and reasons of clips that could not be read


class ReadAhead(Generic[T]):
    """Clips for a training, which asks for its steps in their order.

    After the clips of a step are asked for, those at the same places of the next steps are begun: at least as many as there are threads.
    What fails is noted when its step comes, so that the report says the same as without threads.

    Args:
        dataset: of the clips.
        use: what a thread makes of each; it must not need anything that only one thread may use, such as a model.
        threads: how many; at 0 clips are read when they are asked for.
    """

    def __init__(self, dataset: ClipDataset, use: Callable[[Take], T], threads: int):
        self.dataset, self.use, self.threads = dataset, use, threads
        self._pool = ThreadPoolExecutor(threads, "longtake_read_ahead") if threads else None
        self._begun: dict[Place, tuple[Future[T], Failures]] = {}

    def each(self, step: int, batch: int, places: range) -> list[T]:
        """What ``use`` makes of the clips at some places of a step's batch.

        Raises:
            ValueError: none of the sources can be read.
        """
        if self._pool is None:
            return self.dataset.each(step, batch, self.use, places)
        last = step + math.ceil(self.threads / batch)
        for place in [place for place in self._begun if not step <= place[0] <= last or place[1] != batch]:
            self._begun.pop(place)[0].cancel()  # a training that went back, or somebody else's
        for coming in range(step, last + 1):
            for number in places:
                self._begin(self._pool, (coming, batch, number))
        return [self._ended((step, batch, number)) for number in places]

    def _begin(self, pool: ThreadPoolExecutor, place: Place) -> None:
        if place in self._begun:
            return
        step, batch, number = place
        failures: Failures = []
        note = lambda name, reason: failures.append((name, reason))  # noqa: E731
        read = pool.submit(lambda: self.dataset.each(step, batch, self.use, range(number, number + 1), note)[0])
        self._begun[place] = read, failures

    def _ended(self, place: Place) -> T:
        read, failures = self._begun.pop(place)
        try:
            return read.result()
        finally:
            for failure in failures:
                self.dataset.note(*failure)
