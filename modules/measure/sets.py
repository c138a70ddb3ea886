"""Distances between two sets of clips, as published figures are taken: FVD, FID and inception scores over many files.

Of each source one clip is looked at, read when its turn comes: what stays of it are its rows of features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from ..data.clips import ClipDataset
from .features import Features
from .metrics import frechet_distance, gaussian, inception_score

MANY = 2048  # samples that published figures are of


@dataclass(frozen=True)
class SetFeatures:
    """What a network made of a set.

    Attributes:
        rows: ``n d``, of clips, or of all frames of all clips.
        clips: how many clips they are of.
    """

    rows: Tensor
    clips: int


def set_features(
    dataset: ClipDataset, features: Features, most: int = 0, batch: int = 8, tick: Callable[[int, int], None] | None = None
) -> SetFeatures:
    """The features of a clip of each source; those that turn out to be damaged are passed over, and named in the data set's report.

    Args:
        dataset: the set.
        features: what clips are told by.
        most: sources that are looked at, evenly spread; 0 for all.
        batch: clips that are in memory at once.
        tick: is told how many are done, and of how many; may raise to stop.

    Raises:
        ValueError: no clip can be read, or the network does not take them.
    """
    total = min(most or len(dataset), len(dataset))
    sources = [number * len(dataset) // total for number in range(total)]
    rows, waiting, clips = [], [], 0
    for done, source in enumerate(sources, 1):
        clip = dataset.sound(dataset.take(source), dataset.read)
        if clip is not None:
            pixels = rearrange(clip.pixels / 2 + 0.5, "f c h w -> f h w c")
            if waiting and waiting[0].shape != pixels.shape:
                rows.append(features.of(torch.stack(waiting), batch))
                waiting = []
            waiting.append(pixels)
            clips += 1
        if waiting and (len(waiting) == batch or done == total):
            rows.append(features.of(torch.stack(waiting), batch))
            waiting = []
        if tick:
            tick(done, total)
    if waiting:
        rows.append(features.of(torch.stack(waiting), batch))
    if not rows:
        raise ValueError("none of the clips of a set can be read: its report, beside Clip Folder, says why")
    return SetFeatures(torch.cat(rows), clips)


def set_report(first: SetFeatures, second: SetFeatures, features: Features, *, scores: bool = False, splits: int = 10) -> str:
    """The distance between two sets, or the inception score of each, in words.

    Args:
        first: such as the real clips.
        second: such as the generated ones.
        features: that they were told by.
        scores: the rows are class scores: give inception scores.
        splits: parts that scores are the mean of.

    Raises:
        ValueError: a set is too small, or its features are no numbers.
    """
    what = "clips" if features.clips else "frames"
    sizes = [len(each.rows) for each in (first, second)]
    lines = [f"a: {first.clips} clips, b: {second.clips} clips; {sizes[0]} and {sizes[1]} {what} by {features.name}"]
    if scores:
        for name, each in (("a", first), ("b", second)):
            mean, deviation = inception_score(each.rows, splits)
            lines.append(f"inception score of {name}: {mean:.4f} +- {deviation:.4f} ({splits} splits)")
        return "\n".join(lines)
    lines.append(f"Frechet distance: {frechet_distance(gaussian(first.rows), gaussian(second.rows)):.6g}")
    if min(sizes) < MANY:
        lines.append(f"fewer than {MANY} samples, which published figures are of: the distance is too high, most of all for few")
    if sizes[0] != sizes[1]:
        lines.append(f"sets of {sizes[0]} and {sizes[1]}: give both as many, since the distance falls with their number")
    return "\n".join(lines)
