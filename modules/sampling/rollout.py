"""The loop of all samplers with a noise level per frame: a plan, row by row, on the frames that a window has room for.

``rollout`` yields finished frames as they come, and what it keeps meanwhile is what later rows show: memory does not grow with the
clip. A clip (``forcing.py``) is these frames collected, a take without an end (``endless.py``) hands them on, FIFO-Diffusion
(``fifo.py``) is a plan of its own. How frames move in a row: ``stepping.py``.
"""

import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..fields.setting import documented, setting
from ..noise.seeded import frame_noise
from .context_noise import NO_NOISE, ContextNoise
from .extent import Extent
from .job import Job, State, Step, check_finite, check_sigmas, started
from .multistep import STEPS, Multistep
from .plan import Plan, Row, together, unseen
from .stepping import ORDERS, Stepper, check_order

log = logging.getLogger("longtake")


@documented
@dataclass(frozen=True)
class Rollout:
    """How a plan is carried out; see ``stepping.move`` and ``stepping.Stepper``.

    Attributes:
        plan: when each frame moves.
        context_noise: how finished frames are shown.
    """

    plan: Plan
    window: int = setting(
        0,
        "The model sees at most so many frames at once; 0 is as many as it was trained with. Frames in flight must fit: they are about"
        " steps / lag.",
        least=0,
        most=4096,
    )
    eta: float = setting(
        0.0,
        "Each step adds so much fresh noise: 0 is none (DDIM), 1 is ancestral.",
        least=0.0,
        most=1.0,
        step=0.05,
    )
    order: str = setting(
        "euler",
        "The order says how each step is made.",
        menu={name: row.text for name, row in ORDERS.items()},
        advanced=True,
    )
    context_noise: ContextNoise = NO_NOISE
    sink_frames: int = setting(
        0,
        "So many first frames of the clip stay in the window for good, so that a long take does not forget how it began. They take room in"
        " the window.",
        least=0,
        most=1024,
    )

    def calls(self, frames: int, steps: int, trained: int) -> int:  # noqa: ARG002  the plan says it
        """As ``job.Counted``."""
        return self.plan.rows_total * ORDERS[self.order].calls

    def extent(self, job: Job) -> Extent:
        """How far the sampling of a job goes."""
        return self.plan.extent(job.window(self.window), self.sink_frames, ahead=job.ahead)

    def given_frames(self, job: Job) -> tuple[Tensor, Tensor]:
        """The frames that are given. Returns their numbers, ``k``, and what they are, ``k ...``."""
        ids = torch.arange(len(job.latent))
        ids = ids[self.plan.is_known(ids)]
        return ids, job.latent[ids.to(job.latent.device)]

    def __post_init__(self) -> None:
        check_order(self.order, self.eta)
        if self.window:
            self.plan.rows(self.window, self.sink_frames)  # refuses a window that is too short


def rollout(job: Job, how: Rollout, state: State | None = None) -> Generator[Step, None, State]:
    """Carry a plan out, through a window that slides over frames at noise levels of their own.

    Args:
        job: known frames of its latent stand in their places and stay unchanged; the others begin from what is there, under noise, and
            those behind its end from its last frame: zeros for nothing.
        how: what to do.
        state: what to go on from; None to begin.

    Returns:
        state: after the last row.

    Raises:
        ValueError: something does not fit together, or a finished frame is not finite.
    """
    plan, window = how.plan, job.window(how.window)
    check_sigmas(job.sigmas, plan.steps, together=together(plan))
    check_finite(job.latent)
    job = replace(job, sigmas=job.sigmas.to(job.latent))
    shown_with = how.context_noise.on(job.own_noise)
    if remark := shown_with.remark(job.own_noise):
        log.warning(remark)
    stepper = Stepper(job, how.eta, how.order, shown_with)
    state = State(0, torch.arange(0), job.latent[:0]) if state is None else _resumed(state, job, how, stepper.pasts)
    following = int(state.ids[-1]) + 1 if len(state.ids) else 0
    for row in plan.rows(window, how.sink_frames, state.row, ahead=job.ahead):
        for missed in unseen(row, following, plan, window) if job.recalls else ():
            stepper.step(_frames(state, missed.ids, job, plan), missed, state.row)
        following = max(following, int(row.ids[-1]) + 1)
        x, clean = stepper.step(_frames(state, row.ids, job, plan), row, state.row)
        state = _moved(state, row, x, job.memory.tensors() | stepper.pasts.tensors(), how.sink_frames)
        finished = (row.before > 0) & (row.after == 0) & (row.ids >= 0)
        frames, ids = x[finished.to(x.device)], row.ids[finished]
        _check_finished(frames, ids)
        yield Step(state.row, plan.rows_total, clean, frames, ids, state)
    return state


def last_frames(steps: Generator[Step, None, State]) -> Generator[Step, None, Tensor]:
    """The same steps, and in the end the frames of the last window. Returns ``n ...``."""
    return (yield from steps).x


def collected(job: Job, steps: Generator[Step, None, State], clip: Tensor) -> Generator[Step, None, Tensor]:
    """The same steps, and in the end what the job wants: the clip, or its last frames.

    Args:
        job: which says what is wanted.
        steps: of a sampler.
        clip: ``f ...``, in which finished frames are put in their places; known ones are there.

    Returns:
        clip: ``f ...``.
    """
    if not job.collect:
        return (yield from last_frames(steps))
    clip = clip.clone()
    for step in steps:
        if step.finished is not None and step.ids is not None:
            clip[step.ids.to(clip.device)] = step.finished
        yield step
    return clip


def _resumed(state: State, job: Job, how: Rollout, pasts: Multistep) -> State:
    if state.x.shape[1:] != job.latent.shape[1:]:
        raise ValueError(
            f"the take has frames of {list(state.x.shape[1:])} and this model's are of {list(job.latent.shape[1:])}: go on with the model"
            " that began it"
        )
    done = how.plan.rows(job.window(how.window), how.sink_frames, state.row - 1, ahead=job.ahead) if state.row else iter(())
    last = next(done, None)
    if state.row and (last is None or not torch.isin(last.ids, state.ids).all() or len(state.ids) != len(state.x)):
        raise ValueError(
            f"the take cannot go on at row {state.row} with frames that this schedule has not there: begin another take"
        )
    check_finite(state.x)
    own = {name: tensor for name, tensor in state.memory.items() if name.startswith(STEPS)}
    pasts.restore({name: tensor.to(job.latent.device) for name, tensor in own.items()})
    job.memory.restore({name: tensor for name, tensor in state.memory.items() if name not in own})
    return replace(state, x=state.x.to(job.latent))


def _frames(state: State, ids: Tensor, job: Job, plan: Plan) -> Tensor:
    """The frames of a call, as they are kept, and new ones as they enter: ``ids``: ``n``. Returns ``n ...``."""
    if torch.equal(state.ids, ids):
        return state.x
    numbers = ids.tolist()
    places = {number: place for place, number in enumerate(state.ids.tolist())}
    new = [number for number in numbers if number not in places]
    places |= {number: len(state.ids) + place for place, number in enumerate(new)}
    x = torch.cat([state.x, entering(job, plan, new)]) if new else state.x
    return x[torch.tensor([places[number] for number in numbers], device=x.device)]


def entering(job: Job, plan: Plan, numbers: Sequence[int]) -> Tensor:
    """Frames that no call has shown yet: known ones as they are given, the others at the highest noise level.

    Args:
        job: of the sampling.
        plan: which says what is known.
        numbers: of the frames; those outside the latent begin from its nearest one.

    Returns:
        x: ``n ...``.
    """
    ids = torch.tensor(numbers)
    x = job.latent[ids.clamp(0, len(job.latent) - 1).to(job.latent.device)]
    made = (~plan.is_known(ids)).nonzero().flatten()
    if not len(made):
        return x
    chosen = made.to(x.device)
    return x.index_copy(
        0, chosen, started(x[chosen], entry_noise(job, ids[made]), job.sigmas[-1], job.coordinates, full=job.full)
    )


def entry_noise(job: Job, ids: Tensor) -> Tensor:
    """Unit noise that frames enter with, the user's where there is some: ``ids``: ``n``. Returns ``n ...``."""
    inside = torch.zeros_like(ids, dtype=torch.bool) if job.noise is None else (ids >= 0) & (ids < len(job.noise))
    noise = torch.empty(len(ids), *job.latent.shape[1:], dtype=job.latent.dtype, device=job.latent.device)
    noise[(~inside).to(noise.device)] = frame_noise(job.latent.shape[1:], job.seed, ids[~inside].tolist()).to(noise)
    if job.noise is not None:
        noise[inside.to(noise.device)] = job.noise[ids[inside].to(job.noise.device)].to(noise)
    return noise


def _moved(state: State, row: Row, x: Tensor, memory: Mapping[str, Tensor], sink_frames: int) -> State:
    """What is kept after a row: its frames ``x``, ``n ...``, those that it did not show and a later one may, and what is remembered."""
    others = ((state.ids >= row.keep) | (state.ids < sink_frames)) & ~torch.isin(state.ids, row.ids)
    ids = row.ids
    if others.any():
        ids, order = torch.cat([ids, state.ids[others]]).sort()
        x = torch.cat([x, state.x[others.to(x.device)]])[order.to(x.device)]
    return State(state.row + 1, ids, x, memory)


def _check_finished(frames: Tensor, ids: Tensor) -> None:
    bad = ~torch.isfinite(frames).flatten(1).all(dim=1)
    if bool(bad.any()):
        raise ValueError(
            f"frame {int(ids[bad.cpu()][0])} came out not finite (NaN or infinite): the model or its precision is broken"
        )
