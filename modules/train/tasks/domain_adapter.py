"""A domain adapter: a LoRA of the image model that takes up how clips look, so that a motion module need not.

AnimateDiff, arXiv:2307.04725, Section 4.1.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from ...checkpoints.export import adapter_state
from ...checkpoints.motion import MotionModule
from ...checkpoints.motion_lora import LowRank, MotionLora
from ..in_base import Setup
from ..lora import deltas_of, image_projections
from ..native import named_parameters
from ..start_lora import begin, deltas_to_start
from ..trainable import ADAPTER, State, TaskContext, Trainable, Weights
from .low_rank import installed, single_frames
from .row import Row


def domain_adapter(
    context: TaskContext, looks: Mapping[str, nn.Module], rank: int, start: Mapping[str, LowRank] | None = None
) -> Trainable:
    """Train a LoRA of all attention projections on single frames; it is left out, or weakened, when clips are made.

    Args:
        context: whose network sees each frame by itself: an image model, or one whose motion model rests.
        looks: linear layers of the image model by name (``lora.image_projections``).
        rank: of the changes; the released adapter has 128.
        start: what it begins with, by layer; None for nothing.

    Raises:
        ValueError: a rank that no layer can have, no layers, or a start that does not fit.
    """
    branches = installed(looks, rank, context.settings.seed)
    started = begin(branches, start or {}, rank)
    alone = replace(context, source=single_frames(context.source, context.settings.seed))
    task = alone.task(named_parameters(adapter=branches), trains="domain adapter", rank=rank, **started)

    def write(weights: Weights, _format: str, _: Mapping[str, Any]) -> State:
        deltas = deltas_of(branches, dict(weights), f"{ADAPTER}.")
        return adapter_state({key.removesuffix(".weight"): delta for key, delta in deltas.items()}), {}

    return Trainable(
        *("domain_adapter", task, context.settings, write, ("AnimateDiff",)),
        branches={ADAPTER: branches},
        layers=list(looks.values()),
    )


def make(setup: Setup, motion: MotionModule | None, rank: int, start: MotionLora | None = None) -> Trainable:  # noqa: ARG001  as all rows
    """A domain adapter for a base, in which nothing moves meanwhile.

    Raises:
        ValueError: there is no such rank, or the file to start from does not fit.
    """
    network = setup.base.network([])
    begun = deltas_to_start("domain_adapter", start)
    return setup.finished(domain_adapter(setup.context(network, []), image_projections(setup.base.unet), rank, begun), network)


ROW = Row("loras", make, moves=False, in_motion="A domain adapter learns how the clips look, from single frames.")
