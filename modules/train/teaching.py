"""What is trained in a frozen model, from settings to a finished file: motion modules, MotionLoRAs, domain adapters, SparseCtrl encoders
and image prompts, on any host.

A ``Teaching`` is a task for the engine together with its files. Everything that it draws or decides depends on the settings, the clips and
the step, so a run that was cancelled or killed and goes on is the unbroken one, the lowered learning rate of a watched run included.
"""

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.export import adapter_config, save, save_diffusers_adapter
from ..checkpoints.motion import MotionModule
from ..data.cache import EncodedClips, weights_key
from ..disk.file_names import check_name, check_writable
from ..disk.state import state_before
from ..draw.pictures import curves, smoothed
from ..temporal.motion import MotionModel
from .attention_watch import AttentionWatch, WatchSettings
from .base import Base
from .denoising import Batch, Network, Source
from .encoded import NOTHING, conditioned, source_of
from .engine import Run, TrainStep, train
from .lora import image_projections
from .options import MOTION_KINDS, Options, read_scope
from .recorder import LOGS
from .session import in_words
from .settings import PRECISIONS, RunSettings
from .showing import sampled
from .stages import Lesson, Stage, domain_adapter, dual_path, motion_lora, motion_module
from .starts import built

DIFFUSERS = "diffusers"
REDRAW = 2.0  # seconds from one picture of the curve to the next, at least


@dataclass(frozen=True)
class Files:
    """Where a training keeps what.

    Attributes:
        name: of the training and of its file.
        folder: of checkpoint, log and samples.
        models: of the finished file.
    """

    name: str
    folder: Path
    models: Path

    def __post_init__(self) -> None:
        check_name(self.name)
        check_writable(self.folder)
        check_writable(self.models)

    @property
    def checkpoint(self) -> Path:
        """What a run goes on from."""
        return self.folder / f"{self.name}.run.safetensors"

    def sample(self, step: int) -> Path:
        """The sample clip after a step."""
        return self.folder / f"{self.name}_{step:06}.webp"

    def forget(self) -> None:
        """Leave nothing that a run would go on from; it cuts its log by itself."""
        for path in (self.checkpoint, state_before(self.checkpoint)):
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Shown:
    """What a training tells after a step.

    Attributes:
        step: how far it is.
        picture: the loss so far, ``h w 3`` in 0..1; None where it was drawn a moment ago.
        sample: latents of a new sample clip as a VAE wants them, ``f c h w``; None most of the time.
    """

    step: TrainStep
    picture: Tensor | None = None
    sample: Tensor | None = None


@dataclass
class Teaching:
    """Something that is trained in a base.

    Attributes:
        what: a name in ``KINDS``.
        stage: its task and its file.
        run: its optimizer and history.
        network: that it works in.
        base: that it is trained in.
        watch: looks at the attentions; None for nobody.
        options: how.
        files: where it keeps what.
        clips: that it learns from.
        example: where sample clips take their size, their words and whatever else they are told from; a clip alone.
        each: called before each call of the network for a sample, such as to see whether the user cancelled.
    """

    what: str
    stage: Stage
    run: Run
    network: Network
    base: Base
    watch: AttentionWatch | None
    options: Options
    files: Files
    clips: EncodedClips
    example: Callable[[], Batch]
    each: Callable[[], None] = lambda: None
    drawn: float = -math.inf

    def steps(self) -> Generator[Shown, None, None]:
        """Train to the end; a checkpoint is written every so often, at the end, and when the generator is closed.

        Raises:
            Diverged: see ``engine.Run.steps``.
        """
        recorder = LOGS[self.options.log](self.files.folder, self.files.name, self.run.done)
        every = self.options.sample_every
        steps = train(self.run, self.options.save_every, lambda step: recorder.add(self.run.record(step)))
        try:
            for step in steps:
                due = every > 0 and step.step % every == 0 and step.step < step.total
                yield Shown(step, self._curve(step), self.sample() if due else None)
        finally:
            steps.close()

    def _curve(self, step: TrainStep) -> Tensor | None:
        if time.monotonic() - self.drawn < REDRAW and step.step < step.total:
            return None
        self.drawn = time.monotonic()
        left = "" if step.step == step.total else f", {in_words(step.left)} left"
        return self.plot(f", step {step.step} of {step.total}{left}")[0]

    def plot(self, more: str = "") -> Tensor:
        """The loss so far, as it was and smoothed. Returns ``1 h w 3``."""
        losses = self.run.losses or [math.nan]
        return curves({"each step": losses, "smoothed": smoothed(losses)}, title=f"{self.files.name}: loss{more}")

    def sample(self) -> Tensor:
        """A clip by the averaged weights, always from the same noise, as latents for a VAE. Returns ``f c h w``."""
        options, told = self.options, self.example()
        if options.sample_prompt:
            said = conditioned(told.clips, [self.clips.text(options.sample_prompt)], self.clips.text(NOTHING))
            told = replace(said, extra={**told.extra, **said.extra})
        told = told.to(self.base.device)
        dtype = PRECISIONS[self.run.settings.precision]
        with ExitStack() as stack:
            stack.enter_context(self.stage.showing(self.run.weights()))
            if dtype is not None:
                stack.enter_context(torch.autocast(self.base.device.type, dtype))
            seed = self.run.settings.seed
            clip = sampled(self.network, told, self.base.schedule, options.sample_steps, options.sample_cfg, seed, self.each)
        return self.base.to_vae(clip[0].float().cpu())

    def save(self, motion: MotionModule | None) -> str:
        """Write the finished file. Returns its name below the folder of its kind.

        Args:
            motion: whose facts a motion module's file repeats.
        """
        dtype = torch.float16 if self.options.half else torch.float32
        layouts, wanted = self.stage.layouts, self.options.layout
        if wanted == DIFFUSERS and wanted not in layouts:
            wanted = "PEFT" if "PEFT" in layouts else layouts[0]
        tensors, metadata = self.stage.file(self.run.weights(), wanted if wanted in layouts else "")
        if wanted == DIFFUSERS and motion is not None:
            config = adapter_config(motion.widths, motion.max_frames, motion.config.heads, motion.config.groups)
            tensors = {key: value.to(dtype) for key, value in tensors.items()}
            save_diffusers_adapter(self.files.models / self.files.name, tensors, config)
            return f"{self.files.name}/diffusion_pytorch_model.safetensors"
        save(self.files.models / f"{self.files.name}.safetensors", tensors, metadata, dtype)
        return f"{self.files.name}.safetensors"

    def report(self, name: str, seconds: float) -> str:
        """What was trained, in a few lines."""
        losses = self.run.losses
        lines = [
            f"{self.what.replace('_', ' ')}: {name}",
            f"{len(losses)} steps of {self.options.batch} clips, {in_words(seconds)} this time",
        ]
        if losses:
            last = losses[-max(1, len(losses) // 10) :]
            over = "in the last step" if len(last) == 1 else f"over the last {len(last)} steps"
            lines.append(f"loss {losses[0]:.4g} at first, {sum(last) / len(last):.4g} {over}")
        lines.append(self.clips.report())
        if self.watch is not None:
            lines += [item.sentence for item in self.watch.found[-10:]] or ["attentions: nothing to worry about"]
        if self.run.slowed < 1:
            lines.append(f"the learning rate was lowered to {self.run.slowed:g} of what was set")
        return "\n".join(lines)


def teaching(
    what: str,
    base: Base,
    motion: MotionModule | None,
    clips: EncodedClips,
    options: Options,
    settings: RunSettings,
    rank: int,
    files: Files,
    facts: Mapping[str, Any],
    each: Callable[[], None] = lambda: None,
) -> Teaching:
    """Put together what is to be trained, and go on from its checkpoint where there is one.

    Args:
        what: a name in ``MOTION_KINDS``.
        base: to train it in.
        motion: the motion module that is trained, or that a MotionLoRA is for; None for the base's own, or none.
        clips: to learn from.
        options: how.
        settings: of the run.
        rank: of a LoRA.
        files: where to keep what.
        facts: what a checkpoint must agree with beside the base and the objective; JSON-able.
        each: called whenever clips are asked for.

    Raises:
        ValueError: it does not fit together, or the checkpoint belongs to another training.
    """
    scope, moves = read_scope(options.scope), MOTION_KINDS[what].moves
    model = built(motion, base.device) if motion is not None and moves else None
    motions = [*base.motions, *([model] if model is not None else [])] if moves else []
    if moves and not motions:
        raise ValueError("a MotionLoRA is trained on a motion module and there is none: connect Load Motion Module")
    network = base.network(motions, clip_norms=motion is not None and moves and motion.clip_norms)
    lesson = lesson_in(what, base, network, motions, clips, options, settings, facts, each)
    if what == "motion_module":
        assert model is not None and motion is not None, "whoever asks for a motion module gives one to start from"
        start, frames = dict(model.state_dict()), motion.max_frames
        stage = motion_module(lesson, model, scope, start=start, frames=frames, sigma_reparam=options.sigma_reparam)
    elif what == "motion_lora":
        stage = motion_lora(lesson, motions[-1], rank, scope)
    elif what == "motion_lora_dual":
        stage = dual_path(lesson, motions[-1], image_projections(base.unet), rank, scope)
    else:
        stage = domain_adapter(lesson, image_projections(base.unet), rank)
    return begun(what, base, stage, lesson, clips, options, files, each, watched=motions[-1] if moves else None)


def lesson_in(
    what: str,
    base: Base,
    network: Network,
    motions: Sequence[MotionModel],
    clips: EncodedClips,
    options: Options,
    settings: RunSettings,
    facts: Mapping[str, Any],
    each: Callable[[], None],
) -> Lesson:
    """What a stage is given in a base whose ``network`` has these motion models; other arguments as those of ``teaching``.

    Raises:
        ValueError: it is asked for sigma-reparametrisation and is no motion module.
    """
    if options.sigma_reparam and what != "motion_module":
        raise ValueError(
            f"sigma_reparam is for motion modules, and a {what.replace('_', ' ')} is trained: turn it off in Training Options"
        )
    source = source_of(clips, settings.batch, base.to_model, each)
    moved = {"motion": weights_key(motions[-1].state_dict())} if motions else {}  # as they are before anything trains
    objective = options.objective(what, base.prediction)
    return Lesson(network, source, base.schedule, objective, settings, {**base.facts, **facts, **moved})


def begun(
    what: str,
    base: Base,
    stage: Stage,
    lesson: Lesson,
    clips: EncodedClips,
    options: Options,
    files: Files,
    each: Callable[[], None],
    *,
    watched: MotionModel | None = None,
    example: Callable[[], Batch] | None = None,
) -> Teaching:
    """A stage with its files and its run, which goes on from its checkpoint where there is one.

    Args:
        what: a name in ``KINDS``.
        base: that it is trained in.
        stage: what is trained.
        lesson: what the stage was given.
        clips: to learn from.
        options: how.
        files: where to keep what.
        each: called before each call of the network for a sample.
        watched: whose attentions are looked at; None for nobody's.
        example: see ``Teaching``; None for the first clip.
    """
    base.holders.extend(stage.holders)
    looked = WatchSettings.asked(options.watch_every, lower=options.lower_rate)
    watch = None if looked is None or watched is None else AttentionWatch(watched, looked)
    run = Run(stage.task, lesson.settings, files.checkpoint, watch)
    first: Source = source_of(clips, 1, base.to_model, each)
    return Teaching(
        *(what, stage, run, lesson.network, base, watch, options, files, clips),
        example=example or partial(first, 0, range(1)),
        each=each,
    )
