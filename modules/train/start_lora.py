"""MotionLoRAs and domain adapters as a training begins with them, from a file."""

from collections.abc import Mapping

import torch

from ..checkpoints.motion_lora import LowRank, MotionLora, adapter_deltas
from ..data.cache import weights_key
from .lora import TrainableBranches


def deltas_to_start(what: str, lora: MotionLora | None) -> dict[str, LowRank]:
    """What a file changes of the layers that a trainable changes, by layer; nothing where there is no file.

    Args:
        what: is trained, a name in ``tasks.TRAINABLES``.
        lora: of the file.

    Raises:
        ValueError: it holds nothing of the kind.
    """
    if lora is None:
        return {}
    if lora.lengths:
        raise ValueError(f"{lora.name} is a DoRA, whose lengths are not trained here: start from a plain LoRA, or from none")
    found = adapter_deltas(lora) if what == "domain_adapter" else {k.removesuffix(".weight"): v for k, v in lora.deltas.items()}
    if not found:
        raise ValueError(f"{lora.name} holds nothing of a {what.replace('_', ' ')}: start from a file of that kind, or from none")
    return found


def begin(branches: TrainableBranches, start: Mapping[str, LowRank], rank: int) -> dict[str, str]:
    """Let branches begin with what a file says.

    Args:
        branches: new ones.
        start: by layer; nothing to begin from nothing.
        rank: of the branches.

    Returns:
        facts: what a checkpoint must agree with.

    Raises:
        ValueError: the file is of another rank, or changes other layers.
    """
    if not start:
        return {}
    ranks = sorted({len(delta.down) for delta in start.values()})
    if ranks != [rank]:
        raise ValueError(f"rank is {rank} and the file to start from has {', '.join(map(str, ranks))}: set rank to {ranks[-1]}")
    wrong = sorted(set(start) ^ set(branches.layers))
    if wrong:
        raise ValueError(
            f"the file to start from and what trains change other layers ({len(wrong)} differ, first {wrong[0]}): start from a file that"
            " was trained for this model with the same train_blocks, or from none"
        )
    with torch.no_grad():
        for place, layer in enumerate(branches.layers):
            part, delta = branches.parts[place], start[layer]
            if part.up.weight.shape != delta.up.shape or part.down.weight.shape != delta.down.shape:  # type: ignore[union-attr]
                raise ValueError(
                    f"{layer} of the file to start from has another width than in this model: start from a file for it"
                )
            part.up.weight.copy_(delta.up.float() * delta.factor)  # type: ignore[union-attr, operator]
            part.down.weight.copy_(delta.down.float())  # type: ignore[union-attr, operator]
    return {"start": weights_key({f"{layer}.{side}": getattr(start[layer], side) for layer in start for side in ("up", "down")})}
