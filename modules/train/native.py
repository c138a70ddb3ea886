"""A LongTake model as a network to train, or to train something in: what ``denoising.py`` asks of a network, on this pack's own U-Net."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from ..checkpoints.video_model import VideoModelInfo, clean_prediction
from ..nets.unet import UNet
from ..noise.levels import NoiseSchedule
from ..temporal.frames import Frames
from ..temporal.gradients import checkpointed
from ..temporal.kinds import class_of
from ..temporal.masks import causal
from ..temporal.motion import MotionModel, functions_of
from ..temporal.slots import fill
from .denoising import Added, Batch, Network

MIDDLE_BLOCK = "mid_block"


def native_network(
    info: VideoModelInfo,
    unet: UNet,
    motions: Sequence[MotionModel] = (),
    *,
    beside: bool = False,
    gradient_checkpointing: bool = False,
    added: Added | None = None,
) -> Network:
    """The U-Net with these motion models in its slots as a network from noisy frames to clean ones.

    Args:
        info: prediction type and noise schedule.
        unet: whose slots are filled for good.
        motions: may be none, for an image model that sees each frame by itself.
        beside: the clean clip goes through the network too, before the noisy one, and noisy frames see its earlier frames.
        gradient_checkpointing: layers compute again when gradients come back, instead of keeping what they computed.
        added: what a control adds to skips and middle; None for no control.

    Raises:
        ValueError: clean clips are to stand beside noisy ones, and there are single pictures or hints as well.
    """
    fill(unet, functions_of(motions))
    schedule = NoiseSchedule.named(info.noise_schedule)

    def network(x: Tensor, sigma: Tensor, batch: Batch) -> Tensor:
        f = x.shape[1]
        if beside:
            x, sigma = _with_clean(x, sigma, batch, info)
        with ExitStack() as stack:
            for motion in motions:
                shown = two_streams(f, x.device) if beside else frames_of(motion, f, batch.images, x.device)
                stack.enter_context(motion.during(shown))
            if gradient_checkpointing:
                stack.enter_context(checkpointed(unet, motions, holders=motions))
            clean = clean_prediction(
                unet if added is None else partial(unet, added=added(sigma, batch)),
                x.flatten(0, 1),
                sigma.flatten(),
                schedule,
                info.prediction,
                beside=hints_of(info, batch),
                context=per_frame(batch.context, x.shape[1], 3),
                y=per_frame(batch.labels, x.shape[1], 2),
            )
        return clean.unflatten(0, x.shape[:2])[:, -f:]

    return network


def _with_clean(x: Tensor, sigma: Tensor, batch: Batch, info: VideoModelInfo) -> tuple[Tensor, Tensor]:
    """The clean frames before the noisy ones, and their noise level 0 before theirs."""
    if batch.images or info.hints:
        raise ValueError(
            "single pictures and hints have no past that could stand beside them: set images per clip to 0, or use another method"
        )
    return torch.cat([batch.clips, x], dim=1), torch.cat([torch.zeros_like(sigma), sigma], dim=1)


def two_streams(count: int, device: torch.device | str = "cpu") -> Frames:
    """Clean frames, then the same clip's noisy frames: clean ones see the past, a noisy one sees the clean past and itself.

    Args:
        count: frames of the clip.
        device: where they are.
    """
    times = torch.arange(count, device=device)
    past, same = causal(times), torch.eye(count, dtype=torch.bool, device=device)
    top = torch.cat([past, torch.zeros_like(past)], dim=1)
    bottom = torch.cat([past & ~same, same], dim=1)
    return Frames(2 * count, times.repeat(2), torch.cat([top, bottom]), streams=2)


def hints_of(info: VideoModelInfo, batch: Batch) -> Tensor | None:
    """What stands beside the noisy frames of a batch, from its extra tensor ``hints``, ``n f d h w``. Returns ``m d h w``, or None.

    Raises:
        ValueError: the model takes hints and the batch has none, or the other way round.
    """
    given = batch.extra.get("hints")
    if info.hints != (given is not None):
        has, takes = ("has", "takes no") if given is not None else ("has no", "takes")
        raise ValueError(f"the batch {has} hints and the model {takes} hints: give both or neither")
    return None if given is None else given.flatten(0, 1)


def per_frame(values: Tensor | None, frames: int, plain: int) -> Tensor | None:
    """Conditions with a row for every frame of every clip.

    Args:
        values: ``n ...``, one per clip if it has ``plain`` axes, else ``n f ...``; or None.
        frames: per clip.
        plain: axes of conditions that all frames share.

    Returns:
        values: ``m ...``, where ``m`` is ``(n f)``; or None.
    """
    if values is None:
        return None
    return values.repeat_interleave(frames, dim=0) if values.ndim == plain else values.flatten(0, 1)


def frames_of(motion: MotionModel, count: int, images: int, device: torch.device) -> Frames:
    """What a batch's frames are to a motion model: a clip, and behind it single pictures that see themselves alone.

    Joint image-video training of Ho et al. (arXiv:2204.03458, Section 3): no gradient crosses from one to the other.

    Args:
        motion: the model.
        count: frames and pictures together.
        images: pictures among them.
        device: where the frames are.
    """
    if not images:
        return motion.frames_for(torch.arange(count, device=device))
    clip = motion.frames_for(torch.arange(count - images, device=device))
    mask = torch.eye(count, dtype=torch.bool, device=device)
    mask[: count - images, : count - images] = True if clip.mask is None else clip.mask
    return Frames(count, torch.cat([clip.positions, clip.positions.new_zeros(images)]), mask, alone=images)


def frozen(*networks: nn.Module) -> None:
    """Take networks out of training: no gradients for their weights, no dropout."""
    for network in networks:
        network.requires_grad_(False).eval()


def named_parameters(**networks: nn.Module | None) -> dict[str, nn.Parameter]:
    """The trainable parameters of several networks, by ``name of the network.name``."""
    return {
        f"{part}.{name}": parameter
        for part, network in networks.items()
        if network is not None
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    }


def scoped(motion: MotionModel, train_blocks: Iterable[str]) -> MotionModel:
    """Let only some slots of a motion model train: those whose names begin with one of ``train_blocks``; all where it is empty. Returns it.

    A middle that has no module, as in AnimateDiff v1 and v3, has nothing to train and may be named all the same.

    Raises:
        ValueError: a word names no slot, or none of them does.
    """
    words = tuple(train_blocks)
    missing = [word for word in words if not any(name.startswith(word) for name in motion.names)]
    wrong = next((word for word in missing if word != MIDDLE_BLOCK or missing == list(words)), None)
    if wrong is not None:
        there = sorted({".".join(name.split(".")[:2]).removesuffix(".motion_modules") for name in motion.names})
        raise ValueError(f"train_blocks names {wrong!r}, where there is no motion module: choose among {', '.join(there)}")
    if words:
        for name in motion.names:
            motion.at(name).requires_grad_(name.startswith(words))
    return motion


def with_past_mask(info: VideoModelInfo, mask: str) -> VideoModelInfo:
    """The description with a temporal mask; recurrent modules see the past alone whatever is asked."""
    chosen = "causal" if class_of(info.temporal).past_only else mask
    return replace(info, temporal=replace(info.temporal, mask=chosen))
