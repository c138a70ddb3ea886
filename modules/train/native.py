"""A LongTake model as a network to train, or to train something in: what ``denoising.py`` asks of a network, on this pack's own U-Net."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..noise import NoiseSchedule
from ..temporal.frames import Frames
from ..temporal.kinds import class_of
from ..temporal.motion import MotionModel, functions_of
from ..temporal.slots import fill
from ..unet import UNet
from ..video_model import VideoModelInfo, clean_prediction
from .denoising import Batch, Network


def native_network(info: VideoModelInfo, unet: UNet, motions: Sequence[MotionModel] = ()) -> Network:
    """The U-Net with these motion models in its slots as a network from noisy frames to clean ones.

    Args:
        info: prediction type and noise schedule.
        unet: whose slots are filled for good.
        motions: may be none, for an image model that sees each frame by itself.

    Raises:
        ValueError: single pictures stand beside clips in a batch and a motion model carries a state from frame to frame.
    """
    fill(unet, functions_of(motions))
    schedule = NoiseSchedule.named(info.noise_schedule)

    def network(x: Tensor, sigma: Tensor, batch: Batch) -> Tensor:
        f = x.shape[1]
        with ExitStack() as stack:
            for motion in motions:
                stack.enter_context(motion.during(frames_of(motion, f, batch.images, x.device)))
            clean = clean_prediction(
                unet,
                x.flatten(0, 1),
                sigma.flatten(),
                schedule,
                info.prediction,
                context=per_frame(batch.context, f, 3),
                y=per_frame(batch.labels, f, 2),
            )
        return clean.unflatten(0, x.shape[:2])

    return network


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

    Raises:
        ValueError: the model carries a state from frame to frame, so pictures behind a clip would be part of it.
    """
    if not images:
        return motion.frames_for(torch.arange(count, device=device))
    if motion.recalls:
        raise ValueError("single pictures cannot stand beside clips of a recurrent model: set images per clip to 0")
    clip = motion.frames_for(torch.arange(count - images, device=device))
    mask = torch.eye(count, dtype=torch.bool, device=device)
    mask[: count - images, : count - images] = True if clip.mask is None else clip.mask
    return Frames(count, torch.cat([clip.positions, clip.positions.new_zeros(images)]), mask)


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


def scoped(motion: MotionModel, scope: Iterable[str]) -> MotionModel:
    """Let only some slots of a motion model train: those whose names begin with a word of ``scope``; all where it is empty. Returns it.

    Raises:
        ValueError: a word names no slot.
    """
    words = tuple(scope)
    for word in words:
        if not any(name.startswith(word) for name in motion.names):
            raise ValueError(
                f"the scope {word!r} names no motion module: choose among down_blocks, mid_block, up_blocks.1 and so on"
            )
    if words:
        for name in motion.names:
            motion.at(name).requires_grad_(name.startswith(words))
    return motion


def with_past_mask(info: VideoModelInfo, mask: str) -> VideoModelInfo:
    """The description with a temporal mask; recurrent modules see the past alone whatever is asked."""
    chosen = "causal" if class_of(info.temporal).past_only else mask
    return replace(info, temporal=replace(info.temporal, mask=chosen))
