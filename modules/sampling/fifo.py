"""FIFO-Diffusion (Kim et al., arXiv:2405.11473): clips of any length from a model of short clips, in constant memory, without training.

Frames stand in a queue, each one level noisier than the one before it. A pass over the queue lowers every frame by a level, takes out the
first, which is finished, and puts pure noise at the end. The model sees a window of the queue at a time: with several ``partitions`` the
levels within a window are close to each other, which a model that knows one level per clip can bear (Section 4.2, latent partitioning);
with ``lookahead`` windows overlap by half and only the noisier half moves, so that every frame is moved in sight of cleaner ones (Section
4.3). In this pack's terms it is a pyramid of lag 1 whose rows are several calls each.

Differs from the authors' code: the last step goes to 0 exactly (theirs ends at the lowest trained level, an identity, and leaves noise of
sigma 0.03); finished frames in a lookahead window really have the noise that the model is told of; noise depends on seed and frame alone.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..noise.seeded import frame_noise
from .calls import Call
from .samplers import Job, Step, check_finite, check_sigmas, started
from .stepping import Stepper, check_order
from .view import Denoise, History, View, mixed


@dataclass(frozen=True)
class Queue:
    """Who is in the queue when, and what a pass over it consists of. Frame 0 is the clip's first; the model sees others besides.

    In row ``m``, a pass, the frame ``f`` goes from level ``clip(steps + f - m, 0, steps)`` to the next one.

    Attributes:
        partitions: windows that the queue holds side by side.
        window: frames in a call.
        lookahead: whether windows overlap by half.
        full: whether the queue starts full, with frames before the clip (``warm_up``); else it fills up from pure noise, which needs more
            passes and no clip to start from.
    """

    partitions: int = 4
    window: int = 16
    lookahead: bool = True
    full: bool = False

    def __post_init__(self) -> None:
        if self.partitions < 1 or self.window < 1:
            raise ValueError(f"partitions is {self.partitions} and window {self.window}: both must be at least 1")
        if self.lookahead and self.window % 2:
            raise ValueError(
                f"window is {self.window} and lookahead moves half of a window at a time: choose an even window, or no lookahead"
            )

    @property
    def steps(self) -> int:
        """Levels, and frames in flight."""
        return self.partitions * self.window

    @property
    def stride(self) -> int:
        """Frames that a call moves."""
        return self.window // 2 if self.lookahead else self.window

    @property
    def first(self) -> int:
        """The oldest frame in flight at the beginning."""
        return self.window - self.steps if self.full else 0

    @property
    def oldest(self) -> int:
        """The oldest frame that there is: finished ones that the first windows look at come before those in flight."""
        return self.first - self.stride if self.full and self.lookahead else self.first

    def rows(self, frames: int) -> range:
        """The passes for a clip of so many frames. Those of a full queue before the clip's first frame are warm-up."""
        return range(self.window - 1 if self.full else 0, self.steps + frames - 1)

    def calls_total(self, frames: int) -> int:
        """Model calls for a clip of so many frames: ``steps / stride`` per pass, fewer while the queue fills up."""
        most = self.steps // self.stride
        return sum(most if self.full else min(most, row // self.stride + 1) for row in self.rows(frames))

    def levels(self, ids: Tensor, row: int) -> Tensor:
        """Levels before a pass: ``ids``: ``n``. Returns ``n``."""
        return (self.steps + ids - row).clamp(0, self.steps)

    def shown(self, row: int) -> range:
        """Frames that the calls of a pass show, and no others."""
        low = max(row - self.steps + 1, self.first)
        return range(max(self.oldest, low + self.stride - self.window), low + self.steps)

    def calls(self, row: int) -> Iterator[Call]:
        """The model calls of a pass, from the noisy end: so each window still sees the cleaner frames at the levels before the pass."""
        low = max(row - self.steps + 1, self.first)
        for part in reversed(range(self.steps // self.stride)):
            new, end = low + part * self.stride, low + (part + 1) * self.stride
            start = max(self.oldest, end - self.window)
            ids = torch.arange(start, start + self.window)
            now, then = self.levels(ids, row), self.levels(ids, row + 1)
            before = torch.where(ids < end, now, then)  # what lies behind has moved already
            after = torch.where((new <= ids) & (ids < end), then, before)
            if (after < before).any():
                yield Call(ids, before, after)


def warm_up(queue: Queue, clip: Tensor, noise: Callable[[Sequence[int]], Tensor], sigmas: Tensor, coordinates: str) -> Tensor:
    """A full queue out of a clip (Section 4.1): its frames are the noisiest, and copies of its first frame stand before them.

    Args:
        queue: that starts full.
        clip: ``n ...``, ``queue.window`` frames.
        noise: unit noise of frames.
        sigmas: ``l``, sigma of each level, 0 first, rising.
        coordinates: a name in ``view.SIGNAL``.

    Returns:
        frames: ``f ...``, those that the first pass shows.
    """
    row = queue.rows(1)[0]
    ids = torch.tensor(queue.shown(row))
    clean = clip[ids.clamp(0, len(clip) - 1).to(clip.device)]
    levels = queue.levels(ids, row)
    return mixed(clean, noise(ids.tolist()).to(clip), sigmas[levels.to(sigmas.device)], coordinates)


def fifo(
    stepper: Stepper,
    queue: Queue,
    begin: Callable[[Sequence[int]], Tensor],
    *,
    frames: int,
    warm: Tensor | None = None,
) -> Generator[Step, None, None]:
    """Finished frames as they come; what is kept meanwhile is the queue, whatever the length of the clip.

    Args:
        stepper: the model and how it is stepped.
        queue: the plan.
        begin: frames that enter the queue, by number: ``n ...`` at the highest level.
        frames: of the clip.
        warm: ``f ...``, what is in a queue that starts full (``warm_up``).

    Yields:
        A step per model call; the last call of a pass has the frame that it finished, from the clip's first on.
    """
    rows, done = queue.rows(frames), 0
    kept, total = queue.shown(rows[0]), queue.calls_total(frames)
    x = begin(kept) if warm is None else warm
    for row in rows:
        shown = queue.shown(row)
        entering = range(kept.stop, shown.stop)
        if entering or shown.start > kept.start:
            x = torch.cat([x[shown.start - kept.start :], begin(entering)]) if entering else x[shown.start - kept.start :]
        kept, calls = shown, list(queue.calls(row))
        for place, call in enumerate(calls):
            mine = (call.ids - kept.start).to(x.device)
            x[mine], clean = stepper.step(x[mine], call, done)
            done, frame = done + 1, row - queue.steps + 1
            ends = place == len(calls) - 1 and frame >= 0
            out = x[frame - kept.start :][:1].clone() if ends else None
            yield Step(done, total, clean, out, torch.tensor([frame]) if ends else None)


@dataclass(frozen=True)
class Fifo:
    """``fifo`` as hosts run it, an ``Algorithm``.

    Attributes:
        partitions: see ``Queue``.
        window: see ``Queue``; 0 for the model's own length.
        lookahead: see ``Queue``.
        eta: see ``stepping.move``.
        base: samples of a LATENT, a clip of ``window`` frames to start from; None to fill the queue from noise.
    """

    partitions: int = 4
    window: int = 16
    lookahead: bool = True
    eta: float = 1.0
    base: Tensor | None = None

    def __post_init__(self) -> None:
        check_order("euler", self.eta)
        if self.window:
            self.queue(self.window)

    def queue(self, window: int) -> Queue:
        """The plan with a window of so many frames.

        Raises:
            ValueError: it cannot be divided.
        """
        return Queue(self.partitions, window, self.lookahead, self.base is not None)

    def shown(self, frames: int, trained: int) -> int:
        """Most frames in a call on a model that was trained on so many: the queue is as long for short clips."""
        return self.window or trained or frames

    def __call__(self, job: Job) -> Generator[Step, None, Tensor]:
        """Run it. The latent's frames begin from what is there, under noise: zeros for nothing."""
        queue = self.queue(job.window(self.window))
        self._check(job, queue)
        sigmas, base = job.sigmas.to(job.latent), None if self.base is None else self._base(job, queue.window)
        return self._run(job, queue, sigmas, base)

    def _run(self, job: Job, queue: Queue, sigmas: Tensor, base: Tensor | None) -> Generator[Step, None, Tensor]:
        frames = len(job.latent)

        def noise(ids: Sequence[int]) -> Tensor:
            own = frame_noise(job.latent.shape[1:], job.seed, ids).to(job.latent)
            inside = torch.tensor([0 <= i < frames for i in ids])
            if job.noise is not None and inside.any():
                own[inside.to(own.device)] = job.noise[torch.tensor(ids)[inside].to(job.noise.device)].to(own)
            return own

        def begin(ids: Sequence[int]) -> Tensor:
            latent = job.latent[torch.tensor(ids).clamp(0, frames - 1).to(job.latent.device)]
            return started(latent, noise(ids), sigmas[-1], job.coordinates, full=job.full)

        history = History(float(sigmas[1]), "noise", job.seed)
        denoise = within(job.denoise, frames)
        stepper = Stepper(denoise, sigmas, job.seed, self.eta, "euler", job.guide, history, job.coordinates)
        warm = None if base is None else warm_up(queue, base, noise, sigmas, job.coordinates)
        clip = torch.empty_like(job.latent)
        for step in fifo(stepper, queue, begin, frames=frames, warm=warm):
            if step.finished is not None and step.ids is not None:
                check_finite(step.finished)
                clip[step.ids.to(clip.device)] = step.finished
            yield step
        return clip

    def _base(self, job: Job, window: int) -> Tensor:
        base = job.encode(self.base).to(job.latent) if self.base is not None else job.latent
        if len(base) != window or base.shape[1:] != job.latent.shape[1:]:
            raise ValueError(
                f"base_clip is {len(base)} frames of {list(base.shape[1:])}: it must be as many as the window, {window}, of the latent's"
                f" {list(job.latent.shape[1:])}"
            )
        check_finite(base)
        return base

    def _check(self, job: Job, queue: Queue) -> None:
        if len(job.sigmas) != queue.steps + 1:
            raise ValueError(
                f"the sigmas have {len(job.sigmas) - 1} steps and the queue {queue.partitions} partitions of {queue.window} frames: set"
                f" steps of the scheduler to {queue.steps}, as there is a level for each place in the queue"
            )
        check_sigmas(job.sigmas, queue.steps)
        check_finite(job.latent)
        if job.known is not None and job.known.any():
            raise ValueError(
                f"the latent's mask leaves {int(job.known.sum())} frames alone and FIFO makes all of them: remove the mask, or use Forcing"
                " Sampler, which keeps known frames"
            )


def within(denoise: Denoise, frames: int) -> Denoise:
    """A model that is asked about frames outside the clip as if they were its first or last: they have no prompts of their own."""

    def inside(view: View) -> Tensor:
        times = view.ids if view.times is None else view.times
        return denoise(replace(view, ids=view.ids.clamp(0, frames - 1), times=times))

    return inside
