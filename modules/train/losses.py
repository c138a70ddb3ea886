"""What the error of a clip costs: how large it is in each frame, and how it changes from one frame to the next.

All losses work on the error ``e = prediction - target`` of whole clips, ``b f c h w``, and give one number per clip. Squared errors
alone (``mse``) do not care in which order the frames' errors come; losses on differences do, since an error that flickers has larger
differences than one that stays. On an error of temporal frequency ``k`` the squared difference weighs ``4 sin^2(pi k / 2F)`` times
the squared error: nothing on what stays the same in all frames, four times on what alternates.

- ``chain``, ``suffix``: one frame's error and the differences from there on (jfischoff's article on a frame difference loss, 2023).
  The article's differences may be read as running over the whole clip or over what follows the first frame; both are here.
- ``blend``, ``second_difference``: squared error and differences mixed so that no error weighs more than under ``mse``. A learning
  rate that is stable for ``mse`` then is for these, too.
- ``debiased``: MotionDirector's appearance-debiased loss (arXiv:2310.08465, Section 3.2): what all frames share with an anchor frame
  counts little, so motion is learned from few clips without their looks. As its authors' code does, the squared error is added.
- ``general``: any weights on squared error, one frame's, first and second differences.

A term that joins several frames counts with the smallest of their weights: it is worth no more than the frame that is known least.

Where frames have noise levels of their own, take differences in ``x0`` space (``converted``): at different levels the same mistake
about the picture is an error of different size in the noise, and differences of those would mean nothing.

To add a loss, write a function of (error, weights, start frames, settings) and name it in ``LOSSES``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class LossSettings:
    """A loss and its numbers; each kind reads those that it has.

    Attributes:
        kind: a name in ``LOSSES``.
        share: of the differences, 0..1; for ``blend`` and ``second_difference``.
        beta: how much of the anchor frame is taken off, at least 0; for ``debiased``.
        rec, start, diff, diff2: weights of the four terms of ``general``, at least 0, not all 0.
        space: what the error is converted to first, ``x0``, ``eps`` or ``v``; empty: as the model predicts.
    """

    kind: str = "mse"
    share: float = 0.5
    beta: float = 1.0
    rec: float = 1.0
    start: float = 0.0
    diff: float = 0.0
    diff2: float = 0.0
    space: str = ""

    def __post_init__(self) -> None:
        if self.kind not in LOSSES:
            raise ValueError(f"the loss {self.kind!r} is not known: choose one of {', '.join(LOSSES)}")
        if self.space and self.space not in _TO_X0:
            raise ValueError(f"the loss is wanted in {self.space!r} space: choose one of {', '.join(_TO_X0)}, or leave it empty")
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}: it must lie between 0, squared error alone, and 1, differences alone")
        for name in ("beta", "rec", "start", "diff", "diff2"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be a number from 0 up")
        if self.kind == "general" and not self.rec + self.start + self.diff + self.diff2:
            raise ValueError("rec, start, diff and diff2 are all 0: give at least one term of the general loss a weight")


def energy(e: Tensor) -> Tensor:
    """The mean square of each frame: ``e``: ``b f ...``. Returns ``b f``."""
    return e.square().flatten(2).mean(2)


def first_differences(e: Tensor, weight: Tensor) -> Tensor:
    """The weighted mean squares of what changes from frame to frame: ``e``: ``b f ...``, ``weight``: ``b f``. Returns ``b f-1``."""
    return torch.minimum(weight[:, 1:], weight[:, :-1]) * energy(e.diff(dim=1))


def second_differences(e: Tensor, weight: Tensor) -> Tensor:
    """Those of what changes in the change, none for clips below 3 frames: ``e``: ``b f ...``, ``weight``: ``b f``. Returns ``b p``."""
    if e.shape[1] < 3:
        return weight[:, :0]
    return torch.stack([weight[:, 2:], weight[:, 1:-1], weight[:, :-2]]).amin(0) * energy(e.diff(n=2, dim=1))


def _at(values: Tensor, place: Tensor) -> Tensor:
    """One value per clip: ``values``: ``b f``, ``place``: ``b``. Returns ``b``."""
    return values.gather(1, place[:, None])[:, 0]


def mse(e: Tensor, weight: Tensor, start: Tensor, settings: LossSettings) -> Tensor:
    """Every frame by itself: ``e``: ``b f c h w``, ``weight``: ``b f``, ``start``: ``b`` unused. Returns ``b``."""
    return (weight * energy(e)).mean(1)


def chain(e: Tensor, weight: Tensor, start: Tensor, settings: LossSettings) -> Tensor:
    """The clip written as one frame and its differences, and squared errors of that.

    Differences may be walked from the start frame outwards or from the first frame on: the squares are the same.

    Args:
        e: ``b f c h w``.
        weight: ``b f``.
        start: ``b``, the frame that is compared itself.
        settings: unused.

    Returns:
        loss: ``b``.
    """
    return (_at(weight * energy(e), start) + first_differences(e, weight).sum(1)) / e.shape[1]


def suffix(e: Tensor, weight: Tensor, start: Tensor, settings: LossSettings) -> Tensor:
    """The same for the part of the clip that begins at ``start``: ``b``, of ``e``: ``b f c h w``, ``weight``: ``b f``. Returns ``b``."""
    frames = e.shape[1]
    inside = torch.arange(frames - 1, device=e.device) >= start[:, None]
    total = _at(weight * energy(e), start) + torch.where(inside, first_differences(e, weight), 0).sum(1)
    return total / (frames - start)


def blend(e: Tensor, weight: Tensor, start: Tensor, settings: LossSettings) -> Tensor:
    """Squared error and differences, at most as steep as squared error: an alternating error weighs the same under both.

    Args:
        e: ``b f c h w``.
        weight: ``b f``.
        start: ``b``, unused.
        settings: ``share`` of the differences.

    Returns:
        loss: ``b``.
    """
    differences = first_differences(e, weight).sum(1) / (4 * e.shape[1])
    return (1 - settings.share) * mse(e, weight, start, settings) + settings.share * differences


def second_difference(e: Tensor, weight: Tensor, start: Tensor, settings: LossSettings) -> Tensor:
    """As ``blend`` with second differences, which let an even motion pass: ``e``: ``b f c h w``, ``weight``: ``b f``, ``start``: ``b``.

    Returns:
        loss: ``b``.
    """
    differences = second_differences(e, weight).sum(1) / (16 * e.shape[1])
    return (1 - settings.share) * mse(e, weight, start, settings) + settings.share * differences


def debiased(e: Tensor, weight: Tensor, start: Tensor, settings: LossSettings) -> Tensor:
    """Squared error, and squared error after ``phi(e) = sqrt(beta^2 + 1) e - beta e_anchor`` (arXiv:2310.08465, Section 3.2).

    ``phi`` is linear, so that of prediction and target is that of their difference. An error that is the same in all frames keeps
    ``(sqrt(beta^2 + 1) - beta)^2`` of its weight, 0.17 for the authors' beta of 1.

    Args:
        e: ``b f c h w``.
        weight: ``b f``.
        start: ``b``, the anchor frame.
        settings: ``beta``.

    Returns:
        loss: ``b``.
    """
    clips = torch.arange(len(e), device=e.device)
    rest = math.sqrt(settings.beta**2 + 1) * e - settings.beta * e[clips, start][:, None]
    joined = torch.minimum(weight, weight[clips, start][:, None])
    return mse(e, weight, start, settings) + (joined * energy(rest)).mean(1)


def general(e: Tensor, weight: Tensor, start: Tensor, settings: LossSettings) -> Tensor:
    """The four terms, each a mean over its entries, by their weights.

    Args:
        e: ``b f c h w``.
        weight: ``b f``.
        start: ``b``, the frame of the term ``start``.
        settings: ``rec``, ``start``, ``diff``, ``diff2``.

    Returns:
        loss: ``b``.
    """
    first, second = first_differences(e, weight), second_differences(e, weight)
    return (
        settings.rec * mse(e, weight, start, settings)
        + settings.start * _at(weight * energy(e), start)
        + settings.diff * first.sum(1) / max(1, first.shape[1])
        + settings.diff2 * second.sum(1) / max(1, second.shape[1])
    )


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor, LossSettings], Tensor]] = {
    f.__name__: f for f in (mse, chain, suffix, blend, second_difference, debiased, general)
}

# what an error of the model's output is multiplied with to be one of the clean frames (x0 = x - sigma eps, and so on)
_TO_X0: dict[str, Callable[[Tensor], Tensor]] = {
    "x0": torch.ones_like,
    "eps": lambda sigma: -sigma,
    "v": lambda sigma: -sigma / (sigma**2 + 1).sqrt(),
}


def converted(e: Tensor, sigma: Tensor, *, given: str, wanted: str) -> Tensor:
    """The same error, in another space.

    Args:
        e: ``b f ...``, prediction minus target.
        sigma: ``b f``, noise level of each frame, at least 0.
        given: what ``e`` is the error of: ``x0``, ``eps`` or ``v``.
        wanted: what it shall be of.

    Returns:
        e: ``b f ...``.

    Raises:
        ValueError: a space is not known, or a clean frame's error is wanted as one of its noise.
    """
    for name in (given, wanted):
        if name not in _TO_X0:
            raise ValueError(f"there is no {name!r} space: choose one of {', '.join(_TO_X0)}")
    if given == wanted:
        return e
    if given == "x0" and not (sigma > 0).all():
        raise ValueError(f"a frame with sigma 0 has no noise whose {wanted} could be wrong: take this loss in x0 space")
    safe = sigma.clamp_min(torch.finfo(sigma.dtype).tiny)  # eps and v agree in the limit of no noise
    factor = _TO_X0[given](safe) / _TO_X0[wanted](safe)
    return e * factor.reshape(*factor.shape, *[1] * (e.ndim - 2)).to(e)


def start_frames(clips: int, frames: int, g: Generator) -> Tensor:
    """For each clip a frame to start from, or to anchor at, all equally likely. Returns ``b``."""
    return torch.randint(0, frames, (clips,), generator=g)


def clip_losses(e: Tensor, weight: Tensor, start: Tensor, settings: LossSettings, images: int = 0) -> Tensor:
    """The loss of each clip; the batch's loss is their mean.

    With ``images``, the last so many frames are single pictures that were appended to the clip (Ho et al., arXiv:2204.03458, Section
    3): each is a clip of one frame, which has an error and no differences.

    Args:
        e: ``b f c h w``, prediction minus target, in the space that is wanted.
        weight: ``...``, one for each frame, ``b f``, of squared errors in that space; 0 for frames that do not count.
        start: ``...``, one for each clip, ``b``, int64, a place in the clip, from ``start_frames``.
        settings: which loss.
        images: pictures at the end.

    Returns:
        loss: ``b``.

    Raises:
        ValueError: sizes do not fit together, or a start frame is none of the clip's.
    """
    clips, together = e.shape[:2]
    frames = together - images
    if not 0 <= images < together:
        raise ValueError(f"{images} of {together} frames are said to be single pictures: at least one frame must be of the clip")
    if weight.shape != (clips, together) or start.shape != (clips,):
        raise ValueError(
            f"the error is of {clips} clips with {together} frames, the weights have the shape {list(weight.shape)} and the start frames"
            f" {list(start.shape)}: give one weight per frame and one start frame per clip"
        )
    if ((start < 0) | (start >= frames)).any():
        raise ValueError(f"start frames are {start.tolist()}: each must be one of the clip's {frames} frames, from 0")
    clip = LOSSES[settings.kind](e[:, :frames], weight[:, :frames], start, settings)
    alone = (weight * energy(e))[:, frames:].sum(1)
    return (frames * clip + alone) / together
