"""History guidance: several variants of a call, which differ in how the finished frames are shown, and a weighted sum of their guesses.

Song et al., arXiv:2502.06764, Section 4, and their repository (DFoT). A branch (``branches.py``) says which finished frames it shows,
how noisy, and what its guess counts:

    guess = none + sum_i weight_i * (guess(frames_i, level_i) - guess(frames_i, against_i))

where ``none`` is the guess without any history, as is one with everything ``against`` at 1. Guesses of clean frames are affine in
scores, so a weighted sum of the ones is one of the others. It is formed before the step: the authors add up frames after it, which
multiplies fresh noise where eta is above 0. They also leave conditions out of the guess without history; here CFG is for those.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..fields.setting import check, documented, setting
from ..noise.seeded import broadcast
from ..sampling.context_noise import ContextNoise
from ..sampling.model_view import Denoise, Guide, View, plain, stacked
from .branches import Branch, chosen

NOTHING = 1e-9  # weights below it are rounding
TOGETHER = ("all",)  # new frames are guessed together


class Variant(NamedTuple):
    """How finished frames are shown in one variant of a call, what its guess counts, and a number that is its own in all calls."""

    weight: float
    shown_with: ContextNoise
    name: int


class Segment(NamedTuple):
    """New frames that are guessed together: the number of the segment, the new frames that it hides, and what its guess of each frame
    counts, ``f``; None for all of it.
    """

    number: int
    hidden: frozenset[int] = frozenset()
    share: Tensor | None = None


@documented
@dataclass(frozen=True)
class HistoryGuidance:
    """The guide.

    Attributes:
        branches: what is combined; where their weights do not add up to 1, the rest is the weight of the guess without history.
        segments: new frames that are guessed together while the others are hidden: ``all``, or parts such as ``0..2`` and ``first 3``,
            counted from the oldest one. A frame in several is their mean, frames in none are guessed with all.
        sigma_at: the sigma of a level from 0 to 1; None until ``on`` was told it.
    """

    branches: tuple[Branch, ...]
    hidden: str = setting(
        "noise",
        "Hidden says what frames are that a branch does not show.",
        menu={
            "noise": "They are pure noise, for models trained with a noise level per frame.",
            "absent": "They are left out, for other models, which see a shorter window then; every branch is a call of its own.",
        },
    )
    branch_batch: int = setting(
        0, "So many branches go through the model together; 0 is all of them, and 1 needs the least memory.", least=0, most=64
    )
    segments: tuple[str, ...] = TOGETHER
    sigma_at: Callable[[float], float] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.branches:
            raise ValueError("history guidance has no branches: give at least one")
        check(self)
        if not self.segments:
            raise ValueError("there are no segments: write all, or parts of the new frames such as 0..2, 1..3")
        for part in self.segments:
            chosen(part, ())  # refuses what cannot be read

    @property
    def variants_at_most(self) -> int:
        """Most variants of a call, in however many calls of the network."""
        variants = 1 + sum(1 if branch.against == 1 else 2 for branch in self.branches)
        return variants * (1 if self.segments == TOGETHER else len(self.segments) + 1)

    @property
    def most(self) -> int:
        """Most variants in one call."""
        return min(self.variants_at_most, self.branch_batch or self.variants_at_most)

    def on(self, sigma_at: Callable[[float], float]) -> "HistoryGuidance":
        """The same for a model: ``sigma_at`` gives the sigma of a level from 0 to 1."""
        return replace(self, sigma_at=sigma_at)

    def __call__(self, denoise: Denoise, view: View) -> Tensor:
        """A ``model_view.Guide``: the combined guess, ``f ...``."""
        total, variants = torch.zeros_like(view.x), self.variants(view)
        shown = [
            (variant.weight, segment, self._shown(view, variant, segment))
            for segment in self._segments(view)
            for variant in variants
        ]
        for group in _together(shown, self.branch_batch):
            guesses = denoise(stacked([part for _, _, part in group])).chunk(len(group))
            for (weight, segment, part), guess in zip(group, guesses, strict=True):
                whole = weight * _whole(view, part, guess)
                total = total + (whole if segment.share is None else broadcast(segment.share, whole) * whole)
        return total

    def variants(self, view: View) -> list[Variant]:
        """What a call is made into; weights add up to 1.

        Branches that are the same here, such as ``last 4`` and ``all`` when four frames are finished, are one.
        """
        finished = view.ids[view.finished].tolist()
        given = [False] * len(finished) if view.given is None else view.given[view.finished].tolist()
        ranges = [(branch.weight, *branch.levels(finished, given)) for branch in self.branches]
        starts, ends = ([(sign * weight, both[side]) for weight, *both in ranges] for side, sign in ((0, 1), (1, -1)))
        found: dict[ContextNoise, Variant] = {}
        for place, (weight, levels) in enumerate([*starts, *ends, (1.0, {})]):
            way = self._shown_with(view.context_noise, levels, dict(zip(finished, given, strict=True)))
            before = found.get(way, Variant(0.0, way, place))
            found[way] = before._replace(weight=before.weight + weight)
        return [variant for variant in found.values() if abs(variant.weight) > NOTHING]

    def _shown_with(self, own: ContextNoise, levels: dict[int, float], given: dict[int, bool]) -> ContextNoise:
        """How finished frames are shown: at the branch's level, or as the sampler does where that is noisier."""
        if not given:
            return own
        hidden = frozenset(number for number in given if levels.get(number, 1.0) >= 1)
        if len(hidden) == len(given):
            return ContextNoise(hidden=hidden)
        sigmas = {number: self._sigma(levels[number]) for number in given if number not in hidden}
        raised = tuple((number, sigma) for number, sigma in sigmas.items() if sigma > own.sigma_of(given[number]))
        return replace(own, raised=raised, hidden=hidden)

    def _sigma(self, level: float) -> float:
        if level <= 0:
            return 0.0
        if self.sigma_at is None:
            raise RuntimeError("history guidance was not told what its levels are for this model: call on() first")
        return self.sigma_at(level)

    def _segments(self, view: View) -> list[Segment]:
        """What of the new frames is guessed together."""
        new = view.ids[~view.finished].tolist()
        if self.segments == TOGETHER or not new:
            return [Segment(0)]
        parts = [{new[place] for place in chosen(part, range(len(new)))} for part in self.segments]
        if set(new) - set().union(*parts):
            parts.append(set(new))
        numbers = view.ids.tolist()
        shares = torch.tensor([[number in part or number not in new for number in numbers] for part in parts]).to(view.x)
        shares = shares / shares.sum(dim=0)
        return [
            Segment(i, frozenset(new) - part, share) for i, (part, share) in enumerate(zip(parts, shares, strict=True)) if part
        ]

    def _shown(self, view: View, variant: Variant, segment: Segment) -> View:
        way = replace(variant.shown_with, hidden=variant.shown_with.hidden | segment.hidden)
        view = replace(view, names=(variant.name + segment.number * (2 * len(self.branches) + 1),))
        if self.hidden == "absent" and way.hidden:
            view, way = _without(view, way.hidden), replace(way, hidden=frozenset())
        return replace(view, context_noise=way).shown()


def _without(view: View, hidden: frozenset[int]) -> View:
    """A call that does not show some frames."""
    rows = torch.tensor([number not in hidden for number in view.ids.tolist()], device=view.finished.device)
    given, times = (None if part is None else part[rows] for part in (view.given, view.times))
    x, sigma, ids, finished = (part[rows] for part in (view.x, view.sigma, view.ids, view.finished))
    return replace(view, x=x, sigma=sigma, ids=ids, finished=finished, given=given, times=times)


def _together(shown: Sequence[tuple[float, Segment, View]], most: int) -> Iterator[list[tuple[float, Segment, View]]]:
    """Variants of the same frames in calls of at most ``most``; 0 for any number."""
    alike: dict[tuple[int, ...], list[tuple[float, Segment, View]]] = {}
    for item in shown:
        alike.setdefault(tuple(item[2].ids.tolist()), []).append(item)
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
        """A ``model_view.Guide``: the guess, ``f ...``. Frames are shown by the innermost, so the others may leave them as they are."""
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
