"""A whole training as users start it, whatever is trained: the run, its checkpoint, log and samples, what is shown meanwhile, the file.

Everything that is drawn or decided depends on the settings, the clips and the step, so a run that was cancelled or killed and is resumed
is the unbroken one, the lowered learning rate of a watched run included.
"""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..disk.file_names import check_writable
from ..disk.lock import owned
from ..disk.log import Record, read
from ..disk.state import has_state
from ..draw.log_picture import HELD, log_picture
from ..draw.pictures import contact_sheet, curves, smoothed
from .attention_watch import AttentionWatch, WatchSettings
from .distributed import rank
from .engine import Run, TrainStep, train
from .held_out import look
from .options import Options
from .recorder import LOGS, Recorder, check_log
from .report import in_words, told_of
from .run_files import Files, free, run_of
from .samples import write_clip
from .trainable import Trainable, Weights

REDRAW = 2.0  # seconds from one picture of the curve to the next, at least
SMOOTHING = 0.98
SAMPLE_FPS = 8.0


@dataclass(frozen=True)
class Progress:
    """What is shown after a step.

    Attributes:
        step: how far the run is.
        picture: the loss so far and the last sample, ``h w 3`` in 0..1; None where it was drawn a moment ago.
    """

    step: TrainStep
    picture: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Trained:
    """A finished training.

    Attributes:
        path: of the file.
        name: of the file, below the folder of its kind.
        plot: the loss, ``1 h w 3`` in 0..1.
        sample: a clip, ``f h w c`` in 0..1.
        log: where each step is written down.
        report: how it went.
    """

    path: Path
    name: str
    plot: Tensor
    sample: Tensor
    log: Path
    report: str


class Session:
    """A training of something.

    Args:
        task: what is trained, and what its file is.
        files: where it keeps what; a checkpoint that is there already is resumed.
        options: how it is kept and watched; what its weights hang on is in ``task``.
        show: called after each step, such as for a progress bar; what it raises stops the training and leaves a checkpoint.
        restart: begin anew beside a run of the same name, which makes room, and is kept, when the first step is done.

    Attributes:
        run: which may be partly or wholly done.

    Raises:
        ValueError: the checkpoint belongs to another run, or something is asked for that cannot be.
    """

    def __init__(
        self,
        task: Trainable,
        files: Files,
        options: Options,
        show: Callable[[Progress], None] = lambda _: None,
        *,
        restart: bool = False,
    ):
        self.task, self.files, self.options, self.show = task, files, options, show
        check_log(options.log)
        if options.held_out and task.shown is None:
            raise ValueError(
                f"held_out is for motion modules, MotionLoRAs and domain adapters, and a {task.what.replace('_', ' ')} is trained: set it"
                " to 0 in Training Options"
            )
        looked = WatchSettings.asked(options.watch_every, lower=options.auto_lower_lr)
        self.watch = None if looked is None or task.watched is None else AttentionWatch(task.watched, looked)
        origin = files.named(options.begin_with) if options.begin_with else None
        self.run = Run(task.task, task.settings, files.checkpoint, self.watch, anew=restart, origin=origin)
        self.begins = restart or not has_state(files.checkpoint)
        self.recorder: Recorder | None = None
        self.notes: list[str] = []
        if self.begins and self.run.done:
            self.notes.append(f"begun with {options.begin_with}, at step {self.run.done}")
        if self.begins and self.run.done == task.settings.steps:
            raise ValueError(
                f"{options.begin_with} is at step {self.run.done}, with which this run would be over: set steps to more, or begin with an"
                " earlier step"
            )
        self.sheet: Tensor | None = None
        self.began, self.drawn = time.monotonic(), -math.inf

    def train(self) -> None:
        """Train to the end; a checkpoint is written every so often, at the end, and when something stops it.

        Raises:
            Taken: another process trains this now.
            Diverged: the loss is no longer a number.
            ValueError: a file cannot be written.
        """
        every = self.options.sample_every
        with self._alone():
            self.files.sweep() if rank() == 0 else None
            self.run.catch_up()
            if not self.begins:
                self._open_log(self.run.done)
            if self._past_its_best():
                return
            steps = train(self.run, self.options.save_every, self._record)
            try:
                for step in steps:
                    due = bool(every) and step.step % every == 0
                    if due and rank() == 0:
                        self._keep_sample(step.step)
                    self.show(Progress(step, self._picture(step, due=due)))
                    if self._past_its_best():
                        break
            finally:
                steps.close()

    def finish(self) -> Trained:
        """Write the finished file, and make a last sample by its weights.

        Raises:
            ValueError: it cannot be written.
        """
        path, sample = self.save(), self.sample(self.weights())
        name = path.relative_to(self.files.models).as_posix()
        return Trained(path, name, self.plot(), sample, self.log, self.report(name))

    def save(self) -> Path:
        """Write the finished file of the averaged weights so far, beside one of the same name that is not this run's. Returns where it is.

        Raises:
            ValueError: it cannot be written.
        """
        with self._alone():
            path, stem = self._save_as(self.files.model, self.weights())
        if stem != self.files.model:
            self.notes.append(f"{self.files.name} was there and is not of this run: it stays, and this is {stem.name}")
        return path

    def about(self) -> dict[str, Any]:
        """What is known of the run, for the file."""
        settings = {name: getattr(self.task.settings, name) for name in ("batch", "learning_rate", "seed", "optimizer")}
        return {"name": self.files.name, "run": self.run.id, "steps": self.run.done, "changes": self.run.changes, **settings}

    def weights(self) -> Weights:
        """Those of the finished file: the averaged ones, or where a run stops at its best those that were best."""
        best = self.run.looks.best if self.options.stop_at_best else {}
        return best or self.run.weights()

    def sample(self, weights: Weights | None = None) -> Tensor:
        """A clip by these weights, or the averaged ones so far, always from the same noise. Returns ``f h w c`` in 0..1."""
        if self.task.sampled is None:
            raise ValueError(f"nothing was said of samples of this {self.task.what}")
        return self.task.sampled(self.run.weights() if weights is None else weights)

    def plot(self) -> Tensor:
        """The log as curves. Returns ``1 h w 3`` in 0..1."""
        return log_picture({self.files.name: self.records()}, SMOOTHING)

    @property
    def log(self) -> Path:
        """Where each step is written down; the checkpoint, in a process that writes no log."""
        return self.files.checkpoint if self.recorder is None else self.recorder.path

    def records(self) -> list[Record]:
        """The log, or where there is none the losses of the checkpoint."""
        return read(self.log if self.log.is_file() else self.files.checkpoint)

    def report(self, name: str) -> str:
        """What was trained, in a few lines; ``name`` is the file's."""
        spent = in_words(time.monotonic() - self.began)
        lines = [f"{self.task.what.replace('_', ' ')}: {name}", *told_of(self.run, spent), *self.notes, self.task.data()]
        if self.watch is not None:
            lines += [item.sentence for item in self.watch.found[-10:]] or ["attentions: nothing to worry about"]
        return "\n".join(line for line in lines if line)

    def _alone(self) -> AbstractContextManager[Any]:
        """While open, no other process writes this training."""
        return owned(self.files.lock, f"the training {self.files.name}") if rank() == 0 else nullcontext()

    def _open_log(self, done: int) -> None:
        if rank() == 0:
            self.recorder = LOGS[self.options.log](self.files.folder, self.files.name, done)

    def _record(self, step: TrainStep) -> None:
        """Take down a step, before its checkpoint is written; the first one of a new run makes it take the place of an old one."""
        first, self.begins = self.begins, False
        if first:
            aside = self.files.set_aside() if rank() == 0 else None
            if aside is not None:
                self.notes.append(f"the run of this name that was there is kept in {aside.name}")
            self._open_log(step.step - 1)
        seen = self._look(step.step)
        if self.recorder is not None:
            self.recorder.add(self.run.record(step) | seen)
        every = self.options.keep_every
        if every and step.step % every == 0:
            self._keep(step.step)
        if first:
            self.run.save()

    def _look(self, step: int) -> dict[str, float]:
        """What the log says of the clips that are not trained on, after a step at which they are looked at."""
        shown, run = self.task.shown, self.run
        if shown is None or step % self.options.look_every:
            return {}
        weights = run.weights()
        loss = look(self.task.task, shown, run.settings.batch, self.task.with_weights(weights), run.autocast)
        run.looks.add(step, loss, weights)
        return {HELD: loss}

    def _past_its_best(self) -> bool:
        most = self.options.stop_at_best
        return bool(most) and self.run.looks.without_gain() >= most

    def _keep(self, step: int) -> None:
        """Keep checkpoint and weights of a step, and of those kept before as many as are wanted."""
        self.run.save(self.files.kept_at(step))
        if rank() != 0:
            return
        self._save_as(self.files.weights_at(step), self.run.weights())
        suffix, most = self.task.written_as(self.options.file_format)[1], self.options.keep_last
        for old in self.files.steps_kept()[:-most] if most else []:
            weights = Path(f"{self.files.weights_at(old)}{suffix}")
            if run_of(weights) == self.run.id:
                weights.unlink()
            self.files.kept_at(old).unlink()

    def _save_as(self, wanted: Path, weights: Weights) -> tuple[Path, Path]:
        """Write the finished file. Returns where it is, and its stem, which is another than ``wanted`` where that is somebody's."""
        dtype = torch.float16 if self.options.fp16 else torch.float32
        stem = free(wanted, self.run.id, self.task.written_as(self.options.file_format)[1])
        return self.task.save(stem, weights, self.options.file_format, dtype, self.about()), stem

    def _keep_sample(self, step: int) -> None:
        clip = self.sample()
        self.sheet = contact_sheet(clip[..., :3], columns=8, count=16)[0]
        check_writable(self.files.samples)
        write_clip(self.files.samples / f"step_{step:07d}.webp", clip, SAMPLE_FPS)
        if self.recorder is not None:
            self.recorder.picture("sample", self.sheet, step)

    def _picture(self, step: TrainStep, *, due: bool) -> Tensor | None:
        """The loss so far, the time left, and the last sample. Returns ``h w 3`` in 0..1, or None where that was shown just now."""
        if not due and time.monotonic() - self.drawn < REDRAW and step.step < step.total:
            return None
        self.drawn = time.monotonic()
        left = "" if step.step == step.total else f", {in_words(step.left)} left"
        losses = {"each step": self.run.losses, "smoothed": smoothed(self.run.losses, SMOOTHING)}
        curve = curves(losses, title=f"{self.files.name}: loss, step {step.step} of {step.total}{left}")[0]
        if self.sheet is None:
            return curve
        height = max(1, round(self.sheet.shape[0] * curve.shape[1] / self.sheet.shape[1]))
        wide = F.interpolate(self.sheet.movedim(-1, 0)[None], size=(height, curve.shape[1]), mode="nearest")[0]
        return torch.cat([curve, wide.movedim(0, -1)])
