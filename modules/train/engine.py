"""Training as a generator of steps that can be killed at any moment; what is trained is a ``Task``.

Everything random of a step depends on ``(seed, step, place in the batch)`` only: a checkpoint needs no random state, a resumed run gives
the weights of an unbroken one bit for bit on a CPU, and neither the size of micro-batches nor the number of processes changes the
gradient by more than rounding. Several processes (``torchrun``) share a batch by its places and add their gradients.
"""

import math
import secrets
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..disk.state import has_state
from . import checkpoint
from .distributed import add_up, agreed, processes, rank, share
from .held_out import TIMES, WINDOW, Looks, wrecked
from .run_state import about, restore, stamp, state
from .settings import OPTIMIZERS, PRECISIONS, RunSettings
from .task import Keeping, Task


class Diverged(ValueError):
    """The loss is no longer a number; the last good checkpoint stands."""


class Watch(Protocol):
    """Looks at what is trained, and may slow the training down (``attention_watch.py``)."""

    def looking(self, step: int) -> AbstractContextManager[None]:
        """Open while step ``step``, counted from 0, is computed."""
        ...

    def seen(self, step: int, grad_norm: float) -> float:
        """Called after the step, with the steps done; gives the factor on the learning rate from now on."""
        ...

    def record(self, step: int) -> dict[str, Any]:
        """What a log says of the step, with ``step`` done; JSON-able."""
        ...

    def facts(self) -> dict[str, Any]:
        """What a checkpoint must agree with because weights hang on it; JSON-able."""
        ...

    def state(self) -> dict[str, Any]:
        """What a resumed run must know; JSON-able."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` gave."""
        ...


@dataclass(frozen=True)
class TrainStep:
    """What the trainer yields after each step.

    Attributes:
        step: steps done.
        total: steps in all.
        loss: of the batch.
        grad_norm: before clipping.
        rate: the learning rate.
        seconds: spent in this process.
        left: seconds to go at this pace.
    """

    step: int
    total: int
    loss: float
    grad_norm: float
    rate: float
    seconds: float
    left: float

    def record(self) -> dict[str, float]:
        """A line of the log."""
        return {
            "step": self.step,
            "loss": self.loss,
            "grad_norm": self.grad_norm,
            "lr": self.rate,
            "seconds": round(self.seconds, 3),
        }


class Run:
    """A training run: a task, its optimizer, averaged weights and history.

    Args:
        task: what is trained.
        settings: how.
        path: checkpoint to resume from if it exists, and to save to; None keeps everything in memory.
        watch: looks on; None for nobody.
        anew: begin anew though there is a checkpoint, which stays until the first one of this run is written.
        origin: a checkpoint, of another run, that a new run begins with.

    Attributes:
        id: tells this run from any other, its own name and settings aside; a run that is resumed is the same.

    Raises:
        ValueError: the checkpoint belongs to another run, or is broken.
    """

    def __init__(
        self,
        task: Task,
        settings: RunSettings,
        path: Path | None = None,
        watch: Watch | None = None,
        *,
        anew: bool = False,
        origin: Path | None = None,
    ):
        self.task, self.settings, self.path, self.watch = task, settings, path, watch
        self.undecayed = frozenset(task.undecayed()) if isinstance(task, Keeping) else frozenset()
        # in the order of the optimizer's groups
        self.parameters = dict(sorted(task.parameters().items(), key=lambda item: item[0] in self.undecayed))
        if not self.parameters:
            raise ValueError("there is nothing to train: train_blocks leaves out every weight")
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()} if settings.ema else {}
        self.optimizer = self._optimizer()
        half = settings.precision == "float16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half and self.device.type == "cuda")
        self.done = 0
        self.losses: list[float] = []
        self.slowed = 1.0  # factor on the learning rate that a monitor has set
        self.looks = Looks()  # at clips that are not trained on
        self.changes: list[dict[str, Any]] = []  # settings that became others on the way: from which step on, before and now
        self.id = secrets.token_hex(8)
        self.resumes = path is not None and has_state(path) and not anew
        self._read: object = None  # which file the run is at
        if not self.resumes and origin is not None:
            restore(self, origin, new=True)
        self.catch_up()

    def catch_up(self) -> None:
        """Be where the checkpoint is, which another process may have brought further since."""
        if self.resumes and self.path is not None and self._read != (now := stamp(self.path)):
            restore(self, self.path)
            self._read = now

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.parameters.values())).device

    def steps(self) -> Generator[TrainStep, None, None]:
        """Train to the end, one step at a time.

        Raises:
            Diverged: the loss or a gradient is not finite, or the loss far above what it was at first.
        """
        started, first = time.monotonic(), self.done
        while self.done < self.settings.steps:
            rate = self.settings.rate(self.done) * self.slowed
            with nullcontext() if self.watch is None else self.watch.looking(self.done):
                loss, norm = self._step(rate)
            self.done += 1
            self.losses.append(loss)
            if wrecked(self.losses):
                raise Diverged(
                    f"training diverged: the loss of the last {WINDOW} steps before step {self.done} is more than {TIMES:g} times that of"
                    f" the first {WINDOW}; {self.remedy(rate)}"
                )
            if self.watch is not None:
                self.slowed = agreed(self.watch.seen(self.done, norm), self.device)
            seconds = time.monotonic() - started
            left = seconds / (self.done - first) * (self.settings.steps - self.done)
            yield TrainStep(self.done, self.settings.steps, loss, norm, rate, seconds, left)

    def record(self, step: TrainStep) -> dict[str, Any]:
        """What a log says of a step: its numbers, and what the watch saw."""
        return step.record() | ({} if self.watch is None else self.watch.record(step.step))

    def weights(self) -> dict[str, Tensor]:
        """The averaged weights, or the present ones where nothing is averaged; copies, by parameter name."""
        source = self.average or self.parameters
        return {name: value.detach().clone() for name, value in source.items()}

    def save(self, path: Path | None = None) -> None:
        """Write the checkpoint, to ``path`` if it is to be kept there; the one before it stays until this one is whole.

        Raises:
            ValueError: it cannot be written.
        """
        if self.settings.sharded and processes() > 1:
            self.optimizer.consolidate_state_dict(0)  # type: ignore[attr-defined]
        if (where := path or self.path) is not None and rank() == 0:
            checkpoint.write(where, about(self), state(self))

    def remedy(self, rate: float) -> str:
        """What to do about a run that went wrong at a learning rate."""
        if self.path is None or not has_state(self.path):
            return f"no checkpoint was written yet: start again with a learning rate below {rate:g}"
        return f"the last checkpoint stands: queue the run again with a learning rate below {rate:g}, with which it goes on from there"

    def _step(self, rate: float) -> tuple[float, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._gradients()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.clip_norm)
        if not math.isfinite(loss) or (not torch.isfinite(norm) and not self.scaler.is_enabled()):
            raise Diverged(
                f"training diverged at step {self.done + 1}: the loss is {loss} and the gradient's norm {float(norm)}; {self.remedy(rate)}"
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.task.after_step(self.done)
        self._averaged()
        return loss, float(norm)

    def _gradients(self) -> float:
        """Fill the gradients of the batch; the loss, its mean over all clips of all processes."""
        places = share(self.settings.batch)
        size = self.settings.micro_batch or len(places)
        total = torch.zeros((), dtype=torch.float64)
        for start in range(0, len(places), max(1, size)):
            with self.autocast():
                losses = self.task.losses(self.done, places[start : start + size])
            part = losses.float().sum() / self.settings.batch
            self.scaler.scale(part).backward()
            total += part.detach().double().cpu()
        if processes() > 1:
            add_up([total, *self._filled_gradients()])
        return float(total)

    def _filled_gradients(self) -> list[Tensor]:
        for parameter in self.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]

    def autocast(self) -> AbstractContextManager[Any]:
        """Open while anything is computed: what it computes in."""
        dtype = PRECISIONS[self.settings.precision]
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)

    def _averaged(self) -> None:
        decay = min(self.settings.ema, (self.done + 1) / (self.done + 10))
        with torch.no_grad():
            for name, value in self.average.items():
                value.lerp_(self.parameters[name], 1 - decay)

    def _optimizer(self) -> torch.optim.Optimizer:
        parameters = self._groups()
        if not (self.settings.sharded and processes() > 1):
            return OPTIMIZERS[self.settings.optimizer](parameters, self.settings)
        from torch.distributed.optim import ZeroRedundancyOptimizer

        if self.settings.optimizer != "adamw":
            raise ValueError(f"a sharded optimizer is {self.settings.optimizer}: only adamw can be sharded")
        s = self.settings
        return ZeroRedundancyOptimizer(
            parameters, torch.optim.AdamW, lr=s.learning_rate, betas=(s.beta1, s.beta2), weight_decay=s.weight_decay
        )

    def _groups(self) -> list[Any]:
        """All parameters, or where some take no weight decay, both kinds as groups of the optimizer."""
        if not self.undecayed:
            return list(self.parameters.values())
        decayed = [value for name, value in self.parameters.items() if name not in self.undecayed]
        others = [value for name, value in self.parameters.items() if name in self.undecayed]
        return [{"params": decayed}, {"params": others, "weight_decay": 0.0}]


def train(run: Run, every: int = 250, each: Callable[[TrainStep], None] = lambda step: None) -> Generator[TrainStep, None, None]:
    """The steps of a run, with a checkpoint every ``every`` steps, at the end, and when the generator is closed.

    Args:
        run: to go on with.
        every: steps between checkpoints.
        each: called after each step, before a checkpoint is written, such as to write a log.
    """
    unsaved = 0
    if run.path is not None and rank() == 0:
        checkpoint.tidy(run.path)
    try:
        for step in run.steps():
            unsaved += 1
            each(step)  # first: a log may be ahead of its checkpoint, and is cut when the run goes on, but never behind
            if unsaved == every or step.step == step.total:
                run.save()
                unsaved = 0
            yield step
    except Diverged:
        unsaved = 0  # the weights that diverged are not worth a checkpoint
        raise
    finally:
        if unsaved:
            run.save()
