"""FIFO-Diffusion (Kim et al., arXiv:2405.11473): clips of any length from a model of short clips, in constant memory, without training.

Frames stand in a queue, each one level noisier than the one before it. A pass over the queue lowers every frame by a level, takes out the
first, which is finished, and puts pure noise at the end. The model sees a window of the queue at a time: with several ``partitions`` the
levels within a window are close to each other, which a model that knows one level per clip can bear (Section 4.2, latent partitioning);
with ``lookahead`` windows overlap by half and only the noisier half moves, so that every frame is moved in sight of cleaner ones (Section
4.3). In this pack's terms it is a pyramid of lag 1 in which a pass is several rows, one per window.

Differs from the authors' code: the last step goes to 0 exactly (theirs ends at the lowest trained level, an identity, and leaves noise of
sigma 0.03); finished frames in a lookahead window really have the noise that the model is told of; noise depends on seed and frame alone.
"""

from bisect import bisect_right
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar

import torch
from torch import Tensor

from ..fields.setting import documented, setting
from .context_noise import NONE_KNOWN, ContextNoise
from .coordinates import mixed
from .extent import Extent
from .job import Job, State, Step, check_finite, check_sigmas
from .model_view import Denoise, View
from .plan import Row
from .rollout import Rollout, collected, entry_noise, rollout
from .stepping import check_order

NO_END = 2**40  # passes of a queue without an end


@dataclass(frozen=True)
class Queue:
    """Who is in the queue when, and what a pass over it consists of: a ``Plan``. The model sees frames before and behind the clip besides.

    In pass ``m`` the frame ``f`` goes from level ``clip(steps + f - m, 0, steps)`` to the next one.

    Attributes:
        frames: of the clip; 0 for no end.
        partitions: windows that the queue holds side by side.
        window: frames in a call.
        lookahead: whether windows overlap by half.
        full: whether the queue starts full, with frames before the clip (``warm_up``); else it fills up from pure noise, which needs more
            passes and no clip to start from.
    """

    frames: int
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

    @property
    def passes(self) -> range:
        """The numbers of the passes. Those of a full queue before the clip's first frame are warm-up."""
        return range(self.window - 1 if self.full else 0, self.steps + (self.frames or NO_END) - 1)

    @property
    def rows_total(self) -> int:
        """Model calls of the whole clip; 0 if it has no end."""
        return self.rows_before(self.passes.stop) if self.frames else 0

    def extent(self, window: int, sink_frames: int = 0, *, ahead: bool = True) -> Extent:  # noqa: ARG002  as of all plans
        """As ``Plan.extent``: the passes before one that shows a frame behind the end, which has no prompt of its own."""
        facts = {"partitions": self.partitions, "window": self.window, "lookahead": self.lookahead, "full": self.full}
        shown = self.shown(self.passes[0]).stop <= self.frames
        return Extent(facts, self.frames, (self.rows_before(self.frames) if shown else 0) if self.frames else None)

    def rows_before(self, number: int) -> int:
        """Model calls of all passes before one: ``steps / stride`` each, fewer while the queue fills up."""
        most, begun = self.steps // self.stride, max(0, number - self.passes.start)
        if self.full:
            return most * begun
        filling = min(begun, self.steps)  # each stride of these adds a window
        return sum(row // self.stride + 1 for row in range(filling)) + most * (begun - filling)

    def is_known(self, ids: Tensor) -> Tensor:
        """No frame is given: ``ids``: ``n``. Returns ``n``, bool."""
        return torch.zeros_like(ids, dtype=torch.bool)

    def in_flight(self) -> int:
        """Frames in a call: the queue is seen through windows."""
        return self.window

    def levels(self, ids: Tensor, number: int) -> Tensor:
        """Levels before a pass: ``ids``: ``n``. Returns ``n``."""
        return (self.steps + ids - number).clamp(0, self.steps)

    def shown(self, number: int) -> range:
        """Frames that the calls of a pass show, and no others."""
        low = max(number - self.steps + 1, self.first)
        return range(max(self.oldest, low + self.stride - self.window), low + self.steps)

    def rows(self, window: int, sink_frames: int = 0, start: int = 0, *, ahead: bool = True) -> Iterator[Row]:  # noqa: ARG002
        """As ``Plan.rows``; the window is the queue's own and always full, and it has no sink frames."""
        if window != self.window or sink_frames:
            raise ValueError(
                f"window is {window} with {sink_frames} sink frames: a queue has windows of {self.window} frames and no sink frames"
            )
        number = bisect_right(self.passes, start, key=lambda item: self.rows_before(item + 1))
        passes = self.passes[number:]
        return islice((row for item in passes for row in self.one_pass(item)), start - self.rows_before(passes.start), None)

    def one_pass(self, number: int) -> Iterator[Row]:
        """The rows of a pass, from the noisy end: so each window still sees the cleaner frames at the levels before the pass."""
        low, keep = max(number - self.steps + 1, self.first), self.shown(number).start
        for part in reversed(range(self.steps // self.stride)):
            new, end = low + part * self.stride, low + (part + 1) * self.stride
            start = max(self.oldest, end - self.window)
            ids = torch.arange(start, start + self.window)
            now, then = self.levels(ids, number), self.levels(ids, number + 1)
            before = torch.where(ids < end, now, then)  # what lies behind has moved already
            after = torch.where((new <= ids) & (ids < end), then, before)
            if (after < before).any():
                yield Row(ids, before, after, keep=keep)


def warm_up(job: Job, queue: Queue, clip: Tensor) -> State:
    """A full queue out of a clip (Section 4.1): its frames are the noisiest, and copies of its first frame stand before them.

    Args:
        job: of the sampling.
        queue: that starts full.
        clip: ``n ...``, ``queue.window`` frames.

    Returns:
        state: to begin with, of the frames that the first pass shows.
    """
    number = queue.passes[0]
    ids = torch.tensor(queue.shown(number))
    clean = clip[ids.clamp(0, len(clip) - 1).to(clip.device)]
    levels = queue.levels(ids, number)
    return State(0, ids, mixed(clean, entry_noise(job, ids), job.sigmas[levels.to(job.sigmas.device)], job.coordinates))


@documented
@dataclass(frozen=True)
class Fifo:
    """The rollout of a ``Queue`` as hosts run it, an ``Algorithm``.

    Attributes:
        base: samples of a LATENT, a clip of ``window`` frames to start from; None to fill the queue from noise.
        frames: of the clip; None for as many as the latent has, 0 for no end.
        suits_one_level: whether it is for models that were trained with one noise level for all frames.
    """

    suits_one_level: ClassVar[bool] = True
    partitions: int = setting(
        4,
        "The queue is divided into so many windows, and the scheduler needs partitions x window steps. With more of them the levels in a"
        " window are closer together, which motion modules want, and frames cost more. 1 suits models trained with a noise level per"
        " frame.",
        least=1,
        most=64,
    )
    window: int = setting(
        16,
        "The model sees so many frames at once: as many as its motion module was trained with, 16 for AnimateDiff. 0 is the model's own"
        " length.",
        least=0,
        most=4096,
    )
    lookahead: bool = setting(
        True,
        "Windows overlap by half and only the noisier half moves, in sight of cleaner frames, which is better and takes twice the time.",
    )
    eta: float = setting(
        1.0,
        "Each step adds so much fresh noise: 0 is none (DDIM), 1 is ancestral. Its authors use 0.5 to 1, which keeps long clips from"
        " wearing out.",
        least=0.0,
        most=1.0,
        step=0.05,
    )
    base: Tensor | None = None
    frames: int | None = None

    def __post_init__(self) -> None:
        check_order("euler", self.eta)
        if self.window:
            self.queue(1, self.window)

    def queue(self, frames: int, window: int) -> Queue:
        """The plan for a clip of so many frames with a window of so many.

        Raises:
            ValueError: it cannot be divided.
        """
        return Queue(frames, self.partitions, window, self.lookahead, self.base is not None)

    def shown(self, frames: int, trained: int) -> int:
        """Most frames in a call on a model that was trained on so many: the queue is as long for short clips."""
        return self.window or trained or frames

    def __call__(self, job: Job) -> Generator[Step, None, Tensor]:
        """Run it. The latent's frames begin from what is there, under noise: zeros for nothing."""
        queue = self._queue(job)
        self._check(job, queue)
        denoise = within(job.denoise, queue.frames or NO_END)
        job = replace(
            job, denoise=denoise, sigmas=job.sigmas.to(job.latent), own_noise=NONE_KNOWN
        )  # its noise is the lowest level
        start = job.state
        if start is None and self.base is not None:
            start = warm_up(job, queue, self._base(job, queue.window))
        shown_with = ContextNoise(float(job.sigmas[1]))  # finished frames that windows look at, at the lowest level
        how = Rollout(queue, queue.window, self.eta, context_noise=shown_with)
        return collected(job, rollout(job, how, start), torch.empty_like(job.latent))

    def calls(self, frames: int, steps: int, trained: int) -> int:  # noqa: ARG002  the queue says its steps
        """As ``job.Counted``, exactly."""
        return self.queue(frames if self.frames is None else self.frames, self.shown(frames, trained)).rows_total

    def extent(self, job: Job) -> Extent:
        """How far the sampling of a job goes."""
        queue = self._queue(job)
        return queue.extent(queue.window)

    def given_frames(self, job: Job) -> tuple[Tensor, Tensor]:
        """No frame is given. Returns ``k`` and ``k ...``, of none."""
        return torch.arange(0), job.latent[:0]

    def _queue(self, job: Job) -> Queue:
        return self.queue(len(job.latent) if self.frames is None else self.frames, job.window(self.window))

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
