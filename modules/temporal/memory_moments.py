"""What exists at once while a U-Net with motion modules is called, layer by layer, from shapes alone (``memory.py`` counts it).

The U-Net is walked as a call walks it. At each layer the tensors that exist at once are counted, as plain Python frees them: a tensor
lives while some function up the stack still has a name for it.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from .frames import Frames
from .slots import BlockedUNet, is_attention, is_residual, slots

LATENTS = 8  # float32 copies of a call's latents that sampler, guidance and network hold between them
# copies of an attention layer's tokens at its widest: the gated feed-forward, 8 + 4 + 4, and what waits for its result
TOKENS = 20


@dataclass(frozen=True)
class Call:
    """What one call of the network is about.

    Attributes:
        frames: of the clip.
        height: of the latent.
        width: of the latent.
        conds: how many conditions lie one after the other in the batch axis, each with all frames.
        element: bytes of a feature's number, 2 in half precision.
        channels: of the latent.
        context: numbers of one frame's text, tokens times channels.
        windows: what the motion modules see of the clip, where they have windows; else None.
        heads: of the motion modules' attention.
        controlled: whether a ControlNet adds to the skip connections.
        clip_norms: whether residual blocks take statistics over the whole clip, and with it all its frames at once.
        device: where it runs, a torch device type.
    """

    frames: int
    height: int
    width: int
    conds: int = 1
    element: int = 2
    channels: int = 4
    context: int = 77 * 768
    windows: Frames | None = None
    heads: int = 8
    controlled: bool = False
    clip_norms: bool = False
    device: str = "cuda"

    @property
    def ends(self) -> int:
        """Bytes of what goes in and comes out."""
        latent, text = self.channels * self.height * self.width, self.context
        return self.conds * self.frames * (LATENTS * 4 * latent + self.element * text)


@dataclass(frozen=True)
class Map:
    """The features of one frame."""

    channels: int
    height: int
    width: int

    @property
    def area(self) -> int:
        return self.height * self.width

    @property
    def size(self) -> int:
        return self.channels * self.area


@dataclass(frozen=True)
class Moment:
    """What exists at one point of a call, in numbers per frame.

    Attributes:
        place: in the U-Net.
        between: exists for all frames.
        given: what the layer at work takes; a chunk of several conditions is a copy of it.
        made: what it gives, for all frames from the first chunk on.
        own: what it makes on its way, its result included.
        mixed: features that a motion module is at work on.
        whole: whether the layer always takes all frames.
    """

    place: str
    between: int
    given: int = 0
    made: int = 0
    own: int = 0
    mixed: Map | None = None
    whole: bool = False


def moments_of(unet: BlockedUNet, filled: Collection[str], call: Call) -> Iterator[Moment]:
    anchors = {id(layer) for name, layer in slots(unet).items() if name in filled}
    walk = _Walk(anchors, call)
    latent = Map(call.channels, call.height, call.width)
    skips = list(_skips(unet, latent))
    control = sum(skip.size for skip in skips) + skips[-1].size if call.controlled else 0
    held, features = control, latent
    for number, (block, skip) in enumerate(zip(unet.input_blocks, skips, strict=True)):
        yield from walk.block(f"input block {number}", block, features, held)
        held, features = held + skip.size, skip
    yield from walk.block("middle block", unet.middle_block, features, held)
    for number, block in enumerate(unet.output_blocks):
        place = f"output block {number}"
        skip = skips.pop()
        held -= skip.size * (2 if call.controlled else 1)
        joined = Map(features.channels + skip.channels, skip.height, skip.width)
        yield Moment(place, held + 2 * joined.size)
        yield from walk.block(place, block, joined, held + joined.size, skips[-1] if skips else skip)
        features = walk.out_of(block, joined, skips[-1] if skips else skip)
    yield Moment("output", held + features.size, features.size, latent.size, 2 * features.size, whole=call.clip_norms)


def _skips(unet: BlockedUNet, features: Map) -> Iterator[Map]:
    """What the blocks of the way down give."""
    for block in unet.input_blocks:
        features = _Walk.out_of(block, features, features)
        yield features


class _Walk:
    """Moments of the layers of a block."""

    def __init__(self, anchors: set[int], call: Call):
        self.anchors, self.call = anchors, call

    def block(self, place: str, block: Any, features: Map, held: int, target: Map | None = None) -> Iterator[Moment]:
        """What exists while a block works; the input of its first layer is among ``held``, since the U-Net keeps it."""
        between = held
        for layer in block.children():
            made = _made(layer, features, target or features)
            whole = self.call.clip_norms and is_residual(layer)
            yield Moment(place, between, features.size, made.size, _own(layer, features, made), whole=whole)
            if id(layer) in self.anchors:  # beside the layer's result its normed copy, then also the sum of the two
                yield Moment(place, between + 2 * made.size, mixed=made)
                yield Moment(place, between + 3 * made.size)
            between, features = held + made.size, made

    @staticmethod
    def out_of(block: Any, features: Map, target: Map) -> Map:
        """What a block gives."""
        for layer in block.children():
            features = _made(layer, features, target)
        return features


def _made(layer: nn.Module, given: Map, target: Map) -> Map:
    """What a layer gives; ``target`` has the size that an enlarging one enlarges to."""
    channels: Any = getattr(layer, "out_channels", given.channels)
    if is_residual(layer) or is_attention(layer):
        return Map(channels, given.height, given.width)
    if hasattr(layer, "op"):
        return Map(channels, (given.height + 1) // 2, (given.width + 1) // 2)
    if hasattr(layer, "conv"):
        return Map(channels, target.height, target.width)
    return Map(channels, given.height, given.width)


def _own(layer: nn.Module, given: Map, made: Map) -> int:
    """Numbers that a layer makes on its way for one frame, at its widest."""
    if is_residual(layer):
        return max(2 * given.size, given.size + made.size, 4 * made.size)
    if is_attention(layer):
        return TOKENS * given.size
    return made.size + (given.channels * made.area if hasattr(layer, "conv") else 0)
