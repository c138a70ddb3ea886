"""How good clips are, by what others measure: distances between sets of clips, and what changes over a long one.

- Frechet distance between two sets of features (``features.py``): FID on single frames (Heusel et al., arXiv:1706.08500), FVD on clips
  (Unterthiner et al., arXiv:1812.01717).
- Inception score (Salimans et al., arXiv:1606.03498).
- Drift: brightness, contrast, colour and sharpness of later parts of a clip beside the first part's.

Everything that sums up is float64. Frechet distances are biased upwards for few samples: compare sets of one size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .spectrum import check_clip, luminance

# Frechet distance


def gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of a set.

    Args:
        features: ``n d``, at least 2 rows.

    Returns:
        mean: ``d``, float64.
        covariance: ``d d``, float64.

    Raises:
        ValueError: there are fewer than 2 rows, or some are no numbers.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"the features have the shape {list(features.shape)}: it takes at least 2 samples, one per row")
    if not bool(torch.isfinite(features).all()):
        raise ValueError("some features are no numbers (NaN or infinite): the clips or the feature network are broken")
    values = features.double()
    mean = values.mean(0)
    centred = values - mean
    return mean, centred.T @ centred / (len(values) - 1)


def frechet_distance(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> float:
    """Squared Frechet (Wasserstein-2) distance of two normal distributions, (mean, covariance) each (arXiv:1706.08500, Equation 6).

    The trace of the root of ``A B`` is the sum of the roots of the eigenvalues of ``sqrt(A) B sqrt(A)``, which is symmetric, so nothing
    here can become complex.

    Raises:
        ValueError: they have different numbers of features.
    """
    (m1, s1), (m2, s2) = first, second
    if m1.shape != m2.shape:
        raise ValueError(f"the sets have {len(m1)} and {len(m2)} features: take both from one network")
    values, vectors = torch.linalg.eigh(s1)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    joined = torch.linalg.eigvalsh(root @ s2 @ root).clamp_min(0).sqrt().sum()
    return max(0.0, float((m1 - m2).square().sum() + s1.trace() + s2.trace() - 2 * joined))


def inception_score(logits: Tensor, splits: int = 1) -> tuple[float, float]:
    """``exp`` of how much a sample's class distribution differs from the set's, on average (arXiv:1606.03498, Section 4).

    Args:
        logits: ``n k``, a classifier's output for each sample.
        splits: equal parts that are scored by themselves.

    Returns:
        The mean over the parts, from 1 (all alike) to ``k``, and the standard deviation.

    Raises:
        ValueError: there are fewer samples than parts.
    """
    if logits.ndim != 2 or not 1 <= splits <= len(logits):
        raise ValueError(f"{splits} splits of {len(logits)} samples: each needs at least one sample")
    scores = []
    for part in logits.double().log_softmax(1).tensor_split(splits):
        marginal = part.exp().mean(0).clamp_min(1e-300).log()
        scores.append((part.exp() * (part - marginal)).sum(1).mean().exp())
    stacked = torch.stack(scores)
    return float(stacked.mean()), float(stacked.std(correction=0))


# Drift


@dataclass(frozen=True)
class Look:
    """How frames look, as means over a part of a clip."""

    brightness: float  # 0..1
    contrast: float  # standard deviation of brightness within a frame
    colour: float  # how far the strongest channel is from the weakest, 0..1
    sharpness: float  # mean difference between neighbouring pixels' brightness


def look(video: Tensor) -> Look:
    """Measure ``video``: ``f h w c`` in 0..1."""
    light = luminance(video.float()).double()
    colours = video[..., :3].float()
    steps = [light.diff(dim=axis).abs().mean() for axis in (1, 2) if light.shape[axis] > 1]
    return Look(
        brightness=float(light.mean()),
        contrast=float(light.flatten(1).std(1, correction=0).mean()),
        colour=float((colours.amax(-1) - colours.amin(-1)).double().mean()),
        sharpness=float(sum(steps, torch.zeros(())) / max(1, len(steps))),
    )


@dataclass(frozen=True)
class Drift:
    """How one part of a clip differs from its first part: brightness as a difference, the others as ratios to the first part's."""

    frames: tuple[int, int]  # from, up to but not including
    brightness: float
    contrast: float
    colour: float
    sharpness: float


def drift(video: Tensor, buckets: Sequence[tuple[int, int]]) -> list[Drift]:
    """How the looks of a clip change.

    Args:
        video: ``f h w c``.
        buckets: parts of the clip, (from, up to); the first is what the others are compared with.

    Returns:
        A row for each bucket, the first one's all 0 and 1; ratios to nothing are 1 where nothing is left, else infinite.

    Raises:
        ValueError: a bucket is empty or not in the clip.
    """
    check_clip(video, 1)
    for low, high in buckets:
        if not 0 <= low < high <= len(video):
            raise ValueError(f"there is no part from frame {low} up to {high}: the clip has {len(video)} frames")
    looks = [look(video[low:high]) for low, high in buckets]
    first = looks[0]
    return [
        Drift(
            part,
            seen.brightness - first.brightness,
            *(_ratio(getattr(seen, name), getattr(first, name)) for name in ("contrast", "colour", "sharpness")),
        )
        for part, seen in zip(buckets, looks, strict=True)
    ]


def _ratio(value: float, base: float) -> float:
    if base > 1e-9:
        return value / base
    return 1.0 if value <= 1e-9 else float("inf")


def even_buckets(frames: int, count: int) -> list[tuple[int, int]]:
    """Parts of a clip, as equal as can be; as many as it has frames at most.

    >>> even_buckets(10, 3)
    [(0, 3), (3, 6), (6, 10)]
    """
    count = max(1, min(count, frames))
    return [(frames * part // count, frames * (part + 1) // count) for part in range(count)]


# Two versions of one clip


@dataclass(frozen=True)
class Difference:
    """How far two clips of one size are apart, frame by frame."""

    mean: float  # absolute, 0..1
    worst: float  # the frame that differs most, its mean
    frame: int  # which that is
    psnr: float  # peak signal to noise in dB, infinite for equal clips


def difference(first: Tensor, second: Tensor) -> Difference:
    """Compare ``first``: ``f h w c`` with ``second``: ``...``, of the same shape.

    Raises:
        ValueError: they have different shapes.
    """
    for video in (first, second):
        check_clip(video, 1)
    if first.shape != second.shape:
        raise ValueError(
            f"the clips have the shapes {list(first.shape)} and {list(second.shape)}: give two of one length and size"
        )
    apart = (first.double() - second.double()).flatten(1)
    means = apart.abs().mean(1)
    power = float(apart.square().mean())
    psnr = float("inf") if power == 0 else float(-10 * torch.log10(torch.tensor(power, dtype=torch.float64)))
    return Difference(float(means.mean()), float(means.max()), int(means.argmax()), psnr)
