"""Drive a sampler: networks, conditions and guidance on one side, progress and cancel on the other."""

import math
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...modules.samplers import Algorithm, Job, Step
from ...modules.video_model import clean_prediction
from ...modules.view import Denoise, Guide, View, plain
from .models import Model, device
from .session import Progress, check_interrupt

Conditioning = Sequence[Sequence[Any]]


def sample(
    model: Model,
    positive: Conditioning,
    negative: Conditioning | None,
    *,
    cfg: float,
    latent: Tensor,
    algorithm: Algorithm,
    seed: int,
    sigmas: Tensor,
    guide: Guide = plain,
) -> Tensor:
    """Run a sampler on a model.

    Args:
        model: from ``video_model``.
        positive: what to show.
        negative: what guidance moves away from; not looked at when ``cfg`` is 1.
        cfg: guidance scale.
        latent: ``f c h w``, known frames, zeros elsewhere.
        algorithm: the sampler.
        seed: the user's.
        sigmas: ``l``, sigma of each level, 0 first.
        guide: what is done around the model.

    Returns:
        clip: ``f c h w``.

    Raises:
        ValueError: the conditions do not fit the model.
        Interrupted: the user cancelled.
    """
    place = device()
    conditions = [condition(model, positive, "positive", len(latent))]
    if cfg != 1:
        if negative is None:
            raise ValueError(f"cfg is {cfg} and there is no negative condition: connect one, or set cfg to 1")
        conditions.append(condition(model, negative, "negative", len(latent)))
    with torch.no_grad(), model.ready():
        start = latent.to(place, torch.float32)
        steps = algorithm(Job(denoiser(model, conditions, cfg), start, sigmas.to(start), seed=seed, guide=guide))
        try:
            return _driven(steps).to(latent.device)
        finally:
            steps.close()


def _driven(steps: Generator[Step, None, Tensor]) -> Tensor:
    progress: Progress | None = None
    check_interrupt()
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value
        progress = progress or Progress(step.total)
        progress.update(step.row)


def condition(model: Model, given: Conditioning, which: str, frames: int) -> Mapping[str, Tensor | None]:
    """What the U-Net takes of one CONDITIONING: ``context``, ``1 k d``, and ``y``, ``1 l`` or one row per frame of the whole clip.

    Raises:
        ValueError: it holds several conditions, or one of another size.
    """
    if len(given) != 1:
        raise ValueError(f"the {which} conditioning holds {len(given)} conditions: the standalone host takes exactly 1")
    tokens, facts = given[0]
    config = model.info.unet
    y = context = None
    if config.label_channels:
        y = facts.get("pooled_output")
        y = torch.zeros(1, config.label_channels) if y is None else y.reshape(-1, y.shape[-1]).float()
        if y.shape[1] != config.label_channels or len(y) not in (1, frames):
            raise ValueError(
                f"the {which} label vector is {len(y)} rows of {y.shape[1]}: this model takes rows of {config.label_channels}, "
                f"1 of them or one per frame ({frames})"
            )
        y = y.to(device())
    if config.context_dim is not None:
        if tokens.ndim != 3 or tokens.shape[-1] != config.context_dim:
            raise ValueError(
                f"the {which} conditioning's tokens have the shape {tuple(tokens.shape)}: "
                f"this model takes batch, tokens and {config.context_dim} numbers per token"
            )
        context = tokens.float().to(device())
    return {"context": context, "y": y}


def denoiser(model: Model, conditions: Sequence[Mapping[str, Tensor | None]], cfg: float) -> Denoise:
    """The model with its conditions, as samplers see it; conditions go through the network in one call.

    Args:
        model: its slots must be filled (``Model.ready``) while the result is used.
        conditions: the positive one, and the negative one if there is guidance.
        cfg: ``negative + cfg * (positive - negative)``.
    """

    def denoise(view: View) -> Tensor:
        count, frames = len(conditions), len(view.ids)
        labels, contexts = [], []
        for item in conditions:
            y, context = item["y"], item["context"]
            rows = None if y is None else (y.expand(frames, -1) if len(y) == 1 else y[view.ids.to(y.device)])
            labels.append(None if rows is None else rows.repeat(view.clips, 1))
            contexts.append(None if context is None else context[:1].expand(len(view.x), -1, -1))
        with model.during(view.ids, view.sigma[:frames], view.times):
            clean = clean_prediction(
                model.unet,
                view.x.repeat(count, 1, 1, 1),
                view.sigma.repeat(count),
                model.schedule,
                model.info.prediction,
                context=_joined(contexts),
                y=_joined(labels),
            )
        if count == 1:
            return clean
        positive, negative = clean.chunk(2)
        return negative + cfg * (positive - negative)

    return denoise


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """The parts along the batch axis, each ``n ...``; None when the model takes none."""
    tensors = [part for part in parts if part is not None]
    if not tensors:
        return None
    if tensors[0].ndim == 3:  # prompts of different length: whole repetitions leave attention's result as it is
        length = math.lcm(*(part.shape[1] for part in tensors))
        tensors = [part.repeat(1, length // part.shape[1], 1) for part in tensors]
    return torch.cat(tensors)
