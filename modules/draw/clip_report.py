"""What the measures say of a clip, or of two, in words."""

import math
from collections.abc import Mapping

from torch import Tensor

from ..measure.features import Features, samples_of
from ..measure.metrics import Difference, difference, drift, even_buckets, frechet_distance, gaussian, inception_score
from ..measure.spectrum import motion_compensated, motion_spectrum, second_difference_ratio
from .pictures import curves

FLOOR = 1e-5  # amplitudes below are not drawn: a logarithm would show nothing else


def spectrum_picture(videos: Mapping[str, Tensor], *, hann: bool = False) -> Tensor:
    """The motion spectra of several clips. Returns ``1 h w 3``."""
    series = {
        name: [max(FLOOR, value) for value in motion_spectrum(video, hann=hann).amplitudes] for name, video in videos.items()
    }
    return curves(series, title="amplitude by frequency, 1 period per clip (left) to flicker (right)")


def motion_lines(videos: Mapping[str, Tensor], *, hann: bool = False) -> list[str]:
    """A table of what moves and what flickers, a column per clip; clips of 3 frames at least are measured without their motion, too."""
    spectra = [motion_spectrum(video, hann=hann) for video in videos.values()]
    rows: list[tuple[str, list[str]]] = [
        ("mean brightness", [_number(item.brightness) for item in spectra]),
        ("motion, all frequencies", [_number(item.total) for item in spectra]),
        ("share of the highest quarter", [_number(item.high_share) for item in spectra]),
        ("flicker from frame to frame", [_number(item.nyquist) for item in spectra]),
    ]
    if all(len(video) >= 3 for video in videos.values()):
        rest = [motion_compensated(video) for video in videos.values()]
        rows += [
            ("second difference ratio", [_number(second_difference_ratio(video)) for video in videos.values()]),
            ("speed, pixels per frame", [_number(item.speed) for item in rest]),
            ("warp error (motion taken away)", [_number(item.error) for item in rest]),
            ("its share of the highest quarter", [_number(item.spectrum.high_share) for item in rest]),
        ]
    return _table(["", *videos], rows)


def drift_lines(video: Tensor, parts: int) -> list[str]:
    """A table of how the parts of ``video``: ``f h w c`` differ from its first part."""
    rows = [
        (
            f"frames {row.frames[0]}-{row.frames[1] - 1}",
            [f"{row.brightness:+.4f}", *(f"x {_number(value)}" for value in (row.contrast, row.colour, row.sharpness))],
        )
        for row in drift(video, even_buckets(len(video), parts))
    ]
    return _table(["", "brightness", "contrast", "colour", "sharpness"], rows)


def difference_line(found: Difference) -> str:
    """How far two clips are apart, in a sentence."""
    if found.psnr == math.inf:
        return "the clips are equal, bit for bit"
    return f"mean difference {found.mean:.5f}, PSNR {found.psnr:.2f} dB; frame {found.frame} differs most, by {found.worst:.5f}"


def set_lines(first: Tensor, second: Tensor, features: Features, length: int, stride: int, *, scores: bool = False) -> list[str]:
    """The distance between two clips as sets of samples, or the inception score of each.

    Args:
        first: ``f h w c``.
        second: ``k h w c``, of any length and size.
        features: what samples are to be told by.
        length: frames of a sample, for networks that look at clips.
        stride: frames from one to the next.
        scores: the network tells classes: give inception scores.
    """
    length, stride = (length, stride) if features.clips else (1, 1)
    rows = [features.of(samples_of(video, length, stride)) for video in (first, second)]
    counts = " and ".join(str(len(row)) for row in rows)
    if scores:
        found = [inception_score(row)[0] for row in rows]
        return [f"inception score by {features.name}: {found[0]:.3f} and {found[1]:.3f} ({counts} frames)"]
    if min(len(row) for row in rows) < 2:
        return [
            f"no Frechet distance: {counts} samples of {length} frames, and it takes 2 of each; longer clips or shorter samples"
        ]
    distance = frechet_distance(gaussian(rows[0]), gaussian(rows[1]))
    few = "; far fewer than published figures use" if min(len(row) for row in rows) < 2048 else ""
    return [f"Frechet distance by {features.name}: {_number(distance)} ({counts} samples{few})"]


def video_report(
    first: Tensor, second: Tensor, features: Features, length: int, stride: int, parts: int, *, scores: bool = False
) -> str:
    """All measures of two clips.

    Args:
        first: ``f h w c`` in 0..1.
        second: ``k p q c``; of the same length and size, it is compared frame by frame, too.
        features: see ``set_lines``.
        length: frames of a sample.
        stride: frames from one sample to the next.
        parts: of each clip, for drift.
        scores: see ``set_lines``.

    Raises:
        ValueError: a clip cannot be measured.
    """
    lines = [difference_line(difference(first, second))] if first.shape == second.shape else []
    lines += set_lines(first, second, features, length, stride, scores=scores)
    lines += ["", *motion_lines({"a": first, "b": second})]
    for name, video in (("a", first), ("b", second)):
        lines += ["", f"drift of {name}", *drift_lines(video, parts)]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    """Four digits; a dash where there is no such number."""
    return "-" if value is None else f"{value:.4g}"


def _table(head: list[str], rows: list[tuple[str, list[str]]]) -> list[str]:
    cells = [head, *([name, *values] for name, values in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(head))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells]
