"""How much noise there is at which timestep, and what a model's output means.

Coordinates are those of Karras et al. (arXiv:2206.00364) and of ComfyUI: ``x = clean + sigma * noise``. A model that was trained in
variance-preserving form sees ``x / sqrt(1 + sigma^2)``. To add a schedule, write a function of no arguments that gives its sigmas and
name it in ``NOISE_SCHEDULES``; to add a prediction type, write the two functions of ``Prediction`` and name it in ``PREDICTIONS``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

STEPS = 1000


def _from_betas(betas: Tensor) -> Tensor:
    kept = torch.cumprod(1 - betas, dim=0)
    return ((1 - kept) / kept).sqrt().float()


def scaled_linear(start: float = 0.00085, end: float = 0.012) -> Tensor:
    """Stable Diffusion's: the square roots of the betas are evenly spaced (ComfyUI calls it "linear"). Returns ``t``."""
    return _from_betas(torch.linspace(start**0.5, end**0.5, STEPS, dtype=torch.float64) ** 2)


def linear(start: float = 0.00085, end: float = 0.012) -> Tensor:
    """AnimateDiff v1 to v3, PIA and AnimateLCM: the betas are evenly spaced (ComfyUI calls it "sqrt_linear"). Returns ``t``.

    >>> round(float(linear()[-1]), 3)
    25.146
    """
    return _from_betas(torch.linspace(start, end, STEPS, dtype=torch.float64))


def cosine(smallest: float = 0.01, largest: float = 80.0) -> Tensor:
    """``sigma = tan(angle)`` with evenly spaced angles (Nichol and Dhariwal, arXiv:2102.09672), cut to a finite range. Returns ``t``."""
    return torch.linspace(math.atan(smallest), math.atan(largest), STEPS, dtype=torch.float64).tan().float()


def animatediff_sdxl() -> Tensor:
    """AnimateDiff's SDXL beta: Stable Diffusion's, to a larger end (its authors' inference configuration). Returns ``t``.

    >>> round(float(animatediff_sdxl()[-1]), 2)
    65.93
    """
    return scaled_linear(end=0.020)


def animatelcm_i2v() -> Tensor:
    """AnimateLCM's image-to-video module: AnimateDiff's, to a larger end (its authors' inference configuration). Returns ``t``.

    >>> round(float(animatelcm_i2v()[-1]), 2)
    41.67
    """
    return linear(end=0.014)


NOISE_SCHEDULES: dict[str, Callable[[], Tensor]] = {
    f.__name__: f for f in (scaled_linear, linear, cosine, animatediff_sdxl, animatelcm_i2v)
}


@dataclass(frozen=True)
class Prediction:
    """What the network's output means, for the scaled input ``x / sqrt(1 + sigma^2)``."""

    clean: Callable[[Tensor, Tensor, Tensor], Tensor]  # (x, output, sigma) -> clean frames
    target: Callable[[Tensor, Tensor, Tensor], Tensor]  # (clean, noise, sigma) -> what the output should be


PREDICTIONS: dict[str, Prediction] = {
    "eps": Prediction(lambda x, out, s: x - s * out, lambda clean, noise, s: noise),
    "v": Prediction(
        lambda x, out, s: x / (s**2 + 1) - out * s / (s**2 + 1).sqrt(),
        lambda clean, noise, s: (noise - s * clean) / (s**2 + 1).sqrt(),
    ),
    "x0": Prediction(lambda x, out, s: out, lambda clean, noise, s: clean),
}


def steps_before(sigmas: Tensor, most: Tensor, timestep: Callable[[Tensor], Tensor]) -> int:
    """How many steps a sampling has behind it that begins with these sigmas, where it began with the most noise.

    Its steps were as even before as these are: in timesteps, as most schedulers make them, in the seventh root of sigma (Karras et al.,
    arXiv:2206.00364, equation 5), its logarithm or its angle (kl_optimal), whichever these are most even in. Of others it is an estimate.

    Args:
        sigmas: ``s``, falling, 0 at the end or not.
        most: ``()``, the model's largest sigma.
        timestep: of sigmas, ``s``, the model's timesteps, ``s``.

    >>> table = linear()
    >>> steps_before(table[[578, 526, 473, 421]], table[-1], NoiseSchedule(table).timestep)
    8
    """
    given = sigmas[sigmas > 0]
    if len(given) < 2 or given[0] >= most * 0.999:
        return 0
    every = torch.cat([most.to(given).reshape(1), given])
    places = [coordinate(every).double() for coordinate in (timestep, lambda s: s ** (1 / 7), torch.log, torch.atan)]
    uneven = [float(place[1:].diff().std(unbiased=False) / -place[1:].diff().mean()) for place in places]
    place = places[uneven.index(min(uneven))]
    return int((place[0] - place[1]) / -place[1:].diff().mean() + 0.03)  # table places are rounded


class NoiseSchedule:
    """A table of sigmas, one per timestep, and the way back.

    Args:
        sigmas: ``t``, rising.
    """

    def __init__(self, sigmas: Tensor):
        if sigmas.ndim != 1 or len(sigmas) < 2 or not (sigmas.diff() > 0).all() or sigmas[0] <= 0:
            raise ValueError("a noise schedule is a list of at least two sigmas, all above 0 and rising")
        self.sigmas = sigmas

    @classmethod
    def named(cls, name: str) -> "NoiseSchedule":
        """One of ``NOISE_SCHEDULES``."""
        if name not in NOISE_SCHEDULES:
            raise ValueError(f"the noise schedule {name!r} is not known: choose one of {', '.join(NOISE_SCHEDULES)}")
        return cls(NOISE_SCHEDULES[name]())

    def timestep(self, sigma: Tensor) -> Tensor:
        """The timestep whose sigma is nearest in logarithm; 0 for clean frames. ``sigma``: ``n``. Returns ``n``, int64."""
        logs = self.sigmas.log().to(sigma.device)
        return (sigma.clamp_min(1e-10).log()[:, None] - logs).abs().argmin(dim=1)

    def at_percent(self, percent: float) -> float:
        """The sigma at a point of the sampling: infinite at 0, where it begins, 0 at 1, and falling in between, as ComfyUI has it."""
        if percent <= 0 or percent >= 1:
            return math.inf if percent <= 0 else 0.0
        place = (1 - percent) * (len(self.sigmas) - 1)
        low, part = int(place), place % 1
        high = min(low + 1, len(self.sigmas) - 1)
        return float(((1 - part) * self.sigmas[low].log() + part * self.sigmas[high].log()).exp())

    def at_level(self, level: float) -> float:
        """The sigma of a share of the noise: 0 at level 0, the noisiest at 1, by timesteps in between."""
        return 0.0 if level <= 0 else float(self.sigmas[max(0, round(level * len(self.sigmas)) - 1)])

    def levels(self, steps: int) -> Tensor:
        """The sigma of every level of ``steps`` steps: 0 first (clean), then evenly spaced timesteps up to the noisiest.

        Returns:
            sigmas: ``l``, where ``l = steps + 1``.
        """
        t = torch.linspace(-1, len(self.sigmas) - 1, steps + 1)[1:].round().long()
        return torch.cat([torch.zeros(1), self.sigmas[t]])
