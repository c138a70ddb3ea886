"""Given pictures as inputs of the network: as channels beside the noisy latents, or as features beside its own.

Rows of ``MODES`` say what the network is told of a clip whose frames are given in part:

- ``inpaint``: nine channels of an inpainting checkpoint, whose mask is 0 where the picture is given and 1 where it is to be made.
- ``moonshot``: the same channels with MoonShot's mask, 1 where the picture is given (Zhang et al., arXiv:2401.01827, Section 3.3 and
  Figure 5): the first frame's latent in all frames.
- ``tempofunk``: the picture in all frames and a mask of 0 everywhere: "go on from here", as make-a-stable-diffusion-video and TempoFunk
  were trained; the given picture itself is not among the frames.
- ``pia``: the picture in all frames and in the mask how much each resembles it (Zhang et al., arXiv:2312.13964, Section 3.2), with the
  input layer that the module brings along.
- ``animatelcm_i2v``: an encoder's features of the picture, added to those of the U-Net (Wang et al., arXiv:2402.00769, Section 4.3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..fields.setting import check, documented, setting
from ..temporal.positions import sinusoid
from .encoders import BLOCKS, LATENT_CHANNELS
from .keyframe_blend import nearest_of
from .keyframes import Keyframes

MODES = {
    "auto": "The model says which of the others it is.",
    "inpaint": "The mask is 0 where the picture is given and 1 where it is to be made.",
    "moonshot": "The mask is 1 where the picture is given.",
    "tempofunk": "The clip goes on from the picture, which is not among its frames.",
    "pia": "The motion module PIA is told how much each frame resembles the picture.",
    "animatelcm_i2v": "The motion module AnimateLCM-I2V is shown an encoder's features of the picture.",
}
CHANNELS = ("inpaint", "moonshot", "tempofunk")  # those that an inpainting checkpoint takes
MOTION = "moderate"
PIA_CHANNELS = 9  # of PIA's input layer: noisy latent, mask, latent of the picture

# how much frames resemble the picture, from its own on: the authors' (PIA, ``animatediff/utils/util.py``, RANGE_LIST)
AFFINITIES: dict[str, tuple[float, ...]] = {
    "small": (1.0, 0.9, 0.85, 0.85, 0.85, 0.8),
    "moderate": (1.0, 0.8, 0.8, 0.8, 0.79, 0.78, 0.75),
    "large": (1.0, 0.8, *[0.7] * 8, 0.6, 0.5, 0.5),
    "small loop": (1.0, 0.9, *[0.85] * 3, *[0.8] * 7, 0.85, 0.85, 0.9, 1.0),
    "moderate loop": (1.0, *[0.8] * 3, 0.79, 0.78, *[0.75] * 5, 0.78, 0.79, 0.8, 0.8, 1.0),
    "large loop": (1.0, 0.8, *[0.7] * 4, 0.6, 0.5, 0.5, 0.6, *[0.7] * 4, 0.8, 1.0),
    "small restyling": (0.5, *[0.4] * 3, 0.35, 0.3),
    "moderate restyling": (0.5, *[0.4] * 3, 0.35, 0.35, 0.3, 0.25, 0.2),
    "large restyling": (0.5, 0.2),
}


@documented
@dataclass(frozen=True)
class FirstFrameSettings:
    """What a user can set about given pictures."""

    mode: str = setting("auto", "The mode is the way in which the network is told of the picture.", menu=MODES)
    motion: str = setting(
        MOTION,
        "For PIA, motion says how far frames may move away from the picture. A loop comes back to it, and restyling follows it loosely from"
        " the start.",
        menu=AFFINITIES.keys(),
    )
    strength: float = setting(
        1.0,
        "The strength says how much the picture counts: it is a factor on masks, on PIA's resemblance and on the encoder's features. 0 is"
        " nothing, 1 is as trained.",
        least=0.0,
        most=2.0,
        step=0.01,
        advanced=True,
    )
    drift: float = setting(
        0.8,
        "For AnimateLCM-I2V, drift says how much frames are told to move away from the picture.",
        least=0.0,
        most=10.0,
        step=0.01,
        aliases=("motion_scale",),
        advanced=True,
    )

    def __post_init__(self) -> None:
        check(self)


def given_pictures(image: Tensor | None, keyframes: Keyframes | None) -> Keyframes:
    """Keyframes as they are, or a picture as that of the first frame: ``image``: ``n h w c``, one of them, or None.

    Raises:
        ValueError: there is none, or there are both, or several pictures without times.
    """
    if (image is None) == (keyframes is None):
        said = "neither image nor keyframes is" if image is None else "image and keyframes are both"
        raise ValueError(f"{said} connected: connect image for the first frame, or keyframes for pictures with times")
    if keyframes is not None:
        return keyframes
    assert image is not None
    if len(image) != 1:
        raise ValueError(
            f"image holds {len(image)} pictures and a clip has one first frame: connect them by Keyframes, with their times"
        )
    return Keyframes(image, (0,), (1.0,), (0,))


def affinity(motion: str, count: int, frame: int = 0) -> Tensor:
    """How much each frame of a clip resembles the picture of one of them.

    Beyond the end of the authors' list its last number goes on. A loop ends at its first picture whatever its length: its list, for 16
    frames, is stretched or squeezed. (Differs from the reference, whose loops stand still after 16 frames.)

    Args:
        motion: a name in ``AFFINITIES``.
        count: frames of the clip.
        frame: whose picture it is.

    Returns:
        coefficients: ``f``, in 0..1.
    """
    listed = torch.tensor(AFFINITIES[motion])
    if motion.endswith("loop") and count > 1 and count != len(listed):
        listed = F.interpolate(listed[None, None], size=count, mode="linear", align_corners=True)[0, 0]
    return listed[(torch.arange(count) - frame).abs().clamp(max=len(listed) - 1)]


def channels_of(latents: Tensor, keyframes: Keyframes, count: int, settings: FirstFrameSettings) -> Tensor:
    """What stands beside the noisy latents in each frame: mask, then latents of the nearest given picture.

    Args:
        latents: ``k c h w``, of the keyframes in order of time, in the model's numbers.
        keyframes: as ``Keyframes.at`` gives them.
        count: frames of the clip.
        settings: mode, motion, strength.

    Returns:
        channels: ``f d h w``, where ``d`` is c + 1.
    """
    held = latents[nearest_of(keyframes, count)]
    weights = (keyframes.weights(count) * settings.strength).clamp(max=1)
    if settings.mode == "pia":
        near = torch.stack([affinity(settings.motion, count, frame) for frame in keyframes.frames])
        mask = (near * torch.tensor(keyframes.strengths)[:, None] * settings.strength).amax(dim=0)
    else:
        given = weights.amax(dim=0)
        mask = {"inpaint": 1 - given, "moonshot": given, "tempofunk": torch.zeros(count)}[settings.mode]
    return torch.cat([mask.to(held).view(-1, 1, 1, 1).expand(-1, -1, *held.shape[2:]), held], dim=1)


class PiaInput(nn.Module):
    """PIA's input layer, in the place of the U-Net's while it is told of a picture.

    Args:
        width: channels that come out.
        ops: where the layers come from.
    """

    def __init__(self, width: int, ops: Any = nn):
        super().__init__()
        self.conv_in = ops.Conv2d(PIA_CHANNELS, width, 3, padding=1)

    def forward(self, x: Tensor, channels: Tensor) -> Tensor:
        """``x``: ``n c h w``, ``channels``: ``f d h w``, for each of the clips in the batch. Returns ``n o h w``."""
        return self.conv_in(torch.cat([x, channels.to(x).repeat(len(x) // len(channels), 1, 1, 1)], dim=1))


class PictureEncoder(nn.Module):
    """AnimateLCM-I2V's encoder: features of a picture's latents for each level of the U-Net; the state dict has the file's keys.

    Args:
        widths: channels of each level, finest first.
        ops: where the layers come from.
    """

    def __init__(self, widths: Sequence[int], ops: Any = nn):
        super().__init__()
        self.conv_in = ops.Conv2d(LATENT_CHANNELS, widths[0], 3, padding=1)
        pairs = [
            (widths[max(0, level - (place == 0))], made, place == 0 < level)
            for level, made in enumerate(widths)
            for place in range(BLOCKS)
        ]
        self.body = nn.ModuleList([_Residual(given, made, ops, halved=halved) for given, made, halved in pairs])

    def forward(self, latents: Tensor, drift: float) -> list[Tensor]:
        """Look at the given latents of a clip.

        Args:
            latents: ``f c h w``, in the model's numbers.
            drift: how much of the frame's time is added, by which the encoder knows how far it may have moved.

        Returns:
            A tensor per level, finest first: frames, channels, height and width.
        """
        x = self.conv_in(latents.to(self.conv_in.weight.dtype))
        times = sinusoid(torch.arange(len(x), device=x.device), x.shape[1])
        x = x + drift * times[:, :, None, None].to(x)
        features = []
        for place, block in enumerate(self.body):
            x = block(x)
            if place % BLOCKS == BLOCKS - 1:
                features.append(x)
        return features


class _Residual(nn.Module):
    """Two convolutions around a residual, on half the size where ``halved``; a picture of odd size is repeated at its border."""

    def __init__(self, given: int, made: int, ops: Any, *, halved: bool):
        super().__init__()
        self.halved = halved
        if given != made:
            self.in_conv = ops.Conv2d(given, made, 1)
        self.block1 = ops.Conv2d(made, made, 3, padding=1)
        self.block2 = ops.Conv2d(made, made, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.halved:
            height, width = x.shape[-2:]
            x = F.avg_pool2d(F.pad(x, (0, width % 2, 0, height % 2), mode="replicate"), 2)
        if hasattr(self, "in_conv"):
            x = self.in_conv(x)
        return x + self.block2(F.relu(self.block1(x)))


def slots_of(features: Sequence[Tensor]) -> Mapping[str, Tensor]:
    """Where AnimateLCM-I2V's features go: before the second motion module of each level on the way down."""
    return {f"down_blocks.{level}.motion_modules.{BLOCKS - 1}": feature for level, feature in enumerate(features)}
