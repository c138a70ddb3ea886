"""Video files, read with PyAV when it is installed.

A frame's number is its place in the order of presentation times, so that it is the same frame however the reader got there: a seek that
lands elsewhere is noticed by the time, never by counting. In containers without an index (MPEG program streams are one) FFmpeg gives
frames the times of others after a seek; these are read from their beginning.
"""

import importlib
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .footage import Footage, Unreadable, file_digest

VIDEO_ENDINGS = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".ogv", ".3gp"),
)
SEEKABLE = ("mp4", "matroska")  # names of containers that keep an index of exact times
REORDERED = (
    16  # most frames that a codec shows later than it decodes them: a seek aims so many earlier, past damaged ones at its start
)


def pyav() -> Any:
    """PyAV, or None where it is not installed: it is no requirement of this pack, so it is not imported by name."""
    try:
        return importlib.import_module("av")
    except ImportError:
        return None


class VideoFile(Footage):
    """A video. Opening reads it through without decoding, and decodes its first and its last frame.

    Args:
        path: of the file.
        every_frame: decode all of it now, so that damage in the middle is found before training.

    Raises:
        Unreadable: it is broken, cut short or no video, or PyAV is missing. One sentence.
    """

    kind = "video"

    def __init__(self, path: Path, *, every_frame: bool = False):
        self.path, self.name = path, path.name
        times, self.fps = self._packets()
        self.times: Sequence[int] | None = None if times is None else _compact(times)
        self.count = 0 if times is None else len(times)
        first = next(self._run(None), None)
        if first is None:
            raise Unreadable(f"{self.name} cannot be read: there is no frame in it")
        if every_frame or not self._ends_are_there(first):
            times = [frame.pts for frame in self._run(None)]
            known = None not in times and sorted(set(times)) == times
            self.times, self.count = _compact(times) if known else None, len(times)
        self.quarters = round(getattr(first, "rotation", 0) / 90) % 4
        self.height, self.width = (first.width, first.height) if self.quarters % 2 else (first.height, first.width)

    def pictures(self, indices: Sequence[int]) -> Iterator[Tensor]:
        wanted = iter(indices)
        index = next(wanted, None)
        for number, frame in self._numbered(indices[0] if len(indices) else 0):
            if index is None:
                return
            if number > index:
                break
            if number == index:
                yield self._picture(frame)
                index = next(wanted, None)
        if index is not None:
            raise Unreadable(f"{self.name} is damaged: frame {index} of {self.count} cannot be decoded")

    def digest(self) -> str:
        return file_digest([self.path])

    def _picture(self, frame: Any) -> Tensor:
        """``h w 3``, turned as the file says, which a phone does instead of turning its pixels."""
        pixels = np.rot90(frame.to_ndarray(format="rgb24"), self.quarters)
        return torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        av = pyav()
        if av is None:
            raise Unreadable(
                f"{self.name} needs PyAV, which is not installed: python -m pip install av (GIF, WebP and pictures do without)"
            )
        try:
            with av.open(str(self.path), metadata_errors="replace") as container:
                stream = container.streams.best("video")
                if stream is None:
                    raise Unreadable(f"{self.name} cannot be read: there are no pictures in it")
                yield container, stream
        except av.FFmpegError as error:
            raise Unreadable(f"{self.name} cannot be read: it is damaged, cut short or no video ({error.strerror})") from error

    def _packets(self) -> tuple[list[int] | None, float]:
        """Presentation times of all frames, or None if the file does not tell them, and its rate."""
        with self._opened() as (container, stream):
            self.seekable = not set(SEEKABLE).isdisjoint(container.format.name.split(","))
            times = []
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    told = f" of {stream.frames}" if stream.frames else ""
                    raise Unreadable(f"{self.name} is cut short: it ends after {len(times)}{told} frames")
                if packet.size and not packet.is_discard:
                    times.append(packet.pts)
            rate = stream.average_rate or stream.guessed_rate
            if not rate and None not in times and len(times) > 1:
                rate = (len(times) - 1) / ((max(times) - min(times)) * stream.time_base)
            return (None if None in times else sorted(set(times))), float(rate or 24)

    def _ends_are_there(self, first: Any) -> bool:
        """Whether the first and the last time are those of frames: some containers tell only when to decode, not when to show."""
        if self.times is None or first.pts != self.times[0]:
            return False
        return [number for number, _ in self._numbered(self.count - 1)][-1:] == [self.count - 1]

    def _numbered(self, first: int) -> Iterator[tuple[int, Any]]:
        """Frames with their numbers, from ``first`` or before it to the end."""
        if self.times is None:
            yield from enumerate(self._run(None))
            return
        if first > REORDERED and self.seekable:
            frames = self._known(self._run(self.times[first - REORDERED]))
            head = next(frames, None)
            if head is not None and head[0] <= first:
                yield head
                yield from frames
                return
        yield from self._known(self._run(None))

    def _known(self, frames: Iterator[Any]) -> Iterator[tuple[int, Any]]:
        times = self.times or ()
        for frame in frames:
            number = bisect_left(times, frame.pts) if frame.pts is not None else len(times)
            if number < len(times) and times[number] == frame.pts:
                yield number, frame

    def _run(self, start: int | None) -> Iterator[Any]:
        """Decode from the key frame before a time, or from the beginning."""
        with self._opened() as (container, stream):
            if start is not None:
                container.seek(start, stream=stream)
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise Unreadable(f"{self.name} is damaged: a frame near {frame.time or 0:.2f} s cannot be decoded")
                yield frame


def _compact(times: Sequence[int]) -> Sequence[int]:
    """The same numbers in little memory: a range where they are evenly spaced, as they mostly are.

    >>> _compact([0, 512, 1024])
    range(0, 1025, 512)
    """
    if len(times) < 2:
        return tuple(times)
    even = range(times[0], times[-1] + 1, max(1, times[1] - times[0]))
    return even if len(even) == len(times) and all(a == b for a, b in zip(even, times, strict=True)) else array("q", times)
