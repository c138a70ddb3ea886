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

from ..fields.setting import check, documented, sentences, setting

AXES = (-3, -2, -1)


def butterworth(t: Tensor, h: Tensor, w: Tensor, order: int) -> Tensor:
    """The division is fairly sharp: half is kept at the stop, and a higher order is steeper.

    ``t``: ``f 1 1``, ``h``: ``h 1``, ``w``: ``w``. Returns ``f h w``.
    """
    return 1 / (1 + (t**2 + h**2 + w**2) ** order)


def gaussian(t: Tensor, h: Tensor, w: Tensor, order: int) -> Tensor:
    """The division is soft: the stop is the standard deviation.

    ``t``: ``f 1 1``, ``h``: ``h 1``, ``w``: ``w``. Returns ``f h w``.
    """
    return torch.exp(-(t**2 + h**2 + w**2) / 2)


def ideal(t: Tensor, h: Tensor, w: Tensor, order: int) -> Tensor:
    """The division is sharp: all within the ellipsoid of the stops is kept.

    ``t``: ``f 1 1``, ``h``: ``h 1``, ``w``: ``w``. Returns ``f h w``.
    """
    return (t**2 + h**2 + w**2 <= 1).to(t)


def box(t: Tensor, h: Tensor, w: Tensor, order: int) -> Tensor:
    """The division is sharp: all within the stop of each axis is kept.

    ``t``: ``f 1 1``, ``h``: ``h 1``, ``w``: ``w``. Returns ``f h w``.
    """
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


@documented
@dataclass(frozen=True)
class FreeInit:
    """Settings."""

    iterations: int = setting(3, "The whole sampling runs so often: 1 is off, and more than 5 adds little.", least=1, most=20)
    filter: str = setting(
        "butterworth", "The filter divides what is kept from what is new.", menu=sentences(FILTERS), advanced=True
    )
    order: int = setting(4, "For butterworth the order says how sharp the division is.", least=1, most=100, advanced=True)
    spatial_stop: float = setting(
        0.25,
        "Height and width are kept up to this frequency, 1 being the highest there is. More keeps more of the last result's layout.",
        least=0.01,
        most=1.0,
        step=0.01,
        advanced=True,
    )
    temporal_stop: float = setting(
        0.25,
        "Motion is kept up to this frequency, 1 being the highest there is. Less makes frames agree more and move less.",
        least=0.01,
        most=1.0,
        step=0.01,
        advanced=True,
    )

    def __post_init__(self) -> None:
        check(self)

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
