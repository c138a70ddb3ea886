"""Clips that are not trained on: the loss on them, always of the same cuts with the same noise, says whether a run still learns anything
that holds elsewhere, and when it was at its best.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ..data.clips import ClipDataset
from ..data.source import Found
from .denoising import Batch, Source
from .task import Task

DRAWS = 16  # clips with their noise that a look is the mean of, at least
WINDOW, TIMES = 50, 2.0  # steps whose median loss is compared, and how many times that of the first ones is no learning


def parted(dataset: ClipDataset, count: int) -> tuple[ClipDataset, ClipDataset]:
    """The clips to train on, and those to look at: so many of the sources, spread evenly.

    Args:
        dataset: all clips.
        count: of sources that are held out.

    Raises:
        ValueError: nothing would be left to train on.
    """
    total = len(dataset)
    if not 0 < count < total:
        raise ValueError(
            f"held_out is {count} and there are {total} videos: hold out {total - 1} or fewer, so that some are trained on"
        )
    held = {int((number + 0.5) * total / count) for number in range(count)}
    one, other = (
        Found([source for number, source in enumerate(dataset.sources) if (number in held) == wanted], dataset.found.report)
        for wanted in (False, True)
    )
    return ClipDataset(one, dataset.settings), ClipDataset(other, dataset.settings)


class Shown:
    """A source that shows the clips to train on, or while ``held`` is open those to look at.

    Args:
        training: what is trained on.
        other: what is not.
        draws: clips of a look.
    """

    def __init__(self, training: Source, other: Source, draws: int = DRAWS):
        self.training, self.other, self.draws = training, other, draws
        self._now = training

    def __call__(self, step: int, places: range) -> Batch:
        """See ``denoising.Source``."""
        return self._now(step, places)

    @contextmanager
    def held(self) -> Iterator[None]:
        """While open, the clips that are not trained on are shown."""
        self._now = self.other
        try:
            yield
        finally:
            self._now = self.training


def look(
    task: Task,
    shown: Shown,
    batch: int,
    weights: AbstractContextManager[None],
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> float:
    """The loss on the clips that are not trained on, by weights that ``weights`` puts in place; the same clips and noise at every look.

    Args:
        task: that is trained, on ``shown``.
        shown: where its clips come from.
        batch: clips of a step.
        weights: open while the loss is taken.
        autocast: as in training.
    """
    total, count = 0.0, 0
    with torch.no_grad(), weights, shown.held():
        for step in range(math.ceil(shown.draws / batch)):
            for place in range(batch):
                with autocast():
                    total += float(task.losses(step, range(place, place + 1)).sum())
                count += 1
    return total / count


class Looks:
    """What the looks of a run have found.

    Attributes:
        each: (steps done, loss), in their order.
        best: the weights of the best one, by parameter name.
    """

    def __init__(self) -> None:
        self.each: list[tuple[int, float]] = []
        self.best: dict[str, Tensor] = {}

    def add(self, step: int, loss: float, weights: Mapping[str, Tensor]) -> None:
        """Take down a look; ``weights`` are those that were looked at."""
        if not self.each or loss < self.lowest[1]:
            self.best = dict(weights)
        self.each.append((step, loss))

    @property
    def lowest(self) -> tuple[int, float]:
        """(steps done, loss) of the best look."""
        return min(self.each, key=lambda item: item[1])

    def without_gain(self) -> int:
        """How many looks there were since the best one."""
        return len(self.each) - 1 - self.each.index(self.lowest) if self.each else 0


def wrecked(losses: list[float]) -> bool:
    """Whether a run has come to be far worse than it began, without its loss being no number: looked at every so many steps."""
    if len(losses) < 2 * WINDOW or len(losses) % WINDOW:
        return False
    return median(losses[-WINDOW:]) > TIMES * median(losses[:WINDOW])
