"""How much each frame's squared error counts, by its noise level.

``SNR = 1 / sigma^2``. The same mistake about the clean frame, squared, is ``SNR`` times as large as an error of ``eps`` and ``SNR + 1``
times as large as one of ``v``; so a weight says nothing until it is said for what it is. Rows of ``WEIGHTS`` give the weight of the
error of what the model predicts.

- ``uniform``: 1, whatever is predicted.
- ``snr``: as ``uniform`` for a model that predicts ``eps``.
- ``min_snr``: that, but no frame counts more than one of SNR ``cap`` (Hang et al., arXiv:2303.09556).
- ``capped_v``: errors of ``v`` count alike (Salimans and Ho, arXiv:2202.00512, Section 4: "SNR + 1"), but no frame more than ``cap``
  times its clean error, so that almost clean frames do not drown the rest. For models that predict ``v`` or ``x0``: what it asks of
  ``eps`` grows without bound towards pure noise.
- ``fused_snr``: Diffusion Forcing's (arXiv:2407.01392, "fused SNR reweighting", as in the authors' code, which differs from the
  paper's formula by one factor ``decay``): a noisy frame still counts if frames before it are clean, since they tell what it shows.
  The past is a moving average with memory ``decay``; for models that see both directions it is the mean of past and future.

Differs from the reference in that ratios of two vanishing numbers are their limit, so pure noise (SNR 0) has finite weights.

To add a row, write a function of (SNR, prediction, settings) and name it in ``WEIGHTS``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class WeightSettings:
    """A row of ``WEIGHTS`` and its numbers.

    Attributes:
        kind: a name in ``WEIGHTS``.
        cap: the SNR from which on frames count no more, above 0; for ``capped_v`` SNR + 1, so above 1 to have an effect.
        decay: memory of ``fused_snr`` from one frame to the next, 0 none, below 1. The authors': 0.8 for 4 frames together, so 0.96
            and 0.98 for single frames.
        causal: whether the model sees only the past.
    """

    kind: str = "min_snr"
    cap: float = 5.0
    decay: float = 0.96
    causal: bool = True

    def __post_init__(self) -> None:
        if self.kind not in WEIGHTS:
            raise ValueError(f"the loss weight {self.kind!r} is not known: choose one of {', '.join(WEIGHTS)}")
        if not self.cap > 0:
            raise ValueError(f"cap is {self.cap}: it must be above 0; 5 is usual")
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay is {self.decay}: it must be 0, no memory, or more, and below 1")


# (what the error counts, SNR that stands for its size) -> weight of the error of what is predicted; tiny: 0/0 is 1
_TINY = 1e-20
_RAW: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "x0": lambda worth, snr: worth,
    "eps": lambda worth, snr: worth.clamp_min(_TINY) / snr.clamp_min(_TINY),
    "v": lambda worth, snr: worth / (snr + 1),
}


def uniform(ratio: Tensor, prediction: str, settings: WeightSettings) -> Tensor:
    """One for every frame: ``ratio``: ``b f``. Returns ``b f``."""
    return torch.ones_like(ratio)


def snr(ratio: Tensor, prediction: str, settings: WeightSettings) -> Tensor:
    """Errors of ``eps`` count alike: ``ratio``: ``b f``. Returns ``b f``."""
    return _RAW[prediction](ratio, ratio)


def min_snr(ratio: Tensor, prediction: str, settings: WeightSettings) -> Tensor:
    """The same, capped: ``ratio``: ``b f``. Returns ``b f``."""
    return _RAW[prediction](ratio.clamp_max(settings.cap), ratio)


def capped_v(ratio: Tensor, prediction: str, settings: WeightSettings) -> Tensor:
    """Errors of ``v`` count alike, capped: ``ratio``: ``b f``. Returns ``b f``."""
    return _RAW[prediction]((ratio + 1).clamp_max(settings.cap), ratio)


def fused_snr(ratio: Tensor, prediction: str, settings: WeightSettings) -> Tensor:
    """Capped, with what neighbours tell: ``ratio``: ``b f``. Returns ``b f``."""
    cap, decay = settings.cap, settings.decay
    whole, capped = ratio / cap, ratio.clamp_max(cap) / cap
    told = _past(capped, decay)
    if not settings.causal:
        told = (told + _past(capped.flip(1), decay).flip(1)) / 2
    unknown = 1 - decay * told
    return _RAW[prediction](cap * (1 - unknown * (1 - capped)), cap * (1 - unknown * (1 - whole)))


def _past(worth: Tensor, decay: float) -> Tensor:
    """The moving average of the frames before each frame, 0 before the first: ``worth``: ``b f``. Returns ``b f``."""
    average, rows = worth[:, 0], [torch.zeros_like(worth[:, 0])]
    for frame in range(1, worth.shape[1]):  # one after the other: each average needs the one before
        rows.append(average)
        average = decay * average + (1 - decay) * worth[:, frame]
    return torch.stack(rows, dim=1)


WEIGHTS: dict[str, Callable[[Tensor, str, WeightSettings], Tensor]] = {
    f.__name__: f for f in (uniform, snr, min_snr, capped_v, fused_snr)
}


def loss_weights(sigma: Tensor, prediction: str, settings: WeightSettings) -> Tensor:
    """The weight of each frame's squared error.

    Args:
        sigma: ``b f``, noise level of each frame, above 0; infinite for pure noise.
        prediction: what the error is of: ``eps``, ``v`` or ``x0``.
        settings: which weights.

    Returns:
        weight: ``b f``, float64 where ``sigma`` is, else float32.

    Raises:
        ValueError: the prediction is not known, or a level is no noise level.
    """
    if prediction not in _RAW:
        raise ValueError(f"there are no loss weights for the prediction {prediction!r}: choose one of {', '.join(_RAW)}")
    if not (sigma > 0).all():
        raise ValueError(
            "a frame has sigma 0 or none: the error of a clean frame has no weight; leave that frame out of the loss"
        )
    precise = sigma if sigma.dtype == torch.float64 else sigma.float()
    return WEIGHTS[settings.kind](precise**-2, prediction, settings)
