"""Motion models on a MODEL: in the slots while it is loaded, told in each call which frames it is about.

What is injected comes from the patcher in hand, never from a closure. Before a sampling, what cannot work is refused.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from einops import rearrange
from torch import Tensor

from ....modules.temporal.chunks import Chunks, spatial_layers
from ....modules.temporal.frames import Gain
from ....modules.temporal.motion import MotionModel, functions_of
from ....modules.temporal.slots import empty, fill, norms, swap
from ..attached import KEY, Attached, InUNet, MotionSampling, attached_to, frames_in_call, leads, unet_of, windows_of
from ..memory import PLAN, plan_for
from ..options import ALONE, GRADIENT_CHECKPOINTING
from ..parts.patches import keeps_calls
from ..parts.windows import FrameHandler
from .attachment import Attachment
from .call_info import CallInfo, Sampling

log = logging.getLogger("longtake")


class Motion(Attachment):
    """The attachment."""

    key = KEY

    def inject(self, patcher: ModelPatcher) -> InUNet:
        """Put every motion model of ``patcher`` into the slots of its U-Net."""
        unet, motions = unet_of(patcher), attached_to(patcher)
        across = any(motion.about.clip_norms for motion in motions)
        chunks = Chunks(_say_halved)
        inside = [motion.model for motion in motions if motion.model.inside]  # then no layer sees a frame by itself
        layers = [] if inside else spatial_layers(unet, clip_norms=across)
        if keeps_calls(patcher.model_options):  # such patches sit in the middle block, which is small
            layers = [layer for layer in layers if layer not in set(unet.middle_block.children())]
        fill(unet, functions_of(motion.model for motion in motions), chunks.around, layers)
        for motion in motions:
            motion.model.join(unet)
        scope = next((motion.model for motion in motions if motion.about.clip_norms), None)
        if scope is not None:
            for norm in norms(unet):
                swap(norm, over_the_clip(scope))
        return InUNet(motions, chunks)

    def eject(self, patcher: ModelPatcher) -> None:
        """See ``Attachment``."""
        empty(unet_of(patcher))

    @contextmanager
    def begin(self, sampling: Sampling) -> Iterator[None]:
        """See ``Attachment``."""
        guider, clip = sampling.guider, sampling.clip
        motions = attached_to(sampling.model)
        mode, windows = windows_of(sampling.model) or ("whole", None)
        temporal = None if mode == "whole" else windows
        handler = guider.model_options.get("context_handler")  # ours has a plan, which is None where all frames are in one call
        slides = sampling.slides or getattr(handler, "plan", handler) is not None
        shown = sampling.sampler.shown(sampling.model, sampling.latent) if sampling.slides else clip.frames
        check_latent(sampling.latent, sampling.model.model.latent_format.latent_channels)
        for motion in motions:
            check_clip(motion, clip.frames, windowed=slides or temporal is not None)
        whole = temporal is None if sampling.slides else slides and hasattr(handler, "context_length")
        if whole:  # windows of the whole model: the sampler's, ours or ComfyUI's
            check_frames(motions, frames_in_call(handler, shown), leads(handler))
        if sampling.slides:
            warn_of_mixing(motions, sampling.sampler.algorithm)
        variants = (getattr(guider, "variants", 1) if sampling.slides else 1) * getattr(guider, "copies", 1)
        shape = (shown, sampling.latent.shape[1], clip.height, clip.width)
        plan = plan_for(sampling.model, shape, guider.conds, variants)
        recall = "take" if sampling.slides else "step" if slides else None
        sampling.kept[self.key] = MotionSampling(temporal, plan.chunk, recall)
        sampling.options[PLAN] = plan
        if not all(motion.about.settings.neutral for motion in motions):
            sampling.options[ALONE] = True  # they look at each frame's noise level
        log.info("memory: %s", plan.text())
        if plan.chunk is not None and isinstance(handler, FrameHandler):
            guider.model_options["context_handler"] = replace(
                handler, control_chunk=plan.chunk
            )  # these options are this sampling's
        try:
            yield
        finally:
            for key in (PLAN, ALONE):
                sampling.options.pop(key, None)

    @contextmanager
    def call(self, info: CallInfo) -> Iterator[None]:
        """See ``Attachment``."""
        inside: InUNet = info.inside[self.key]
        known = MotionSampling() if info.sampling is None else info.sampling.kept[self.key]
        again = info.options.get(GRADIENT_CHECKPOINTING, False) and torch.is_grad_enabled()
        chunks = inside.chunks
        chunks.size, chunks.conds, chunks.variants = known.chunk, info.clips, len(info.variants)
        chunks.ids, chunks.gradient_checkpointing = info.ids.tolist(), again
        with ExitStack() as stack:
            stack.callback(_rest, chunks)
            told = [stack.enter_context(_told(place, motion, known, info)) for place, motion in enumerate(inside.motions)]
            yield
        for place, check in enumerate(told):
            if place not in known.seen and check():
                known.seen.add(place)
        if not again:
            known.chunk = chunks.size


MOTION = Motion()


def _rest(chunks: Chunks) -> None:
    chunks.conds, chunks.variants, chunks.ids, chunks.gradient_checkpointing = 1, 1, [], False


def _say_halved(size: int) -> None:
    comfy.model_management.soft_empty_cache()
    log.warning("memory ran out: from here on %d frames go through each layer at once", size)


def over_the_clip(motion: MotionModel) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Let a norm see each clip of the present call as one tall image: its statistics then run over all frames."""

    def around(inner: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def forward(x: Tensor) -> Tensor:
            frames = motion.frames
            if frames is None:
                return inner(x)
            height = x.shape[-2]
            tall = inner(rearrange(x, "(b f) c h w -> b c (f h) w", f=frames.count))
            return rearrange(tall, "b c (f h) w -> (b f) c h w", h=height)

        return forward

    return around


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


def check_clip(motion: Attached, count: int, *, windowed: bool) -> None:
    """Refuse a clip that a motion model cannot work on, and warn of one that it works badly on."""
    about = motion.about
    if not windowed:
        check_frames((motion,), count)
    if about.trained_frames is None:
        return
    if count < 2:
        raise ValueError(
            f"{about.name} got a clip of {count} frame and moves nothing: give the latent a batch size of {about.trained_frames} or more"
        )
    if count < about.trained_frames:
        log.warning(
            "%s was trained on clips of %d frames and got %d: fewer than that usually look noisy; use %d and drop some afterwards",
            *(about.name, about.trained_frames, count, about.trained_frames),
        )


def warn_of_mixing(motions: tuple[Attached, ...], algorithm: Any) -> None:
    """Say which motion models do badly where every frame has its own noise level, as an ``algorithm`` gives them."""
    uniform, fits = (getattr(algorithm, name, False) for name in ("uniform", "suits_one_level"))
    names = [] if uniform or fits else [motion.about.name for motion in motions if motion.about.one_level]
    if names:
        log.warning(
            "%s was trained with one noise level for all frames of a clip and has never seen a level per frame, as this sampler gives them:"
            " expect noisy or flickering frames; FIFO Sampler makes long takes with such a module",
            " and ".join(names),
        )
    for motion in motions:
        if motion.about.clip_norms:
            log.warning(
                "%s takes statistics over all frames of a call, clean and noisy ones alike: with a noise level per frame a later generation"
                " (v2, v3) does better",
                motion.about.name,
            )


def check_frames(motions: tuple[Attached, ...], count: int, led: bool = False) -> None:
    """Refuse more frames in one call than a motion model knows times for; ``led``: the first is the one before a window of ComfyUI's."""
    for motion in motions:
        most = motion.about.most
        if most is not None and count == most + 1 and led:
            raise ValueError(
                f"{motion.about.name} was trained on clips of at most {most} frames, and ComfyUI's Context Windows with causal_window_fix"
                f" show {count}, a window and the frame before it: switch causal_window_fix off there, or set its context_length to"
                f" {most - 1}"
            )
        if most is not None and count > most:
            raise ValueError(
                f"{motion.about.name} was trained on clips of at most {most} frames and got {count}: use at most {most}"
                " frames, put Context Windows before the sampler, or set positions of Apply Motion Module to stretch"
            )


@contextmanager
def _told(place: int, motion: Attached, known: MotionSampling, info: CallInfo) -> Iterator[Callable[[], bool]]:
    """While open, one motion model knows its call. Gives a function for afterwards: whether its modules ran, if any had to."""
    frames = known.frames(place, motion, info.times, info.step)
    longest = max((group.index.shape[1] for group in frames.groups), default=frames.count)
    check_frames((motion,), longest)
    past = known.past(place, motion, info.ids, info.rows, info.step)
    if past is not None:
        info.check_whole(f"what {motion.about.name} remembers of frames")
    network, ran = motion.model, torch.zeros(len(motion.model.names), dtype=torch.int32, device=info.ids.device)
    gains = gains_of(motion, info)
    with network.during(frames, gains, ran, past):
        yield lambda: _ran(motion, gains, ran)


def gains_of(motion: Attached, info: CallInfo) -> dict[str, Gain | None]:
    """How strongly each slot's module acts in a call; empty where all act plainly."""
    settings, percent_to_sigma = motion.about.settings, info.model.model_sampling.percent_to_sigma
    if settings.neutral:
        return {}
    masks = [strength.mask for keyframe in settings.keyframes for strength in (keyframe.effect, keyframe.scale)]
    part = info.part(f"the mask of {motion.about.name}") if any(mask is not None for mask in masks) else None
    gains = settings.gains(
        motion.model.names,
        motion.model.config.attentions,
        info.ids,
        info.levels,
        lambda percent: float(percent_to_sigma(percent)),
    )
    return gains if part is None else {slot: gain and gain.within(part) for slot, gain in gains.items()}


def _ran(motion: Attached, gains: dict[str, Gain | None], ran: Tensor) -> bool:
    """Whether every module that had to run did; False if none had to.

    Raises:
        RuntimeError: some did not.
    """
    wanted = [name for name in motion.model.names if gains.get(name, True) is not None]
    idle = [name for name, times in zip(motion.model.names, ran.tolist(), strict=True) if times == 0 and name in wanted]
    if idle:
        raise RuntimeError(
            f"{len(idle)} of {len(wanted)} motion modules of {motion.about.name} did not run, first {idle[0]}: another node has replaced"
            " layers of the U-Net; move Apply Motion Module behind it, or leave that node out"
        )
    if wanted:
        log.info("%s: %d of %d motion modules ran", motion.about.name, len(wanted), len(wanted))
    return bool(wanted)
