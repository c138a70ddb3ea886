"""What a checkpoint holds of a run, and how a run goes on from it: facts as JSON; weights, averages, moments and losses as tensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import checkpoint
from .task import Keeping

if TYPE_CHECKING:
    from .engine import Run


def about(run: "Run") -> dict[str, Any]:
    """The facts, JSON-able."""
    return {
        "task": run.task.description(),
        "settings": {name: getattr(run.settings, name) for name in run.settings.__dataclass_fields__},
        "done": run.done,
        "slowed": run.slowed,
        "scaler": run.scaler.state_dict(),
        "watch": {} if run.watch is None else {"facts": run.watch.facts(), "state": run.watch.state()},
    }


def state(run: "Run") -> dict[str, Tensor]:
    """The tensors by name, each as it is: ``...``."""
    tensors = {"losses": torch.tensor(run.losses, dtype=torch.float64)}
    tensors |= {f"now/{name}": parameter.detach() for name, parameter in run.parameters.items()}
    tensors |= {f"average/{name}": value for name, value in run.average.items()}
    if isinstance(run.task, Keeping):
        tensors |= {f"task/{name}": value for name, value in run.task.tensors().items()}
    moments = run.optimizer.state_dict()["state"]
    for place, name in enumerate(run.parameters):
        tensors |= checkpoint.flat(f"optimizer/{name}/", moments.get(place, {}))
    return tensors


def restore(run: "Run", path: Path) -> None:
    """Bring a run to where a checkpoint was written.

    Raises:
        ValueError: the checkpoint belongs to another run, or is broken.
    """
    facts, tensors = checkpoint.read(path)
    watched = facts.get("watch", {})
    differing = [
        *checkpoint.differences(facts["task"], run.task.description()),
        *run.settings.differing(facts["settings"]),
        *checkpoint.differences(watched.get("facts", {}), {} if run.watch is None else run.watch.facts()),
    ]
    if differing:
        raise ValueError(
            f"{path.name} belongs to another run ({', '.join(differing)} differ): give this run another name, set restart, or give it the"
            " settings that it had"
        )
    with torch.no_grad():
        for name, parameter in run.parameters.items():
            parameter.copy_(tensors[f"now/{name}"])
            if run.average:
                run.average[name].copy_(tensors[f"average/{name}"])
    _restore_moments(run, tensors)
    run.scaler.load_state_dict(facts["scaler"]) if facts.get("scaler") else None
    if isinstance(run.task, Keeping):
        run.task.restore(checkpoint.below("task/", tensors))
    if run.watch is not None and watched:
        run.watch.restore(watched["state"])
    run.losses = tensors["losses"].tolist()
    run.done, run.slowed = facts["done"], facts.get("slowed", 1.0)


def _restore_moments(run: "Run", tensors: Mapping[str, Tensor]) -> None:
    filled = run.optimizer.state_dict()
    for place, name in enumerate(run.parameters):
        filled["state"][place] = checkpoint.nested(checkpoint.below(f"optimizer/{name}/", tensors))
    filled["state"] = {place: moments for place, moments in filled["state"].items() if moments}
    run.optimizer.load_state_dict(filled)
