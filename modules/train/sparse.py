"""Training a SparseCtrl encoder on a frozen model: clips are shown to it by a few of their frames (arXiv:2311.16933, Section 3.3).

How many frames, and then which, is drawn anew for each clip, so that one encoder learns to animate, to fill in and to go on.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..noise import NoiseSchedule, frame_seed
from ..sparsectrl import SparseConfig, SparseControl
from ..temporal.motion import MotionModel, functions_of
from ..temporal.slots import fill
from ..unet import UNet
from ..video_model import VideoModelInfo, clean_prediction
from .denoising import Batch, Network, Objective, Source
from .native import frozen, named_parameters, per_frame
from .settings import RunSettings
from .task import Denoising
from .weights import WeightSettings

KEYFRAMES = "keyframes"  # in a batch's extra tensors: ``n f``, 1 for frames that the encoder is shown, else 0


def sparse_config(info: VideoModelInfo) -> SparseConfig:
    """The encoder for a native model: it takes latents, as the model does."""
    return SparseConfig(info.unet, info.latent_channels, temporal=replace(info.temporal, mask="full", mask_frames=0))


def with_keyframes(source: Source, seed: int) -> Source:
    """The same clips, each with some of its frames named at random: first how many, evenly from one to all, then which.

    Args:
        source: of clips.
        seed: of the run.
    """

    def keyed(step: int, places: range) -> Batch:
        batch = source(step, places)
        return replace(batch, extra={**batch.extra, KEYFRAMES: drawn(batch.clips.shape[1], seed, step, places)})

    return keyed


def drawn(frames: int, seed: int, step: int, places: range) -> Tensor:
    """Which frames are shown, for the clips at these places of a step's batch. Returns ``n frames``, 1 or 0."""
    rows = []
    for place in places:
        g = torch.Generator().manual_seed(frame_seed(seed, place, f"keyframes {step}"))
        count = 1 + int(torch.randint(0, frames, (), generator=g))
        row = torch.zeros(frames)
        row[torch.randperm(frames, generator=g)[:count]] = 1
        rows.append(row)
    return torch.stack(rows)


def conditions(clips: Tensor, keyframes: Tensor) -> Tensor:
    """What the encoder is shown: keyframes and a mask, zeros elsewhere.

    Args:
        clips: ``n f c h w``.
        keyframes: ``n f``, 1 or 0.

    Returns:
        condition: ``n f d h w``, the mask last.
    """
    mask = keyframes.to(clips)[:, :, None, None, None]
    return torch.cat([clips * mask, mask.expand(-1, -1, 1, *clips.shape[-2:])], dim=2)


def led_network(info: VideoModelInfo, unet: UNet, motion: MotionModel, control: SparseControl) -> Network:
    """A native model led by an encoder, as a network from noisy frames to clean ones; a batch says which frames are keyframes.

    Args:
        info: prediction type and noise schedule.
        unet: whose slots are filled for good.
        motion: its temporal modules.
        control: the encoder.
    """
    fill(unet, functions_of([motion]))
    schedule = NoiseSchedule.named(info.noise_schedule)

    def network(x: Tensor, sigma: Tensor, batch: Batch) -> Tensor:
        ids = torch.arange(x.shape[1], device=x.device)
        y, context = per_frame(batch.labels, len(ids), 2), per_frame(batch.context, len(ids), 3)
        shown = conditions(batch.clips, batch.extra[KEYFRAMES]).flatten(0, 1)
        t = schedule.timestep(sigma.flatten())
        residuals = control(shown, t, context, y, frames=control.motion.frames_for(ids))
        with motion.during(motion.frames_for(ids)):
            clean = clean_prediction(
                partial(unet, added=residuals), x.flatten(0, 1), sigma.flatten(), schedule, info.prediction, context=context, y=y
            )
        return clean.unflatten(0, x.shape[:2])

    return network


def sparse_task(
    info: VideoModelInfo,
    unet: UNet,
    motion: MotionModel,
    control: SparseControl,
    source: Source,
    settings: RunSettings,
    objective: Objective | None = None,
    facts: dict[str, Any] | None = None,
) -> Denoising:
    """Train an encoder; the model that it leads stays as it is.

    Args:
        info: of the model.
        unet: of the model.
        motion: of the model.
        control: what is trained.
        source: of clips.
        settings: of the run.
        objective: what is asked; None for one noise level per clip and errors of v that count alike.
        facts: what a checkpoint must agree with besides.
    """
    frozen(unet, motion)
    asked = objective or Objective(info.prediction, "shared", WeightSettings("capped_v", causal=False))
    return Denoising(
        led_network(info, unet, motion, control),
        named_parameters(control=control),
        with_keyframes(source, settings.seed),
        asked,
        NoiseSchedule.named(info.noise_schedule),
        settings,
        {"task": "sparse control", "encoder": control.sparse.facts(), **(facts or {})},
    )
