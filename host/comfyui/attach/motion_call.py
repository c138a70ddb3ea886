"""What motion models are told during sampling: before it, what cannot work is refused; in each call, which frames it is about.

All state of one sampling is in a ``Sampling`` that travels in that sampling's own transformer options and ends with it.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ....modules.temporal.frames import Gain
from ..held import HELD, Held, Injected, Sampling, held_by, windows_of
from ..memory import PLAN, plan_for, prepare_sampling
from ..options import CLIPS, RECOMPUTE, SAMPLING, TIMES, call_options, clips_of, frame_numbers, step_of
from ..sampling.windows import FrameHandler

log = logging.getLogger("longtake")


def around_sampling(executor: Any, noise: Tensor, latent_image: Tensor, sampler: Any, *args: Any, **kwargs: Any) -> Any:
    """OUTER_SAMPLE: refuse what cannot work before anything is loaded or computed, and keep what holds for the whole sampling."""
    guider = executor.class_obj
    held = held_by(guider.model_patcher)
    mode, windows = windows_of(guider.model_patcher) or ("whole", None)
    temporal = None if mode == "whole" else windows
    handler = guider.model_options.get("context_handler")  # ours has a plan, which is None where all frames are in one call
    rolls = getattr(sampler, "slides_windows", False)  # it shows the model a few frames at a time, on its own
    slides = rolls or getattr(handler, "plan", handler) is not None
    shown = sampler.shown(guider.model_patcher, noise) if rolls else len(noise)
    check_latent(latent_image, guider.model_patcher.model.latent_format.latent_channels)
    for item in held:
        check_clip(item, len(noise), windowed=slides or temporal is not None)
    if temporal is None if rolls else slides:  # windows of the whole model: the sampler's, ours or ComfyUI's
        check_frames(held, min(shown, getattr(handler, "context_length", shown if rolls else 0)))
    if rolls:
        warn_of_mixing(held)
    variants = (getattr(guider, "variants", 1) if rolls else 1) * getattr(guider, "copies", 1)
    plan = plan_for(guider.model_patcher, (shown, *noise.shape[1:]), guider.conds, variants)
    options = guider.model_options.setdefault("transformer_options", {})
    recall = "take" if rolls else "step" if slides else None
    options[SAMPLING] = Sampling(temporal, plan.chunk, recall)
    options[PLAN] = plan
    log.info("memory: %s", plan.text())
    if plan.chunk is not None and isinstance(handler, FrameHandler):
        guider.model_options["context_handler"] = replace(handler, control_chunk=plan.chunk)  # these options are this sampling's
    try:
        clip = executor(noise, latent_image, sampler, *args, **kwargs)
        return sampler.restored(clip, latent_image) if rolls else clip
    finally:
        options.pop(SAMPLING, None)
        options.pop(PLAN, None)


def around_preparation(executor: Any, *args: Any, **kwargs: Any) -> Any:
    """PREPARE_SAMPLING: ComfyUI makes room for what the plan takes."""
    return prepare_sampling(executor, *args, **kwargs)


def check_latent(latent: Tensor, channels: int) -> None:
    """Refuse a latent that is no clip for a model of so many channels, or has numbers that would spoil every frame."""
    if latent.is_nested or latent.ndim != 4 or latent.shape[1] != channels:
        raise ValueError(
            f"the latent has the shape {list(latent.shape)}, and this model with motion takes frames, {channels} channels, height, width:"
            " use Empty Latent Image with a batch size, or VAE Encode with this model's VAE"
        )
    bad = ~torch.isfinite(latent).flatten(1).all(dim=1)
    if bad.any():
        frames = ", ".join(map(str, bad.nonzero().flatten().tolist()[:5]))
        raise ValueError(f"the latent is not finite (NaN or infinite) in frame {frames}: encode or load it again")


def check_clip(held: Held, count: int, *, windowed: bool) -> None:
    """Refuse a clip that a motion model cannot work on, and warn of one that it works badly on."""
    traits = held.traits
    if not windowed:
        check_frames((held,), count)
    if traits.trained_frames is None:
        return
    if count < 2:
        raise ValueError(
            f"{traits.name} got a clip of {count} frame and moves nothing: give the latent a batch size of {traits.trained_frames} or more"
        )
    if count < traits.trained_frames:
        log.warning(
            "%s was trained on clips of %d frames and got %d: fewer than that usually look noisy; use %d and drop some afterwards",
            *(traits.name, traits.trained_frames, count, traits.trained_frames),
        )


def warn_of_mixing(held: tuple[Held, ...]) -> None:
    """Say which motion models do badly where every frame has its own noise level."""
    for item in held:
        if item.traits.clip_norms:
            log.warning(
                "%s takes statistics over all frames of a call, clean and noisy ones alike: with a noise level per frame a later generation"
                " (v2, v3) does better",
                item.traits.name,
            )


def check_frames(held: tuple[Held, ...], count: int) -> None:
    """Refuse more frames in one call than a motion model knows times for."""
    for item in held:
        most = item.traits.most
        if most is not None and count > most:
            raise ValueError(
                f"{item.traits.name} was trained on clips of at most {most} frames and got {count}: use at most {most}"
                " frames, put Context Windows before the sampler, or set positions of Apply Motion Module to stretch"
            )


def around_call(executor: Any, x: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Any:
    """APPLY_MODEL: tell the motion models how the batch of this call divides into frames, and forget it afterwards."""
    options = call_options((t, *args), kwargs)
    base = executor.class_obj
    injected: Injected | None = base.diffusion_model.__dict__.get(HELD)
    sampling: Sampling = options.get(SAMPLING) or Sampling()
    if injected is None:
        raise RuntimeError("the motion modules are not in the model although it is being sampled: another node has removed them")
    conds = max(1, len(options.get("cond_or_uncond", ())))
    clips = options.get(CLIPS, 1)
    count = len(x) // (conds * clips)
    ids = frame_numbers(options, count * clips)[:count].to(x.device)
    times = options.get(TIMES, ids).to(x.device)
    sigma = t.reshape(conds * clips, -1)[0].expand(count) if t.numel() > 1 else t.reshape(1).expand(count)
    shown = Shown(ids, times, sigma, step_of(options, sigma), clips_of(options, clips))
    with ExitStack() as stack:
        recompute = options.get(RECOMPUTE, False) and torch.is_grad_enabled()
        _prepare(injected, sampling, conds * clips, ids, recompute=recompute)
        stack.callback(_rest, injected)
        checks = [
            stack.enter_context(_told(place, item, sampling, shown, base.model_sampling))
            for place, item in enumerate(injected.held)
        ]
        result = executor(x, t, *args, **kwargs)
    for place, check in enumerate(checks):
        if place not in sampling.seen and check():
            sampling.seen.add(place)
    if not recompute:
        sampling.chunk = injected.chunks.size
    return result


def _prepare(injected: Injected, sampling: Sampling, conds: int, ids: Tensor, *, recompute: bool) -> None:
    chunks = injected.chunks
    chunks.size, chunks.conds, chunks.ids, chunks.recompute = sampling.chunk, conds, ids.tolist(), recompute


def _rest(injected: Injected) -> None:
    injected.chunks.conds, injected.chunks.ids, injected.chunks.recompute = 1, [], False


@dataclass(frozen=True)
class Shown:
    """What a call is about.

    Attributes:
        ids: ``f``, absolute frame numbers.
        times: ``f``, when the motion models are told they are.
        sigma: ``f``, their noise levels.
        step: of the sampler.
        rows: whose each clip of the batch is.
    """

    ids: Tensor
    times: Tensor
    sigma: Tensor
    step: int
    rows: list[tuple[Any, ...]]


@contextmanager
def _told(place: int, held: Held, sampling: Sampling, shown: Shown, model_sampling: Any) -> Iterator[Callable[[], bool]]:
    """While open, one motion model knows its call. Gives a function for afterwards: whether its modules ran, if any had to."""
    ids, step = shown.ids, shown.step
    frames = sampling.frames(place, held, shown.times, step)
    longest = max((group.index.shape[1] for group in frames.groups), default=frames.count)
    check_frames((held,), longest)
    config, settings = held.model.config, held.traits.settings
    gains = settings.gains(
        held.model.names, config.attentions, ids, shown.sigma, lambda percent: float(model_sampling.percent_to_sigma(percent))
    )
    ran = torch.zeros(len(held.model.names), dtype=torch.int32, device=ids.device)
    with held.model.during(frames, gains, ran, sampling.past(place, held, ids, shown.rows, step)):
        yield lambda: _ran(held, gains, ran)


def _ran(held: Held, gains: dict[str, Gain | None], ran: Tensor) -> bool:
    """Whether every module that had to run did; False if none had to.

    Raises:
        RuntimeError: some did not.
    """
    wanted = [name for name in held.model.names if gains.get(name, True) is not None]
    idle = [name for name, times in zip(held.model.names, ran.tolist(), strict=True) if times == 0 and name in wanted]
    if idle:
        raise RuntimeError(
            f"{len(idle)} of {len(wanted)} motion modules of {held.traits.name} did not run, first {idle[0]}: another node has replaced"
            " layers of the U-Net; move Apply Motion Module behind it, or leave that node out"
        )
    if wanted:
        log.info("%s: %d of %d motion modules ran", held.traits.name, len(wanted), len(wanted))
    return bool(wanted)
