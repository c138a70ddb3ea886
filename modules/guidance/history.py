"""History guidance: several variants of a call, which differ in how the finished frames are shown, and a weighted sum of their guesses.

Song et al., arXiv:2502.06764, Section 4. A branch (``branches.py``) says which finished frames it shows, how noisy, and what its guess
counts:

    guess = none + sum_i weight_i * (guess(frames_i, level_i) - none)

where ``none`` is the guess without any history. Guesses of clean frames are affine in scores, so a weighted sum of the ones is one of
the others. It is formed before the step: the authors add up frames after it, which multiplies fresh noise where eta is above 0.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..sampling.context_noise import ContextNoise
from ..sampling.model_view import Denoise, Guide, View, plain, stacked
from .branches import Branch, chosen

HIDDEN = ("noise", "absent")  # what frames that a branch does not show are: pure noise, or not there at all
NOTHING = 1e-9  # weights below it are rounding


class Variant(NamedTuple):
    """How finished frames are shown in one variant of a call, what its guess counts, and the number of the branch that it is of."""

    weight: float
    shown_with: ContextNoise
    name: int


@dataclass(frozen=True)
class HistoryGuidance:
    """The guide.

    Attributes:
        branches: what is combined; where their weights do not add up to 1, the rest is the weight of the guess without history.
        hidden: a name in ``HIDDEN``. ``noise`` needs a model that was trained with a noise level per frame; ``absent`` leaves the frames
            out of the call, for other models (they see a shorter window then, and each branch is a call of its own).
        at_once: most variants in one call; 0 for all. Fewer need less memory.
        sigmas: of the branches' levels, in the model's coordinates; None until ``on`` was told them.
    """

    branches: tuple[Branch, ...]
    hidden: str = "noise"
    at_once: int = 0
    sigmas: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.branches:
            raise ValueError("history guidance has no branches: give at least one")
        if self.hidden not in HIDDEN:
            raise ValueError(f"hidden is {self.hidden!r}: choose one of {', '.join(HIDDEN)}")
        if self.at_once < 0:
            raise ValueError(f"at_once is {self.at_once}: it must be at least 1, or 0 for all branches in one call")

    @property
    def most(self) -> int:
        """Most variants in one call."""
        count = len(self.branches) + 1  # the one without history
        return min(count, self.at_once or count)

    def on(self, sigma_at: Callable[[float], float]) -> "HistoryGuidance":
        """The same for a model: ``sigma_at`` gives the sigma of a level from 0 to 1."""
        return replace(self, sigmas=tuple(sigma_at(branch.level) if branch.level > 0 else 0.0 for branch in self.branches))

    def __call__(self, denoise: Denoise, view: View) -> Tensor:
        """A ``view.Guide``: the combined guess, ``f ...``."""
        total = torch.zeros_like(view.x)
        shown = [(variant.weight, self._shown(view, variant)) for variant in self.variants(view)]
        for group in _together(shown, self.at_once):
            guesses = denoise(stacked([part for _, part in group])).chunk(len(group))
            for (weight, part), guess in zip(group, guesses, strict=True):
                total = total + weight * _whole(view, part, guess)
        return total

    def variants(self, view: View) -> list[Variant]:
        """What a call is made into; weights add up to 1.

        Branches that are the same here, such as ``last 4`` and ``all`` when four frames are finished, are one.
        """
        if self.sigmas is None and any(branch.level > 0 for branch in self.branches):
            raise RuntimeError("history guidance was not told what its levels are for this model: call on() first")
        finished = view.ids[view.finished].tolist()
        own = view.context_noise
        sigmas = self.sigmas or (0.0,) * len(self.branches)
        given = [(chosen(branch.frames, finished), sigma) for branch, sigma in zip(self.branches, sigmas, strict=True)]
        ways = [_shown_with(own, kept, finished, sigma) for kept, sigma in [*given, (frozenset[int](), 0.0)]]
        weights = [branch.weight for branch in self.branches]
        found: dict[ContextNoise, Variant] = {}
        for place, (way, weight) in enumerate(zip(ways, [*weights, 1 - sum(weights)], strict=True)):
            before = found.get(way, Variant(0.0, way, place))
            found[way] = before._replace(weight=before.weight + weight)
        return [variant for variant in found.values() if abs(variant.weight) > NOTHING]

    def _shown(self, view: View, variant: Variant) -> View:
        way, view = variant.shown_with, replace(view, names=(variant.name,))
        if self.hidden == "absent" and way.kept is not None:
            rows = ~view.finished | torch.tensor([i in way.kept for i in view.ids.tolist()], device=view.finished.device)
            times = None if view.times is None else view.times[rows]
            some = replace(
                view, x=view.x[rows], sigma=view.sigma[rows], ids=view.ids[rows], finished=view.finished[rows], times=times
            )
            view, way = some, replace(way, kept=None)
        return replace(view, context_noise=way).shown()


def _shown_with(own: ContextNoise, kept: frozenset[int], finished: Sequence[int], sigma: float) -> ContextNoise:
    """How a branch's frames are shown: at its own level, or the sampler's where that is noisier."""
    if not finished:
        return own
    if not kept:
        return ContextNoise(kept=kept)
    everywhere = sigma == 0 or own.only is None
    shown = own if sigma <= own.sigma and everywhere else ContextNoise(max(sigma, own.sigma))
    return replace(shown, kept=kept)


def _together(shown: list[tuple[float, View]], most: int) -> Iterator[list[tuple[float, View]]]:
    """Variants of the same frames in calls of at most ``most``; 0 for any number."""
    alike: dict[tuple[int, ...], list[tuple[float, View]]] = {}
    for weight, view in shown:
        alike.setdefault(tuple(view.ids.tolist()), []).append((weight, view))
    for group in alike.values():
        size = most or len(group)
        yield from (group[start : start + size] for start in range(0, len(group), size))


def _whole(view: View, part: View, guess: Tensor) -> Tensor:
    """A guess of some of a call's frames, with the others as they are: ``guess``: ``p ...``. Returns ``f ...``."""
    if len(part.ids) == len(view.ids):
        return guess
    rows = torch.isin(view.ids, part.ids).nonzero().flatten()
    return view.x.index_copy(0, rows, guess)


@dataclass(frozen=True)
class Composed:
    """Guides around one another, the outermost first; each takes the next for its model."""

    guides: tuple[Guide, ...]

    def on(self, sigma_at: Callable[[float], float]) -> "Composed":
        """The same for a model; see ``HistoryGuidance.on``."""
        return Composed(tuple(on_model(guide, sigma_at) for guide in self.guides))

    def __call__(self, denoise: Denoise, view: View) -> Tensor:
        """A ``view.Guide``: the guess, ``f ...``. Frames are shown by the innermost, so the others may leave them as they are."""
        inner: Denoise = partial(plain, denoise)
        for guide in reversed(self.guides):
            inner = partial(guide, inner)
        return inner(view)


def compose(guides: Sequence[Guide | None]) -> Guide:
    """Several guides as one, the later around the earlier; but history guidance, which decides what the model sees, is the innermost.

    Raises:
        ValueError: there are two history guidances.
    """
    parts = [part for guide in guides if guide is not None for part in _parts(guide)]
    history = [part for part in parts if isinstance(part, HistoryGuidance)]
    if len(history) > 1:
        raise ValueError(
            "two history guidances are chained and each says how the history is shown: use one, with custom branches"
        )
    others = [part for part in reversed(parts) if not isinstance(part, HistoryGuidance)]
    around = (*others, *history)
    return Composed(around) if len(around) > 1 else around[0] if around else plain


def _parts(guide: Guide) -> list[Guide]:
    """From the innermost."""
    return list(reversed(guide.guides)) if isinstance(guide, Composed) else [] if guide is plain else [guide]


def on_model(guide: Guide, sigma_at: Callable[[float], float]) -> Guide:
    """A guide for a model, of which ``sigma_at`` gives the sigma of a level from 0, clean, to 1, its noisiest."""
    return guide.on(sigma_at) if isinstance(guide, HistoryGuidance | Composed) else guide


def needs_history(guide: Guide) -> bool:
    """Whether a guide is for samplers that finish frames one after the other."""
    return any(isinstance(part, HistoryGuidance) for part in _parts(guide))


def variants_of(guide: Guide) -> int:
    """Most variants of the same frames that a guide shows the model in one call."""
    return max((part.most for part in _parts(guide) if isinstance(part, HistoryGuidance)), default=1)
