"""Training of small native models, for tests."""

import sys
from contextlib import contextmanager
from dataclasses import replace

import torch
from pack.modules.data.shapes import LABELS
from pack.modules.train import __main__ as command
from pack.modules.train import denoising
from pack.modules.train.native_models import small_video_model
from pack.modules.train.native_task import NativeChoices, NativeTask
from pack.modules.train.settings import RunSettings
from pack.modules.train.sources import FromShapes
from pack.modules.train.tasks.video_model import DEFAULTS

SHORT = RunSettings(steps=6, batch=2, learning_rate=2e-3, warmup=2)


def shapes_model(width=64, temporal="transformer"):
    """The pixel-space model of the procedural shapes: 4x4 patches, their words, causal in time."""
    return small_video_model(width, temporal, labels=LABELS)


def small(width=16, temporal="transformer", **changes):
    """The shapes' model with clips of four frames."""
    return replace(shapes_model(width, temporal), **{"frames": 4, **changes})


def native(info=None, settings=SHORT, source=None, **choices):
    """A task on the procedural shapes; ``choices`` are fields of ``NativeChoices`` or ``Options``."""
    own = {name: choices.pop(name) for name in NativeChoices.__dataclass_fields__ if name in choices}
    info, chosen, options = info or small(), NativeChoices(**own), replace(DEFAULTS, **choices)
    source = source or FromShapes(info, settings.batch, settings.seed, chosen.images)
    return NativeTask(info, chosen, options, settings, source)


def shaken(task):
    """Every weight away from where training starts, where half of the network is silent."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in task.parameters().values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=g))
    return task


@torch.no_grad()
def held_out_loss(task, clips=16):
    """The loss of the weights as they are, on clips that are not trained on."""
    job = task.denoising
    told = FromShapes(task.info, clips, 999)(0, range(clips))
    objective = replace(job.objective, dropout=0.0)
    each = denoising.losses(job.network, told, objective, job.schedule, seed=0, step=0, places=range(clips), total=clips)
    return each.mean().item()


@contextmanager
def one_thread():
    """While open, sums are taken in the order that one thread has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_command(monkeypatch, *words):
    """``python -m modules.train`` without a process of its own."""
    monkeypatch.setattr(sys, "argv", ["train", *map(str, words), "--threads", str(torch.get_num_threads())])
    return command.main()
