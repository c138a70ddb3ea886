"""What guides that need gradients ask of a host, for this host's models."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from ...modules.guidance.goals import unfolded
from ...modules.guidance.steering import Space
from ...modules.sampling.model_view import Denoise, View
from ...modules.temporal.chunks import Chunks, spatial_layers
from ...modules.temporal.gradients import Gradients, checkpointed
from ...modules.temporal.motion import functions_of
from ...modules.temporal.slots import fill
from .models import Model

PAST = ("causal", "local_causal")  # masks with which a frame sees itself and those before it


def space_of(model: Model, frames: int, *, levels: bool) -> Space:
    """What guides have to know of a model.

    Args:
        model: that is sampled.
        frames: length of the clip.
        levels: whether the sampler has a noise level per frame.
    """
    masks = {motion.config.mask for motion in model.motions}
    return Space(
        pixels=unfolded(model.info.patch) if model.info.patch else None,
        at_percent=model.schedule.at_percent,
        mixing="none" if not masks else "past" if masks <= set(PAST) else "all",
        frames=frames,
        levels=levels,
    )


def differentiable(model: Model, whole: Denoise, conditional: Denoise, wish: Gradients) -> Denoise:
    """A model as samplers see it whose guess can be differentiated with respect to ``View.x`` where gradients are on.

    Args:
        model: its slots are filled.
        whole: its guess.
        conditional: its guess for the positive condition.
        wish: what the guides ask for.
    """

    def denoise(view: View) -> Tensor:
        if not torch.is_grad_enabled():
            return whole(view)
        with recomputing(model) if wish.gradient_checkpointing else ExitStack():
            if not wish.conditional or whole is conditional:
                return whole(view)
            with torch.no_grad():
                guess = whole(view)
            branch = conditional(view)
            return branch + (guess - branch).detach()

    return denoise


@contextmanager
def recomputing(model: Model) -> Iterator[None]:
    """While open, the layers of a model whose slots are filled keep their input only and compute again for gradients, in portions."""
    chunks, functions = Chunks(), functions_of(model.motions)
    chunks.gradient_checkpointing = True
    layers = spatial_layers(model.unet)
    fill(model.unet, functions, chunks.around, layers)
    try:
        with checkpointed(model.unet, model.motions, [chunks, *model.motions], layers):
            yield
    finally:
        fill(model.unet, functions)
