"""Small models for tests: every part of a real one, a few thousand weights, and the same ones every time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pack.modules.checkpoints.video_model import VideoModel, VideoModelInfo, new_networks, slot_subset
from pack.modules.nets.unet import UNet
from pack.modules.nets.unet_config import UNetConfig
from pack.modules.temporal.transformer import TemporalConfig
from torch import nn

LABELS = ("disc", "square", "red", "blue")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from a known state inside, and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def config(**changes: Any) -> UNetConfig:
    """Two levels, one residual block each, attention at the second."""
    values: dict[str, Any] = {
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 32,  # ComfyUI builds its norms with 32 groups first, so no narrower
        "channel_mult": (1, 2),
        "num_res_blocks": (1, 1),
        "transformer_depth": (0, 1),
        "transformer_depth_output": (0, 0, 1, 1),
        "num_heads": 2,
        "groups": 8,
    }
    return UNetConfig(**(values | changes))


def unet(seed: int = 0, **changes: Any) -> UNet:
    """A U-Net with random weights, in evaluation mode, without gradients."""
    with seeded(seed):
        return UNet(config(**changes)).eval().requires_grad_(False)


def info(**changes: Any) -> VideoModelInfo:
    """A pixel-space model of 16x16 pictures with four labels."""
    shape = config(in_channels=48, out_channels=48, label_channels=len(LABELS))
    values: dict[str, Any] = {
        "unet": shape,
        "temporal": TemporalConfig(heads=2, attentions=1, groups=8, positions="rotary", mask="causal"),
        "slots": slot_subset(shape),
        "patch": 4,
        "frames": 8,
        "size": (16, 16),
        "labels": LABELS,
        "trained": {"data": "none: random weights"},
    }
    return VideoModelInfo(**(values | changes))


def video_model(seed: int = 0, **changes: Any) -> VideoModel:
    """``info(**changes)`` with random weights, the temporal modules' outputs among them: they do something."""
    about = info(**changes)
    with seeded(seed):
        networks: tuple[nn.Module, nn.Module] = new_networks(about)
    states = [{key: value.detach().clone() for key, value in network.state_dict().items()} for network in networks]
    return VideoModel(about, *states)
