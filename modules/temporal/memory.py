"""How much memory a call of a U-Net with motion modules takes, from shapes alone, and how many frames may go through a layer at once.

With frames in the batch axis three things cost memory. What lies between the layers exists for all frames: the running features, the skip
connections, and what a motion module mixes. What a layer makes on its way exists for the frames that go through it at once, the chunk
(``temporal/chunks.py``). What a motion module makes on its way is bounded by itself (``temporal/transformer.py``).

The U-Net is walked as a call walks it. At each layer the tensors that exist at once are counted, as plain Python frees them: a tensor
lives while some function up the stack still has a name for it. The largest sum is the peak. Attention counts as a fused kernel, which
needs its result and nothing else. Not counted are the weights, and what a GPU's libraries take for themselves.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from .frames import Frames
from .slots import BlockedUNet, is_attention, is_residual, slots
from .transformer import even_part, part_pixels

LATENTS = 8  # float32 copies of a call's latents that sampler, guidance and network hold between them
# copies of an attention layer's tokens at its widest: the gated feed-forward, 8 + 4 + 4, and what waits for its result
TOKENS = 20
CHUNKS = tuple(2**n for n in range(10, -1, -1))


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
class MemoryPlan:
    """Bytes above the weights at the moment when a call takes the most.

    Attributes:
        frames: of the clip.
        chunk: frames that go through a layer at once; None for all.
        between: what exists for all frames between the layers.
        layer: what a layer makes on its way.
        temporal: what a motion module makes on its way.
        ends: what goes in and comes out.
        place: where in the U-Net that is.
        free: bytes that there were to plan with, or None.
        whole: bytes that the call would take with all frames at once.
    """

    frames: int
    chunk: int | None
    between: int
    layer: int
    temporal: int
    ends: int
    place: str
    whole: int
    free: int | None = None

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.between + self.layer + self.temporal + self.ends

    @property
    def fits(self) -> bool:
        """Whether it is at most what there is."""
        return self.free is None or self.bytes <= self.free

    def text(self) -> str:
        """The plan in plain words, a few lines."""
        lines = [f"{_through(self)}: {human(self.bytes)} above the weights{_of_free(self)}"]
        if self.chunk is not None:
            lines.append(f"all {self.frames} frames at once would take {human(self.whole)}")
        parts = {
            "between layers": self.between,
            "in a layer": self.layer,
            "in a motion module": self.temporal,
            "in and out": self.ends,
        }
        lines.append("at the widest place: " + ", ".join(f"{human(size)} {name}" for name, size in parts.items() if size))
        if not self.fits:
            lines.append("this does not fit: use fewer frames or smaller pictures, or free memory by closing other programs")
        return "\n".join(lines)


def _through(plan: MemoryPlan) -> str:
    if plan.chunk is None:
        return f"all {plan.frames} frames go through each layer at once"
    return f"{plan.frames} frames go through each layer {plan.chunk} at a time"


def _of_free(plan: MemoryPlan) -> str:
    return "" if plan.free is None else f", of {human(plan.free)} free"


def human(size: float) -> str:
    """Bytes in plain words.

    >>> human(3 * 2**29), human(5_000_000), human(-1)
    ('1.5 GB', '5 MB', '0 MB')
    """
    return f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{max(0, size) / 2**20:.0f} MB"


def estimate(unet: BlockedUNet, filled: Collection[str], call: Call, chunk: int | None = None) -> MemoryPlan:
    """What a call takes when ``chunk`` frames go through a layer at once.

    Args:
        unet: of Stable Diffusion's family; its weights may be anywhere.
        filled: names of the slots that hold motion modules.
        call: what it computes on.
        chunk: frames, or None for all.

    Raises:
        ValueError: the model is no U-Net of Stable Diffusion's family.
    """
    return _planned(list(_moments(unet, filled, call)), call, chunk)


def choose(unet: BlockedUNet, filled: Collection[str], call: Call, free: int) -> MemoryPlan:
    """The plan with the most frames at once that fits into ``free`` bytes: all, else a power of two, else one.

    If even one frame at a time does not fit, the plan is for one, and says so (``fits``, ``text``).

    Raises:
        ValueError: the model is no U-Net of Stable Diffusion's family.
    """
    moments = list(_moments(unet, filled, call))
    plan = _planned(moments, call, None, free)
    for chunk in (chunk for chunk in CHUNKS if chunk < call.frames):
        if plan.fits:
            break
        plan = _planned(moments, call, chunk, free)
    return plan


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


def _planned(moments: list[Moment], call: Call, chunk: int | None, free: int | None = None) -> MemoryPlan:
    chunk = None if chunk is None or chunk >= call.frames else chunk
    sizes = [(*_bytes(moment, call, chunk), moment.place) for moment in moments]
    between, layer, temporal, place = max(sizes, key=lambda size: sum(size[:3]))
    whole = max(sum(_bytes(moment, call, None)) for moment in moments) + call.ends
    return MemoryPlan(call.frames, chunk, between, layer, temporal, call.ends, place, whole, free)


def _bytes(moment: Moment, call: Call, chunk: int | None) -> tuple[int, int, int]:
    """(between layers, in a layer, in a motion module)."""
    one = call.conds * call.element
    temporal = 0 if moment.mixed is None else _workspace(moment.mixed, call)
    if chunk is None or moment.whole:
        return one * call.frames * moment.between, one * call.frames * moment.own, temporal
    copied = moment.given if call.conds > 1 else 0
    return one * call.frames * (moment.between + moment.made), one * chunk * (moment.own + copied), temporal


def _workspace(features: Map, call: Call) -> int:
    """Bytes of what a motion module makes on its way, for as many pixels as it takes at once."""
    token = features.channels * call.element
    rows = call.windows.rows if call.windows else 1
    size = part_pixels(call.device, token, call.frames, rows, call.heads)
    pixels = call.conds * features.area if call.conds * features.area <= size else even_part(features.area, size)
    return int(pixels * call.frames * token * max(TOKENS, _window_copies(call)))


def _window_copies(call: Call) -> float:
    """Copies of a clip's tokens that attention over windows holds at its widest; a frame counts as often as windows show it."""
    if call.windows is None or not call.windows.groups:
        return 0
    shown = [group.index.numel() / call.frames for group in call.windows.groups]
    earlier = [sum(shown[:place]) for place in range(len(shown))]
    if call.windows.fuse_at == "module":  # whole attentions in each window: normed, placed in time, projected, mixed
        return 2 + max(done + 8 * now for done, now in zip(earlier, shown, strict=True))
    attended = max(done + 4 * now for done, now in zip(earlier, shown, strict=True))
    fused = 3 * shown[-1] + sum(shown) * (2 if len(shown) > 1 else 1) + 3
    return 7 + max(attended, fused)  # before and after, normed, projected, and the last part's


def _moments(unet: BlockedUNet, filled: Collection[str], call: Call) -> Iterator[Moment]:
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
