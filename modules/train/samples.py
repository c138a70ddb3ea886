"""Clips sampled from a network while it is trained: always from the same noise, so that one sees the weights change and nothing else."""

from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..disk.atomic import replacing
from ..noise.levels import NoiseSchedule
from ..sampling.forcing import Forcing
from ..sampling.job import Job, Step
from ..sampling.model_view import Denoise, View
from ..sampling.noise_levels import NoiseLevels
from .denoising import Batch, Network, without_conditions


def sample_clip(
    denoise: Denoise,
    like: Tensor,
    noise: NoiseSchedule,
    *,
    schedule: str = "full_sequence",
    steps: int = 20,
    seed: int = 0,
    each: Callable[[], None] = lambda: None,
) -> Tensor:
    """A clip from noise that hangs on the seed and the frame alone.

    Args:
        denoise: the network with what it is told.
        like: ``f c h w``, as large as the clip and where it is made.
        noise: of the network's timesteps.
        schedule: when each frame moves, a name in ``schedules.SCHEDULES``.
        steps: of each frame.
        seed: of the noise.
        each: called before each call.

    Returns:
        latents: ``f c h w``.

    Raises:
        ValueError: the network gave numbers that are not finite.
    """

    def asked(view: View) -> Tensor:
        each()
        return denoise(view)

    with torch.no_grad():
        job = Job(asked, torch.zeros_like(like), noise.levels(steps), seed=seed)
        return _finished(Forcing(NoiseLevels.named(schedule, len(like), steps), window=len(like))(job))


def _finished(steps: Generator[Step, None, Tensor]) -> Tensor:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def guided(network: Network, told: Batch, cfg: float) -> Denoise:
    """A network that is trained as one that whole clips are sampled with.

    Args:
        network: of clips.
        told: one clip, whose conditions say what to show; beside ``NAME`` in its ``extra``, ``no_NAME`` is what stands for nothing.
        cfg: guidance scale (arXiv:2207.12598); 1 for none.
    """
    nothing = without_conditions(told, torch.zeros(1, dtype=torch.bool, device=told.clips.device))
    nothing = replace(nothing, extra={name: told.extra.get(f"no_{name}", value) for name, value in told.extra.items()})

    def denoise(view: View) -> Tensor:
        x, sigma = view.x[None], view.sigma[None]
        clean = network(x, sigma, replace(told, clips=x))
        if cfg != 1:
            blank = network(x, sigma, replace(nothing, clips=x))
            clean = blank + cfg * (clean - blank)
        return clean[0]

    return denoise


def write_clip(path: Path, images: Tensor, fps: float) -> None:
    """Frames as one animated WebP: ``images``: ``f h w 3`` in 0..1."""
    frames = [Image.fromarray(frame) for frame in (images.clamp(0, 1) * 255).round().byte().cpu().numpy()]
    with replacing(path) as draft:
        frames[0].save(draft, "WEBP", save_all=True, append_images=frames[1:], duration=round(1000 / fps), loop=0, quality=90)
