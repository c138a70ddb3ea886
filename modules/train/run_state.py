"""What a checkpoint holds of a run, and how a run goes on from it: facts as JSON; weights, averages, moments and losses as tensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import checkpoint
from .held_out import Looks
from .settings import MOMENTS
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
        "changes": run.changes,
        "looks": run.looks.each,
        "run": run.id,
    }


def state(run: "Run") -> dict[str, Tensor]:
    """The tensors by name, each as it is: ``...``."""
    tensors = {"losses": torch.tensor(run.losses, dtype=torch.float64)}
    tensors |= {f"now/{name}": parameter.detach() for name, parameter in run.parameters.items()}
    tensors |= {f"average/{name}": value for name, value in run.average.items()}
    tensors |= {f"best/{name}": value for name, value in run.looks.best.items()}
    if isinstance(run.task, Keeping):
        tensors |= {f"task/{name}": value for name, value in run.task.tensors().items()}
    moments = run.optimizer.state_dict()["state"]
    for place, name in enumerate(run.parameters):
        tensors |= checkpoint.flat(f"optimizer/{name}/", moments.get(place, {}))
    return tensors


def stamp(path: Path) -> tuple[int, ...]:
    """What differs when a checkpoint has been written anew; empty where there is none, or only the one before."""
    if not path.exists():
        return ()
    told = path.stat()
    return told.st_ino, told.st_mtime_ns, told.st_size


def restore(run: "Run", path: Path, *, new: bool = False) -> None:
    """Bring a run to where a checkpoint was written; settings that may change in the middle of a run are those of ``run`` from there on.

    Args:
        run: to bring there.
        path: of the checkpoint.
        new: whether the run begins there as one of its own, another than that which wrote it.

    Raises:
        ValueError: the checkpoint belongs to another run, is broken, or is further on than this run shall go.
    """
    kept = checkpoint.read(path)
    facts, tensors = kept.about, kept.tensors
    watched = facts["watch"]
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
    done = facts["done"]
    if done > run.settings.steps:
        raise ValueError(
            f"{path.name} is at step {done} and this run shall have {run.settings.steps} steps: set steps to {done} or more, or give this"
            " run another name"
        )
    averaged = bool(run.average) and bool(facts["settings"].get("ema"))
    checkpoint.check(kept, wanted(run, tensors, averaged=averaged, looked=bool(facts["looks"])), path.name)
    with torch.no_grad():
        for name, parameter in run.parameters.items():
            parameter.copy_(tensors[f"now/{name}"])
            if run.average:
                run.average[name].copy_(tensors[f"average/{name}" if averaged else f"now/{name}"])
    _restore_moments(run, tensors)
    if isinstance(run.task, Keeping):
        run.task.restore(checkpoint.below("task/", tensors))
    try:
        run.scaler.load_state_dict(facts["scaler"]) if facts["scaler"] and run.scaler.is_enabled() else None
        run.watch.restore(watched["state"]) if run.watch is not None and watched else None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name} says of its watch or scaler what no run says ({error!r}); {checkpoint.ANOTHER}") from error
    run.losses = tensors["losses"].tolist()
    run.done, run.slowed = done, facts["slowed"]
    run.looks = Looks()
    run.looks.each = [(int(step), float(loss)) for step, loss in facts["looks"]]
    run.looks.best = checkpoint.below("best/", tensors)
    run.id = run.id if new else facts["run"]
    run.changes = [*facts["changes"], *_change(run, facts["settings"])]


def _change(run: "Run", before: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a run does otherwise from here on: an entry for ``Run.changes``, or none where all is as before."""
    changed = run.settings.changed(before)
    rate = run.settings.rate(run.done) * run.slowed
    return [{"step": run.done, "settings": changed, "rate": rate}] if changed and run.done < run.settings.steps else []


def wanted(run: "Run", held: Mapping[str, Tensor], *, averaged: bool, looked: bool) -> dict[str, Tensor]:
    """Tensors of the types and shapes that a checkpoint of this run must hold, by name.

    Args:
        run: any, whatever its weights are.
        held: what the checkpoint holds: a parameter that no gradient has reached yet has no moments.
        averaged: whether there are averaged weights.
        looked: whether there are best weights, by a look at clips that are not trained on.
    """
    names = MOMENTS.get(run.settings.optimizer, {})
    found: dict[str, Tensor] = {}
    for name, parameter in run.parameters.items():
        found[f"now/{name}"] = parameter
        if averaged:
            found[f"average/{name}"] = parameter
        if looked:
            found[f"best/{name}"] = parameter
        if checkpoint.below(f"optimizer/{name}/", held):
            found |= {f"optimizer/{name}/{part}": like(parameter) for part, like in names.items()}
    return found


def _restore_moments(run: "Run", tensors: Mapping[str, Tensor]) -> None:
    filled = run.optimizer.state_dict()
    for place, name in enumerate(run.parameters):
        filled["state"][place] = checkpoint.nested(checkpoint.below(f"optimizer/{name}/", tensors))
    filled["state"] = {place: moments for place, moments in filled["state"].items() if moments}
    run.optimizer.load_state_dict(filled)
