"""One training step's loss: noise a batch of clips, let the model undo it, compare.

The loss is the squared error of the clean frames in units of ``v`` (Salimans and Ho, arXiv:2202.00512, Section 4), that is weighted
by ``1 + 1/sigma^2``, capped (as in Hang et al., arXiv:2303.09556) so that almost clean frames do not drown the rest.

Methods differ only in the noise levels, in who sees whom, and in whether the true past stands beside the noisy frames: ``forcing``
(Diffusion Forcing, which looks back in time), ``both_ways`` (the same, looking both ways, as DFoT does, arXiv:2502.06764), ``teacher``
(next-frame diffusion on the true past) and ``full`` (all frames at one level).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..noise import PREDICTIONS, NoiseSchedule, broadcast
from ..temporal.frames import Frames
from ..temporal.masks import causal
from ..temporal.motion import MotionModel
from ..unet import UNet
from .levels import LEVELS


@dataclass(frozen=True)
class Method:
    """A row of choices."""

    levels: str  # a name in levels.LEVELS
    mask: str  # the temporal mask of the finished model
    beside: bool = False  # the clean clip goes through the model too, and noisy frames see its earlier frames


METHODS: dict[str, Method] = {
    "forcing": Method("forcing", "causal"),
    "both_ways": Method("forcing", "full"),
    "teacher": Method("independent", "causal", beside=True),
    "full": Method("shared", "full"),
}
WEIGHT_CAP = 5.0


def two_streams(frames: int) -> Frames:
    """Clean frames, then the same clip's noisy frames: clean ones see the past, a noisy one sees the clean past and itself."""
    times = torch.arange(frames)
    past, same = causal(times), torch.eye(frames, dtype=torch.bool)
    top = torch.cat([past, torch.zeros_like(past)], dim=1)
    bottom = torch.cat([past & ~same, same], dim=1)
    return Frames(2 * frames, times.repeat(2), torch.cat([top, bottom]), streams=2)


def clip_loss(
    unet: UNet,
    motion: MotionModel,
    clips: Tensor,
    labels: Tensor | None,
    *,
    method: Method,
    schedule: NoiseSchedule,
    prediction: str,
    g: torch.Generator,
) -> Tensor:
    """The loss of one batch.

    Args:
        unet: the spatial network, its slots filled with ``motion``.
        motion: the temporal modules.
        clips: ``b f c h w``, clean latents.
        labels: ``b l``, label vectors, or None.
        method: a row of ``METHODS``.
        schedule: noise schedule of the model.
        prediction: what the network predicts, a name in ``noise.PREDICTIONS``.
        g: source of all randomness.

    Returns:
        loss: ``()``.
    """
    count, frames = clips.shape[:2]
    t = LEVELS[method.levels](count, frames, len(schedule.sigmas), g)
    noise = torch.randn(clips.shape, generator=g)
    s = schedule.sigmas[t.flatten()]
    wide = broadcast(s, clips.flatten(0, 1)).view(count, frames, 1, 1, 1)
    scaled = (clips + wide * noise) / (wide**2 + 1).sqrt()
    if method.beside:
        scaled, t = torch.cat([clips, scaled], dim=1), torch.cat([torch.zeros_like(t), t], dim=1)
        shown = two_streams(frames)
    else:
        shown = motion.frames_for(torch.arange(frames))
    y = None if labels is None else labels.repeat_interleave(shown.count, dim=0)
    with motion.during(shown):
        output = unet(scaled.flatten(0, 1), t.flatten(), None, y)
    output = output.view(count, shown.count, *clips.shape[2:])[:, -frames:]
    clean = PREDICTIONS[prediction].clean(clips + wide * noise, output, wide)
    weight = (1 + wide**-2).clamp(max=WEIGHT_CAP)
    return (weight * (clean - clips) ** 2).mean()
