"""FreeInit: sample again from noise whose slow part is that of the last result, so that frames agree more from the start.

Wu et al., FreeInit (arXiv:2312.07537), Equations 5 to 8: the result is diffused with the first noise,
``z_T = sqrt(a) z_0 + sqrt(1 - a) e``; its low frequencies in time and space are kept, those above are taken from fresh noise. Here the
result is diffused to the sigma that the sampler really starts from, in the model's own coordinates, and written as the noise that takes
the sampler there. For a model of Stable Diffusion's kind that starts from nothing but noise this is the paper's ``z_T`` exactly.

Differs from the reference in three ways: frequencies of an odd number of frames, rows or columns are symmetric about zero (there they
are half a step off, and a part of the result is dropped); "ideal" passes what is within the stop frequency (there the squared distance
is compared with twice the stop: write ``sqrt(2 * stop)`` for that); no shifts and one transform instead of two.

To add a filter, write its response for frequencies in units of the stop frequency and name it in ``FILTERS``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

AXES = (-3, -2, -1)


def butterworth(t: Tensor, h: Tensor, w: Tensor, order: int) -> Tensor:
    """Half at the stop, steeper with higher order: ``t``: ``f 1 1``, ``h``: ``h 1``, ``w``: ``w``. Returns ``f h w``."""
    return 1 / (1 + (t**2 + h**2 + w**2) ** order)


def gaussian(t: Tensor, h: Tensor, w: Tensor, order: int) -> Tensor:
    """The stop is the standard deviation: ``t``: ``f 1 1``, ``h``: ``h 1``, ``w``: ``w``. Returns ``f h w``."""
    return torch.exp(-(t**2 + h**2 + w**2) / 2)


def ideal(t: Tensor, h: Tensor, w: Tensor, order: int) -> Tensor:
    """All within the ellipsoid of the stops, nothing beyond: ``t``: ``f 1 1``, ``h``: ``h 1``, ``w``: ``w``. Returns ``f h w``."""
    return (t**2 + h**2 + w**2 <= 1).to(t)


def box(t: Tensor, h: Tensor, w: Tensor, order: int) -> Tensor:
    """All within the stop on each axis, nothing beyond: ``t``: ``f 1 1``, ``h``: ``h 1``, ``w``: ``w``. Returns ``f h w``."""
    return (t.abs().maximum(h.abs()).maximum(w.abs()) <= 1).to(t)


FILTERS: dict[str, Callable[[Tensor, Tensor, Tensor, int], Tensor]] = {f.__name__: f for f in (butterworth, gaussian, ideal, box)}


@dataclass(frozen=True)
class Start:
    """How a sampler goes from noise to what it starts from: ``gain * noise + signal * latent``.

    Attributes:
        gain: of the noise.
        signal: what is left of a clean latent at the first sigma: 1 for Stable Diffusion's kind, less for flow models.
        spread: the noise that belongs to that sigma: ``gain``, except where a sampler adds some because it starts at the top.
    """

    gain: float
    signal: float
    spread: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.signal) and self.signal > 1e-6):
            raise ValueError(
                "FreeInit keeps what remains of a result in the noise that sampling starts from, and this model starts from noise alone"
                " (a flow model at full denoise): lower denoise, or use FreeInit with models such as SD1.5"
            )
        if not (math.isfinite(self.gain) and self.gain > 0):
            raise ValueError(
                "FreeInit chooses the noise that sampling starts from, and this model's sampling starts without noise"
            )

    def diffused(self, result: Tensor, latent: Tensor, noise: Tensor) -> Tensor:
        """The noise that takes the sampler from ``latent`` to where ``noise`` takes the result at the same sigma (Equation 5).

        Args:
            result: ``... f h w``, clean.
            latent: ``... f h w``, what the sampler was given to start from; zeros where there was nothing.
            noise: ``... f h w``, that of the first iteration.

        Returns:
            noise: ``... f h w``.
        """
        return (self.spread * noise + self.signal * (result - latent)) / self.gain


@dataclass(frozen=True)
class FreeInit:
    """Settings.

    Attributes:
        iterations: how often the whole sampling runs, from 1 (as if there were no FreeInit).
        filter: a name in ``FILTERS``.
        order: butterworth: how steep it is, from 1.
        spatial_stop: where low frequencies end in height and width, 1 is the highest there is; above 0, at most 1.
        temporal_stop: the same over frames.
    """

    iterations: int = 3
    filter: str = "butterworth"
    order: int = 4
    spatial_stop: float = 0.25
    temporal_stop: float = 0.25

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"iterations is {self.iterations}: it must be at least 1")
        if self.filter not in FILTERS:
            raise ValueError(f"the filter {self.filter!r} is not known: choose one of {', '.join(FILTERS)}")
        if self.order < 1:
            raise ValueError(f"the order is {self.order}: it must be at least 1; 4 is usual")
        for name, stop in (("spatial_stop", self.spatial_stop), ("temporal_stop", self.temporal_stop)):
            if not 0 < stop <= 1:
                raise ValueError(f"{name} is {stop}: it must be above 0 and at most 1, the highest frequency; 0.25 is usual")

    def response(self, frames: int, height: int, width: int, device: torch.device | None = None) -> Tensor:
        """How much of each frequency is kept, in the layout of ``torch.fft.rfftn``.

        Returns:
            response: ``frames height w``, float32, 0 to 1, where ``w = width // 2 + 1``.
        """
        t = torch.fft.fftfreq(frames, 0.5, device=device)[:, None, None] / self.temporal_stop
        h = torch.fft.fftfreq(height, 0.5, device=device)[:, None] / self.spatial_stop
        w = torch.fft.rfftfreq(width, 0.5, device=device) / self.spatial_stop
        return FILTERS[self.filter](t, h, w, self.order)

    def mixed(self, low: Tensor, high: Tensor) -> Tensor:
        """The low frequencies of one and the high frequencies of the other (Equations 6 to 8).

        Args:
            low: ``... f h w``.
            high: ``... f h w``.

        Returns:
            noise: ``... f h w``, of the type of ``high``.
        """
        size = high.shape[-3:]
        change = torch.fft.rfftn((low - high).float(), dim=AXES) * self.response(*size, device=high.device)
        return (high.float() + torch.fft.irfftn(change, s=size, dim=AXES)).to(high)
