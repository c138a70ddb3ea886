"""A whole training as users start it, in the graph or from a terminal: run, checkpoints, log, samples and what is shown meanwhile."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checkpoints.video_model import VideoModel
from ..disk.file_names import check_name, check_writable
from ..disk.log import Record, read
from ..draw.log_picture import log_picture
from ..draw.pictures import contact_sheet, curves, smoothed
from .attention_watch import AttentionWatch, WatchSettings
from .engine import Run, TrainStep, rank, train
from .methods import METHODS
from .native_task import NativeTask
from .recorder import LOGS, Recorder
from .samples import sample_clip
from .showing import write_clip

SHOW_EVERY = 2.0  # seconds from one picture to the next
SMOOTHING = 0.98
SAMPLE_FPS = 8.0


@dataclass(frozen=True)
class Place:
    """Where the files of a run lie.

    Attributes:
        folder: of all of them.
        name: what they are called.
        checkpoint: of the run, if it is to lie elsewhere.
    """

    folder: Path
    name: str
    checkpoint: Path | None = None

    def __post_init__(self) -> None:
        check_name(self.name)

    @property
    def model(self) -> Path:
        """The finished model."""
        return self.folder / f"{self.name}.safetensors"

    @property
    def run(self) -> Path:
        """The checkpoint."""
        return self.checkpoint or self.folder / f"{self.name}.run.safetensors"

    @property
    def samples(self) -> Path:
        """The folder of samples."""
        return self.folder / f"{self.name}.samples"


@dataclass(frozen=True)
class Manner:
    """How a training is shown and kept; no weight hangs on it, but on a watch that lowers the learning rate.

    Attributes:
        save_every: steps between checkpoints.
        log: a name in ``recorder.LOGS``.
        sample_every: steps between sample clips; 0 for none.
        sample_prompt: what they show, in words of the model.
        watch: how closely attentions are looked at; None for not at all.
    """

    save_every: int = 250
    log: str = "jsonl"
    sample_every: int = 0
    sample_prompt: str = ""
    watch: WatchSettings | None = None

    def __post_init__(self) -> None:
        if self.log not in LOGS:
            raise ValueError(f"log is {self.log!r}: choose one of {', '.join(LOGS)}")
        for name, least in (("save_every", 1), ("sample_every", 0)):
            if not least <= getattr(self, name) <= 10**9:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least {least}")


@dataclass(frozen=True)
class Shown:
    """A step, and at some a picture of how it goes, ``h w c`` in 0..1."""

    step: TrainStep
    picture: Tensor | None = None


class Training:
    """A native model's training.

    Args:
        task: what is trained.
        place: of its files; what lies there already is gone on with.
        manner: how it is shown and kept.
        pixels: what makes pictures ``f h w c`` in 0..1 of latents ``f c h w``, for samples.
        device: where samples are made.

    Attributes:
        run: the run, which may be partly or wholly done.

    Raises:
        ValueError: nothing can be written there, the checkpoint is another run's, or something is asked for that cannot be.
    """

    def __init__(
        self,
        task: NativeTask,
        place: Place,
        manner: Manner,
        pixels: Callable[[Tensor], Tensor],
        device: torch.device | str = "cpu",
    ):
        self.task, self.place, self.manner, self.pixels, self.device = task, place, manner, pixels, device
        check_writable(place.folder)
        task.info.label_vector(manner.sample_prompt)  # refuses words that the model does not know
        self.watch = None if manner.watch is None else AttentionWatch(task.motion, manner.watch)
        self.run = Run(task, task.settings, place.run, self.watch)
        self.recorder: Recorder | None = LOGS[manner.log](place.folder, place.name, self.run.done) if rank() == 0 else None
        self.sample: Tensor | None = None

    def steps(self) -> Generator[Shown, None, None]:
        """Train to the end, or to where the caller closes it.

        Raises:
            Diverged: the loss is no longer a number.
            ValueError: a file cannot be written.
        """
        shown = 0.0
        steps = train(self.run, self.manner.save_every, self._record)
        try:
            for step in steps:
                due = self.manner.sample_every and step.step % self.manner.sample_every == 0
                if due and rank() == 0:
                    self._keep_sample(step.step)
                if due or step.step == step.total or time.monotonic() - shown > SHOW_EVERY:
                    shown = time.monotonic()
                    yield Shown(step, self.picture(step))
                else:
                    yield Shown(step)
        finally:
            steps.close()

    def model(self) -> VideoModel:
        """The averaged weights so far."""
        return self.task.model(self.run.weights(), self.run.done)

    def sampled(self) -> Tensor:
        """A clip of the averaged weights. Returns ``f h w c`` in 0..1."""
        schedule = METHODS[self.task.choices.method].samples
        hints = self.task.hints() if self.task.info.hints else None
        latents = sample_clip(self.model(), self.manner.sample_prompt, schedule=schedule, device=self.device, hints=hints)
        with torch.no_grad():
            return self.pixels(latents)

    def picture(self, step: TrainStep) -> Tensor:
        """The loss so far, the time left, and the last sample. Returns ``h w 3`` in 0..1."""
        title = f"step {step.step} of {step.total}, {in_words(step.left)} left: loss"
        curve = curves({self.task.choices.method: smoothed(self.run.losses, SMOOTHING)}, title=title)[0]
        if self.sample is None:
            return curve
        sheet = self.sample[..., :3]
        height = max(1, round(sheet.shape[0] * curve.shape[1] / sheet.shape[1]))
        wide = F.interpolate(sheet.movedim(-1, 0)[None], size=(height, curve.shape[1]), mode="nearest")[0]
        return torch.cat([curve, wide.movedim(0, -1)])

    def plot(self) -> Tensor:
        """The log as curves. Returns ``1 h w 3`` in 0..1."""
        return log_picture({self.place.name: self.records()}, SMOOTHING)

    def records(self) -> list[Record]:
        """The log, or where there is none the losses of the checkpoint."""
        path = self.place.run if self.recorder is None else self.recorder.path
        return read(path if path.is_file() else self.place.run)

    @property
    def log_name(self) -> str:
        """The log's name in its folder."""
        return self.place.run.name if self.recorder is None else self.recorder.path.name

    def report(self) -> str:
        """What was trained, and what was wrong meanwhile."""
        losses = self.run.losses[-100:]
        lines = [
            f"{self.run.done} of {self.task.settings.steps} steps, mean of the last losses {sum(losses) / max(1, len(losses)):.5g}"
        ]
        if self.watch is not None:
            lines += [finding.sentence for finding in self.watch.found[-10:]]
        return "\n".join(lines)

    def _record(self, step: TrainStep) -> None:
        if self.recorder is not None:
            self.recorder.add(self.run.record(step))

    def _keep_sample(self, step: int) -> None:
        clip = self.sampled()
        self.sample = contact_sheet(clip, columns=8, count=16)[0]
        check_writable(self.place.samples)
        write_clip(self.place.samples / f"step_{step:07d}.webp", clip, SAMPLE_FPS)
        if self.recorder is not None:
            self.recorder.picture("sample", self.sample, step)


def in_words(seconds: float) -> str:
    """A time as people say it.

    >>> in_words(5), in_words(150), in_words(8000)
    ('5 s', '2 min', '2 h 13 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
