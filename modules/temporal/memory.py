"""How much memory a call of a U-Net with motion modules takes, from shapes alone, and how many frames may go through a layer at once.

With frames in the batch axis three things cost memory. What lies between the layers exists for all frames: the running features, the skip
connections, and what a motion module mixes. What a layer makes on its way exists for the frames that go through it at once, the chunk
(``temporal/chunks.py``). What a motion module makes on its way is bounded by itself (``temporal/transformer.py``).

The U-Net is walked as a call walks it (``memory_moments.py``), and the largest sum of what exists at once is the peak. Attention counts as
a fused kernel, which needs its result and nothing else. Not counted are the weights, and what a GPU's libraries take for themselves.
"""

from collections.abc import Collection
from dataclasses import dataclass

from .memory_moments import TOKENS, Call, Map, Moment, moments_of
from .slots import BlockedUNet
from .transformer import even_part, part_pixels

CHUNKS = tuple(2**n for n in range(10, -1, -1))


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
    return _planned(list(moments_of(unet, filled, call)), call, chunk)


def choose(unet: BlockedUNet, filled: Collection[str], call: Call, free: int) -> MemoryPlan:
    """The plan with the most frames at once that fits into ``free`` bytes: all, else a power of two, else one.

    If even one frame at a time does not fit, the plan is for one, and says so (``fits``, ``text``).

    Raises:
        ValueError: the model is no U-Net of Stable Diffusion's family.
    """
    moments = list(moments_of(unet, filled, call))
    plan = _planned(moments, call, None, free)
    for chunk in (chunk for chunk in CHUNKS if chunk < call.frames):
        if plan.fits:
            break
        plan = _planned(moments, call, chunk, free)
    return plan


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
