"""Training as a generator of steps that can be killed at any moment; what is trained is a ``Task``.

Everything random of a step depends on ``(seed, step, place in the batch)`` only: a checkpoint needs no random state, a resumed run gives
the weights of an unbroken one bit for bit on a CPU, and neither the size of micro-batches nor the number of processes changes the
gradient by more than rounding. Several processes (``torchrun``) share a batch by its places and add their gradients.
"""

import math
import time
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..disk.state import has_state
from . import checkpoint
from .settings import OPTIMIZERS, PRECISIONS, RunSettings


class Diverged(ValueError):
    """The loss is no longer a number; the last good checkpoint stands."""


class Task(Protocol):
    """What a run trains."""

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """What the optimizer changes, by name; float32."""
        ...

    def losses(self, step: int, places: range) -> Tensor:
        """The loss of each clip at ``places`` of the batch of step ``step``, differentiable. Returns ``n``.

        What it draws depends on the step and the place alone.
        """
        ...

    def description(self) -> dict[str, Any]:
        """What a checkpoint must agree with to be this run's: architecture, data, objective; JSON-able."""
        ...

    def after_step(self, step: int) -> None:
        """Called when the optimizer has moved, such as for a power iteration."""
        ...


@runtime_checkable
class Keeping(Protocol):
    """A task that keeps more than its parameters, such as the directions of sigma-reparametrised weights."""

    def undecayed(self) -> Collection[str]:
        """Names of the parameters that take no weight decay."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What a resumed run needs beside the parameters, by name."""
        ...

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what ``tensors`` gave."""
        ...


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

    Raises:
        ValueError: the checkpoint belongs to another run, or is broken.
    """

    def __init__(self, task: Task, settings: RunSettings, path: Path | None = None, watch: Watch | None = None):
        self.task, self.settings, self.path, self.watch = task, settings, path, watch
        self.undecayed = frozenset(task.undecayed()) if isinstance(task, Keeping) else frozenset()
        # in the order of the optimizer's groups
        self.parameters = dict(sorted(task.parameters().items(), key=lambda item: item[0] in self.undecayed))
        if not self.parameters:
            raise ValueError("there is nothing to train: the chosen scope leaves out every weight")
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()} if settings.ema else {}
        self.optimizer = self._optimizer()
        half = settings.precision == "float16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half and self.device.type == "cuda")
        self.done = 0
        self.losses: list[float] = []
        self.slowed = 1.0  # factor on the learning rate that a monitor has set
        if path is not None and rank() == 0:
            checkpoint.tidy(path)
        if path is not None and has_state(path):
            self._resume(path)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.parameters.values())).device

    def steps(self) -> Generator[TrainStep, None, None]:
        """Train to the end, one step at a time.

        Raises:
            Diverged: the loss or a gradient is not finite. The weights are those before the step.
        """
        started, first = time.monotonic(), self.done
        while self.done < self.settings.steps:
            rate = self.settings.rate(self.done) * self.slowed
            with nullcontext() if self.watch is None else self.watch.looking(self.done):
                loss, norm = self._step(rate)
            self.done += 1
            self.losses.append(loss)
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

    def save(self) -> None:
        """Write the checkpoint; the one before it stays until this one is whole.

        Raises:
            ValueError: it cannot be written.
        """
        if self.settings.sharded and processes() > 1:
            self.optimizer.consolidate_state_dict(0)  # type: ignore[attr-defined]
        if self.path is not None and rank() == 0:
            checkpoint.write(self.path, self._about(), self._state())

    def _step(self, rate: float) -> tuple[float, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._gradients()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.clip_norm)
        if not math.isfinite(loss) or (not torch.isfinite(norm) and not self.scaler.is_enabled()):
            kept = (
                "the last checkpoint stands" if self.path is not None and self.path.exists() else "no checkpoint was written yet"
            )
            raise Diverged(
                f"training diverged at step {self.done + 1}: the loss is {loss} and the gradient's norm {float(norm)}; {kept}, resume"
                f" with a learning rate below {rate:g}"
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.task.after_step(self.done)
        self._averaged()
        return loss, float(norm)

    def _gradients(self) -> float:
        """Fill the gradients of the batch; the loss, its mean over all clips of all processes."""
        places = share(self.settings.batch)
        size = self.settings.micro or len(places)
        total = torch.zeros((), dtype=torch.float64)
        for start in range(0, len(places), max(1, size)):
            with self._autocast():
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

    def _autocast(self) -> AbstractContextManager[Any]:
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

    def _about(self) -> dict[str, Any]:
        return {
            "task": self.task.description(),
            "settings": {name: getattr(self.settings, name) for name in self.settings.__dataclass_fields__},
            "done": self.done,
            "slowed": self.slowed,
            "scaler": self.scaler.state_dict(),
            "watch": {} if self.watch is None else {"facts": self.watch.facts(), "state": self.watch.state()},
        }

    def _state(self) -> dict[str, Tensor]:
        state = {"losses": torch.tensor(self.losses, dtype=torch.float64)}
        state |= {f"now/{name}": parameter.detach() for name, parameter in self.parameters.items()}
        state |= {f"average/{name}": value for name, value in self.average.items()}
        if isinstance(self.task, Keeping):
            state |= {f"task/{name}": value for name, value in self.task.tensors().items()}
        moments = self.optimizer.state_dict()["state"]
        for place, name in enumerate(self.parameters):
            state |= _flat(f"optimizer/{name}/", moments.get(place, {}))
        return state

    def _resume(self, path: Path) -> None:
        about, state = checkpoint.read(path)
        watched = about.get("watch", {})
        differing = [
            *checkpoint.differences(about["task"], self.task.description()),
            *self.settings.differing(about["settings"]),
            *checkpoint.differences(watched.get("facts", {}), {} if self.watch is None else self.watch.facts()),
        ]
        if differing:
            raise ValueError(
                f"{path.name} belongs to another run ({', '.join(differing)} differ): give this run a checkpoint of its own, or"
                " the settings that it had"
            )
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state[f"now/{name}"])
                if self.average:
                    self.average[name].copy_(state[f"average/{name}"])
        self._resume_optimizer(state)
        self.scaler.load_state_dict(about["scaler"]) if about.get("scaler") else None
        if isinstance(self.task, Keeping):
            self.task.restore(_below("task/", state))
        if self.watch is not None and watched:
            self.watch.restore(watched["state"])
        self.losses = state["losses"].tolist()
        self.done, self.slowed = about["done"], about.get("slowed", 1.0)

    def _resume_optimizer(self, state: Mapping[str, Tensor]) -> None:
        filled = self.optimizer.state_dict()
        for place, name in enumerate(self.parameters):
            filled["state"][place] = _nested(_below(f"optimizer/{name}/", state))
        filled["state"] = {place: moments for place, moments in filled["state"].items() if moments}
        self.optimizer.load_state_dict(filled)


def _flat(prefix: str, values: Mapping[str, Any]) -> dict[str, Tensor]:
    """An optimizer's state of one parameter, groups within it (bitsandbytes) by longer names, as tensors."""
    flat: dict[str, Tensor] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(f"{prefix}{key}/", value)
        else:
            flat[prefix + key] = value if isinstance(value, Tensor) else torch.tensor(value)
    return flat


def _nested(flat: Mapping[str, Tensor]) -> dict[str, Any]:
    """The way back; single whole numbers, which only were tensors in the file, are numbers again."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, key = name.split("/")
        inner = nested
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[key] = int(value) if value.ndim == 0 and value.dtype == torch.int64 else value
    return nested


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def train(run: Run, every: int = 250, each: Callable[[TrainStep], None] = lambda step: None) -> Generator[TrainStep, None, None]:
    """The steps of a run, with a checkpoint every ``every`` steps, at the end, and when the generator is closed.

    Args:
        run: to go on with.
        every: steps between checkpoints.
        each: called after each step, before a checkpoint is written, such as to write a log.
    """
    unsaved = 0
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


def rank() -> int:
    """This process's number."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def share(batch: int) -> range:
    """This process's places in a batch.

    Raises:
        ValueError: fewer clips than processes.
    """
    if batch < processes():
        raise ValueError(f"a batch of {batch} clips is too small for {processes()} processes: give at least one clip to each")
    return range(batch * rank() // processes(), batch * (rank() + 1) // processes())


def agreed(number: float, device: torch.device) -> float:
    """What the first process says, in all of them."""
    if processes() == 1:
        return number
    said = torch.tensor([number], dtype=torch.float64, device=device)
    dist.broadcast(said, 0)
    return float(said)


def add_up(tensors: list[Tensor]) -> None:
    """Sum each tensor over all processes, in place; tensors of one type travel together."""
    by_type: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        by_type.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for group in by_type.values():
        flat = torch.cat([tensor.flatten() for tensor in group])
        dist.all_reduce(flat)
        for tensor, part in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
            tensor.copy_(part.view_as(tensor))
