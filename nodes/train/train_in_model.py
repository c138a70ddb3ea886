"""What nodes that train in a frozen model do alike: clips through VAE and text encoder, and the session."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ... import host
from ...modules.data.cache import EncodedClips
from ...modules.data.clips import ClipDataset
from ...modules.train.held_out import parted
from ...modules.train.in_base import Setup
from ...modules.train.options import Options
from ...modules.train.run_files import Files
from ...modules.train.session import Progress, Session, Trained
from ...modules.train.settings import RunSettings
from ...modules.train.tasks import TRAINABLES
from ...modules.train.trainable import Trainable
from .data import ticker

io = host.io


def training_folder() -> Path:
    """Where checkpoints, logs, samples and caches lie."""
    return host.output_directory() / "longtake_training"


def files_of(what: str, name: str) -> Files:
    """Where a training keeps what: ``what`` is a name in ``TRAINABLES``."""
    return Files(name, training_folder(), host.model_directory(TRAINABLES[what].folder))


def encoded_clips(
    model: Any, clips: ClipDataset, vae: Any, clip: Any, conditioning: Any, options: Options
) -> tuple[EncodedClips, dict[str, Any]]:
    """The clips as latents and embeddings, all of them on disk where they can be; and what a checkpoint must agree with."""
    if options.crops_per_video and not clips.settings.variants:
        clips = clips.cut_anew(variants=options.crops_per_video)
    blank = options.dropout > 0 or options.sample_cfg != 1
    pixels, words = host.clip_encoder(vae), host.text_encoder(model, clip, conditioning, blank=blank)
    clips, other = parted(clips, options.held_out) if options.held_out else (clips, None)
    through: dict[str, Any] = {"video_key": pixels.key, "text_key": words.key, "most": options.cache_gb}
    held = None if other is None else EncodedClips(other, pixels.encode, words.encode, folder=cache_of(other), **through)
    encoded = EncodedClips(clips, pixels.encode, words.encode, folder=cache_of(clips), held=held, **through)
    if held is not None:
        filled(held)
    filled(encoded)
    return encoded, {"data": clips.fingerprint(), "vae": pixels.key, "text": words.key}


def cache_of(clips: ClipDataset) -> Path | None:
    """Where what is made of clips is kept; None for clips without end."""
    return training_folder() / "cache" if clips.settings.variants else None


def filled(encoded: EncodedClips) -> None:
    """Encode everything now, if it is kept, with a progress bar."""
    if encoded.videos is not None:
        tick = ticker()
        for done, total in encoded.fill():
            tick(done, total)


def latent_shape(clips: EncodedClips, options: Options) -> tuple[int, int, int, int]:
    """Of the frames that go through the model at once."""
    frames, *rest = clips.batch(0, 1).latents.shape[1:]
    return (frames * (options.micro_batch or options.batch), *rest)  # type: ignore[return-value]


def train_in(
    model: Any,
    vae: Any,
    make: Callable[[Setup], Trainable],
    clips: tuple[EncodedClips, dict[str, Any]],
    options: Options,
    settings: RunSettings,
    files: Files,
    schedule: str,
    *,
    restart: bool = False,
) -> Trained:
    """Train something in a model, from its checkpoint or from the start to the file.

    Args:
        model: that it is trained in.
        vae: what makes pictures of samples.
        make: puts together what is trained.
        clips: encoded, and what a checkpoint must agree with of them.
        options: how.
        settings: of the run.
        files: where it keeps what.
        schedule: ``model`` or a name in ``noise.NOISE_SCHEDULES``.
        restart: begin anew where there is a run of this name.
    """
    encoded, facts = clips
    with host.trainable(
        model,
        schedule,
        precision=settings.precision,
        gradient_checkpointing=options.gradient_checkpointing,
        shape=latent_shape(encoded, options),
    ) as base:
        setup = Setup(base, encoded, lambda latents: decoded(vae, latents), options, settings, facts, host.check_interrupt)
        return trained(make(setup), files, options, restart=restart)


def trained(task: Trainable, files: Files, options: Options, *, restart: bool = False) -> Trained:
    """A training to its end, with the loss as a live picture; Cancel stops it after the step and leaves a checkpoint."""
    bar = host.Progress(task.settings.steps)

    def show(progress: Progress) -> None:
        bar.update(progress.step.step, progress.picture)

    session = Session(task, files, options, show, restart=restart)
    session.train()
    return session.finish()


def decoded(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Pictures ``f h w c`` in 0..1 of a VAE's latents: ``f c h w``."""
    with torch.inference_mode():
        return vae.decode(latents)


def outputs(made: Trained, *first: Any) -> io.NodeOutput:
    """As ``train_inputs.trained_outputs`` lists them."""
    log = made.log.relative_to(host.output_directory()).as_posix()
    return io.NodeOutput(*first, made.name, made.plot, made.sample, log, made.report, ui=host.ui.PreviewText(made.report))
