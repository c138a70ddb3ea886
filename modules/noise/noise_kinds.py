"""How frames' noise is drawn, related and combined, as tables.

To add a kind, write a function of a layer, a seed and a way to draw, and name it in ``KINDS``; its docstring begins with a sentence for
users. To add a way to combine layers, say in ``COMBINATIONS`` what is left of the old and how much of the new is added. Menus and property
tests read these tables.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .seeded import frame_noise

if TYPE_CHECKING:
    from .clip_noise import Clip, Layer

Order = Callable[[int], Tensor]  # a number of frames -> for each of them, ``f`` int64, the frame that it takes its noise from
Draw = Callable[[Order, str], Tensor]  # an order and a purpose -> noise, ``f ...``


def per_frame(clip: "Clip", layer: "Layer", order: Order, seed: int, purpose: str) -> Tensor:
    """It depends on seed and frame number (batch_index of Latent From Batch) alone, so a frame has the same noise in clips of any length.

    Returns ``f ...``.
    """
    # one more window than is needed: an order may treat the end of a clip differently, and here a clip has no end
    taken = order(max(clip.frames) + 1 + layer.length)[list(clip.frames)]
    distinct, back = taken.unique(return_inverse=True)
    return frame_noise(clip.own.shape[1:], seed, distinct.tolist(), purpose)[back].to(clip.own)


def comfyui(clip: "Clip", layer: "Layer", order: Order, seed: int, purpose: str) -> Tensor:
    """It is the noise that the sampler would use anyway, so results compare with other workflows.

    With a seed offset, it is what ComfyUI would draw for that seed. Returns ``f ...``.
    """
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


def frames_drawn(noise: Tensor, seed: int, most: int = 4096) -> tuple[int, ...] | None:
    """Which frames of a longer clip ComfyUI drew noise for: a latent cut out of one says so (``batch_index``) to whoever draws, and to
    nobody else.

    Args:
        noise: ``f ...``.
        seed: that it was drawn with.
        most: frames of the longest clip that is looked through.

    Returns:
        frames: absolute numbers, one for each; None where it is another's noise, or of another seed.
    """
    if torch.equal(noise, joint_noise(noise, seed)):
        return tuple(range(len(noise)))
    generator, found = torch.Generator().manual_seed(seed % 2**64), {}
    given = noise.cpu()
    for number in range(most):
        drawn = torch.randn(1, *given.shape[1:], generator=generator).to(given)
        for place in (given[:, 0, 0] == drawn[:, 0, 0]).flatten(1).all(1).nonzero().flatten().tolist():
            found[place] = number
        if len(found) == len(given):
            return tuple(found[place] for place in range(len(given)))
    return None


SOURCES: dict[str, Callable[["Clip", "Layer", Order, int, str], Tensor]] = {f.__name__: f for f in (comfyui, per_frame)}


def freenoise(layer: "Layer", seed: int, draw: Draw) -> Tensor:
    """The first window's noise comes again and again, shuffled each time; it is for context windows. Returns ``f ...``."""
    return draw(partial(shuffled, length=layer.length, overlap=layer.overlap, seed=seed), "")


def repeated(layer: "Layer", seed: int, draw: Draw) -> Tensor:
    """The first frames' noise comes again and again, in the same order. Returns ``f ...``."""
    return draw(lambda count: torch.arange(count) % layer.length, "")


def constant(layer: "Layer", seed: int, draw: Draw) -> Tensor:
    """All frames have one noise. Returns ``f ...``, that of frame 0."""
    return draw(_first, "")


def mixed(layer: "Layer", seed: int, draw: Draw) -> Tensor:
    """Each frame's noise is a part that all share and a part of its own, of unit variance together. Returns ``f ...``."""
    return layer.share**0.5 * draw(_first, " shared") + (1 - layer.share) ** 0.5 * draw(torch.arange, "")


def independent(layer: "Layer", seed: int, draw: Draw) -> Tensor:
    """Each frame has its own noise. Returns ``f ...``."""
    return draw(torch.arange, "")


KINDS: dict[str, Callable[["Layer", int, Draw], Tensor]] = {
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


@dataclass(frozen=True)
class Combination:
    """What a layer does to the noise under it.

    Attributes:
        weights: the layer's weight -> factors of the old noise and of the new.
        text: a sentence for users.
        unit: whether the sum is divided so that independent layers of unit variance keep unit variance, masks of any value included.
    """

    weights: Callable[[float], tuple[float, float]]
    text: str
    unit: bool


COMBINATIONS = {
    "replace": Combination(lambda weight: (0.0, 1.0), "Only this layer remains.", unit=True),
    "normalised_sum": Combination(
        lambda weight: (1 - weight, weight), "Both are added by weight, and the strength stays.", unit=True
    ),
    "weighted": Combination(lambda weight: (1 - weight, weight), "Both are added by weight, and the sum is weaker.", unit=False),
    "add": Combination(lambda weight: (1.0, weight), "This layer comes on top, and the sum is stronger.", unit=False),
}
