"""Where the frames of a video are: when each is shown, and from which packets on it can be decoded.

A frame's number is its place in the order of showing, and it is the same frame however the reader got there: a seek that lands elsewhere
is noticed by the packet that it lands on. In containers that tell when each frame is shown, a frame is known by its time; elsewhere frames
are counted from a key frame whose number is known.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from .displayed import Display
from .timing import Timing
from .video_decode import Key, decoded, key_of, opened, packets_from

TRIES = 2  # key frames that are tried before all is decoded from the start: some streams mend only after a while


@dataclass(frozen=True, eq=False)
class VideoIndex:
    """The frames of a video.

    Attributes:
        timing: when each is shown.
        ticks: the same in the stream's own units, by which frames are told apart; None where they are counted.
        keys: the packets at which decoding can begin, and the frames that they show.
        display: how they are looked at.
        notes: what a user should know of the file, as sentences that begin with "it".
    """

    timing: Timing
    ticks: np.ndarray | None
    keys: dict[Key, int]
    display: Display
    notes: tuple[str, ...] = ()

    @cached_property
    def _rising(self) -> list[tuple[int, Key]]:
        return sorted(((number, key) for key, number in self.keys.items()), key=lambda item: item[0])

    def keys_before(self, number: int) -> list[Key]:
        """Packets from which on a frame is decoded, the nearest first; none where that is the first of the file."""
        last = bisect_right(self._rising, number, key=lambda item: item[0])
        return [key for shown, key in reversed(self._rising[max(0, last - TRIES) : last]) if shown > 0]

    def numbered(self, path: Path, first: int) -> Iterator[tuple[int, Any, bool]]:
        """Frames with their numbers, from ``first`` or one before it to the end, and whether they are sound.

        Raises:
            Unreadable: the file cannot be read any more.
        """
        for key in self.keys_before(first):
            with opened(path) as (container, stream):
                packets = packets_from(container, stream, key)
                head = next(packets)
                landed = self.keys.get(key_of(head), first + 1)
                frames = self._told(decoded(chain([head], packets)), landed) if landed <= first else iter(())
                begin = next(frames, None)
                if begin is not None and begin[0] <= first:
                    yield begin
                    yield from frames
                    return
        with opened(path) as (container, stream):
            yield from self._told(decoded(container.demux(stream)), None)

    def _told(self, frames: Iterator[tuple[Any, bool]], key: int | None) -> Iterator[tuple[int, Any, bool]]:
        """Frames with their numbers; ``key`` is that of the first key frame, None for the start of the file."""
        if self.ticks is None:
            number = 0 if key is None else None
            for frame, sound in frames:
                number = key if number is None and frame.key_frame else number
                if number is not None:
                    yield number, frame, sound
                    number += 1
            return
        for frame, sound in frames:
            number = bisect_left(self.ticks, frame.pts) if frame.pts is not None else len(self.ticks)
            if number < len(self.ticks) and self.ticks[number] == frame.pts:
                yield number, frame, sound
