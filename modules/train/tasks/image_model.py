"""A whole image model on single frames: what a motion module can later be trained for. Benchmarks train it; no node does."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from ..native import named_parameters
from ..trainable import OWN, State, TaskContext, Trainable, Weights
from .low_rank import single_frames


def image_model(context: TaskContext, unet: nn.Module) -> Trainable:
    """Train an image model from the weights that it has on single frames.

    Args:
        context: whose network is the image model.
        unet: what is trained, its weights in float32.
    """
    unet.train().requires_grad_(True)
    alone = replace(context, source=single_frames(context.source, context.settings.seed))
    task = alone.task(named_parameters(unet=unet), trains="image model")

    def write(weights: Weights, _format: str, _: Mapping[str, Any]) -> State:
        return {name.removeprefix("unet."): value for name, value in weights.items()}, {}

    return Trainable("image_model", task, context.settings, write, (OWN,))
