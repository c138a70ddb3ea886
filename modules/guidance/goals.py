"""Goals: a clip that does better by a number that can be differentiated, without training anything for it.

Dhariwal and Nichol, arXiv:2105.05233, Section 4, with the number in the place of a classifier; Diffusion Forcing, arXiv:2407.01392,
Section 4.2 and Appendix C, where frames may be at different noise levels. The guess of the clean frames moves by

    weight * sigma^2 / a * gradient of score(clean) with respect to x

which is Tweedie's formula for the clean frames given that those with a higher score are likelier by ``exp(weight * score)``.

Monte-Carlo guidance (the same, Section 3.3): what is good for the present depends on what comes of it, and that is not decided yet while
later frames are noisier. So the gradient is averaged over several continuations: the noisier frames get new noise of their level around
their guess, again and again.

To add a goal, write a function of a target that gives a function of colours, ``f 3 h w`` in 0..1, to a number, and add its row to
``GOALS``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from ..fields.setting import check, documented, setting
from ..noise.seeded import broadcast, frame_noise
from ..sampling.coordinates import mixed
from ..sampling.model_view import Denoise, View
from ..temporal.gradients import PLAIN, Gradients
from .steering import ALWAYS, LEAST_SIGNAL, Notes, Space, When, clamp, differentiated, limited, signal

Score = Callable[[Tensor], Tensor]  # frames to a number, the higher the better
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
STILL = 1e-6  # keeps the slope of a root finite where nothing moves


def brightness(target: Sequence[float]) -> Score:
    """Frames whose mean brightness is ``target[0]``, 0 for black and 1 for white."""

    def score(colours: Tensor) -> Tensor:
        weights = colours.new_tensor(LUMA).view(3, 1, 1)
        return -(((colours * weights).sum(dim=1).mean(dim=(1, 2)) - target[0]) ** 2).sum()

    return score


def colour(target: Sequence[float]) -> Score:
    """Frames whose mean colour is ``target``: red, green and blue in 0..1."""
    return lambda colours: -((colours.mean(dim=(2, 3)) - colours.new_tensor(tuple(target))) ** 2).sum()


def motion(target: Sequence[float]) -> Score:
    """Neighbouring frames that differ by ``target[0]``, root mean square of all colours; 0 for a clip that stands still."""

    def score(colours: Tensor) -> Tensor:
        change = (colours.diff(dim=0) ** 2).mean(dim=(1, 2, 3))
        return -(((change + STILL).sqrt() - target[0]) ** 2).sum()

    return score


class Goal(NamedTuple):
    """A goal: a sentence, its score for a target, and how many numbers a target has."""

    text: str
    score: Callable[[Sequence[float]], Score]
    values: int = 1


GOALS = {
    "brightness": Goal("Each frame is as bright as value says.", brightness),
    "colour": Goal("Each frame has as much on average as red, green and blue say.", colour, values=3),
    "motion": Goal("Neighbouring frames differ as much as value says.", motion),
}


def named(goal: str, target: Sequence[float]) -> Score:
    """The score of a goal in ``GOALS``.

    Raises:
        ValueError: there is no such goal, or the target is no target for it.
    """
    if goal not in GOALS:
        raise ValueError(f"the goal {goal!r} is not known: choose one of {', '.join(GOALS)}")
    row = GOALS[goal]
    if len(target) != row.values or not all(0 <= value <= 1 for value in target):
        raise ValueError(f"the target of {goal} is {list(target)}: it takes {row.values} numbers from 0 to 1")
    return row.score(target)


def _share(of: str) -> Any:
    return setting(0.5, f"For colour, {of} is how much of it each frame has on average.", least=0.0, most=1.0, step=0.01)


@documented
@dataclass(frozen=True)
class GoalSettings:
    """Which goal, and where it lies."""

    goal: str = setting(
        "brightness",
        "The goal is what the clip is led to.",
        menu={name: row.text for name, row in GOALS.items()},
    )
    value: float = setting(
        0.5,
        "For brightness, the value is that of each frame, 0 for black and 1 for white; for motion it is how much neighbours differ, 0 for"
        " a still and 0.02 to 0.15 for what is usual.",
        least=0.0,
        most=1.0,
        step=0.01,
    )
    red: float = _share("red")
    green: float = _share("green")
    blue: float = _share("blue")

    def __post_init__(self) -> None:
        check(self)

    def score(self) -> Score:
        """What is to be high."""
        return named(self.goal, (self.red, self.green, self.blue) if GOALS[self.goal].values == 3 else (self.value,))


@documented
@dataclass(frozen=True)
class GoalGuidance:
    """The guide.

    Attributes:
        score: of clean frames; a function of your own is given colours, ``n 3 h w`` in 0..1, or with ``latents`` what the model makes.
        latents: whether ``score`` is given the model's frames as they are, ``n ...``.
        when: in which calls it acts.
        gradients: what it asks the host for.
        space: of the host; set by ``fit``.
    """

    score: Score
    weight: float = setting(
        1.0,
        "The weight says how firmly the clip is led: a clip whose score is 1 higher is likelier by e to its power. Below 0 the clip is led"
        " away from the goal.",
        least=-100000.0,
        most=100000.0,
        step=1.0,
    )
    latents: bool = False
    futures: int = setting(
        1,
        "Monte-Carlo guidance judges the present frames by so many continuations, each a model call; 1 is off. It is for schedules whose"
        " later frames are noisier, such as pyramid.",
        least=1,
        most=1024,
    )
    seed: int = setting(0, "The seed is that of the continuations' noise.", least=0, most=2**64 - 1)
    when: When = ALWAYS
    clamp: float = clamp()
    gradients: Gradients = PLAIN
    space: Space = field(default=Space(), compare=False, repr=False)
    notes: Notes = field(default_factory=Notes, compare=False, repr=False)

    def __post_init__(self) -> None:
        check(self)

    def fit(self, space: Space) -> "GoalGuidance":
        """The same for one sampling of a host.

        Raises:
            ValueError: the host knows no colours of this model's frames, or cannot show frames at different noise levels.
        """
        if not self.latents and space.pixels is None:
            raise ValueError(
                "a goal is about colours, and there is no quick way from this model's latents to them: use a model with previews, or from"
                " Python a score of the latents"
            )
        if self.futures > 1 and not space.levels:
            raise ValueError(
                f"futures is {self.futures}, which averages over frames that are noisier than the present, and this sampler shows all"
                " frames at one noise level: set futures to 1, or use a schedule whose later frames lag behind"
            )
        return replace(self, space=space, notes=Notes())

    def __call__(self, denoise: Denoise, view: View) -> Tensor:
        """The guess of a call, moved towards the goal. Returns ``n ...``."""
        rows = self.when.rows(view, self.space)
        if self.weight == 0 or not bool(rows.any()):
            return denoise(view)
        clean, gradient = differentiated(denoise, view, self._number)
        if self.futures > 1:
            gradient = self._averaged(denoise, view, clean, gradient, rows)
        factor = self.weight * view.sigma**2 / signal(view).clamp_min(LEAST_SIGNAL)
        correction = broadcast(torch.where(rows, factor, 0), clean) * gradient
        return clean + limited(correction, clean, self.clamp, self.notes)

    def _number(self, clean: Tensor) -> Tensor:
        if self.latents or self.space.pixels is None:
            return self.score(clean)
        return self.score(self.space.pixels(clean))

    def _averaged(self, denoise: Denoise, view: View, clean: Tensor, gradient: Tensor, rows: Tensor) -> Tensor:
        """The gradient over all continuations: of the frames that are furthest; each noisier one keeps that of its own."""
        present = rows & (view.sigma <= view.sigma[rows].min() * (1 + 1e-4))
        later = rows & ~present
        if not bool(later.any()):
            return gradient  # the last frames of a take have no continuation
        total = gradient
        for future in range(1, self.futures):
            total = total + differentiated(denoise, self._continued(view, clean, later, future), self._number)[1]
        return torch.where(broadcast(present, gradient).bool(), total / self.futures, gradient)

    def _continued(self, view: View, clean: Tensor, later: Tensor, future: int) -> View:
        """The same call with another continuation."""
        ids = view.ids.repeat(view.clips).tolist()
        noise = frame_noise(view.x.shape[1:], self.seed, ids, f"future {view.call} {future}").to(view.x)
        return replace(
            view, x=torch.where(broadcast(later, view.x).bool(), mixed(clean, noise, view.sigma, view.coordinates), view.x)
        )


def unfolded(patch: int) -> Callable[[Tensor], Tensor]:
    """The way from a pixel-space model's frames, ``n l h w`` in patches of this side, to colours, ``n 3 p q``, 0..1 and a little beyond."""
    return lambda clean: rearrange(clean, "n (c p q) h w -> n c (h p) (w q)", p=patch, q=patch) / 2 + 0.5


def energy(colours: Tensor) -> float:
    """How much neighbouring frames differ, root mean square, as ``motion`` has it: ``colours``: ``f 3 h w``."""
    return float((colours.diff(dim=0) ** 2).mean(dim=(1, 2, 3)).sqrt().mean())
