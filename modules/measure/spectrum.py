"""How a clip moves, by frequency, and how much of that is flicker.

Motion as jfischoff's article on a frame difference loss measures it (2023): the Fourier transform of every pixel over time, and the mean
amplitude of each frequency. What moves smoothly is low; what alternates from frame to frame is at the top, the Nyquist frequency.
Moving texture is high, too; so there is a second measure that takes motion away first: what is left of a frame when the one before it
is moved along the flow.

Clips are ``f h w c`` in 0..1. Compare clips of one frame rate and one length.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.flow import backward_flow, luminance, warped

PIXELS = 2**18  # that are transformed at once
HIGH = 0.75  # from this part of the frequencies on it is flicker


@dataclass(frozen=True)
class Spectrum:
    """Mean amplitude of the changes over time.

    Attributes:
        brightness: mean of all pixels.
        amplitudes: of ``1..f/2`` periods per clip; a sine of amplitude ``a`` in every pixel is ``a`` there, an alternation of ``+-a``
            is ``2 a`` at the last, by the article's normalisation.
        nyquist: the amplitude of alternation, None where an odd number of frames has none.
    """

    brightness: float
    amplitudes: tuple[float, ...]
    nyquist: float | None

    @property
    def total(self) -> float:
        """Motion of any kind."""
        return sum(self.amplitudes)

    @property
    def high_share(self) -> float:
        """The part that the upper quarter of frequencies has in it; 0 for a clip that does not move."""
        high = sum(self.amplitudes[max(0, int(HIGH * len(self.amplitudes)) - 1) :])
        return high / self.total if self.total > 1e-9 else 0.0


def motion_spectrum(video: Tensor, *, hann: bool = False) -> Spectrum:
    """The spectrum of a clip.

    Args:
        video: ``f h w c``, at least 2 frames.
        hann: fade the clip in and out first, so that a motion which does not return to its start is not taken for flicker; amplitudes
            are made up for it.

    Raises:
        ValueError: it is no clip.
    """
    check_clip(video)
    frames = len(video)
    window = torch.hann_window(frames, periodic=True, dtype=torch.float32, device=video.device) * 2 if hann else None
    total = torch.zeros(frames // 2 + 1, dtype=torch.float64)
    flat = video.flatten(1)
    for part in flat.split(PIXELS, dim=1):
        moving = part.float() - part.float().mean(0)
        moving = moving if window is None else moving * window[:, None]
        total += torch.fft.rfft(moving, dim=0).abs().sum(1).double().cpu()
    amplitudes = tuple((total[1:] * 2 / frames / flat.shape[1]).tolist())
    return Spectrum(float(flat.double().mean()), amplitudes, None if frames % 2 else amplitudes[-1])


def second_difference_ratio(video: Tensor) -> float:
    """How jerky: ``|v(t+1) - 2 v(t) + v(t-1)| / |v(t+1) - v(t-1)|``, means over the clip.

    0 for an even change and for none, infinite for pure alternation.

    Args:
        video: ``f h w c``, at least 3 frames.

    Raises:
        ValueError: it is no clip, or shorter.
    """
    check_clip(video, 3)
    bent = sum(float((c - 2 * b + a).abs().double().mean()) for a, b, c in zip(video, video[1:], video[2:], strict=False))
    went = sum(float((c - a).abs().double().mean()) for a, c in zip(video, video[2:], strict=False))
    if went > 1e-9:
        return bent / went
    return math.inf if bent > 1e-9 else 0.0


@dataclass(frozen=True)
class Flicker:
    """What is left of the changes once motion is taken away.

    Attributes:
        error: mean absolute difference between each frame and the one before it, moved along the flow.
        spectrum: of that difference over time.
        speed: mean length of the flow in pixels per frame.
        seen: part of the pixels whose source was inside the picture; the others are left out.
    """

    error: float
    spectrum: Spectrum
    speed: float
    seen: float


def motion_compensated(video: Tensor) -> Flicker:
    """Measure a clip with its motion taken away, by block matching from each frame to the next.

    Args:
        video: ``f h w c``, at least 3 frames.

    Raises:
        ValueError: it is no clip, or shorter.
    """
    check_clip(video, 3)
    video = video.float()
    light = luminance(video)
    flow = backward_flow(light[:-1], light[1:])
    moved, inside = warped(video[:-1], flow)
    rest = (video[1:] - moved) * inside[..., None]
    seen = float(inside.double().mean())
    error = float(rest.abs().double().mean()) / max(seen, 1e-9)
    return Flicker(error, motion_spectrum(rest), float(flow.norm(dim=-1).double().mean()), seen)


def check_clip(video: Tensor, least: int = 2) -> None:
    """Refuse what is no clip.

    Args:
        video: ``...``, what was given.
        least: frames that are needed.

    Raises:
        ValueError: another shape, too few frames, or values that are no numbers.
    """
    if video.ndim != 4 or 0 in video.shape:
        raise ValueError(f"the clip has the shape {list(video.shape)}: it must be frames, height, width, channels; connect IMAGE")
    if len(video) < least:
        raise ValueError(f"the clip has {len(video)} frame{'s' * (len(video) != 1)}: this measure needs at least {least}")
    if not bool(torch.isfinite(video).all()):
        raise ValueError("the clip has pixels that are no numbers (NaN or infinite): make it again")
