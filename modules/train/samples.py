"""Clips sampled from a model that is being trained: the same seed every time, so that one sees the weights change and nothing else."""

from collections.abc import Generator

import torch
from torch import Tensor

from ..checkpoints.video_model import VideoModel, clean_prediction
from ..noise.levels import NoiseSchedule
from ..sampling.forcing import Forcing
from ..sampling.job import Job, Step
from ..sampling.model_view import View
from ..sampling.noise_levels import NoiseLevels

STEPS = 20


def sample_clip(
    video: VideoModel,
    prompt: str = "",
    *,
    schedule: str = "full_sequence",
    seed: int = 0,
    steps: int = STEPS,
    device: torch.device | str = "cpu",
    hints: Tensor | None = None,
) -> Tensor:
    """A clip of the length that the model is trained on.

    Args:
        video: the model.
        prompt: words of its labels; empty for anything.
        schedule: a name in ``schedules.SCHEDULES``.
        seed: of the noise.
        steps: of each frame.
        device: where to run it.
        hints: ``f d h w``, what a model that fills in between keyframes is told of them; its clip is as long.

    Returns:
        latents: ``f c h w``, on the CPU.

    Raises:
        ValueError: the prompt has words that the model does not know, or the model gave numbers that are not finite.
    """
    info = video.info
    y = info.label_vector(prompt).to(device) if info.labels else None
    noise = NoiseSchedule.named(info.noise_schedule)
    unet, motion = video.build()
    unet.to(device), motion.to(device)
    side = info.patch or 8  # pixels of a latent
    count = info.frames if hints is None else len(hints)
    shape = (count, info.latent_channels, info.size[0] // side, info.size[1] // side)

    def denoise(view: View) -> Tensor:
        with motion.during(motion.frames_for(view.ids)):
            labels = None if y is None else y.expand(len(view.x), -1)
            told = None if hints is None else hints.to(view.x)[view.ids]
            return clean_prediction(unet, view.x, view.sigma, noise, info.prediction, told, y=labels)

    with torch.no_grad():
        job = Job(denoise, torch.zeros(shape, device=device), noise.levels(steps), seed=seed)
        return _finished(Forcing(NoiseLevels.named(schedule, count, steps), window=count)(job)).cpu()


def _finished(steps: Generator[Step, None, Tensor]) -> Tensor:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
