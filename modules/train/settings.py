"""What a training run does, whatever it trains: steps, batch, learning rate, precision. Two runs with equal settings give equal weights."""

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


def cosine(done: float) -> float:
    """Falls to zero along half a cosine; ``done`` is the share of the run, 0 to 1."""
    return 0.5 + 0.5 * math.cos(math.pi * done)


def constant(done: float) -> float:  # noqa: ARG001  rows of one table share a signature
    """Stays."""
    return 1.0


def linear(done: float) -> float:
    """Falls to zero along a line."""
    return 1.0 - done


DECAYS: dict[str, Callable[[float], float]] = {f.__name__: f for f in (cosine, constant, linear)}
PRECISIONS: dict[str, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def adamw(parameters: list[Any], settings: "RunSettings") -> torch.optim.Optimizer:
    """AdamW (arXiv:1711.05101)."""
    return torch.optim.AdamW(
        parameters, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2), weight_decay=settings.weight_decay
    )


def adamw8bit(parameters: list[Any], settings: "RunSettings") -> torch.optim.Optimizer:
    """AdamW with 8-bit moments (arXiv:2110.02861), from the package bitsandbytes.

    Raises:
        ValueError: it is not installed.
    """
    try:
        bitsandbytes = importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise ValueError(
            "the optimizer adamw8bit needs the package bitsandbytes, which is not installed: python -m pip install bitsandbytes,"
            " or choose adamw"
        ) from error
    return bitsandbytes.optim.AdamW8bit(
        parameters, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2), weight_decay=settings.weight_decay
    )


class Lion(torch.optim.Optimizer):
    """The sign of an interpolated momentum (arXiv:2302.06675, Algorithm 2): half of AdamW's memory.

    Args:
        parameters: to train, or groups of them.
        lr: learning rate; a third to a tenth of AdamW's.
        betas: of the update and of the momentum.
        weight_decay: decoupled.
    """

    def __init__(self, parameters: list[Any], lr: float, betas: tuple[float, float], weight_decay: float):
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002  torch's signature
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            one, two = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["exp_avg"] = torch.zeros_like(parameter)
                average = state["exp_avg"]
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(torch.lerp(parameter.grad, average, one).sign_(), alpha=-group["lr"])
                average.lerp_(parameter.grad, 1 - two)


def lion(parameters: list[Any], settings: "RunSettings") -> torch.optim.Optimizer:
    """``Lion``."""
    return Lion(parameters, settings.learning_rate, (settings.beta1, settings.beta2), settings.weight_decay)


OPTIMIZERS: dict[str, Callable[[list[Any], "RunSettings"], torch.optim.Optimizer]] = {
    f.__name__: f for f in (adamw, adamw8bit, lion)
}
# what each keeps of a parameter, where that has a shape that is known without it
MOMENTS: dict[str, dict[str, Callable[[Tensor], Tensor]]] = {
    "adamw": {"step": lambda _: torch.zeros(()), "exp_avg": torch.zeros_like, "exp_avg_sq": torch.zeros_like},
    "lion": {"exp_avg": torch.zeros_like},
}
RANGES: dict[str, tuple[float, float]] = {
    "steps": (1, 10**9),
    "batch": (1, 65536),
    "micro_batch": (0, 65536),
    "learning_rate": (1e-9, 1.0),
    "warmup": (0, 10**9),
    "weight_decay": (0, 1),
    "beta1": (0, 0.99999),
    "beta2": (0, 0.999999),
    "clip_norm": (1e-6, 1e6),
    "ema": (0, 0.999999),
    "seed": (0, 2**64 - 1),
}
LASTING = ("seed", "optimizer")  # those with which a run begins and ends
WITHOUT_EFFECT = ("micro_batch", "sharded")  # but on memory and time


@dataclass(frozen=True)
class RunSettings:
    """How a run trains.

    Attributes:
        steps: optimizer steps.
        batch: clips per step, over all processes together.
        micro_batch: most clips that go through the network at once; 0 for all of a process's share. The gradient is that of the batch.
        learning_rate: the highest.
        warmup: steps of rising learning rate.
        decay: a name in ``DECAYS``, what the learning rate does afterwards.
        weight_decay: decoupled.
        beta1, beta2: of the moments.
        clip_norm: largest norm of the gradient.
        ema: decay of the averaged weights; 0 to average nothing.
        optimizer: a name in ``OPTIMIZERS``.
        precision: a name in ``PRECISIONS``, of activations; weights and moments stay in float32.
        seed: of data order, noise, dropout and fresh weights.
        sharded: spread the optimizer's moments over the processes (ZeRO, arXiv:1910.02054, stage 1).
    """

    steps: int = 1000
    batch: int = 4
    micro_batch: int = 0
    learning_rate: float = 1e-4
    warmup: int = 100
    decay: str = "cosine"
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    clip_norm: float = 1.0
    ema: float = 0.999
    optimizer: str = "adamw"
    precision: str = "float32"
    seed: int = 0
    sharded: bool = False

    def __post_init__(self) -> None:
        for name, (least, most) in RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:
                hint = " (usual values: 1e-5 to 1e-3)" if name == "learning_rate" else ""
                raise ValueError(f"{name} is {value}: it must be from {least:g} to {most:g}{hint}")
        for name, table in (("decay", DECAYS), ("optimizer", OPTIMIZERS), ("precision", PRECISIONS)):
            if getattr(self, name) not in table:
                raise ValueError(f"{name} is {getattr(self, name)!r}: choose one of {', '.join(table)}")

    def rate(self, step: int) -> float:
        """Learning rate of step ``step``, counted from 0."""
        return self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup)) * DECAYS[self.decay](step / self.steps)

    def differing(self, other: Mapping[str, object]) -> list[str]:
        """Names of settings that another run, as a table, has otherwise and without which a run is not the same run."""
        return [name for name in LASTING if other.get(name) != getattr(self, name)]

    def changed(self, before: Mapping[str, object]) -> dict[str, list[object]]:
        """What a run that goes on does otherwise: (before, now) by name, of settings that the weights hang on."""
        others = [f.name for f in fields(self) if f.name not in (*LASTING, *WITHOUT_EFFECT)]
        return {name: [before.get(name), getattr(self, name)] for name in others if before.get(name) != getattr(self, name)}
