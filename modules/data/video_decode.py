"""Video files through PyAV, packet by packet: opened, sought in and decoded."""

import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .footage import Unreadable

Key = tuple[int | None, int | None, int | None]  # what tells a packet from all others: its two times and its place
# what a container is asked to go to for a key frame: of a packet's times and place, whichever its own index is by; usually its dts
SEEK_BY = {"matroska": 0, "mpegts": 2}


def pyav() -> Any:
    """PyAV, or None where it is not installed: it is no requirement of this pack, so it is not imported by name."""
    try:
        return importlib.import_module("av")
    except ImportError:
        return None


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its video stream.

    Raises:
        Unreadable: it is broken or no video, now or while it is open, or PyAV is missing. One sentence.
    """
    av = pyav()
    if av is None:
        raise Unreadable(
            f"{path.name} needs PyAV, which is not installed: python -m pip install av (GIF, WebP and pictures do without)"
        )
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.best("video")
            if stream is None:
                raise Unreadable(f"{path.name} cannot be read: there are no pictures in it")
            yield container, stream
    except av.FFmpegError as error:
        raise Unreadable(f"{path.name} cannot be read: it is damaged, cut short or no video ({error.strerror})") from error


def formats(container: Any) -> set[str]:
    """The names of a container's format, such as ``mov`` and ``mp4``."""
    return set(container.format.name.split(","))


def key_of(packet: Any) -> Key:
    """What tells this packet from all others of its file."""
    return packet.pts, packet.dts, packet.pos


def is_half(packet: Any) -> bool:
    """Whether a file ends in the middle of this packet; in a transport stream a damaged one says nothing of the end."""
    return packet.is_corrupt and "mpegts" not in formats(packet.stream.container)


def decoded(packets: Iterable[Any]) -> Iterator[tuple[Any, bool]]:
    """The frames of these packets, in the order in which they are shown, and whether they are sound.

    What follows damage is built on it, up to the next key frame.
    """
    damage, sound = pyav().InvalidDataError, True
    for packet in packets:
        if is_half(packet):
            continue
        try:
            frames = packet.decode()
        except damage:
            sound = False
            continue
        for frame in frames:
            sound = not frame.is_corrupt and (sound or frame.key_frame)
            yield frame, sound


def packets_from(container: Any, stream: Any, key: Key) -> Iterator[Any]:
    """The packets from a key frame on, or from wherever the container goes instead: the first one tells."""
    places = [place for name, place in SEEK_BY.items() if name in formats(container)]
    place = places[0] if places else 1
    target = key[place]
    if target is not None:
        container.seek(target, stream=stream, unsupported_byte_offset=place == 2)
    return (
        packet for packet in container.demux(stream) if packet.size or packet.dts is None
    )  # the last one is empty and has no time
