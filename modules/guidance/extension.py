"""Any clip made longer with a model of short clips: the end of what there is, and what follows it, are sampled together, again and again.

Ho et al., arXiv:2204.03458, Section 3.1. What has been made is known to the next window, either through noise of the level of the new
frames or, for models with a noise level per frame, as it is; reconstruction guidance (``reconstruction.py``) makes the new frames fit
to it. Backwards the same happens at the clip's beginning.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..fields.setting import check, documented, setting
from ..sampling.extent import Extent
from ..sampling.job import Job, State, Step, check_finite
from ..sampling.model_view import Guide
from ..sampling.vdm import VdmSampler
from .history import Composed
from .reconstruction import ReconstructionGuidance
from .steering import parts_of

AFTER, BEFORE = "after", "before"
OWN, SUITED = -1.0, 2.0  # weights: the one that suits the model, and what that is where gradients do


@documented
@dataclass(frozen=True)
class ExtendSettings:
    """How much is made, and on which side."""

    new_frames: int = setting(16, "So many frames are made.", least=1, most=100000)
    direction: str = setting(
        AFTER,
        "The direction is the side of the clip where they are made.",
        menu={AFTER: "They follow the clip.", BEFORE: "They come before it."},
    )
    steps: int = setting(32, "Each window takes so many denoising steps.", least=1, most=1000)
    weight: float = setting(
        OWN,
        "The weight of reconstruction guidance says how firmly new frames are held to known ones. Its gradients take three times as long. 0"
        " is off: known frames are then shown to the model as replacement says. -1 is 2, which holds well, on U-Nets with a motion module"
        " and on LongTake models, and 0 on video models such as Wan, where gradients take more memory than most cards have.",
        least=OWN,
        most=1000.0,
        step=0.1,
    )

    def __post_init__(self) -> None:
        check(self)
        if OWN < self.weight < 0:
            raise ValueError(f"weight is {self.weight:g}: it must be at least 0, or -1 for what suits the model; -1 is usual")

    def weight_on(self, suits_gradients: bool) -> float:
        """The weight on a model that gradients suit, or do not."""
        return self.weight if self.weight != OWN else SUITED if suits_gradients else 0.0

    @property
    def backwards(self) -> bool:
        """Whether what comes before the clip is made."""
        return self.direction == BEFORE


@documented
@dataclass(frozen=True)
class Extension:
    """Settings; called with a host's ``Job``, whose latent is the whole take, it is an ``Algorithm``.

    Attributes:
        uniform: whether all new frames of a window are at one noise level.
        known: frames of the take that are given, at its beginning, or at its end if ``backwards``.
        backwards: whether what comes before the clip is made.
        sampler: of each window.
    """

    uniform: ClassVar[bool] = True
    known: int
    window: int = setting(0, "The model sees so many frames at once; 0 is as many as it was trained with.", least=0, most=4096)
    overlap: int = setting(
        8,
        "So many frames of a window are known already, and the last window may have more: more hold the clip together better and take"
        " longer. Half the window is usual.",
        least=1,
        most=4095,
    )
    backwards: bool = False
    sampler: VdmSampler = field(default_factory=VdmSampler)

    def __post_init__(self) -> None:
        if self.known < 1:
            raise ValueError("the clip has no frame: connect one with at least 1")
        if self.window < 0 or self.window == 1:
            raise ValueError(
                f"window is {self.window}: it must be at least 2, a known frame and a new one, or 0 for the model's own"
            )
        if self.overlap < 1 or 0 < self.window <= self.overlap:
            most = f" and at most {self.window - 1} in windows of {self.window} frames" if self.window else ""
            raise ValueError(f"overlap is {self.overlap}: it must be at least 1{most}; half the window is usual")

    def one_level(self, *, masked: bool) -> bool:  # noqa: ARG002  every window has known frames
        """As ``job.OneLevel``."""
        return self.sampler.one_level(masked=True)

    def shown(self, frames: int, trained: int) -> int:
        """Most frames in a call, for a take of so many on a model that was trained on so many."""
        return min(frames, self.window or trained or frames)

    def restored(self, clip: Tensor, latent: Tensor, encode: Callable[[Tensor], Tensor] = lambda samples: samples) -> Tensor:  # noqa: ARG002
        """The result with the frames that were given, bit for bit, where a host scaled them on the way.

        Args:
            clip: ``f ...``, the result.
            latent: ``f ...``, what the host was given.
            encode: not used, as for all samplers whose latent holds the known frames.

        Returns:
            clip: ``f ...``.
        """
        return torch.cat(
            [clip[: -self.known], latent[-self.known :].to(clip)]
            if self.backwards
            else [latent[: self.known].to(clip), clip[self.known :]]
        )

    def windows(self, frames: int) -> Iterator[tuple[int, int, int]]:
        """Of a take of ``frames`` frames: each window's first frame, the one behind its last, and how many of it are known."""
        made = self.known
        while made < frames:
            low = max(0, min(made - self.overlap, frames - self.window))
            high = min(frames, low + self.window)
            yield (frames - high, frames - low, made - low) if self.backwards else (low, high, made - low)
            made = high

    def calls(self, frames: int, steps: int, trained: int) -> int:
        """As ``job.Counted``, exactly."""
        sized = replace(self, window=self.shown(frames, trained))
        return len(list(sized.windows(frames))) * self.sampler.calls(frames, steps, trained)

    def extent(self, job: Job) -> Extent:
        """How far the take goes; its rows are the windows, of which those that do not lie at the end are the same in a longer take."""
        sized, frames = replace(self, window=job.window(self.window)), len(job.latent)
        facts = {"known": self.known, "window": sized.window, "overlap": self.overlap, "backwards": self.backwards}
        full = [high - low == sized.window and known == self.overlap for low, high, known in sized.windows(frames)]
        return Extent(facts, frames, 0 if self.backwards else sum(full))

    def given_frames(self, job: Job) -> tuple[Tensor, Tensor]:
        """The frames that are given. Returns their numbers, ``k``, and what they are, ``k ...``."""
        ids = torch.arange(len(job.latent))
        ids = ids[-self.known :] if self.backwards else ids[: self.known]
        return ids, job.latent[ids.to(job.latent.device)]

    def __call__(self, job: Job) -> Generator[Step, None, Tensor]:
        """Make the take of a job. Returns ``f ...``."""
        frames = len(job.latent)
        if frames <= self.known:
            raise ValueError(
                f"{self.known} frames are given and the take has {frames}: nothing is left to make, ask for more frames"
            )
        check_finite(job.latent)
        sized = replace(self, window=job.window(self.window))
        return sized._taken(job, list(sized.windows(frames)))

    def _taken(self, job: Job, windows: list[tuple[int, int, int]]) -> Generator[Step, None, Tensor]:
        clip, rows, state = job.latent.clone(), len(job.sigmas) - 1, job.state
        if state is not None:
            _check_state(state, windows)
            job.memory.restore({name: tensor.to(clip.device) for name, tensor in state.memory.items()})
            clip[state.ids.to(clip.device)] = state.x.to(clip)
        for number, (low, high, count) in enumerate(windows):
            if state is not None and number < state.row:
                continue
            ids = torch.arange(low, high)
            known = ids >= high - count if self.backwards else ids < low + count
            noise = None if job.noise is None else job.noise[low:high]
            part = replace(job, latent=clip[low:high], known=known, noise=noise, guide=about(job.guide, clip, ids, known))
            steps = self.sampler.sampled(part, ids, known)
            clip[low:high] = yield from counted(steps, rows * number, rows * len(windows))
            if not job.collect:  # somebody takes finished frames as they come
                new, place = ids[~known], (~known).to(clip.device)
                state = State(number + 1, ids, clip[low:high].clone(), job.memory.tensors())
                yield Step(rows * (number + 1), rows * len(windows), None, clip[low:high][place], new, state)
        return clip


def _check_state(state: State, windows: list[tuple[int, int, int]]) -> None:
    low, high, _ = windows[state.row - 1] if 0 < state.row <= len(windows) else (0, 0, 0)
    if not torch.equal(state.ids, torch.arange(low, high)) or len(state.x) != len(state.ids):
        raise ValueError(f"the take cannot go on after window {state.row} with frames that are not its own: begin another take")
    check_finite(state.x)


def about(guide: Guide, clip: Tensor, ids: Tensor, known: Tensor) -> Guide:
    """The guide for one window: reconstruction guidance that is still open gets its known frames.

    Args:
        guide: of the job.
        clip: ``n ...``, as far as it is made.
        ids: ``f``, the window's frames.
        known: ``f``, bool, which of them are made.
    """
    given = ids[known]
    told = tuple(given.tolist()), clip[given.to(clip.device)], ids[~known].tolist()
    parts = [part.about(*told) if isinstance(part, ReconstructionGuidance) and part.open else part for part in parts_of(guide)]
    return Composed(tuple(parts)) if isinstance(guide, Composed) else parts[0]


def counted(steps: Generator[Step, None, Tensor], done: int, total: int) -> Generator[Step, None, Tensor]:
    """The steps of one window as part of all: ``done`` rows before it, ``total`` in all. Returns ``f ...``."""
    try:
        while True:
            step = next(steps)
            yield replace(step, row=done + step.row, total=total)
    except StopIteration as finished:
        return finished.value
    finally:
        steps.close()


def lengthened(samples: Tensor, new: int, *, backwards: bool = False) -> Tensor:
    """The samples of a LATENT with ``new`` empty frames after them, or before them.

    Args:
        samples: ``r ...``, frames first, or for video models in the third axis.
        new: how many.
        backwards: whether they come before.

    Returns:
        samples: ``n ...``.
    """
    axis = 2 if samples.ndim == 5 else 0
    shape = [new if place == axis else size for place, size in enumerate(samples.shape)]
    empty = samples.new_zeros(shape)
    return torch.cat([empty, samples] if backwards else [samples, empty], dim=axis)


def frames_of(samples: Tensor) -> int:
    """How many frames a LATENT holds: ``samples``: ``r ...``."""
    return samples.shape[2] if samples.ndim == 5 else len(samples)
