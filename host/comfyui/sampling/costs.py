"""What a sampling costs on this host: calls, gradients, and what ComfyUI reckons for the memory."""

from dataclasses import replace
from typing import Any

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....modules.guidance.cost import SamplingCost, cost_of
from ....modules.sampling.job import Algorithm
from ....modules.sampling.model_view import Guide, plain
from ....modules.temporal.memory import human
from ..attach.experts import boundary_of
from ..attached import attached_to
from ..layout import Layout
from ..memory import plan_for
from .guiding import GUIDED_COPIES
from .model_facts import trained_frames

KEPT_COPIES = 15  # of what a call takes, where layers keep what they computed for the gradient (benchmarks/guidance_memory.py)


def sampling_cost(
    model: ModelPatcher, algorithm: Algorithm, latent: Tensor, *, steps: int, cfg: float, guide: Guide = plain
) -> SamplingCost:
    """What a sampling would cost.

    Args:
        model: MODEL.
        algorithm: the sampler.
        latent: ``f c h w``, or ``b c f h w`` for video models.
        steps: of each frame.
        cfg: guidance scale.
        guide: what is done around the model.
    """
    layout, handler = Layout.of(latent), model.model_options.get("context_handler")
    plan = getattr(handler, "plan", None)
    conditions, trained = (1 if cfg == 1 else 2), trained_frames(model)
    cost = cost_of(algorithm, guide, frames=layout.frames, steps=steps, trained=trained, conditions=conditions)
    if plan is not None and cost.shown > plan.length:
        cost = replace(cost, windows=sum(len(index) for index, _ in plan.windows(cost.shown, 0).groups))
    boundary = boundary_of(model)
    twice = f"experts: a call with frames on both sides of noise level {boundary:g} asks both networks"
    return replace(cost, further=(memory_line(model, latent, cost), *([twice] if boundary else [])))


def memory_line(model: ModelPatcher, latent: Tensor, cost: SamplingCost) -> str:
    """What a call takes of the memory, as far as it can be told before: ``latent``: ``r ...``."""
    networks = [model, *model.get_nested_additional_models()]
    shape, axis = list(latent.shape), 2 if Layout.of(latent).video else 0
    shape[axis] = cost.shown
    if axis == 0 and attached_to(model):
        bytes_of_call = plan_for(model, shape).bytes
    else:
        rows = [shape[0] * cost.conditions, *shape[1:]]
        bytes_of_call = int(model.model.memory_required(rows))
    copies = (
        1 if not cost.backwards else GUIDED_COPIES if cost.gradients and cost.gradients.gradient_checkpointing else KEPT_COPIES
    )
    more = f", {copies} times that with gradients" if copies > 1 else ""
    weights = human(sum(network.model_size() for network in networks))
    return f"memory: about {human(bytes_of_call)} for a call as ComfyUI reckons{more}, beside {weights} of weights"


def cost_of_run(sampler: Any, guider: Any, noise: Tensor, sigmas: Tensor, guide: Guide) -> SamplingCost:
    """What a sampling costs that ComfyUI is about to begin: ``noise``: ``r ...``, ``sigmas``: ``l``."""
    steps = len(sigmas if sampler.levels is None else sampler.levels) - 1
    return sampling_cost(
        guider.model_patcher, sampler.algorithm, noise, steps=steps, cfg=getattr(guider, "cfg", 1.0), guide=guide
    )
