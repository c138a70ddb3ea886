"""Drive a sampler: networks, conditions and guidance on one side, progress and cancel on the other."""

import logging
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from itertools import product
from typing import Any

import torch
from torch import Tensor

from ...modules.checkpoints.video_model import clean_prediction
from ...modules.control.hints import beside
from ...modules.control.prompt_mixing import HELD, row_ids
from ...modules.disk.fingerprint import fingerprint
from ...modules.disk.recorder import Recorder
from ...modules.disk.recording import Recording
from ...modules.guidance.cost import SamplingCost, cost_of
from ...modules.guidance.history import on_model
from ...modules.guidance.steering import asked_by, fitted
from ...modules.sampling.context_noise import OwnNoise
from ...modules.sampling.job import Algorithm, Job, Step
from ...modules.sampling.model_view import Denoise, Guide, View, plain
from ...modules.temporal.past import Memories, Memory
from .gradients import differentiable, space_of
from .models import Model, device
from .session import Progress, check_interrupt

log = logging.getLogger("longtake")
Conditioning = Sequence[Sequence[Any]]


def identity(value: object) -> str:
    """What tells a model, a VAE, conditions and anything else from others: a short text, the same in another process."""
    return fingerprint(value)


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
    recording: Recording | None = None,
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
        recording: where finished frames go as they come; None for nowhere.

    Returns:
        clip: ``f c h w``; its last frames where it is recorded.

    Raises:
        ValueError: the conditions do not fit the model.
        Interrupted: the user cancelled.
    """
    place = device()
    conditions = [condition(model, positive, "positive", len(latent), latent.shape[-2:])]
    if cfg != 1:
        if negative is None:
            raise ValueError(f"cfg is {cfg} and there is no negative condition: connect one, or set cfg to 1")
        conditions.append(condition(model, negative, "negative", len(latent), latent.shape[-2:]))
    with torch.no_grad(), model.ready():
        start = latent.to(place, torch.float32)
        memories = Memories({motion: Memory() for motion in range(len(model.motions))})
        recalls = any(motion.recalls for motion in model.motions)
        space = space_of(model, len(latent), levels=not getattr(algorithm, "uniform", False))
        around, wish = on_model(guide, model.schedule.at_level), asked_by(guide)
        call = denoiser(model, conditions, cfg, memories)
        if wish is not None:
            around = fitted(around, space)
            call = differentiable(model, call, call if cfg == 1 else denoiser(model, conditions[:1], 1.0, memories), wish)
        job = Job(
            call,
            start,
            sigmas.to(start),
            seed=seed,
            guide=around,
            memory=memories,
            recalls=recalls,
            sees_ahead=space.sees_ahead,
            own_noise=OwnNoise(model.info.context_noise),
        )
        costs = {"steps": len(sigmas) - 1, "cfg": cfg, "guide": guide}
        log.info("\n".join(sampling_cost(model, algorithm, latent, **costs).lines()))
        if recording is None:
            return _driven(algorithm(job), lambda step: None).to(latent.device)
        told = {"model": model, "cfg": cfg, "positive": positive, "negative": negative if cfg != 1 else None}
        with Recorder(recording, algorithm, job, lambda: {name: identity(value) for name, value in told.items()}) as recorder:
            return _driven(recorder.steps(), recorder.watch).to(latent.device)


def sampling_cost(
    model: Model, algorithm: Algorithm, latent: Tensor, *, steps: int, cfg: float, guide: Guide = plain
) -> SamplingCost:
    """What a sampling would cost.

    Args:
        model: from ``video_model``.
        algorithm: the sampler.
        latent: ``f c h w``.
        steps: of each frame.
        cfg: guidance scale.
        guide: what is done around the model.
    """
    about = {"frames": len(latent), "steps": steps, "trained": model.info.frames, "conditions": 1 if cfg == 1 else 2}
    return cost_of(algorithm, guide, **about)


def _driven(steps: Generator[Step, None, Tensor], show: Callable[[Step], Tensor | None]) -> Tensor:
    with closing(steps):
        return _shown(steps, show)


def _shown(steps: Generator[Step, None, Tensor], show: Callable[[Step], Tensor | None]) -> Tensor:
    progress: Progress | None = None
    check_interrupt()
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value
        progress = progress or Progress(step.total)
        progress.update(step.row, show(step))


def condition(model: Model, given: Conditioning, which: str, frames: int, shape: Sequence[int] = ()) -> Mapping[str, Any]:
    """What the U-Net takes of one CONDITIONING: ``context``, ``1 k d``, and ``y``, ``1 l``, or of each one row per frame of the whole clip,
    and for models with hints ``hints``, ``f d h w``; ``shape`` is the latent's height and width.

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
        if y.shape[1] != config.label_channels or (len(y) not in (1, frames) and not facts.get(HELD)):
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
    hints = None
    if model.info.hints:
        size = (frames, model.info.latent_channels, *shape)
        hints = beside(facts.get("concat_latent_image"), facts.get("concat_mask"), size).to(device())
    return {"context": context, "y": y, "hints": hints, HELD: bool(facts.get(HELD))}


def denoiser(model: Model, conditions: Sequence[Mapping[str, Any]], cfg: float, memories: Memories | None = None) -> Denoise:
    """The model with its conditions, as samplers see it; conditions go through the network in one call.

    Args:
        model: its slots must be filled (``Model.ready``) while the result is used, for one sampling.
        conditions: the positive one, and the negative one if there is guidance.
        cfg: ``negative + cfg * (positive - negative)``.
        memories: what recurrent modules remember in this sampling; None to begin with nothing.
    """
    past = memories or Memories({motion: Memory() for motion in range(len(model.motions))})

    def denoise(view: View) -> Tensor:
        count, frames = len(conditions), len(view.ids)
        rows = list(product(range(count), view.names))
        labels, contexts, told = [], [], []
        for item in conditions:
            y, context, hints = item["y"], item["context"], item["hints"]

            def of_frames(rows: Tensor, held: bool = item[HELD]) -> Tensor:
                """Of the frames in this call, ``r ...``."""
                return rows[row_ids(view.ids.to(rows.device), len(rows), held)]

            labels.append(None if y is None else of_frames(y).repeat(view.clips, 1))
            told.append(None if hints is None else hints[view.ids.to(hints.device) % len(hints)].repeat(view.clips, 1, 1, 1))
            contexts.append(None if context is None else of_frames(context).repeat(view.clips, 1, 1))
        with model.during(view.ids, view.sigma[:frames], view.times, past.each, rows):
            clean = clean_prediction(
                model.unet,
                view.x.repeat(count, 1, 1, 1),
                view.sigma.repeat(count),
                model.schedule,
                model.info.prediction,
                None if told[0] is None else torch.cat([part for part in told if part is not None]),
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
