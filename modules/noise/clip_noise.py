"""Noise for a whole clip: how the noise that one frame starts from is related to that of the others.

A kind says which frame each frame takes its noise from, so noise comes back in a long clip (FreeNoise, arXiv:2310.15169, section 3.2), or
how much of it all frames share (the mixed noise model of PYoCo, arXiv:2305.10474, section 4.1, where ``share = a^2 / (1 + a^2)``). A
source says how independent noise is drawn: by frame number, or as ComfyUI does (``noise_kinds.py``). Layers are drawn one after the other
and combined.

Noise by frame number is the same whatever the length of the clip, also under FreeNoise: the last region is shuffled as if the clip went
on. Noise as ComfyUI draws it is shuffled as ComfyUI and AnimateDiff-Evolved shuffle it: the last region within itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor

from ..fields.setting import check, documented, sentences, setting
from .noise_kinds import COMBINATIONS, KINDS, SOURCES, Order, per_frame
from .seeded import frame_noise, frame_seed


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
    def again(cls, like: Tensor, seed: int, iteration: int, frames: Sequence[int] | None = None) -> "Clip":
        """The same clip once more, with noise of its own.

        Args:
            like: ``f ...``.
            seed: the sampler's.
            iteration: which time this is, from 1.
            frames: their absolute numbers; None: from 0.
        """
        seed, frames = frame_seed(seed, iteration, "iteration"), tuple(range(len(like)) if frames is None else frames)
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


@documented
@dataclass(frozen=True)
class Layer:
    """One layer of noise.

    Attributes:
        mask: ``m h w``, 0 to 1, for all frames (one mask) or each, of any size: where this layer is; None: everywhere.
    """

    kind: str = setting(
        "freenoise", "The kind says how the noise of one frame is related to that of the others.", menu=sentences(KINDS)
    )
    source: str = setting("comfyui", "The source draws independent noise.", menu=sentences(SOURCES))
    length: int = setting(
        16,
        "For freenoise a window has so many frames, as in Context Windows; for repeated the noise comes again after so many.",
        least=1,
        most=4096,
    )
    overlap: int = setting(
        4,
        "For freenoise neighbouring windows have so many frames in common, as in Context Windows; fewer than the length.",
        least=0,
        most=4095,
    )
    share: float = setting(
        0.5,
        "For mixed all frames have this part of the variance in common, and so much do any two correlate: 0 is independent, 1 is"
        " constant.",
        least=0.0,
        most=1.0,
        step=0.01,
        exact=True,
    )
    combine: str = setting(
        "replace",
        "This says what becomes of the noise so far.",
        menu={name: combination.text for name, combination in COMBINATIONS.items()},
        advanced=True,
    )
    weight: float = setting(
        0.5, "There is so much of this layer; replacing takes no weight.", least=0.0, most=10.0, step=0.01, advanced=True
    )
    seed_offset: int = setting(
        0,
        "This is added to the sampler's seed for this layer. Layers that are mixed need different ones.",
        least=-1_000_000,
        most=1_000_000,
        advanced=True,
    )
    mask: Tensor | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        check(self)
        if self.kind == "freenoise" and self.overlap >= self.length:
            raise ValueError(
                f"windows of {self.length} frames cannot overlap by {self.overlap}: use an overlap from 0 to {self.length - 1}"
            )
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
