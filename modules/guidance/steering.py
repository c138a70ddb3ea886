"""What guides have in common that change the clean guess by a gradient: when they act, on what, and what they need to know of a host.

A guide of this kind takes ``View.x`` as a variable and the gradient of a number that it computes from the guess. It hands the view on as
it is: finished frames are shown by the innermost of several guides (``guidance.Composed``). ``fitted`` makes it ready for one sampling of
one host.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..fields.setting import check, documented, setting
from ..fields.span import check_span, end_percent, start_percent
from ..noise.seeded import broadcast
from ..sampling.coordinates import SIGNAL
from ..sampling.model_view import Denoise, Guide, View
from ..temporal.gradients import BOTH, POSITIVE, Gradients, gradients, normal
from .history import Composed

log = logging.getLogger("longtake")
LEAST_SIGNAL = 1e-2  # flow models hold nothing of the clip at pure noise, where a step would be divided by zero


@dataclass(frozen=True)
class Space:
    """What a guide has to know of the host's model.

    Attributes:
        encode: the samples of a LATENT as ``View.x`` has them, frames first and on the model's own scale.
        pixels: clean frames, ``n ...``, to colours, ``n 3 h w`` in 0..1, roughly and differentiably; None where the host knows no way.
        at_percent: the sigma at a point of the sampling, 0..1.
        mixing: which frames a frame hangs on: ``none`` but itself, the ``past`` and itself, or ``all``; None where it cannot be told.
        frames: length of the clip; None where it is not sampled as a whole.
        levels: whether the frames of a call may have different noise levels.
    """

    encode: Callable[[Tensor], Tensor] = lambda samples: samples
    pixels: Callable[[Tensor], Tensor] | None = None
    at_percent: Callable[[float], float] = lambda percent: float("inf") if percent <= 0 else 0.0
    mixing: str | None = None
    frames: int | None = None
    levels: bool = True

    @property
    def sees_ahead(self) -> bool:
        """Whether some frame hangs on later ones, as far as can be told."""
        return self.mixing not in ("none", "past")


def fitted(guide: Guide, space: Space) -> Guide:
    """A guide for one sampling of a host; guides that need to know nothing of it stay as they are.

    Raises:
        ValueError: a part of it cannot work there. One sentence, before any model call.
    """
    parts = parts_of(guide)
    made = tuple(part.fit(space) if isinstance(part, Steering) else part for part in parts)
    return Composed(made) if any(isinstance(part, Steering) for part in parts) else guide


def parts_of(guide: Guide) -> tuple[Guide, ...]:
    """The guides that one is composed of, the outermost first."""
    return guide.guides if isinstance(guide, Composed) else (guide,)


@runtime_checkable
class Steering(Protocol):
    """A guide that has to be fitted.

    Attributes:
        gradients: what it asks the host for.
    """

    gradients: Gradients

    def fit(self, space: Space) -> Guide:
        """The same for one sampling of a host."""
        ...

    def __call__(self, denoise: Denoise, view: View) -> Tensor:
        """A ``model_view.Guide``."""
        ...


def asked_by(guide: Guide) -> Gradients | None:
    """What the parts of a guide ask for together; None where none needs gradients."""
    asked = [part.gradients for part in parts_of(guide) if isinstance(part, Steering)]
    if not asked:
        return None
    return Gradients(
        branch=POSITIVE if all(wish.conditional for wish in asked) else BOTH,
        gradient_checkpointing=any(wish.gradient_checkpointing for wish in asked),
        across=any(wish.across for wish in asked),
    )


@documented
@dataclass(frozen=True)
class When:
    """In which model calls a guide acts."""

    start_percent: float = start_percent()
    end_percent: float = end_percent()
    every: int = setting(
        1, "The guidance acts in each of so many model calls; the others are faster, and 1 is all of them.", least=1, most=1000
    )

    def __post_init__(self) -> None:
        check(self)
        check_span(self)

    def rows(self, view: View, space: Space) -> Tensor:
        """The frames that are guided in a call: those not finished, at noise levels between start and end. Returns ``n``, bool."""
        wanted = (view.sigma > 0) & ~view.finished.repeat(view.clips)
        if view.call % self.every:
            return torch.zeros_like(wanted)
        begun = view.sigma <= space.at_percent(self.start_percent) if self.start_percent > 0 else wanted
        ended = view.sigma <= space.at_percent(self.end_percent) if self.end_percent < 1 else torch.zeros_like(wanted)
        return wanted & begun & ~ended


ALWAYS = When()


def clamp() -> Any:
    """The field ``clamp`` of a guide; see ``limited``."""
    return setting(
        0.0,
        "The clamp is the largest correction of a frame, relative to the frame; the log says when it was needed. 0 is off.",
        least=0.0,
        most=100.0,
        step=0.05,
    )


@dataclass
class Notes:
    """What a guide has seen in one sampling."""

    moved: bool = False  # some gradient was not zero
    limited: int = 0  # calls in which a correction was made smaller


def differentiated(denoise: Denoise, view: View, number: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The clean guess and the gradient of a number computed from it.

    Inside another guide that wants a gradient the guess keeps its graph; the inner one's correction is a constant to the outer one.

    Args:
        denoise: the model, or the guide inside.
        view: of the call.
        number: of clean frames ``n ...``.

    Returns:
        clean: ``n ...``, and gradient: ``n ...``, with respect to ``view.x``.
    """
    inside = torch.is_grad_enabled() and view.x.requires_grad
    with gradients():
        x = view.x if inside else view.x.detach().clone().requires_grad_()
        clean = denoise(normal(replace(view, x=x)))
        (gradient,) = torch.autograd.grad(number(clean), x, allow_unused=True, retain_graph=inside)
    return clean if inside else clean.detach(), torch.zeros_like(view.x) if gradient is None else gradient


def limited(correction: Tensor, clean: Tensor, clamp: float, notes: Notes) -> Tensor:
    """A correction that is no larger than a share of the guess, frame by frame.

    Args:
        correction: ``n ...``.
        clean: ``n ...``.
        clamp: the largest root mean square that a frame's correction may have, relative to the frame's; 0 for any.
        notes: where it is kept that it was too large; the first time it is logged.

    Returns:
        correction: ``n ...``.
    """
    if clamp <= 0:
        return correction
    size, most = (tensor.flatten(1).square().mean(dim=1).sqrt() for tensor in (correction, clean))
    share = (clamp * most / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp_max(1)
    if bool((share < 1).any()):
        if not notes.limited:
            log.info(
                "guidance: a correction of %.3g times the frame's size was limited to %.3g", float((size / most).max()), clamp
            )
        notes.limited += 1
    return correction * broadcast(share, correction)


def signal(view: View) -> Tensor:
    """How much of the clean frames is in the noisy ones. Returns ``n``."""
    return SIGNAL[view.coordinates](view.sigma)
