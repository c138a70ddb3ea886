"""Where the frames of a video are: when each is shown, and from which packets on it can be decoded.

A frame's number is its place in the order of showing, and it is the same frame however the reader got there. Containers that tell when
each frame is shown are known by their packets, and a frame is known by its time. Others tell only in which order packets are decoded
(AVI), or give frames the times of others after a seek (MPEG program streams): these are decoded once, and their frames counted from a key
frame whose number is known.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from .footage import Unreadable
from .timing import Timing
from .video_decode import Key, decoded, formats, key_of, opened, packets_from

TIMED = {"mp4", "matroska", "mpegts", "flv", "nut"}  # containers that tell exactly when a frame is shown, after a seek too
UNTIMED = {"avi", "h264", "hevc", "mpegvideo", "m4v", "h263", "vc1", "dv"}  # that tell nothing but the order of decoding
RESTARTED = {"mpegts": 10.0, "mpeg": 10.0}  # that may be joined of several: seconds after which time is taken to begin anew
USUAL_RATE = 24.0  # of a single frame whose file tells none


@dataclass(frozen=True, eq=False)
class VideoIndex:
    """The frames of a video.

    Attributes:
        timing: when each is shown.
        ticks: the same in the stream's own units, by which frames are told apart; None where they are counted.
        keys: the packets at which decoding can begin, and the frames that they show.
    """

    timing: Timing
    ticks: np.ndarray | None
    keys: dict[Key, int]

    @cached_property
    def _rising(self) -> list[tuple[int, Key]]:
        return sorted(((number, key) for key, number in self.keys.items()), key=lambda item: item[0])

    def key_before(self, number: int) -> Key | None:
        """The packet from which on a frame is decoded; None for the first of the file."""
        place = bisect_right(self._rising, number, key=lambda item: item[0]) - 1
        return self._rising[place][1] if place >= 0 and self._rising[place][0] > 0 else None

    def numbered(self, path: Path, first: int) -> Iterator[tuple[int, Any]]:
        """Frames with their numbers, from ``first`` or one before it to the end.

        Raises:
            Unreadable: the file is damaged there.
        """
        key = self.key_before(first)
        if key is not None:
            with opened(path) as (container, stream):
                packets = packets_from(container, stream, key)
                head = next(packets)
                landed = self.keys.get(key_of(head), first + 1)
                if landed <= first:
                    yield from self._told(decoded(path, chain([head], packets)), landed)
                    return
        with opened(path) as (container, stream):
            yield from self._told(decoded(path, container.demux(stream)), None)

    def _told(self, frames: Iterator[Any], key: int | None) -> Iterator[tuple[int, Any]]:
        """Frames with their numbers; ``key`` is that of the first key frame, None for the start of the file."""
        if self.ticks is None:
            number = 0 if key is None else None
            for frame in frames:
                number = key if number is None and frame.key_frame else number
                if number is not None:
                    yield number, frame
                    number += 1
            return
        for frame in frames:
            number = bisect_left(self.ticks, frame.pts) if frame.pts is not None else len(self.ticks)
            if number < len(self.ticks) and self.ticks[number] == frame.pts:
                yield number, frame


@dataclass(frozen=True)
class _Packet:
    """What the reader must know of one."""

    key: Key
    begins: bool
    shown: bool
    duration: float


def index_of(path: Path, *, every_frame: bool = False) -> VideoIndex:
    """The frames of a video file.

    Args:
        path: of the file.
        every_frame: decode all of it, whether its packets tell enough or not.

    Raises:
        Unreadable: it is broken, cut short or no video. One sentence.
    """
    with opened(path) as (container, stream):
        names = formats(container)
        packets = list(_packets(path, container, stream))
        unit = float(stream.time_base)
        rate = float(stream.average_rate or stream.guessed_rate or USUAL_RATE)
        begins = None if container.start_time is None else container.start_time / 1e6
    ticks = [packet.key[0] for packet in packets if packet.shown]
    if names & TIMED:
        index = _by_times(packets, ticks, unit, begins, rate)
        if index is not None and _ends_are_there(path, index):
            if every_frame:
                deque(index.numbered(path, 0), maxlen=0)
            return index
    return _by_counting(path, packets, names, unit, begins, rate)


def _packets(path: Path, container: Any, stream: Any) -> Iterator[_Packet]:
    there = 0
    for packet in container.demux(stream):
        if packet.is_corrupt:
            told = f" of {stream.frames}" if stream.frames else ""
            raise Unreadable(f"{path.name} is cut short: it ends after {there}{told} frames")
        if packet.size:
            there += not packet.is_discard
            length = float((packet.duration or 0) * stream.time_base)
            yield _Packet(key_of(packet), packet.is_keyframe, not packet.is_discard, length)


def _by_times(
    packets: Sequence[_Packet], told: Sequence[int | None], unit: float, begins: float | None, rate: float
) -> VideoIndex | None:
    """By the times that packets tell; None where they do not, or tell one twice."""
    known = [tick for tick in told if tick is not None]
    if not known or len(set(known)) != len(told):
        return None
    ticks = np.sort(np.array(known, np.int64))
    keys = {packet.key: bisect_left(ticks, packet.key[0]) for packet in packets if packet.begins and packet.key[0] is not None}
    last = next(packet.duration for packet in packets if packet.key[0] == ticks[-1])
    return VideoIndex(_timing(ticks * unit, begins, last, rate), ticks, keys)


def _ends_are_there(path: Path, index: VideoIndex) -> bool:
    """Whether the first and the last time are those of frames, as they come out of the decoder."""
    first, last = next(index.numbered(path, 0), None), deque(index.numbered(path, index.timing.count - 1), maxlen=1)
    return first is not None and first[0] == 0 and bool(last) and last[0][0] == index.timing.count - 1


def _by_counting(
    path: Path, packets: Sequence[_Packet], names: set[str], unit: float, begins: float | None, rate: float
) -> VideoIndex:
    """By decoding all of it."""
    with opened(path) as (container, stream):
        frames = [(frame.pts, frame.key_frame) for frame in decoded(path, container.demux(stream))]
    if not frames:
        raise Unreadable(f"{path.name} cannot be read: there is no frame in it")
    times = _times([pts for pts, _ in frames], [packet.key[1] for packet in packets if packet.shown], names, unit, rate)
    numbers = [number for number, (_, key) in enumerate(frames) if key]
    begin = [packet.key for packet in packets if packet.begins]
    keys = dict(zip(begin, numbers, strict=True)) if len(begin) == len(numbers) else {}
    return VideoIndex(_timing(times, begins, 0.0 if names & UNTIMED else packets[-1].duration, rate), None, keys)


def _times(shown: list[int | None], order: list[int | None], names: set[str], unit: float, rate: float) -> np.ndarray:
    """When frames are shown that were decoded in this order, from what their times and those of packets are worth here."""
    slots = np.sort(np.array([tick for tick in order if tick is not None], np.float64)) * unit
    if names & UNTIMED:
        if len(slots) == len(shown) and (np.diff(slots) > 0).all():
            return slots
    elif None not in shown and len(shown) > 1:
        moments = np.array(shown, np.float64) * unit
        longest = min((RESTARTED[name] for name in names & RESTARTED.keys()), default=np.inf)
        steps = np.diff(moments)
        fine = (steps > 0) & (steps <= longest)
        if fine.any():
            return moments[0] + np.concatenate([[0.0], np.cumsum(np.where(fine, steps, np.median(steps[fine])))])
    steps = np.diff(slots)
    interval = float(np.median(steps[steps > 0])) if (steps > 0).any() else 1 / rate
    return np.arange(len(shown)) * interval


def _timing(times: np.ndarray, begins: float | None, last: float, rate: float) -> Timing:
    """In seconds from where the file begins, which sound may do before the pictures."""
    times = times - (begins if begins is not None and begins <= times[0] else times[0])
    spaced = Timing(times, float(times[-1]) + 1 / rate)
    return Timing(times, float(times[-1]) + (last or spaced.interval))
