"""The shapes of the encoders that come with some motion modules, from their authors' code: what a complete file must hold.

AnimateLCM-I2V's picture encoder and CameraCtrl's pose encoder are both T2I-Adapters (Mou et al., arXiv:2302.08453) without learned
downsampling: per level of the U-Net two residual blocks, the first of which halves the picture and widens it.
"""

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from torch import nn

from ..nets.unfilled import unfilled
from ..temporal.transformer import TemporalBlock, TemporalConfig

Shapes = dict[str, tuple[int, ...]]

BLOCKS = 2  # residual blocks per level
POSE_CHANNELS = 6 * 8 * 8  # Pluecker coordinates of each pixel's ray, eight by eight pixels folded into one
LATENT_CHANNELS = 4


def _conv(name: str, given: int, made: int, size: int) -> Shapes:
    return {f"{name}.weight": (made, given, size, size), f"{name}.bias": (made,)}


def _residual(name: str, given: int, made: int) -> Shapes:
    first = _conv(f"{name}.in_conv", given, made, 1) if given != made else {}
    return first | _conv(f"{name}.block1", made, made, 3) | _conv(f"{name}.block2", made, made, 1)


def _blocks(levels: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """(level, block, channels in, channels out) of every residual block."""
    for level, made in enumerate(levels):
        for block in range(BLOCKS):
            yield level, block, levels[level - 1] if block == 0 and level > 0 else made, made


def image_encoder_shapes(levels: Sequence[int]) -> Shapes:
    """Every weight of AnimateLCM-I2V's encoder for a U-Net with these widths, finest first."""
    shapes = _conv("conv_in", LATENT_CHANNELS, levels[0], 3)
    for level, block, given, made in _blocks(levels):
        shapes |= _residual(f"body.{level * BLOCKS + block}", given, made)
    return shapes


def pose_encoder_shapes(levels: Sequence[int]) -> Shapes:
    """Every weight of CameraCtrl's encoder for a U-Net with these widths, finest first; position tables not counted."""
    shapes = _conv("encoder_conv_in", POSE_CHANNELS, levels[0], 3)
    for level, block, given, made in _blocks(levels):
        shapes |= _residual(f"encoder_down_conv_blocks.{level}.{block}", given, made)
        with unfilled():
            attention = TemporalBlock(made, TemporalConfig(attentions=1), nn, F.scaled_dot_product_attention)
        prefix = f"encoder_down_attention_blocks.{level}.{block}."
        shapes |= {prefix + key: tuple(value.shape) for key, value in attention.state_dict().items()}
    return shapes
