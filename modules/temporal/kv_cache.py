"""Keys and values of past frames, kept from call to call: a rolling cache with sink frames, in constant memory.

A causal video model of Wan's family is called with one block of frames at a time, at times 0, 1, 2 ... of the block, and attends to what
is cached as well. The cache says which frames that is (``KeyValueCache``), where in time they are (``POSITIONS``), and turns their keys to
be there: the rotary embedding in time is a rotation group, so a key that was embedded at ``p``, turned by ``q - p``, is the key embedded at
``q``. Only differences of times matter to attention; so none ever exceeds the span of what is cached, however long the take is, and no
position is rounded in half precision.

Self-Forcing (arXiv:2506.08009), LongLive and Infinity-RoPE are rows of settings over it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BASE = 10000.0  # of the rotary embedding's frequencies


def time_channels(head: int) -> int:
    """How many of a head's channels Wan's rotary embedding turns in time, its first; the others belong to rows and columns."""
    return head - 4 * (head // 6)


def turned(keys: Tensor, by: Tensor) -> Tensor:
    """Keys as they would have been embedded later, or earlier where ``by`` is negative.

    Angles are computed in float64 and applied in float32, so a frame may be any number of frames away.

    Args:
        keys: ``b f s n d``, embedded in interleaved pairs of channels.
        by: ``f``, frames.

    Returns:
        turned: ``b f s n d``; new memory.
    """
    count = time_channels(keys.shape[-1])
    frequencies = BASE ** -(torch.arange(0, count, 2, dtype=torch.float64) / count)
    angles = by.to("cpu", torch.float64)[:, None] * frequencies
    cos, sin = (part.to(keys.device, torch.float32)[None, :, None, None] for part in (angles.cos(), angles.sin()))
    even, odd = keys[..., 0:count:2].float(), keys[..., 1:count:2].float()
    result = keys.clone()
    result[..., 0:count:2] = (even * cos - odd * sin).to(keys.dtype)
    result[..., 1:count:2] = (even * sin + odd * cos).to(keys.dtype)
    return result


def absolute(frames: Sequence[int], sinks: int) -> list[float]:  # noqa: ARG001  rows of one table share a signature
    """Every frame is at its own number: sink frames move away for ever (Self-Forcing, LongLive)."""
    return [float(frame) for frame in frames]


def window(frames: Sequence[int], sinks: int) -> list[float]:  # noqa: ARG001  rows of one table share a signature
    """Frames are where they stand in the cache, one after the other, whatever was between them (LongLive infinity, Infinity-RoPE)."""
    return [float(place) for place in range(len(frames))]


def adjoining(frames: Sequence[int], sinks: int) -> list[float]:
    """Sink frames lie right before the oldest other frame, which is at its own number (Rolling Forcing)."""
    first = frames[sinks] if len(frames) > sinks else len(frames)
    return [float(first - sinks + place) if place < sinks else float(frame) for place, frame in enumerate(frames)]


POSITIONS: dict[str, Callable[[Sequence[int], int], list[float]]] = {
    rule.__name__: rule for rule in (absolute, window, adjoining)
}


FLUSHED = 2  # newest frames that a flush keeps, see Infinity-RoPE's repository
SWITCHES = {
    "recache": "The newest cached frames are shown once more with the new prompt, all in one call; sink frames stay (LongLive).",
    "renew": "The same, and the first of them become the new sink frames, so that nothing of the old prompt stays (LongLive without"
    " global sinks).",
    "flush": f"The cache forgets all but its first frame and the newest {FLUSHED} (Infinity-RoPE).",
    "none": "Only the blocks that follow read the new prompt.",
}


@dataclass(frozen=True)
class CacheSettings:
    """What a causal model was trained to see of the past.

    Attributes:
        room: frames that are cached at most, those of the present call among them; 0 for all.
        sinks: first frames that never leave.
        positions: a name in ``POSITIONS``.
        switch: a name in ``SWITCHES``: what happens to what is cached when another prompt begins.
    """

    room: int = 21
    sinks: int = 0
    positions: str = "absolute"
    switch: str = "recache"

    def __post_init__(self) -> None:
        if self.positions not in POSITIONS:
            raise ValueError(f"positions are {self.positions!r}: choose one of {', '.join(POSITIONS)}")
        if self.switch not in SWITCHES:
            raise ValueError(f"switch is {self.switch!r}: choose one of {', '.join(SWITCHES)}")
        if self.room < 0 or self.sinks < 0:
            raise ValueError(f"room is {self.room} and sinks are {self.sinks}: frames of a cache, 0 or more")
        if self.room and self.sinks >= self.room:
            raise ValueError(f"{self.sinks} sink frames fill a cache with room for {self.room}: leave room for other frames")

    def shown_again(self, start: int) -> range:
        """The frames that are shown once more when a prompt begins at frame ``start``; none where what is cached is not made anew."""
        if self.switch not in ("recache", "renew"):
            return range(start, start)
        sinks = self.sinks if self.switch == "recache" else 0
        return range(max(sinks, start - self.room + sinks) if self.room else sinks, start)


class KeyValueCache:
    """What one condition's rows of a batch have seen: keys and values of whole frames in every layer.

    Memory is taken once, when a layer is first written; it is for ``room`` frames, or grows where the room is 0. Calls say which frames
    they are about first (``begin``), and may be repeated: frames that are there already are replaced, whatever was called in between.

    Args:
        settings: what is cached.
    """

    def __init__(self, settings: CacheSettings):
        self.settings = settings
        self.frames: list[int] = []  # that are cached, sinks first, then the oldest first
        self.slots: dict[int, int] = {}  # frame -> place in memory; the places taken are always the first ones
        self.places: dict[int, int] = {}  # frame -> the time in its call that its keys were embedded at
        self.shots: dict[int, int] = {}  # frame -> the prompt that it was last shown with
        self.written: dict[int, int] = {}  # frame -> the call that showed it last
        self.calls = 0
        self.keys: dict[int, Tensor] = {}  # layer -> b r s n d
        self.values: dict[int, Tensor] = {}
        self.now: range = range(0)
        self.evicted = 0

    def __deepcopy__(self, memo: object) -> "KeyValueCache":
        return self  # a host may copy the options that it travels in

    def begin(self, now: range, shot: int = 0) -> None:
        """A call of the frames ``now``: the oldest behind the sinks leave, if these are new and there is no room for them.

        Args:
            now: frames that were cached before, or follow them.
            shot: number of their prompt; with the first call of another one than the newest frame's, the cache is switched.

        Raises:
            ValueError: they can never fit, or frames before them are missing.
        """
        if self.frames and self.shots[self.frames[-1]] != shot:
            self._switch()
        room, sinks = self.settings.room, self.settings.sinks
        staying = sum(frame not in now for frame in self.frames[:sinks])
        if room and len(now) > room - staying:
            raise ValueError(
                f"a call of {len(now)} frames does not fit a cache with room for {room}, of which {sinks} are sinks: use smaller"
                " blocks or more room"
            )
        if now.start > self.following and (self.frames or not shot):
            raise ValueError(f"frame {now.start} was asked for and {self.following} comes next: frames follow each other")
        new = [frame for frame in now if frame not in self.slots]
        over = len(self.frames) + len(new) - room if room else 0
        free = []
        for _ in range(max(0, over)):
            free.append(self._drop(self.frames[sinks]))
        free += range(len(self.slots) + len(free), len(self.slots) + len(new))
        for frame, slot in zip(new, free, strict=False):
            self.frames.append(frame)
            self.slots[frame] = slot
        self.places |= {frame: place for place, frame in enumerate(now)}
        self.shots |= dict.fromkeys(now, shot)
        self.calls += 1
        self.written |= dict.fromkeys(now, self.calls)
        self.now = now

    def _switch(self) -> None:
        """What becomes of the cache when another prompt begins; calls that show frames once more are the plan's."""
        if self.settings.switch == "renew":
            self.keep([])
        elif self.settings.switch == "flush":
            self.keep([self.frames[0], *self.frames[-FLUSHED:]])

    @property
    def following(self) -> int:
        """The frame after the last that is cached."""
        return self.frames[-1] + 1 if self.frames else 0

    def attend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keep what a layer made of the present frames, and give all that they see.

        Args:
            layer: of the network.
            keys: ``b f s n d``, embedded at times 0, 1, 2 ... of the call.
            values: ``b f s n d``.

        Returns:
            keys: ``b g s n d``, where the call's first frame is at time 0.
            values: ``b g s n d``; memory of the cache.
        """
        self._take_memory(layer, keys)
        slots = [self.slots[frame] for frame in self.now]
        self.keys[layer][:, slots], self.values[layer][:, slots] = keys, values
        count = len(self.frames)
        return turned(self.keys[layer][:, :count], self.shifts()), self.values[layer][:, :count]

    def positions(self) -> list[float]:
        """When each of ``frames`` is said to be, counted from the call's first frame."""
        at = POSITIONS[self.settings.positions](self.frames, min(self.settings.sinks, len(self.frames)))
        first = at[self.frames.index(self.now.start)]
        return [position - first for position in at]

    def shifts(self) -> Tensor:
        """By how many frames each cached frame's keys are turned, in the order of memory. Returns ``f``."""
        by = torch.zeros(len(self.frames), dtype=torch.float64)
        for frame, position in zip(self.frames, self.positions(), strict=True):
            by[self.slots[frame]] = position - self.places[frame]
        return by

    def keep(self, frames: Sequence[int]) -> None:
        """Forget all other frames."""
        for frame in [frame for frame in self.frames if frame not in set(frames)]:
            hole, last = self._drop(frame), len(self.slots)
            if hole == last:
                continue
            moved = next(other for other, slot in self.slots.items() if slot == last)
            for memory in (*self.keys.values(), *self.values.values()):
                memory[:, hole] = memory[:, last]
            self.slots[moved] = hole

    def size(self) -> int:
        """Bytes of memory taken."""
        return sum(memory.numel() * memory.element_size() for memory in (*self.keys.values(), *self.values.values()))

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """What is cached, a part for each frame, for a take that is interrupted and goes on; these are memory of the cache.

        Right at any moment, in the middle of a call too: what that call has not written yet, it writes before it reads it.
        """
        each = {}
        for frame, slot in self.slots.items():
            name = ".".join(map(str, (frame, self.places[frame], self.shots[frame], self.written[frame], slot)))
            each[name] = {
                f"{layer}.{kind}": tensor[:, slot]
                for kind, memory in (("keys", self.keys), ("values", self.values))
                for layer, tensor in memory.items()
            }
        return each

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with what ``parts`` gave, ``b s n d`` each, under ``part/name``; it is moved to where the model is when that is called."""
        for known in (self.slots, self.places, self.shots, self.written, self.keys, self.values):
            known.clear()
        for name in tensors:
            frame, place, shot, call, slot = map(int, name.partition("/")[0].split("."))
            self.places[frame], self.shots[frame], self.written[frame] = place, shot, call
            self.slots[frame] = slot  # sums over keys in another order are rounded in another way
        self.frames = sorted(self.places)
        self.calls = max(self.written.values(), default=0)
        for name, tensor in tensors.items():
            part, _, inner = name.partition("/")
            layer, _, kind = inner.partition(".")
            memory = self.keys if kind == "keys" else self.values
            if int(layer) not in memory:
                shape = (len(tensor), self.settings.room or len(self.frames), *tensor.shape[1:])
                memory[int(layer)] = tensor.new_zeros(shape)
            memory[int(layer)][:, self.slots[int(part.partition(".")[0])]] = tensor

    def _drop(self, frame: int) -> int:
        """Forget a frame; its place in memory."""
        self.frames.remove(frame)
        self.places.pop(frame), self.shots.pop(frame), self.written.pop(frame)
        self.evicted += 1
        return self.slots.pop(frame)

    def _take_memory(self, layer: int, like: Tensor) -> None:
        needed = self.settings.room or max(self.slots.values()) + 1
        for memory in (self.keys, self.values):
            had = memory.get(layer)
            if had is None or had.shape[1] < needed or had.device != like.device:
                grown = like.new_zeros(len(like), needed, *like.shape[2:])
                if had is not None:
                    grown[:, : had.shape[1]] = had
                memory[layer] = grown
