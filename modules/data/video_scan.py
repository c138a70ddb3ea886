"""Read a video through once, so that any of its frames can be found later.

Containers that tell when each frame is shown are known by their packets. Others tell only in which order packets are decoded (AVI), or
give frames the times of others after a seek (MPEG program streams): these are decoded once. What is lost, damaged or unusual is put in
words.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from .displayed import Display
from .footage import Unreadable
from .oddities import oddities
from .report import counted
from .timing import Timing
from .video_decode import Key, decoded, formats, is_half, key_of, opened
from .video_index import VideoIndex

TIMED = {"mp4", "matroska", "mpegts", "flv", "nut"}  # containers that tell exactly when a frame is shown, after a seek too
UNTIMED = {"avi", "h264", "hevc", "mpegvideo", "m4v", "h263", "vc1", "dv"}  # that tell nothing but the order of decoding
DECLARED = {"mp4", "matroska", "avi", "flv", "asf"}  # whose header says how long they are
RESTARTED = {"mpegts": 10.0, "mpeg": 10.0}  # that may be joined of several: seconds after which time is taken to begin anew
USUAL_RATE = 24.0  # of a single frame whose file tells none
CUT_SHORT = 0.5  # seconds by which a file may end before its header says


@dataclass(frozen=True)
class Packet:
    """What is to be known of one: whether a key frame is in it, whether it is shown, how long, and whether it is sound."""

    key: Key
    begins: bool
    shown: bool
    duration: float
    sound: bool


@dataclass(frozen=True)
class Told:
    """What a file tells without being decoded.

    Attributes:
        packets: of the pictures, in the order of decoding.
        names: of the container's format.
        unit: seconds of a tick.
        begins: seconds at which the first stream begins, which may be sound.
        rate: frames per second as the header has it.
        ratio: width of a pixel to its height.
        lost: what is missing, in words; empty for nothing.
    """

    packets: Sequence[Packet]
    names: set[str]
    unit: float
    begins: float | None
    rate: float
    ratio: Fraction | None
    lost: str = ""

    def timing(self, times: np.ndarray, last: float, bad: Iterable[int] = ()) -> Timing:
        """In seconds from where the file begins, if the last frame is shown so long."""
        times = times - (self.begins if self.begins is not None and self.begins <= times[0] else times[0])
        spaced = Timing(times, float(times[-1]) + 1 / self.rate)
        return Timing(times, float(times[-1]) + (last or spaced.interval), np.array(sorted(bad), np.int64))


def index_of(path: Path, *, every_frame: bool = False) -> VideoIndex:
    """The frames of a video file.

    Args:
        path: of the file.
        every_frame: decode all of it, so that damage is known.

    Raises:
        Unreadable: it is broken or no video. One sentence.
    """
    told = _told(path)
    index = _by_times(path, told, every_frame) or _by_counting(path, told)
    sound = index.timing.count - len(index.timing.bad)
    if not sound:
        raise Unreadable(f"{path.name} is damaged: none of its {counted(index.timing.count, 'frame')} can be decoded")
    damaged = (
        [f"it is damaged: {len(index.timing.bad)} of its {index.timing.count} frames are not used"]
        if len(index.timing.bad)
        else []
    )
    return replace(index, notes=(*filter(None, [told.lost]), *damaged, *index.notes))


def _told(path: Path) -> Told:
    with opened(path) as (container, stream):
        packets, end, half = [], 0.0, False
        for packet in container.demux():
            half = half or is_half(packet)
            if is_half(packet):
                continue
            if packet.size and packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.size and packet.stream_index == stream.index:
                length = float((packet.duration or 0) * stream.time_base)
                packets.append(
                    Packet(key_of(packet), packet.is_keyframe, not packet.is_discard, length, sound=not packet.is_corrupt)
                )
        names = formats(container)
        begins = None if container.start_time is None else container.start_time / 1e6
        length, declared = end - (begins or 0), (container.duration or 0) / 1e6 if names & DECLARED else 0
        if "avi" in names and packets:  # its reader corrects what it says of the length, and not how many frames there are
            declared = float(stream.frames * stream.time_base)
        short = half or length + CUT_SHORT < declared
        lost = f"it is cut short: it ends at {length:.1f} s of {declared:.1f} s" if short else ""
        rate = float(stream.average_rate or stream.guessed_rate or USUAL_RATE)
        return Told(packets, names, float(stream.time_base), begins, rate, stream.sample_aspect_ratio, lost)


def _by_times(path: Path, told: Told, every_frame: bool) -> VideoIndex | None:
    """By the times that packets tell; None where they do not, or tell one twice, or where the decoder does not agree."""
    shown = [packet.key[0] for packet in told.packets if packet.shown]
    known = [tick for tick in shown if tick is not None]
    if not told.names & TIMED or not known or len(set(known)) != len(shown):
        return None
    ticks = np.sort(np.array(known, np.int64))
    keys = {
        packet.key: bisect_left(ticks, packet.key[0]) for packet in told.packets if packet.begins and packet.key[0] is not None
    }
    bad = {bisect_left(ticks, tick) for tick in _on_damage(told.packets)}
    last = next(packet.duration for packet in told.packets if packet.key[0] == ticks[-1])
    index = VideoIndex(told.timing(ticks * told.unit, last, bad), ticks, keys, Display(0, 0))
    begin = next(index.numbered(path, 0), None)
    ends = [number for number, _, _ in index.numbered(path, len(ticks) - 1)]
    if begin is None or (begin[0], ends[-1:]) != (0, [len(ticks) - 1]):
        return None
    if every_frame:
        sound = {number for number, _, sound in index.numbered(path, 0) if sound}
        bad |= set(range(len(ticks))) - sound
    return replace(index, timing=told.timing(ticks * told.unit, last, bad), **_looks(path, begin[1], told))


def _on_damage(packets: Sequence[Packet]) -> Iterator[int]:
    """Times of frames that are damaged or built on damage: up to the next key frame, and those shown before it but decoded after it."""
    until: float | None = None  # damage reaches to this time; infinite until a key frame comes
    for packet in packets:
        time = packet.key[0]
        if not packet.sound:
            until = np.inf
        elif until is not None and packet.begins and time is not None:
            until = time
        if until is not None and time is not None and time < until:
            yield time


def _by_counting(path: Path, told: Told) -> VideoIndex:
    """By decoding all of it."""
    with opened(path) as (container, stream):
        frames, first = [], None
        for frame, sound in decoded(container.demux(stream)):
            first = first or frame
            frames.append((frame.pts, frame.key_frame, sound))
    if first is None:
        raise Unreadable(f"{path.name} cannot be read: there is no frame in it")
    times = _times([pts for pts, _, _ in frames], [packet.key[1] for packet in told.packets if packet.shown], told)
    bad = {number for number, (_, _, sound) in enumerate(frames) if not sound}
    numbers = [number for number, (_, key, _) in enumerate(frames) if key]
    begin = [packet.key for packet in told.packets if packet.begins]
    keys = dict(zip(begin, numbers, strict=True)) if len(begin) == len(numbers) and not bad else {}
    last = 0.0 if told.names & UNTIMED or not told.packets else told.packets[-1].duration
    return VideoIndex(told.timing(times, last, bad), None, keys, **_looks(path, first, told))


def _looks(path: Path, first: Any, told: Told) -> dict[str, Any]:
    display = Display.of(first, told.ratio)
    return {"display": display, "notes": oddities(path, first, display)}


def _times(shown: list[int | None], order: list[int | None], told: Told) -> np.ndarray:
    """When frames are shown that were decoded in this order, from what their times and those of packets are worth here."""
    slots = np.sort(np.array([tick for tick in order if tick is not None], np.float64)) * told.unit
    if told.names & UNTIMED:
        if len(slots) == len(shown) and (np.diff(slots) > 0).all():
            return slots
    elif None not in shown and len(shown) > 1:
        moments = np.array(shown, np.float64) * told.unit
        longest = min((RESTARTED[name] for name in told.names & RESTARTED.keys()), default=np.inf)
        steps = np.diff(moments)
        fine = (steps > 0) & (steps <= longest)
        if fine.any():
            return moments[0] + np.concatenate([[0.0], np.cumsum(np.where(fine, steps, np.median(steps[fine])))])
    steps = np.diff(slots)
    interval = float(np.median(steps[steps > 0])) if (steps > 0).any() else 1 / told.rate
    return np.arange(len(shown)) * interval
