"""SparseCtrl's encoder: from pictures of a few frames to what is added to every frame's features.

Guo et al., arXiv:2311.16933, Section 3.2. It is the way down and the middle of the U-Net that it guides, with temporal modules of its own
that carry the pictures to the frames that have none. The noisy input is left out: all that it sees is each frame's condition, and a mask
that says whether there is one. What it gives is added to the U-Net's skips and to its middle.

Pictures come as latents, which one convolution takes in, or as pixels, which a stem of strided convolutions shrinks to the latents' size.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nets.unet import Attention, UNet, timestep_embedding
from ..nets.unet_config import UNetConfig
from ..temporal.config import TemporalConfig
from ..temporal.frames import Frames
from ..temporal.motion import MotionModel
from ..temporal.slots import BlockedUNet, anchor, widths

STEM = (16, 32, 96, 256)  # widths of the published stem, each but the first at half the size of the one before


@dataclass(frozen=True)
class SparseConfig:
    """The whole architecture.

    Attributes:
        unet: of the U-Net that is guided; its way up is not built.
        condition: channels of a frame's condition, the mask not counted: 4 for latents, 3 for pixels.
        stem: widths of the convolutions that pixels go through; empty for latents.
        masked: whether a mask channel follows the condition.
        temporal: of the temporal modules.
    """

    unet: UNetConfig = field(default_factory=lambda: UNetConfig(context_dim=768))
    condition: int = 4
    stem: tuple[int, ...] = ()
    masked: bool = True
    temporal: TemporalConfig = field(default_factory=lambda: TemporalConfig(attentions=1))

    @property
    def shrink(self) -> int:
        """How many of the condition's pixels are one of the features', each way."""
        return 2 ** max(0, len(self.stem) - 1)

    def facts(self) -> dict[str, Any]:
        """The fields by name, for a file."""
        return {**asdict(self), "unet": self.unet.facts(), "temporal": self.temporal.facts()}


def output_widths(config: UNetConfig) -> list[int]:
    """Channels of every skip that a U-Net makes; its middle is as wide as the last.

    >>> output_widths(UNetConfig())
    [320, 320, 320, 320, 640, 640, 640, 1280, 1280, 1280, 1280, 1280]
    """
    made, last = [config.model_channels], len(config.channel_mult) - 1
    for level, (mult, blocks) in enumerate(zip(config.channel_mult, config.num_res_blocks, strict=True)):
        made += [config.model_channels * mult] * (blocks + (level != last))
    return made


def down_widths(unet: BlockedUNet) -> dict[str, int]:
    """Channels at every slot of the way down, where the temporal modules are."""
    return {name: width for name, width in widths(unet).items() if name.startswith("down_blocks.")}


class Stem(nn.Module):
    """From pixels to features: pairs of convolutions, the second of each at half the size."""

    def __init__(self, channels: int, stem: tuple[int, ...], out_channels: int, ops: Any):
        super().__init__()
        self.conv_in = ops.Conv2d(channels, stem[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for given, made in pairwise(stem):
            self.blocks.append(ops.Conv2d(given, given, 3, padding=1))
            self.blocks.append(ops.Conv2d(given, made, 3, padding=1, stride=2))
        self.conv_out = ops.Conv2d(stem[-1], out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Shrink ``x``: ``n c h w``. Returns ``n k p q``."""
        x = F.silu(self.conv_in(x))
        for layer in self.blocks:
            x = F.silu(layer(x))
        return self.conv_out(x)


class SparseControl(UNet):
    """The encoder.

    Args:
        config: the architecture.
        ops: where the layers come from.
        attention: ``(q, k, v) -> out``, all ``b heads n d``.
    """

    def __init__(self, config: SparseConfig, ops: Any = nn, attention: Attention = F.scaled_dot_product_attention):
        super().__init__(config.unet, ops, attention)
        self.sparse = config
        self.slot_widths = down = down_widths(self)
        del self.output_blocks, self.out
        self.motion = MotionModel(down, config.temporal, ops, attention)
        names = iter(down)
        self.slots = [None if anchor(block) is None else next(names) for block in list(self.input_blocks)[1:]]
        outputs = output_widths(config.unet)
        channels, width = config.condition + config.masked, config.unet.model_channels
        self.condition = Stem(channels, config.stem, width, ops) if config.stem else ops.Conv2d(channels, width, 3, padding=1)
        self.zero_convs = nn.ModuleList([ops.Conv2d(made, made, 1) for made in outputs])
        self.middle_block_out = ops.Conv2d(outputs[-1], outputs[-1], 1)

    def started(self, unet: nn.Module, motion: MotionModel) -> "SparseControl":
        """Begin as a copy of what it will guide, and give nothing but zeros yet, as training starts. Returns itself.

        The authors begin their temporal modules anew and the condition's layer at zero. Here temporal modules that are built alike are
        copied, too, and latents enter as the U-Net's noisy ones do: what it sees of a keyframe makes sense from the first step on.

        Args:
            unet: whose way down and middle are copied.
            motion: whose temporal modules are, where they are of the same kind.
        """
        mine = self.state_dict()
        theirs = {**unet.state_dict(), **{f"motion.{key}": value for key, value in motion.state_dict().items()}}
        alike = {key: value for key, value in theirs.items() if key in mine and mine[key].shape == value.shape}
        self.load_state_dict(alike, strict=False)
        entrance = unet.state_dict()["input_blocks.0.0.weight"]
        if not self.sparse.stem and entrance.shape[1] == self.sparse.condition:
            with torch.no_grad():
                self.condition.weight[:, : self.sparse.condition] = entrance  # type: ignore[index]
        return self.zero()

    def zero(self) -> "SparseControl":
        """Give nothing but zeros: what it guides is as without. Returns itself."""
        for layer in (*self.zero_convs, self.middle_block_out):
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        return self

    def forward(  # type: ignore[override]  # the condition stands where the noisy frames do in a U-Net
        self,
        condition: Tensor,
        t: Tensor,
        context: Tensor | None = None,
        y: Tensor | None = None,
        *,
        strength: Tensor | None = None,
        frames: Frames | None = None,
        chunk: int = 0,
    ) -> list[Tensor]:
        """What is added to each skip of the U-Net, in the order in which it makes them, and last to its middle.

        Args:
            condition: ``n k p q``, zeros where a frame has none; the mask channel last, 1 where it has one.
            t: ``n``, timestep of each frame.
            context: ``n l d``, text or label tokens, or None.
            y: ``n m``, label vector of each frame, if the U-Net takes one.
            strength: ``n``, how much of each frame's condition counts: 0 as if it had none, 1 all of it; None for 1.
            frames: how ``n`` divides into clips; None lets every frame alone, so that frames without a condition get nothing of others'.
            chunk: frames that go through a layer at once, to save memory; 0 for all.

        Returns:
            residuals: for each ``n c h w``.
        """
        emb = self.time_embed(timestep_embedding(t, self.config.model_channels).to(condition.dtype))
        if y is not None:
            emb = emb + self.label_emb(y.to(condition.dtype))
        over_time = self.motion.slot_functions()
        h = _in_parts(self._entered, chunk, condition, strength)
        residuals = [self.zero_convs[0](h)]
        with nullcontext() if frames is None else self.motion.during(frames):
            for block, slot, zero in zip(self.input_blocks[1:], self.slots, self.zero_convs[1:], strict=True):
                h = _in_parts(block, chunk, h, emb, context)
                h = h if slot is None else over_time[slot](h)
                residuals.append(zero(h))
        h = _in_parts(self.middle_block, chunk, h, emb, context)
        return [*residuals, self.middle_block_out(h)]

    def _entered(self, condition: Tensor, strength: Tensor | None) -> Tensor:
        """The condition where a U-Net takes in noisy frames: ``condition``: ``n k p q``, ``strength``: ``n``. Returns ``n c h w``."""
        features = self.condition(condition)
        if strength is not None:  # of what the condition adds to having none
            nothing = self.condition(torch.zeros_like(condition[:1]))
            features = torch.lerp(nothing.expand_as(features), features, strength.to(features)[:, None, None, None])
        noisy = features.new_zeros(1, self.config.in_channels, *features.shape[-2:])
        first: Any = self.input_blocks[0]
        return first[0](noisy) + features


def _in_parts(layer: Callable[..., Tensor], size: int, x: Tensor, *others: Tensor | None) -> Tensor:
    """A layer that sees each frame by itself, some frames at once: ``x``: ``n ...``, the others alike or None. Returns ``n ...``."""
    if not 0 < size < len(x):
        return layer(x, *others)
    rows = [slice(start, start + size) for start in range(0, len(x), size)]
    return torch.cat([layer(x[some], *(None if other is None else other[some] for other in others)) for some in rows])
