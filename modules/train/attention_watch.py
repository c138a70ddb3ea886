"""An eye on temporal attentions while they train: every few steps what they do, what is wrong with it, and a lower learning rate if asked.

Part of a run (``engine.Watch``), so that what it decides is in the checkpoint and a resumed run decides the same.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from ..measure.alarms import WITHIN, Finding, Lowering, Snapshot, findings
from ..measure.attention import Watch, attentions_of, watching

log = logging.getLogger("longtake")


@dataclass(frozen=True)
class WatchSettings:
    """How closely to look.

    Attributes:
        every: steps from one look to the next.
        lower: whether grave findings lower the learning rate.
        factor: what it is multiplied with then.
    """

    every: int = 50
    lower: bool = False
    factor: float = 0.5

    def __post_init__(self) -> None:
        if not 1 <= self.every <= 10**6:
            raise ValueError(f"attentions are to be looked at every {self.every} steps: give a number from 1 to 1000000")
        if not 0 < self.factor < 1:
            raise ValueError(f"factor is {self.factor}: between 0 and 1 it lowers the learning rate; 0.5 halves it")

    @classmethod
    def asked(cls, every: int, *, lower: bool) -> "WatchSettings | None":
        """What a user asked for, 0 for not looking at all.

        Raises:
            ValueError: the learning rate is to be lowered by what nobody looks at.
        """
        if lower and not every:
            raise ValueError(
                "the learning rate can only be lowered by what is looked at: set watch_every, 50 is usual, or auto_lower_lr off"
            )
        return cls(every, lower) if every else None


class AttentionWatch:
    """Looks at the temporal attentions of what is trained.

    Args:
        motion: a network that holds them.
        settings: how closely.

    Attributes:
        snapshots: of the last steps, in their order.
        found: what was wrong so far, in this process.

    Raises:
        ValueError: there is no temporal attention.
    """

    def __init__(self, motion: nn.Module, settings: WatchSettings | None = None):
        attentions_of(motion)  # refuses networks without any, before training starts
        self.motion, self.settings = motion, settings or WatchSettings()
        self.snapshots: list[Snapshot] = []
        self.found: list[Finding] = []
        self.lowering = Lowering()
        self._open: Watch | None = None

    @contextmanager
    def looking(self, step: int) -> Iterator[None]:
        """See ``engine.Watch``."""
        self._open = None
        if (step + 1) % self.settings.every:
            yield
            return
        with watching(self.motion) as watch:
            yield
        self._open = watch

    def seen(self, step: int, grad_norm: float) -> float:
        """See ``engine.Watch``."""
        if self._open is not None:
            now = Snapshot(step, grad_norm, self._open.readings())
            self._open = None
            self.snapshots = [item for item in self.snapshots if now.step - item.step <= WITHIN] + [now]
            self._judge(now)
        return self.lowering.factor

    def record(self, step: int) -> dict[str, Any]:
        """What the log says of a step: nothing, unless the attentions were looked at."""
        if not self.snapshots or self.snapshots[-1].step != step:
            return {}
        now = self.snapshots[-1]
        entropies = [reading.mean for reading in now.readings]
        return {
            "entropy": sum(entropies) / len(entropies),
            "lowest_entropy": min(entropies),
            "max_logit": max(reading.max_logit for reading in now.readings),
            "attention": now.record()["attention"],
        }

    def facts(self) -> dict[str, Any]:
        """See ``engine.Watch``."""
        return asdict(self.settings) if self.settings.lower else {}

    def state(self) -> dict[str, Any]:
        """See ``engine.Watch``."""
        return {"lowering": asdict(self.lowering), "snapshots": [snapshot.record() for snapshot in self.snapshots]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See ``engine.Watch``."""
        self.lowering = Lowering(**state["lowering"])
        self.snapshots = [Snapshot.of(record) for record in state["snapshots"]]

    def _judge(self, now: Snapshot) -> None:
        for finding in findings(self.snapshots):
            self.found.append(finding)
            log.warning("%s", finding.sentence)
        before = self.lowering.factor
        if self.settings.lower:
            self.lowering = self.lowering.after(now, factor=self.settings.factor)
        if self.lowering.factor < before:
            sentence = f"step {now.step}: the learning rate is {self.lowering.factor:g} of what was planned from here on"
            self.found.append(Finding(False, sentence))
            log.warning("%s", sentence)
