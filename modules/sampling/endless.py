"""Takes without an end: each row's finished frames are handed on at once, and what is kept fits a window.

What a take needs to go on is a ``Now``: the number of the next row and the frames of the last window. From it the same frames are made as
if nothing had happened, since noise depends on frame numbers alone and a row on its number (``stream.py``).
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..noise.seeded import frame_noise
from .calls import Call, unseen
from .endless_levels import Stream
from .samplers import Job, Step, check_finite, check_sigmas, started
from .stepping import Stepper, check_order
from .view import History


@dataclass(frozen=True)
class Now:
    """Where a take is between two rows.

    Attributes:
        row: number of the next one.
        ids: ``n``, int64, frames that are kept.
        x: ``n ...``, what they are.
        memory: further tensors by name, of models that remember more than frames.
    """

    row: int
    ids: Tensor
    x: Tensor
    memory: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass
class Endless:
    """The sampler of an endless take as hosts run it, an ``Algorithm``. It is one take: ``now`` moves on with it.

    Attributes:
        plan: when each frame moves.
        window: most frames in one call; 0 for the model's own length.
        eta: see ``stepping.move``.
        order: see ``stepping.Stepper``.
        history: how finished frames are shown; its seed is the job's.
        anchors: first frames that stay in the window for good.
        now: where the take is; None before it begins. A new object after every row, never half of one.
    """

    plan: Stream
    window: int = 0
    eta: float = 0.0
    order: str = "euler"
    history: History | None = None
    anchors: int = 0
    now: Now | None = None

    def __post_init__(self) -> None:
        check_order(self.order, self.eta)
        if self.window:
            self.plan.calls(self.window, self.anchors)  # refuses a window that is too short

    @property
    def done(self) -> bool:
        """Whether the take has an end and has come to it."""
        return bool(self.plan.frames) and self.now is not None and self.now.row >= self.plan.calls_total

    def __call__(self, job: Job) -> Generator[Step, None, Tensor]:
        """Run it; see ``endless``."""
        return endless(job, self)


def endless(job: Job, take: Endless) -> Generator[Step, None, Tensor]:
    """Generate frames until the plan ends, or for as long as somebody asks.

    Args:
        job: the known frames of its latent come first, as many as the plan says; its last frame is what new ones begin from, under
            noise: zeros for nothing.
        take: what to do; goes on from ``take.now``, which is moved on before each step is handed out.

    Returns:
        x: ``n ...``, the frames of the last window.

    Raises:
        ValueError: something does not fit, or a finished frame is not finite.
    """
    plan = take.plan
    check_sigmas(job.sigmas, plan.steps)
    check_finite(job.latent)
    window = job.window(take.window)
    calls = plan.calls(window, take.anchors, 0 if take.now is None else take.now.row)
    following = 0 if take.now is None or not len(take.now.ids) else int(take.now.ids[-1]) + 1
    now = _beginning(job, plan) if take.now is None else _again(job, take.now)
    history = take.history and replace(take.history, seed=job.seed)
    stepper = Stepper(job.denoise, job.sigmas.to(job.latent), job.seed, take.eta, take.order, job.guide, history, job.coordinates)
    for call in calls:
        for first in unseen(call, following, lambda frame: frame < plan.known, window) if job.recalls else ():
            stepper.step(_shown(now, first, job, stepper.sigmas[-1]), first, now.row)
        following = max(following, int(call.ids[-1]) + 1)
        x, clean = stepper.step(_shown(now, call, job, stepper.sigmas[-1]), call, now.row)
        finished = (call.before > 0) & (call.after == 0)
        frames, ids = x[finished.to(x.device)], call.ids[finished]
        _check_frames(frames, ids)
        now = take.now = Now(now.row + 1, call.ids, x, job.memory.tensors())
        yield Step(now.row, plan.calls_total, clean, frames, ids)
    return now.x


def _beginning(job: Job, plan: Stream) -> Now:
    if len(job.latent) <= plan.known:
        raise ValueError(
            f"the latent has {len(job.latent)} frames and {plan.known} are known: it needs one more, from which new frames begin"
        )
    return Now(0, torch.arange(plan.known), job.latent[: plan.known].clone())


def _again(job: Job, now: Now) -> Now:
    if now.x.shape[1:] != job.latent.shape[1:]:
        raise ValueError(
            f"the take has frames of {list(now.x.shape[1:])} and this model's are of {list(job.latent.shape[1:])}: go on with the model"
            " that began it"
        )
    job.memory.restore({name: tensor.to(job.latent.device) for name, tensor in now.memory.items()})
    return replace(now, x=now.x.to(job.latent))


def _shown(now: Now, call: Call, job: Job, top: Tensor) -> Tensor:
    """The frames of a call: those that are kept, and new ones as noise. Returns ``n ...``."""
    places = {number: place for place, number in enumerate(now.ids.tolist())}
    numbers = call.ids.tolist()
    kept = [places[number] for number in numbers if number in places]
    new = [number for number in numbers if number not in places]
    old = now.x[torch.tensor(kept, dtype=torch.int64, device=now.x.device)]
    if not new:
        return old
    blank = job.latent[-1:].expand(len(new), *job.latent.shape[1:])
    noise = frame_noise(job.latent.shape[1:], job.seed, new).to(job.latent)
    return torch.cat([old, started(blank, noise, top, job.coordinates, full=job.full)])


def _check_frames(frames: Tensor, ids: Tensor) -> None:
    bad = ~torch.isfinite(frames).flatten(1).all(dim=1)
    if bool(bad.any()):
        raise ValueError(
            f"frame {int(ids[bad.cpu()][0])} is not finite: the model or its precision is broken; the frames before it are kept"
        )
