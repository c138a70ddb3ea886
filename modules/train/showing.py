"""Clips from a network while it is trained: what a user looks at to see whether anything is learned."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..disk.atomic import replacing
from ..noise.levels import NoiseSchedule
from ..noise.seeded import frame_noise
from .denoising import Batch, Network, without_conditions


@torch.no_grad()
def sampled(
    network: Network,
    told: Batch,
    schedule: NoiseSchedule,
    steps: int,
    cfg: float,
    seed: int,
    each: Callable[[], None] = lambda: None,
) -> Tensor:
    """Clips from noise that hangs on the seed and the frame alone, by Euler's method (arXiv:2206.00364, Section 3).

    Args:
        network: that denoises.
        told: its ``clips`` say how large, its conditions what to show; beside ``NAME`` in its ``extra``, ``no_NAME`` is what stands for
            nothing.
        schedule: of the network.
        steps: evenly spaced in timesteps.
        cfg: guidance scale; 1 for none.
        seed: of the noise.
        each: called before each step.

    Returns:
        clips: ``n f c h w``.
    """
    n, f, *shape = told.clips.shape
    levels = schedule.levels(steps).flip(0).tolist()
    x = frame_noise(shape, seed, range(n * f), "sample").unflatten(0, (n, f)).to(told.clips) * levels[0]
    nothing = without_conditions(told, torch.zeros(n, dtype=torch.bool, device=x.device))
    nothing = replace(nothing, extra={name: told.extra.get(f"no_{name}", value) for name, value in told.extra.items()})
    for sigma, lower in pairwise(levels):
        each()
        noisy = torch.full((n, f), sigma, device=x.device)
        clean = network(x, noisy, replace(told, clips=x))
        if cfg != 1:
            blank = network(x, noisy, replace(nothing, clips=x))
            clean = blank + cfg * (clean - blank)
        x = torch.lerp(clean, x, lower / sigma)
    return x


def write_clip(path: Path, images: Tensor, fps: float) -> None:
    """Frames as one animated WebP: ``images``: ``f h w 3`` in 0..1."""
    frames = [Image.fromarray(frame) for frame in (images.clamp(0, 1) * 255).round().byte().cpu().numpy()]
    with replacing(path) as draft:
        frames[0].save(draft, "WEBP", save_all=True, append_images=frames[1:], duration=round(1000 / fps), loop=0, quality=90)
