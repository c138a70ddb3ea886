"""Goals: a clip that does better by a number that can be differentiated, without training anything for it.

Dhariwal and Nichol, arXiv:2105.05233, Section 4, with the number in the place of a classifier; Diffusion Forcing, arXiv:2407.01392,
Section 4.2 and Appendix C, where frames may be at different noise levels. The guess of the clean frames moves by

    weight * sigma^2 / a * gradient of score(clean) with respect to x

which is Tweedie's formula for the clean frames given that those with a higher score are likelier by ``exp(weight * score)``.

Monte-Carlo guidance (the same, Section 3.3): what is good for the present depends on what comes of it, and that is not decided yet while
later frames are noisier. So the gradient is averaged over several continuations: the noisier frames get new noise of their level around
their guess, again and again.

To add a goal, write a function of a target that gives a function of colours, ``f 3 h w`` in 0..1, to a number, and name it in ``GOALS``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from einops import rearrange
from torch import Tensor

from ..noise.seeded import broadcast, frame_noise
from ..sampling.coordinates import mixed
from ..sampling.model_view import Denoise, View
from ..temporal.gradients import PLAIN, Gradients
from .steering import ALWAYS, LEAST_SIGNAL, Notes, Space, When, differentiated, limited, signal

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


GOALS: dict[str, Callable[[Sequence[float]], Score]] = {f.__name__: f for f in (brightness, colour, motion)}
VALUES = {"brightness": 1, "colour": 3, "motion": 1}  # numbers in a target


def named(goal: str, target: Sequence[float]) -> Score:
    """The score of a goal in ``GOALS``.

    Raises:
        ValueError: there is no such goal, or the target is no target for it.
    """
    if goal not in GOALS:
        raise ValueError(f"the goal {goal!r} is not known: choose one of {', '.join(GOALS)}")
    if len(target) != VALUES[goal] or not all(0 <= value <= 1 for value in target):
        raise ValueError(f"the target of {goal} is {list(target)}: it takes {VALUES[goal]} numbers from 0 to 1")
    return GOALS[goal](target)


@dataclass(frozen=True)
class GoalGuidance:
    """The guide.

    Attributes:
        score: of clean frames; a function of your own is given colours, ``n 3 h w`` in 0..1, or with ``latents`` what the model makes.
        weight: how much likelier a clip is whose score is 1 higher, as the exponent of e.
        latents: whether ``score`` is given the model's frames as they are, ``n ...``.
        futures: how many continuations the gradient is averaged over, 1 for the present one only.
        seed: of the continuations' noise.
        when: in which calls it acts.
        clamp: see ``steering.limited``; 0 is off.
        gradients: what it asks the host for.
        space: of the host; set by ``fit``.
    """

    score: Score
    weight: float = 1.0
    latents: bool = False
    futures: int = 1
    seed: int = 0
    when: When = ALWAYS
    clamp: float = 0.0
    gradients: Gradients = PLAIN
    space: Space = field(default=Space(), compare=False, repr=False)
    notes: Notes = field(default_factory=Notes, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not float("-inf") < self.weight < float("inf"):
            raise ValueError(f"the weight of the goal is {self.weight}: it must be finite; below 0 it leads away from the goal")
        if self.futures < 1:
            raise ValueError(f"futures is {self.futures}: it must be at least 1, which is the present continuation only")
        if not 0 <= self.clamp < float("inf"):
            raise ValueError(f"clamp is {self.clamp}: it must be at least 0, which is off, and finite")

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
