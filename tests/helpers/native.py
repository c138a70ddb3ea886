"""A native video model on both hosts."""

import torch
from pack import host
from pack.modules.checkpoints.video_model import clean_prediction
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.sampling.job import Step
from pack.modules.sampling.model_view import View
from tiny import LABELS

FRAMES = 6


def label(seed=0, rows=1, size=len(LABELS)):
    """A CONDITIONING with a label vector and no text to speak of."""
    y = torch.rand(rows, size, generator=torch.Generator().manual_seed(seed))
    return [[torch.zeros(1, 1, 1), {"pooled_output": y}]]


def noise(frames=FRAMES, seed=0, channels=48, size=4):
    return torch.randn(frames, channels, size, size, generator=torch.Generator().manual_seed(seed))


def once(sigma, x):
    """An algorithm that asks the model one thing: the clean guess of ``x``."""

    def algorithm(job):
        clean = job.denoise(View.plain(x.to(job.latent), sigma.to(job.latent)))
        yield Step(1, 1, clean)
        return clean

    return algorithm


def standalone(video, x, sigma, y, ids=None):
    """The clean guess of our own networks with the same weights."""
    unet, motion = video.build()
    ids = torch.arange(len(x)) if ids is None else ids
    schedule = NoiseSchedule.named(video.info.noise_schedule)
    with torch.no_grad(), motion.during(motion.frames_for(ids)):
        return clean_prediction(unet, x, sigma, schedule, video.info.prediction, y=y.expand(len(x), -1))


def ask(model, positive, *, x, sigma, cfg=1.0, negative=None):
    return sample(model, positive, negative or label(9), cfg=cfg, latent=torch.zeros_like(x), algorithm=once(sigma, x))


def sample(model, positive, negative, *, seed=0, **given):
    """``host.sample`` with sigmas that do not matter to these algorithms."""
    return host.sample(model, positive, negative, seed=seed, sigmas=torch.tensor([0.0, 1.0]), **given)
