"""What nodes that train in a frozen model do alike: clips through VAE and text encoder, the run with all that is seen of it, the file."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ... import host
from ...modules.checkpoints.motion import MotionModule
from ...modules.data.cache import EncodedClips
from ...modules.data.clips import ClipDataset
from ...modules.train.base import Base
from ...modules.train.options import KINDS, Options
from ...modules.train.settings import RunSettings
from ...modules.train.showing import write_clip
from ...modules.train.teaching import Files, Teaching
from .data import ticker

io = host.io


@dataclass(frozen=True, eq=False)
class Taught:
    """A finished training.

    Attributes:
        path: of the file.
        name: of the file, below the folder of its kind.
        plot: the loss, ``1 h w 3``.
        sample: a clip, ``f h w c`` in 0..1.
        report: how it went.
    """

    path: Path
    name: str
    plot: torch.Tensor
    sample: torch.Tensor
    report: str

    def outputs(self, *first: Any) -> io.NodeOutput:
        """As ``train_inputs.trained_outputs`` lists them."""
        return io.NodeOutput(*first, self.name, self.plot, self.sample, self.report, ui=host.ui.PreviewText(self.report))


def training_folder() -> Path:
    """Where checkpoints, logs, samples and caches lie."""
    return host.output_directory() / "longtake_training"


def files_of(what: str, name: str) -> Files:
    """Where a training keeps what: ``what`` is a name in ``options.KINDS``."""
    return Files(name, training_folder(), host.model_directory(KINDS[what].folder))


def encoded_clips(
    model: Any, clips: ClipDataset, vae: Any, clip: Any, conditioning: Any, options: Options, cache: Path
) -> tuple[EncodedClips, dict[str, Any]]:
    """The clips as latents and embeddings, all of them on disk where they can be; and what a checkpoint must agree with."""
    if options.cuts and not clips.settings.variants:
        clips = clips.cut_anew(variants=options.cuts)
    pixels, words = host.clip_encoder(vae), host.text_encoder(model, clip, conditioning)
    kept = cache if clips.settings.variants else None
    encoded = EncodedClips(clips, pixels.encode, words.encode, folder=kept, video_key=pixels.key, text_key=words.key)
    filled(encoded)
    return encoded, {"data": clips.fingerprint(), "vae": pixels.key, "text": words.key}


def filled(encoded: EncodedClips) -> None:
    """Encode everything now, if it is kept, with a progress bar."""
    if encoded.videos is not None:
        tick = ticker()
        for done, total in encoded.fill():
            tick(done, total)


def latent_shape(clips: EncodedClips, options: Options) -> tuple[int, int, int, int]:
    """Of the frames that go through the model at once."""
    frames, *rest = clips.batch(0, 1).latents.shape[1:]
    return (frames * (options.at_once or options.batch), *rest)  # type: ignore[return-value]


def taught(
    make: Callable[[Base], Teaching],
    model: Any,
    vae: Any,
    options: Options,
    settings: RunSettings,
    shape: Sequence[int],
    schedule: str,
    motion: MotionModule | None = None,
) -> Taught:
    """Train something in a model, from its checkpoint or from the start to the file.

    Args:
        make: puts together what is trained.
        model: that it is trained in.
        vae: what makes pictures of samples.
        options: how.
        settings: of the run.
        shape: see ``latent_shape``.
        schedule: ``model`` or a name in ``noise.NOISE_SCHEDULES``.
        motion: see ``Teaching.save``.
    """
    began = time.monotonic()
    with host.trainable(model, schedule, precision=settings.precision, recompute=options.recompute, shape=shape) as base:
        job = make(base)
        shown(job, vae)
        sample = pictures(job, vae)
        name = job.save(motion)
        return Taught(job.files.models / name, name, job.plot(), sample, job.report(name, time.monotonic() - began))


def shown(job: Teaching, vae: Any) -> None:
    """Train to the end, with the loss as a live picture; Cancel stops after the step and leaves a checkpoint."""
    progress = host.Progress(job.run.settings.steps)
    steps = job.steps()
    try:
        for step in steps:
            if step.sample is not None:
                write_clip(job.files.sample(step.step.step), pictures(job, vae, step.sample), 8.0)
            progress.update(step.step.step, step.picture)
    finally:
        steps.close()


def pictures(job: Teaching, vae: Any, latents: torch.Tensor | None = None) -> torch.Tensor:
    """A sample clip, ``f h w c`` in 0..1: of these latents, or a new one."""
    sample = job.sample() if latents is None else latents
    with torch.inference_mode():
        return vae.decode(sample)
