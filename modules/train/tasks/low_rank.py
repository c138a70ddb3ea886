"""What trainables that change layers by low rank do alike, and single frames of clips."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoints.export import lora_state
from ...noise.seeded import frame_seed
from ...temporal.motion import MotionModel
from ..denoising import Batch, Network, Source
from ..lora import TrainableBranches, beside, deltas_of, motion_projections, trainable_branches
from ..native import frozen, scoped
from ..trainable import LORA, State, Weights


def motion_layers(motion: MotionModel, train_blocks: Sequence[str]) -> dict[str, nn.Module]:
    """The attention projections of some slots; the motion model does not train.

    Args:
        motion: whose projections they are.
        train_blocks: beginnings of slots' names; all if empty.

    Raises:
        ValueError: a name is no slot's.
    """
    frozen(scoped(motion, train_blocks))
    return {name: layer for name, layer in motion_projections(motion).items() if name.startswith(tuple(train_blocks) or "")}


def installed(layers: Mapping[str, nn.Module], rank: int, seed: int) -> TrainableBranches:
    """Branches of a rank on layers, on their device.

    Raises:
        ValueError: no layers, or a rank that one of them cannot have.
    """
    device = next((parameter.device for layer in layers.values() for parameter in layer.parameters()), torch.device("cpu"))
    branches = trainable_branches(dict(layers), rank, seed, device)
    beside(dict(layers), branches)
    return branches


def with_gains(network: Network, told: Mapping[TrainableBranches, tuple[Tensor | None, bool]]) -> Network:
    """The network while branches have another strength, or none, and their weights are constants or not."""

    def run(x: Tensor, sigma: Tensor, batch: Batch) -> Tensor:
        with ExitStack() as stack:
            for branches, (gain, constant) in told.items():
                stack.enter_context(branches.told(gain, constant=constant))
            return network(x, sigma, batch)

    return run


def lora_writer(branches: TrainableBranches) -> Callable[[Weights, str, Mapping[str, Any]], State]:
    """What writes a MotionLoRA's file."""
    return lambda weights, file_format, _: lora_state(deltas_of(branches, dict(weights), f"{LORA}."), file_format)


def single_frames(source: Source, seed: int) -> Source:
    """One random frame of each clip, as a clip of one frame with the clip's conditions.

    Args:
        source: of clips.
        seed: which frames; the same one gives the same frames, however a batch is cut up.
    """

    def drawn(step: int, places: range) -> Batch:
        batch = source(step, places)
        frames = batch.clips.shape[1] - batch.images
        chosen = [frame_seed(seed, place, f"single frame {step}") % frames for place in places]
        pick = lambda values, axis: torch.stack([row.select(axis, at) for row, at in zip(values, chosen, strict=True)])  # noqa: E731
        context, labels = batch.context, batch.labels
        return replace(
            batch,
            clips=pick(batch.clips, 0)[:, None],
            images=0,
            context=pick(context, 0) if context is not None and context.ndim == 4 else context,
            labels=pick(labels, 0) if labels is not None and labels.ndim == 3 else labels,
        )

    return drawn
