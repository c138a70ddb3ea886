"""Noise for a whole clip: how the noise that one frame starts from is related to that of the others.

A kind says which frame each frame takes its noise from, so noise comes back in a long clip (FreeNoise, arXiv:2310.15169, section 3.2), or
how much of it all frames share (the mixed noise model of PYoCo, arXiv:2305.10474, section 4.1, where ``share = a^2 / (1 + a^2)``). A
source says how independent noise is drawn: by frame number, or as ComfyUI does. Layers are drawn one after the other and combined.

Noise by frame number is the same whatever the length of the clip, also under FreeNoise: the last region is shuffled as if the clip went
on. Noise as ComfyUI draws it is shuffled as ComfyUI and AnimateDiff-Evolved shuffle it: the last region within itself.

To add a kind, write a function of a layer, a seed and a way to draw, and name it in ``KINDS``; to add a way to combine layers, say in
``COMBINATIONS`` what is left of the old and how much of the new is added. Menus and property tests read these tables.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .seeded import frame_noise, frame_seed

Order = Callable[[int], Tensor]  # a number of frames -> for each of them, ``f`` int64, the frame that it takes its noise from
Draw = Callable[[Order, str], Tensor]  # an order and a purpose -> noise, ``f ...``


@dataclass(frozen=True)
class Clip:
    """What noise is needed for.

    Attributes:
        own: ``f ...``, the noise that the sampler drew; it also says on which device and of which type the result is.
        seed: the sampler's.
        frames: their absolute numbers, at least 0.
    """

    own: Tensor
    seed: int
    frames: tuple[int, ...]

    def __post_init__(self) -> None:
        check_numbers(self.frames, len(self.own))

    @classmethod
    def again(cls, like: Tensor, seed: int, iteration: int) -> "Clip":
        """The same clip once more, with noise of its own.

        Args:
            like: ``f ...``.
            seed: the sampler's.
            iteration: which time this is, from 1.
        """
        seed, frames = frame_seed(seed, iteration, "iteration"), tuple(range(len(like)))
        return cls(frame_noise(like.shape[1:], seed, frames, "own").to(like), seed, frames)


def check_numbers(frames: Sequence[int], count: int) -> None:
    """Refuse frame numbers that cannot be those of ``count`` frames.

    Raises:
        ValueError: there are more or fewer of them, or one is below 0.
    """
    if len(frames) != count:
        raise ValueError(f"{len(frames)} frame numbers were given for {count} frames: give one per frame (batch_index)")
    if min(frames, default=0) < 0:
        raise ValueError(f"the frame number {min(frames)} was given: frames are counted from 0")


@dataclass(frozen=True)
class Layer:
    """One layer of noise.

    Attributes:
        kind: a name in ``KINDS``.
        source: a name in ``SOURCES``.
        length: freenoise: frames in a window; repeated: after how many frames noise comes again.
        overlap: freenoise: frames that a window has in common with the next.
        share: mixed: the part of the variance that all frames have in common, 0 to 1; so much do any two frames correlate.
        combine: a name in ``COMBINATIONS``.
        weight: of this layer; replacing takes none.
        seed_offset: added to the seed.
        mask: ``m h w``, 0 to 1, for all frames (one mask) or each, of any size: where this layer is; None: everywhere.
    """

    kind: str = "freenoise"
    source: str = "comfyui"
    length: int = 16
    overlap: int = 4
    share: float = 0.5
    combine: str = "replace"
    weight: float = 0.5
    seed_offset: int = 0
    mask: Tensor | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for what, name, table in (
            ("kind of noise", self.kind, KINDS),
            ("source of noise", self.source, SOURCES),
            ("way to combine layers", self.combine, COMBINATIONS),
        ):
            if name not in table:
                raise ValueError(f"the {what} {name!r} is not known: choose one of {', '.join(table)}")
        if self.length < 1:
            raise ValueError(f"the length is {self.length}: it must be at least 1 frame")
        if self.kind == "freenoise" and not 0 <= self.overlap < self.length:
            raise ValueError(
                f"windows of {self.length} frames cannot overlap by {self.overlap}: use an overlap from 0 to {self.length - 1}"
            )
        if not 0 <= self.share <= 1:
            raise ValueError(f"the share is {self.share}: it is a part of the variance, from 0 (none) to 1 (all frames alike)")
        if not 0 <= self.weight <= 10:
            raise ValueError(f"the weight is {self.weight}: it must be from 0 to 10")
        _check_mask(self.mask)

    @property
    def mixes(self) -> bool:
        """Whether anything of the noise under it remains."""
        return self.combine != "replace" or self.mask is not None

    def noise(self, clip: Clip, number: int) -> Tensor:
        """This layer alone, the ``number``-th from 0. Returns ``f ...``."""
        seed, start = clip.seed + self.seed_offset, f"start {number}" if number else "start"

        def draw(order: Order, purpose: str = "") -> Tensor:
            # the shared part exists in no ComfyUI, so it is always drawn by frame
            source = per_frame if purpose else SOURCES[self.source]
            return source(clip, self, order, seed, start + purpose)

        return KINDS[self.kind](self, seed, draw)


def _check_mask(mask: Tensor | None) -> None:
    if mask is None:
        return
    if mask.ndim != 3:
        raise ValueError(f"the mask has the shape {list(mask.shape)}: it must be frames, height, width")
    if not (mask.isfinite() & (mask >= 0) & (mask <= 1)).all():
        raise ValueError("the mask has values outside 0 to 1: invert or clamp it before this node")


# Sources


def per_frame(clip: Clip, layer: Layer, order: Order, seed: int, purpose: str) -> Tensor:
    """Noise by seed, frame number and purpose, see ``frame_noise``. Returns ``f ...``."""
    # one more window than is needed: an order may treat the end of a clip differently, and here a clip has no end
    taken = order(max(clip.frames) + 1 + layer.length)[list(clip.frames)]
    distinct, back = taken.unique(return_inverse=True)
    return frame_noise(clip.own.shape[1:], seed, distinct.tolist(), purpose)[back].to(clip.own)


def comfyui(clip: Clip, layer: Layer, order: Order, seed: int, purpose: str) -> Tensor:
    """The sampler's own noise; with a seed offset, what ComfyUI would draw for that seed. Returns ``f ...``."""
    own = clip.own if layer.seed_offset == 0 else joint_noise(clip.own, seed)
    return own[order(len(own)).to(own.device)]


def joint_noise(like: Tensor, seed: int) -> Tensor:
    """All frames of a clip from one generator: bit for bit ComfyUI's noise for this seed.

    Args:
        like: ``f ...``, what is wanted.
        seed: any whole number; 64 bits of it count.

    Returns:
        noise: ``f ...``.
    """
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed % 2**64)).to(like)


SOURCES: dict[str, Callable[[Clip, Layer, Order, int, str], Tensor]] = {f.__name__: f for f in (comfyui, per_frame)}


# Kinds


def freenoise(layer: Layer, seed: int, draw: Draw) -> Tensor:
    """The first window's noise again and again, each time in another order within a step of the window. Returns ``f ...``."""
    return draw(partial(shuffled, length=layer.length, overlap=layer.overlap, seed=seed), "")


def repeated(layer: Layer, seed: int, draw: Draw) -> Tensor:
    """The first frames' noise again and again, in the same order. Returns ``f ...``."""
    return draw(lambda count: torch.arange(count) % layer.length, "")


def constant(layer: Layer, seed: int, draw: Draw) -> Tensor:
    """Frame 0's noise for all. Returns ``f ...``."""
    return draw(_first, "")


def mixed(layer: Layer, seed: int, draw: Draw) -> Tensor:
    """A part that all frames share and a part of each frame's own, of unit variance together. Returns ``f ...``."""
    return layer.share**0.5 * draw(_first, " shared") + (1 - layer.share) ** 0.5 * draw(torch.arange, "")


def independent(layer: Layer, seed: int, draw: Draw) -> Tensor:
    """Each frame its own. Returns ``f ...``."""
    return draw(torch.arange, "")


KINDS: dict[str, Callable[[Layer, int, Draw], Tensor]] = {
    f.__name__: f for f in (freenoise, repeated, constant, mixed, independent)
}


def _first(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.int64)


def shuffled(count: int, *, length: int, overlap: int, seed: int) -> Tensor:
    """FreeNoise's order: what follows a window are the window's first frames, shuffled.

    Args:
        count: frames in the clip.
        length: frames in a window.
        overlap: frames that a window has in common with the next; a step is what remains.
        seed: any whole number.

    Returns:
        order: ``count``, int64, all below ``length``.

    >>> sorted(shuffled(10, length=4, overlap=1, seed=0).tolist()[4:7])
    [0, 1, 2]
    """
    generator = torch.Generator().manual_seed(seed % 2**64)
    order = torch.arange(count)
    for start in range(0, count - length, length - overlap):  # each step takes from the one before it
        place = start + length
        size = min(length - overlap, count - place)
        order[place : place + size] = order[start + torch.randperm(size, generator=generator)]
    return order


# Layers


@dataclass(frozen=True)
class Combination:
    """What a layer does to the noise under it.

    Attributes:
        weights: the layer's weight -> factors of the old noise and of the new.
        unit: whether the sum is divided so that independent layers of unit variance keep unit variance, masks of any value included.
    """

    weights: Callable[[float], tuple[float, float]]
    unit: bool


COMBINATIONS = {
    "replace": Combination(lambda weight: (0.0, 1.0), unit=True),
    "normalised_sum": Combination(lambda weight: (1 - weight, weight), unit=True),
    "weighted": Combination(lambda weight: (1 - weight, weight), unit=False),
    "add": Combination(lambda weight: (1.0, weight), unit=False),
}


def clip_noise(clip: Clip, layers: tuple[Layer, ...]) -> Tensor:
    """The sampler's own noise under all layers. Returns ``f ...``."""
    noise = clip.own
    for number, layer in enumerate(layers):
        noise = combined(noise, layer.noise(clip, number), layer)
    return noise


def combined(old: Tensor, new: Tensor, layer: Layer) -> Tensor:
    """One layer on top of what there is.

    Args:
        old: ``f ...``.
        new: ``f ...``, the layer's noise.
        layer: says how; where its mask is 0, ``old`` remains.

    Returns:
        noise: ``f ...``.
    """
    combination = COMBINATIONS[layer.combine]
    kept, added = combination.weights(layer.weight)
    mask = new.new_ones(()) if layer.mask is None else resized(layer.mask, new)
    of_old, of_new = 1 - mask + mask * kept, mask * added
    whole = (of_old**2 + of_new**2).sqrt() if combination.unit else 1.0
    return (of_old * old + of_new * new) / whole


def resized(mask: Tensor, like: Tensor) -> Tensor:
    """A mask at the size of latents, ready to multiply them.

    Args:
        mask: ``m y x``.
        like: ``f ... h w``.

    Returns:
        mask: ``m ... h w``.

    Raises:
        ValueError: there are several masks and not one per frame.
    """
    if len(mask) not in (1, len(like)):
        raise ValueError(f"there are {len(mask)} masks for {len(like)} frames: use one mask for all, or one per frame")
    size = F.interpolate(mask[:, None].to(like), size=like.shape[-2:], mode="bilinear")
    return size.reshape(len(mask), *[1] * (like.ndim - 3), *like.shape[-2:])


def with_layer(layers: tuple[Layer, ...], layer: Layer) -> tuple[Layer, ...]:
    """The layers and one more on top.

    Raises:
        ValueError: it would be mixed with the same noise once more, and the sum would not have the variance that it should.
    """
    present = {0}  # seed offsets of what ComfyUI drew; noise by frame number is another one in each layer
    for under in layers:
        present = (present if under.mixes else set()) | ({under.seed_offset} if under.source == "comfyui" else set())
    if layer.mixes and layer.source == "comfyui" and layer.seed_offset in present:
        raise ValueError(
            f"this layer would mix ComfyUI's noise of seed offset {layer.seed_offset} with itself: set another seed_offset, or"
            " per_frame as its source"
        )
    return (*layers, layer)
