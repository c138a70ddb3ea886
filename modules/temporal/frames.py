"""What one call of the network is about: which frames, at which times, in which windows, and how strongly each is moved."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .picture_part import PicturePart


@dataclass(frozen=True)
class Group:
    """Windows of one length, whose frames are at the same times within the window.

    Attributes:
        index: ``w l``, int64, places in the call's clip.
        positions: ``l``, frame times as the position encoding wants them.
        mask: ``w l l``, True where a frame (row) may see another; None for all.
    """

    index: Tensor
    positions: Tensor
    mask: Tensor | None = None

    def taken(self, x: Tensor) -> Tensor:
        """The windows' frames: ``x``: ``n f c``. Returns ``m l c``, where ``m`` is ``(n w)``."""
        return x.index_select(1, self.index.flatten()).reshape(-1, self.index.shape[1], x.shape[-1])

    def returned(self, x: Tensor, count: int) -> Tensor:
        """Windows beside each other again: ``x``: ``m l c``, ``count`` is ``n``. Returns ``n k c``, where ``k`` is ``(w l)``."""
        return x.reshape(count, -1, x.shape[-1])


@dataclass(frozen=True)
class Frames:
    """How the batch axis divides into frames, when each frame is, who sees whom.

    Attributes:
        count: frames per clip; the batch axis is ``(b count)``.
        positions: ``f``, frame times as the position encoding wants them.
        mask: ``f f``, True where a frame (row) may see another (column); or one per sequence, ``n 1 f f``; None for all.
        groups: windows; empty where every frame may see every other.
        places: ``r f``, for each frame where the windows hold it, counted over all groups' frames in order.
        weights: ``r f``, what each of those counts; the sum over ``r`` is 1.
        fuse_at: where windows are averaged: after each "attention", or after all attentions of a "module".
        streams: how often the clip is there, one version after the other: the first knows its own past, and a frame of any other
            knows the first one's past and itself. It tells those modules that go by order what ``mask`` tells attentions.
        alone: how many of the last frames are single pictures, which know nothing but themselves; told beside ``mask``, too.
    """

    count: int
    positions: Tensor
    mask: Tensor | None = None
    groups: tuple[Group, ...] = ()
    places: Tensor | None = None
    weights: Tensor | None = None
    fuse_at: str = "attention"
    streams: int = 1
    alone: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.alone < self.count or (self.alone and self.streams > 1):
            raise ValueError(
                f"{self.alone} of {self.count} frames in {self.streams} streams are said to be single pictures: at least one must be of a"
                " clip, and only one stream may have them"
            )
        if self.streams < 1 or self.count % self.streams:
            raise ValueError(f"{self.count} frames do not divide into {self.streams} streams: each holds the same frames")
        if self.count < 1 or len(self.positions) != self.count:
            raise ValueError(
                f"{self.count} frames were announced and {len(self.positions)} positions given: they must agree, at least 1"
            )

    @classmethod
    def of(cls, count: int, device: torch.device | str = "cpu") -> "Frames":
        """``count`` frames in order, everyone sees everyone."""
        return cls(count, torch.arange(count, device=device))

    @property
    def rows(self) -> int:
        """Windows per clip; 1 without."""
        return sum(len(group.index) for group in self.groups) or 1

    def check(self, images: int) -> None:
        """Refuse a batch that does not divide into clips.

        Raises:
            ValueError: ``images`` is no multiple of the frame count.
        """
        if images % self.count:
            raise ValueError(f"{images} images came to a motion module that was told of clips of {self.count} frames")

    def fused(self, parts: list[Tensor]) -> Tensor:
        """Average what the windows made of each frame.

        A gather, not a scatter: the sum of a frame's windows has one order on every device.

        Args:
            parts: one per group, ``n k c`` each.

        Returns:
            x: ``n f c``.
        """
        together = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        assert self.places is not None and self.weights is not None, "windows come with their way back"
        fused = together.index_select(1, self.places[0]) * self.weights[0][:, None].to(together)
        for place, weight in zip(self.places[1:], self.weights[1:], strict=True):
            fused = fused.addcmul(together.index_select(1, place), weight[:, None].to(together))
        return fused


@dataclass(frozen=True)
class Gain:
    """How strongly one slot's module acts in a call.

    Attributes:
        effect: what the module's change is multiplied with: ``f``, or ``f h w`` of any size; None for 1.
        scales: for each of its attentions what the keys are multiplied with, a temperature: ``f`` or ``f h w``, or None for 1.
    """

    effect: Tensor | None = None
    scales: tuple[Tensor | None, ...] = ()

    def applied(self, change: Tensor) -> Tensor:
        """What is left of a module's change: ``change``: ``n c h w``, where ``n`` is ``(b f)``. Returns ``n c h w``."""
        if self.effect is None:
            return change
        effect = resized(self.effect, *change.shape[-2:])[:, None]
        return change * effect.repeat(len(change) // len(effect), 1, 1, 1).to(change)

    def within(self, part: PicturePart) -> "Gain":
        """The same for a call that shows a part of the picture."""
        scales = tuple(None if scale is None else _of_part(scale, part) for scale in self.scales)
        return Gain(None if self.effect is None else _of_part(self.effect, part), scales)


def _of_part(values: Tensor, part: PicturePart) -> Tensor:
    """``values``: ``f ...``, one number per frame, or a mask ``f h w`` of any size. Returns ``f ...``."""
    if values.ndim == 1:
        return values
    multiple = all(size % whole == 0 for size, whole in zip(values.shape[1:], part.whole, strict=True))
    return part.cut(values if multiple else resized(values, *part.whole))


@dataclass(frozen=True)
class Hint:
    """What the tokens of one slot's first attention are told besides, as CameraCtrl does (arXiv:2404.02101, Section 3.3).

    Attributes:
        features: what is told, of each pixel in each frame: ``p f c``; once pixels are chosen ``n f c``, one for each sequence.
        layer: the linear layer through which tokens and features become one.
        strength: how much of its output is added; 0 for nothing.
    """

    features: Tensor
    layer: Callable[[Tensor], Tensor]
    strength: float = 1.0

    def merged(self, x: Tensor) -> Tensor:
        """Tokens that know of the features: ``x``: ``n f c``. Returns ``n f c``."""
        return x + self.strength * self.layer(x + self.features.to(x))

    def carried(self, table: Tensor) -> Tensor:
        """What becomes of something that is added to the tokens, if it is added after ``merged``: ``table``: ``f c``. Returns ``f c``.

        The layer is linear up to its bias, so ``merged(x) + carried(table)`` is ``merged(x + table)``.
        """
        return table + self.strength * (self.layer(table) - self.layer(torch.zeros_like(table[:1])))

    def of_pixels(self, part: slice, area: int, clips: int) -> "Hint":
        """The same for some pixels of feature maps with ``area`` pixels, in each of several clips.

        Raises:
            ValueError: the features are for maps of another size.
        """
        if len(self.features) != area:
            raise ValueError(
                f"camera features of {len(self.features)} pixels came to a motion module that works on {area}: leave out the node that"
                " changes the size of the U-Net's features, such as a deep shrink"
            )
        chosen = self.features[part]
        return replace(self, features=chosen if clips == 1 else chosen.repeat(clips, 1, 1))

    def taken(self, group: Group) -> "Hint":
        """The same for the frames of a group's windows."""
        return replace(self, features=group.taken(self.features))


def resized(values: Tensor, height: int, width: int) -> Tensor:
    """A value per frame, or a mask per frame, at a feature map's size.

    Args:
        values: ``f ...``, one number per frame or ``f h w``.
        height: of the feature map.
        width: of the feature map.

    Returns:
        values: ``f p q``, bilinear; ``p`` and ``q`` are 1 where there is one number per frame.
    """
    if values.ndim == 1:
        return values[:, None, None]
    if values.shape[1:] == (height, width):
        return values
    return F.interpolate(values[:, None].float(), size=(height, width), mode="bilinear")[:, 0]


def way_back(groups: list[tuple[Tensor, Tensor]], count: int) -> tuple[Tensor, Tensor]:
    """Where each frame is in the windows, and what each place counts.

    Args:
        groups: (index, weight), ``w l`` each; every frame's weights sum to 1 over all windows.
        count: frames of the clip, ``f``.

    Returns:
        places: ``r f``, int64, and weights: ``r f``, float32; where a frame is in fewer windows than others its row has weight 0.
    """
    index = torch.cat([index.flatten() for index, _ in groups])
    weight = torch.cat([weight.flatten() for _, weight in groups]).float()
    order = torch.argsort(index, stable=True)
    times = torch.bincount(index, minlength=count)
    first = times.cumsum(0) - times
    rank = torch.arange(len(index), device=index.device) - first[index[order]]
    shape = (int(times.max()), count)
    places, weights = torch.zeros(shape, dtype=torch.int64, device=index.device), torch.zeros(shape, device=index.device)
    places[rank, index[order]] = order
    weights[rank, index[order]] = weight[order]
    return places, weights
