"""CameraCtrl's network (He et al., arXiv:2404.02101): an encoder of rays, and the layers that bring its features to a motion module.

The encoder is a T2I-Adapter (Mou et al., arXiv:2302.08453) whose residual blocks are each followed by attention over time; its state
dict has the release's keys. It knows the times of 16 frames; longer clips go through it in windows, as AnimateDiff-Evolved does it.

Differs from the reference: a feature map of odd size is halved upwards, as the U-Net halves its own, so any latent size works.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..temporal.frames import Frames, Group, Hint, way_back
from ..temporal.motion import HintModel
from ..temporal.picture_part import PicturePart
from ..temporal.slot_names import levels
from ..temporal.transformer import TemporalBlock, TemporalConfig, part_pixels
from ..temporal.windows import WindowPlan
from .camera import CameraPath, rays
from .encoders import BLOCKS, POSE_CHANNELS

FOLD = 8  # pixels to a side that become one pixel's channels, as many as a latent's pixel shows
FRAME_BATCH = 16  # frames that go through a convolution together


class Residual(nn.Module):
    """Two convolutions around a residual, on half the size where ``halved``."""

    def __init__(self, given: int, made: int, ops: Any, *, halved: bool):
        super().__init__()
        self.halved = halved
        self.in_conv = ops.Conv2d(given, made, 1) if given != made else nn.Identity()
        self.block1 = ops.Conv2d(made, made, 3, padding=1)
        self.block2 = ops.Conv2d(made, made, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: ``f c h w``. Returns ``f d p q``."""
        x = self.in_conv(F.avg_pool2d(x, 2, ceil_mode=True) if self.halved else x)
        return x + self.block2(F.relu(self.block1(x)))


class PoseEncoder(nn.Module):
    """Features of a camera's path, for each level of the U-Net.

    Args:
        widths: channels of each level, finest first.
        max_frames: how many times it knows.
        ops: where the layers come from.
        attention: ``(q, k, v) -> out``, all ``b heads n d``.
    """

    def __init__(
        self,
        widths: Sequence[int],
        max_frames: int = 16,
        ops: Any = nn,
        attention: Callable[..., Tensor] = F.scaled_dot_product_attention,
    ):
        super().__init__()
        self.max_frames, config = max_frames, TemporalConfig(attentions=1)
        self.encoder_conv_in = ops.Conv2d(POSE_CHANNELS, widths[0], 3, padding=1)
        self.encoder_down_conv_blocks = nn.ModuleList()
        self.encoder_down_attention_blocks = nn.ModuleList()
        for level, made in enumerate(widths):
            given = widths[max(0, level - 1)]
            pairs = [(given, made), *[(made, made)] * (BLOCKS - 1)]
            blocks = [Residual(*pair, ops, halved=place == 0 < level) for place, pair in enumerate(pairs)]
            self.encoder_down_conv_blocks.append(nn.ModuleList(blocks))
            self.encoder_down_attention_blocks.append(
                nn.ModuleList([TemporalBlock(made, config, ops, attention) for _ in range(BLOCKS)])
            )

    def forward(self, path: CameraPath, height: int, width: int, device: torch.device | str = "cpu") -> list[Tensor]:
        """Look along a path.

        Args:
            path: of all frames of a clip.
            height: of the latent.
            width: of the latent.
            device: where to compute.

        Returns:
            A tensor per level, finest first: frames, channels, height and width, in the precision of the weights.
        """
        frames = windows_of(len(path), self.max_frames, device)
        x = torch.cat([self._started(path, ids, height, width, device) for ids in torch.arange(len(path)).split(FRAME_BATCH)])
        features = []
        for residuals, attentions in zip(self.encoder_down_conv_blocks, self.encoder_down_attention_blocks, strict=True):
            for residual, attend in zip(residuals, attentions, strict=True):  # type: ignore[arg-type]
                x = torch.cat([residual(part) for part in x.split(FRAME_BATCH)])
                x = _over_time(x, attend, frames)
            features.append(x)
        return features

    def _started(self, path: CameraPath, ids: Tensor, height: int, width: int, device: torch.device | str) -> Tensor:
        """The first convolution of some frames: ``ids``: ``f``. Returns ``f c height width``."""
        seen = rays(path.at(torch.cat([ids.new_zeros(1), ids])), height * FOLD, width * FOLD, device)[
            1:
        ]  # the first is the world
        return self.encoder_conv_in(F.pixel_unshuffle(seen, FOLD).to(self.encoder_conv_in.weight.dtype))


def _over_time(x: Tensor, attend: TemporalBlock, frames: Frames) -> Tensor:
    """``x``: ``f c h w``. Returns ``f c h w``, computed for so many pixels at once as fit."""
    inner: Any = attend.attention_blocks[0]
    size = part_pixels(x.device.type, x.element_size() * x.shape[1], len(x), frames.rows, inner.heads)
    tokens = rearrange(x, "f c h w -> (h w) f c")
    return rearrange(torch.cat([attend(part, frames) for part in tokens.split(size)]), "(h w) f c -> f c h w", h=x.shape[2])


def windows_of(count: int, most: int, device: torch.device | str = "cpu") -> Frames:
    """How the encoder sees ``count`` frames when it knows ``most`` times: at once, or in windows that overlap by half."""
    whole = Frames.of(count, device)
    plan = WindowPlan(length=most, overlap=most // 2, fuse_at="module").windows(count)
    if plan is None:
        return whole
    ((index, weight),) = plan.groups
    places, weights = way_back([(index.to(device), weight.to(device))], count)
    group = Group(index.to(device), torch.arange(most, device=device))
    return Frames(count, whole.positions, None, (group,), places, weights, plan.fuse_at)


class CameraModel(HintModel):
    """A CameraCtrl module: the encoder, and a linear layer for the first attention of each slot on the way down and up.

    Args:
        widths: channels by slot.
        max_frames: how many times the encoder knows.
        ops: where the layers come from.
        attention: ``(q, k, v) -> out``, all ``b heads n d``.
    """

    def __init__(
        self,
        widths: dict[str, int],
        max_frames: int = 16,
        ops: Any = nn,
        attention: Callable[..., Tensor] = F.scaled_dot_product_attention,
    ):
        super().__init__()
        self.slots = tuple(widths)
        self.encoder = PoseEncoder(levels(widths), max_frames, ops, attention)
        self.merges = nn.ModuleDict({_key(slot): ops.Linear(width, width) for slot, width in widths.items()})

    def load(self, encoder: Mapping[str, Tensor], merges: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take a file's weights, the encoder's and each slot's; the network shares their memory."""
        state = {f"encoder.{key}": value for key, value in encoder.items()}
        for slot, merge in merges.items():
            state |= {f"merges.{_key(slot)}.{part}": value for part, value in merge.items()}
        self.load_state_dict(state, assign=True)

    def hints(
        self,
        path: CameraPath,
        height: int,
        width: int,
        *,
        strength: float = 1.0,
        device: torch.device | str = "cpu",
        part: PicturePart | None = None,
    ) -> dict[str, Hint]:
        """What each slot is told of a camera.

        Args:
            path: of all frames of a clip.
            height: of the latent.
            width: of the latent.
            strength: how much of it; 1 as trained.
            device: where to compute.
            part: of the picture, for a call that shows no more of it.
        """
        seen = self.encoder(path, height, width, device)
        features = [rearrange(x if part is None else part.cut(x), "f c h w -> (h w) f c").contiguous() for x in seen]
        return {slot: Hint(features[_level(slot, len(features))], self.merges[_key(slot)], strength) for slot in self.slots}


def _key(slot: str) -> str:
    return slot.replace(".", "/")  # a module's name has no dots


def _level(slot: str, count: int) -> int:
    """Which of ``count`` levels a slot is in, 0 for the finest."""
    side, level = slot.split(".")[:2]
    return int(level) if side == "down_blocks" else count - 1 - int(level)
