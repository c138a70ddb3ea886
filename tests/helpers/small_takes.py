"""Takes to disk on models of a few numbers, one for each sampler that finishes frames before its end."""

from pathlib import Path

import torch
from pack.modules.disk.frame_files import FrameFiles
from pack.modules.disk.recorder import Recorder
from pack.modules.disk.recording import Recording
from pack.modules.guidance.extension import Extension
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.sampling.endless import Endless
from pack.modules.sampling.fifo import Fifo
from pack.modules.sampling.forcing import Forcing
from pack.modules.sampling.job import Job
from pack.modules.sampling.noise_levels import EndlessLevels, NoiseLevels
from pack.modules.sampling.vdm import VdmSampler

SHAPE = (2, 2, 3)
TABLE = NoiseSchedule.named("cosine")


def mixing(view):
    """A model whose guess of a frame depends on all frames in the call, their places and levels."""
    level = view.sigma[:, None, None, None]
    mean = (view.x / (1 + level)).mean(dim=0, keepdim=True)
    return 0.6 * view.x / (1 + level**2) + 0.3 * mean + 0.01 * torch.sin(view.ids.float())[:, None, None, None]


def decode(latents):
    """``f c h w`` -> ``f h w c``, each frame by itself."""
    return torch.cat([latents, latents.mean(dim=1, keepdim=True)], dim=1).sigmoid().movedim(1, -1)


def endless(frames):
    return Endless(EndlessLevels("pyramid", 4, 1, 1, 0, frames), 8, eta=0.5), Job(mixing, torch.zeros(1, *SHAPE), TABLE.levels(4))


def forcing(frames):
    levels = NoiseLevels.named("pyramid", frames, 4, lag=1.0, known=2)
    latent = torch.zeros(frames, *SHAPE)
    latent[:2] = 0.3
    return Forcing(levels, 8), Job(mixing, latent, TABLE.levels(4))


def inbetween(frames):
    levels = NoiseLevels.named("trapezoid", frames, 4, lag=1.0, known=[0, frames - 1])
    latent = torch.zeros(frames, *SHAPE)
    latent[[0, -1]] = 0.3
    return Forcing(levels, frames), Job(mixing, latent, TABLE.levels(4))


def fifo(frames):
    return Fifo(2, 4, eta=0.5, frames=frames), Job(mixing, torch.zeros(1, *SHAPE), TABLE.levels(8), seed=3)


def extension(frames, backwards=False):
    latent = torch.zeros(frames, *SHAPE)
    latent[-3:] += 0.3 * backwards
    latent[:3] += 0.3 * (not backwards)
    sampler = VdmSampler(corrector_steps=0)
    return Extension(3, 6, 3, backwards=backwards, sampler=sampler), Job(mixing, latent, TABLE.levels(3))


def backwards(frames):
    return extension(frames, backwards=True)


SAMPLERS = (endless, forcing, inbetween, fifo, extension, backwards)


def made(folder, build=endless, frames=9, told=None, change=None, **given):
    """Make a take, or go on with it. Gives its recorder and its end."""
    sampler, job = build(frames)
    notes = []
    given = {"batch": 2, "every": 3, "told": lambda recorder: notes.append(recorder.text())} | given
    recording = Recording(FrameFiles(Path(folder), "frame"), decode, **given)
    with torch.no_grad(), Recorder(recording, sampler, job, lambda: told or {}) as recorder:
        steps = recorder.steps()
        try:
            while True:
                step = next(steps)
                recorder.watch(step)
                if change is not None:
                    change(recorder)
        except StopIteration as end:
            return recorder, end.value
        finally:
            steps.close()


def frames_in(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).glob("*.png"))}


class Stopped(Exception):
    """As a user stops it, or an error."""


def stopped_at(finished):
    def change(recorder):
        if recorder.now.finished >= finished:
            raise Stopped

    return change
