"""What motion models are told during sampling: before it, what cannot work is refused; in each call, which frames it is about.

All state of one sampling is in a ``Sampling`` that travels in that sampling's own transformer options and ends with it.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...modules.temporal.frames import Frames, Gain
from ...modules.windows import WindowPlan, Windows

if TYPE_CHECKING:
    from .motion import Held, Injected

log = logging.getLogger("longtake")
IDS = "longtake_frame_ids"  # in transformer_options: ``n``, absolute frame numbers of this call
SAME_LEVEL = 1e-4  # relative difference of sigmas that rounding may make
SAMPLING = "longtake_sampling"  # in transformer_options: what is known for the length of one sampling


class Sampling:
    """One sampling: its windows, the frames that go through a layer at once, and which motion models have been seen to run.

    Args:
        plan: windows of the motion modules, or None.
        chunk: frames that go through a spatial layer at once, or None for all.
    """

    def __init__(self, plan: WindowPlan | None = None, chunk: int | None = None):
        self.plan, self.chunk = plan, chunk
        self.seen: set[int] = set()  # places of motion models
        self.known: dict[tuple[Any, ...], Frames] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "Sampling":
        return self  # some versions copy model options deeply; this is one sampling's, whoever holds it

    def windows(self, held: "Held", frames: int, step: int) -> Windows | None:
        """The windows of one motion model over a call's frames."""
        if self.plan is None:
            return None
        return self.plan.resolved(held.traits.trained_frames or 16, held.traits.most).windows(frames, step)

    def frames(self, place: int, held: "Held", ids: Tensor, step: int) -> Frames:
        """What a call's frames are to one motion model; computed once for all steps that have the same windows."""
        plan = self.plan
        shifts = plan is not None and plan.schedule.endswith("uniform")
        key = place, step if shifts else 0, ids.device, tuple(ids.tolist())
        if key not in self.known:
            self.known = {other: known for other, known in self.known.items() if other[0] != place}
            traits = held.traits
            self.known[key] = held.model.frames_for(
                ids, None, self.windows(held, len(ids), step), traits.settings.positions, traits.max_frames or 0
            )
        return self.known[key]


def around_sampling(executor: Any, noise: Tensor, latent_image: Tensor, sampler: Any, *args: Any, **kwargs: Any) -> Any:
    """OUTER_SAMPLE: refuse what cannot work before anything is loaded or computed, and keep what holds for the whole sampling."""
    from .memory import PLAN, plan_for  # these import this file
    from .motion import held_by, windows_of
    from .windows import FrameHandler

    guider = executor.class_obj
    held = held_by(guider.model_patcher)
    mode, windows = windows_of(guider.model_patcher) or ("whole", None)
    temporal = None if mode == "whole" else windows
    handler = guider.model_options.get("context_handler")  # ours has a plan, which is None where all frames are in one call
    rolls = getattr(sampler, "slides_windows", False)  # it shows the model a few frames at a time, on its own
    slides = rolls or getattr(handler, "plan", handler) is not None
    check_latent(latent_image)
    for item in held:
        check_clip(item, len(noise), windowed=slides or temporal is not None)
    plan = None if rolls else plan_for(guider.model_patcher, noise.shape, guider.conds)
    options = guider.model_options.setdefault("transformer_options", {})
    options[SAMPLING] = Sampling(temporal, None if plan is None else plan.chunk)
    if plan is not None:
        options[PLAN] = plan
        log.info("memory: %s", plan.text())
    if plan is not None and plan.chunk is not None and isinstance(handler, FrameHandler):
        guider.model_options["context_handler"] = replace(handler, control_chunk=plan.chunk)  # these options are this sampling's
    try:
        return executor(noise, latent_image, sampler, *args, **kwargs)
    finally:
        options.pop(SAMPLING, None)
        options.pop(PLAN, None)


def around_preparation(executor: Any, *args: Any, **kwargs: Any) -> Any:
    """PREPARE_SAMPLING: ComfyUI makes room for what the plan takes."""
    from .memory import prepare_sampling  # it imports this file

    return prepare_sampling(executor, *args, **kwargs)


def check_latent(latent: Tensor) -> None:
    """Refuse a latent with numbers that would spoil every frame."""
    bad = ~torch.isfinite(latent).flatten(1).all(dim=1)
    if bad.any():
        frames = ", ".join(map(str, bad.nonzero().flatten().tolist()[:5]))
        raise ValueError(f"the latent is not finite (NaN or infinite) in frame {frames}: encode or load it again")


def check_clip(held: "Held", count: int, *, windowed: bool) -> None:
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


def check_frames(held: tuple["Held", ...], count: int) -> None:
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
    from .motion import HELD  # it imports this file

    options = call_options((t, *args), kwargs)
    base = executor.class_obj
    injected: Injected | None = base.diffusion_model.__dict__.get(HELD)
    sampling: Sampling = options.get(SAMPLING) or Sampling()
    if injected is None:
        raise RuntimeError("the motion modules are not in the model although it is being sampled: another node has removed them")
    conds = max(1, len(options.get("cond_or_uncond", ())))
    count = len(x) // conds
    ids = frame_numbers(options, count).to(x.device)
    sigma = t.reshape(conds, -1)[0].expand(count) if t.numel() > 1 else t.reshape(1).expand(count)
    step = step_of(options, sigma)
    with ExitStack() as stack:
        _prepare(injected, sampling, conds, ids)
        stack.callback(_rest, injected)
        checks = [
            stack.enter_context(_told(place, item, sampling, ids, sigma, step, base.model_sampling))
            for place, item in enumerate(injected.held)
        ]
        result = executor(x, t, *args, **kwargs)
    for place, check in enumerate(checks):
        if place not in sampling.seen and check():
            sampling.seen.add(place)
    sampling.chunk = injected.chunks.size
    return result


def _prepare(injected: "Injected", sampling: Sampling, conds: int, ids: Tensor) -> None:
    chunks = injected.chunks
    chunks.size, chunks.conds, chunks.ids = sampling.chunk, conds, ids.tolist()


def _rest(injected: "Injected") -> None:
    injected.chunks.conds, injected.chunks.ids = 1, []


@contextmanager
def _told(
    place: int, held: "Held", sampling: Sampling, ids: Tensor, sigma: Tensor, step: int, model_sampling: Any
) -> Iterator[Callable[[], bool]]:
    """While open, one motion model knows its call. Gives a function for afterwards: whether its modules ran, if any had to."""
    frames = sampling.frames(place, held, ids, step)
    longest = max((group.index.shape[1] for group in frames.groups), default=frames.count)
    check_frames((held,), longest)
    config, settings = held.model.config, held.traits.settings
    gains = settings.gains(
        held.model.names, config.attentions, ids, sigma, lambda percent: float(model_sampling.percent_to_sigma(percent))
    )
    ran = torch.zeros(len(held.model.names), dtype=torch.int32, device=ids.device)
    with held.model.during(frames, gains, ran):
        yield lambda: _ran(held, gains, ran)


def _ran(held: "Held", gains: dict[str, Gain | None], ran: Tensor) -> bool:
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


def step_of(options: dict[str, Any], sigma: Tensor) -> int:
    """Which step of the sampler's a call belongs to, by the noisiest frame's level: ``sigma``: ``f``.

    Between two levels, as second-order samplers ask there, it is still the step before.
    """
    sigmas = options.get("sample_sigmas")
    if sigmas is None or len(sigmas) < 2:
        return 0
    begun = sigmas[:-1].to(sigma.device) >= sigma.max() * (1 - SAME_LEVEL)
    return max(0, int(begun.sum()) - 1)


def call_options(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The transformer options among what follows ``x`` in a call of the model or of its U-Net: the fifth in both."""
    return kwargs["transformer_options"] if "transformer_options" in kwargs else args[4] if len(args) > 4 else {}


def frame_numbers(options: dict[str, Any], count: int) -> Tensor:
    """Which frames of the clip a call of ``count`` frames is about: ``n``, int64, from its transformer options."""
    ids, window = options.get(IDS), options.get("context_window")
    if window is not None and getattr(window, "dim", None) == 0:  # ComfyUI's own context windows, over the batch axis
        index = torch.tensor(list(window.index_list))
        return index if ids is None else ids.cpu()[index]
    return torch.arange(count) if ids is None else ids
