"""Training in an image model: motion modules, MotionLoRAs and domain adapters."""

import time
from pathlib import Path
from typing import Any

import torch

from .. import host
from ..modules.checkpoints.motion import MotionModule, load_motion_module
from ..modules.checkpoints.motion_lora import load_motion_lora
from ..modules.data.cache import EncodedClips
from ..modules.data.clips import ClipDataset
from ..modules.train.options import KINDS, Options
from ..modules.train.showing import write_clip
from ..modules.train.starts import check_start, new_module
from ..modules.train.teaching import Files, Teaching, teaching
from .data import ClipsType, ticker
from .motion import MotionModuleType
from .node import LongTakeNode
from .training_options import OptionsType

io = host.io
CATEGORY = "LongTake/train"
DEFAULTS = Options()


class LongTakeTrainMotion(LongTakeNode):
    """Train something that moves an image model."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeTrainMotion",
            display_name="Train Motion",
            category=CATEGORY,
            description="Trains a motion module, a MotionLoRA or a domain adapter in any SD1.5 or SDXL model, from clips. The model itself"
            " stays as it is. A run that was cancelled goes on from its last checkpoint when it is queued again with the same settings.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The image model, with any LoRA that shall be part of it; for a MotionLoRA without a motion"
                    " module too, if one is connected below.",
                ),
                ClipsType.Input("clips", tooltip="From Clip Folder, Clips From Images or Shapes Clips."),
                io.Vae.Input("vae", tooltip="The model's VAE. Each clip goes through it once and is kept on disk."),
                io.Combo.Input(
                    "what",
                    options=list(KINDS),
                    default="motion_lora",
                    tooltip="motion_module: from nothing, or from the module connected. motion_lora: one motion from 10 to 50 clips, on the"
                    " module connected. motion_lora_dual: the same, and its looks are kept out. domain_adapter: how the clips look, from"
                    " single frames.",
                ),
                io.String.Input("name", default="my_motion", tooltip="Of the file, and of what a cancelled run goes on from."),
                io.Int.Input("steps", default=1000, min=1, max=10_000_000, tooltip="Steps in all."),
                io.Float.Input(
                    "learning_rate",
                    default=1e-4,
                    min=1e-8,
                    max=1.0,
                    step=1e-5,
                    round=False,
                    tooltip="The highest. 1e-4 is usual for modules and adapters, up to 5e-4 for a MotionLoRA.",
                ),
                io.Int.Input(
                    "rank",
                    default=32,
                    min=1,
                    max=1024,
                    tooltip="Of a LoRA or adapter: 8 to 64 for a motion; 128 in AnimateDiff's adapter.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    control_after_generate=False,
                    tooltip="Of new weights, noise and the samples' noise.",
                ),
                io.Boolean.Input(
                    "start_anew", default=False, tooltip="Forget the checkpoint of this name instead of going on from it."
                ),
                io.Clip.Input("clip", optional=True, tooltip="The checkpoint's CLIP, for the captions."),
                MotionModuleType.Input(
                    "motion_module", optional=True, tooltip="What a MotionLoRA is for, or what a motion module starts from."
                ),
                io.Conditioning.Input(
                    "conditioning", optional=True, tooltip="One text for all clips, instead of their captions."
                ),
                OptionsType.Input("options", optional=True, tooltip="From Training Options; usual values without."),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with what was trained on it, as the file has it."),
                io.String.Output(display_name="file_name", tooltip="In the menu of the node that loads such files."),
                io.Image.Output(display_name="loss_plot"),
                io.Image.Output(display_name="sample", tooltip="A clip by the averaged weights."),
                io.String.Output(display_name="report", tooltip="How it went."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clips: ClipDataset,
        vae: Any,
        what: str,
        name: str,
        steps: int,
        learning_rate: float,
        rank: int,
        seed: int,
        start_anew: bool,
        clip: Any,
        motion_module: MotionModule | None,
        conditioning: Any,
        options: Options | None,
    ) -> "io.NodeOutput":
        chosen = DEFAULTS if options is None else options
        settings = chosen.run(steps, learning_rate, seed)
        folder = host.output_directory() / "longtake_training"
        files = Files(name, folder, host.model_directory(KINDS[what].folder))
        motion = start_of(what, model, motion_module, clips, seed)
        encoded, facts = encoded_clips(model, clips, vae, clip, conditioning, chosen, folder / "cache")
        if start_anew:
            files.forget()
        shape = latent_shape(encoded, chosen)
        schedule = chosen.schedule(motion)
        began = time.monotonic()
        with host.trainable(model, schedule, precision=settings.precision, recompute=chosen.recompute, shape=shape) as base:
            job = teaching(what, base, motion, encoded, chosen, settings, rank, files, facts, host.check_interrupt)
            shown(job, vae)
            sample = pictures(job, vae)
            file = job.save(motion)
            report, plot = job.report(file, time.monotonic() - began), job.plot()
        trained = with_trained(what, model, motion, files.models / file, schedule)
        return io.NodeOutput(trained, file, plot, sample, report, ui=host.ui.PreviewText(report))


def start_of(what: str, model: Any, motion: MotionModule | None, clips: ClipDataset, seed: int) -> MotionModule | None:
    """The motion module that training starts from or is for; None for the model's own, or none."""
    if not KINDS[what].moves:
        return None
    if what == "motion_module" and host.motion_models(model):
        raise ValueError(
            "this model has a motion module already: connect the model from before Apply Motion Module, and what to start from as"
            " motion_module"
        )
    frames = clips.settings.frames
    if frames < 2:
        raise ValueError("the clips are single frames, in which nothing moves: cut clips of 2 frames or more, 16 as a rule")
    if motion is None and what == "motion_module":
        motion = new_module(host.unet_of(model), seed, frames)
    check_start(what, motion, frames, host.unet_of(model))
    return motion


def encoded_clips(
    model: Any, clips: ClipDataset, vae: Any, clip: Any, conditioning: Any, options: Options, cache: Path
) -> tuple[EncodedClips, dict[str, Any]]:
    """The clips as latents and embeddings, all of them on disk where they can be; and what a checkpoint must agree with."""
    if options.cuts and not clips.settings.variants:
        clips = clips.cut_anew(variants=options.cuts)
    pixels, words = host.clip_encoder(vae), host.text_encoder(model, clip, conditioning)
    kept = cache if clips.settings.variants else None
    encoded = EncodedClips(clips, pixels.encode, words.encode, folder=kept, video_key=pixels.key, text_key=words.key)
    if kept is not None:
        tick = ticker()
        for done, total in encoded.fill():
            tick(done, total)
    return encoded, {"data": clips.fingerprint(), "vae": pixels.key, "text": words.key}


def latent_shape(clips: EncodedClips, options: Options) -> tuple[int, int, int, int]:
    """Of the frames that go through the model at once."""
    frames, *rest = clips.batch(0, 1).latents.shape[1:]
    return (frames * (options.at_once or options.batch), *rest)  # type: ignore[return-value]


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


def with_trained(what: str, model: Any, motion: MotionModule | None, path: Path, schedule: str) -> Any:
    """The model with what the file holds on it."""
    if what == "motion_module":
        return host.apply_motion(model, load_motion_module(path), noise_schedule=schedule)
    moved = model if motion is None else host.apply_motion(model, motion, noise_schedule=schedule)
    return host.apply_motion_lora(moved, load_motion_lora(path))
