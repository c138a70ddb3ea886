"""Odd files, and what is true of each: when its frames are shown, how they are looked at, what is lost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from odd_footage import (
    HEIGHT,
    ORIENTATIONS,
    WIDTH,
    animation,
    clear,
    cut,
    dropped,
    every,
    growing,
    lengths,
    steady,
    struck,
    turned,
    varying,
    without_packets,
    write,
)

NTSC = Fraction(30000, 1001)
HELD = [100] * 11 + [3000]
B_FRAMES = {"bf": "3", "g": "12"}


@dataclass(frozen=True)
class Odd:
    """A file and what is true of it.

    Attributes:
        what: is odd about it.
        make: writes it.
        moments: when its frames are shown, in seconds.
        exact: how far a container may be off by its own rounding, in seconds.
    """

    what: str
    make: Callable[[Path], object]
    moments: Sequence[Fraction]
    exact: float = 1e-4
    codec: str = "libx264"


TIMES = {
    "ntsc.mp4": Odd("29.97 frames per second", lambda p: write(p, every(NTSC, 60), rate=NTSC, **B_FRAMES), every(NTSC, 60)),
    "ntsc.mkv": Odd(
        "the same, times in whole milliseconds", lambda p: write(p, every(NTSC, 60), rate=NTSC, **B_FRAMES), every(NTSC, 60), 6e-4
    ),
    "varying.mp4": Odd(
        "60 frames per second, then 5", lambda p: write(p, varying(), unit=Fraction(1, 600), **B_FRAMES), varying()
    ),
    "varying.mkv": Odd("the same", lambda p: write(p, varying(), unit=Fraction(1, 600), **B_FRAMES), varying(), 6e-4),
    "fifty.avi": Odd(
        "H.264 in AVI whose header says 50 frames per second for 25",
        lambda p: write(p, every(25, 60), rate=Fraction(50), unit=Fraction(1, 50), **B_FRAMES),
        every(25, 60),
    ),
    "mpeg4.avi": Odd(
        "MPEG-4 with B-frames in AVI", lambda p: write(p, every(25, 60), codec="mpeg4", bf="2", g="12"), every(25, 60)
    ),
    "gaps.avi": Odd(
        "dropped frames in AVI, as screen recorders leave them",
        lambda p: write(p, dropped(), codec="mpeg4", bf="0", g="12"),
        dropped(),
        codec="mpeg4",
    ),
    "plain.ts": Odd("a transport stream, which begins at 1.4 s", lambda p: write(p, every(25, 60), **B_FRAMES), every(25, 60)),
    "plain.flv": Odd("Flash video", lambda p: write(p, every(25, 60), **B_FRAMES), every(25, 60), 1.1e-3),
    "plain.mpg": Odd("a program stream", lambda p: write(p, every(25, 60), codec="mpeg2video", bf="2", g="12"), every(25, 60)),
    "plain.wmv": Odd("Windows Media", lambda p: write(p, every(25, 60), codec="wmv2", g="12"), every(25, 60), 1.1e-3),
    "late.mp4": Odd(
        "sound from 0 s, pictures from 0.5 s",
        lambda p: write(p, every(25, 40, Fraction(1, 2)), unit=Fraction(1, 600), sound=True, **B_FRAMES),
        every(25, 40, Fraction(1, 2)),
        0.03,
    ),
    "held.gif": Odd("a GIF of 10 frames per second whose last frame is held 3 s", lambda p: animation(p, HELD), lengths(HELD)),
    "held.webp": Odd("the same as WebP", lambda p: animation(p, HELD), lengths(HELD)),
    "quick.gif": Odd("delays of 10 ms, which browsers show for 100 ms", lambda p: animation(p, [10] * 12), lengths([100] * 12)),
    "default.png": Odd(
        "an animated PNG with another picture for those who show no animations",
        lambda p: animation(p, [125] * 12, first=True),
        lengths([125] * 12),
    ),
}


def way_name(way: tuple[bool, bool, bool]) -> str:
    """Such as ``transposed, mirrored``."""
    words = [word for word, asked in zip(("transposed", "mirrored", "upside down"), way, strict=True) if asked]
    return ", ".join(words) or "upright"


@dataclass(frozen=True)
class Shown:
    """A file and how it is looked at.

    Attributes:
        what: is odd about it.
        make: writes it.
        size: width and height of its pictures.
        filters: what ffmpeg is told beyond its own turning, for square pixels.
        off: how far a pixel may be from ffmpeg's, of 255, and how far on average: 0 where nothing is computed.
        note: what the report says of it.
    """

    what: str
    make: Callable[[Path], object]
    size: tuple[int, int] = (WIDTH, HEIGHT)
    filters: str = "null"
    off: tuple[float, float] = (0, 0)
    note: str = ""
    codec: str = "png"


EXACT = {"codec": "png", "pixels": "rgb24"}
SQUARE = "scale=iw*sar:ih:flags=bicubic,setsar=1"
TEN_BITS = {"codec": "libx265", "pixels": "yuv420p10le", "x265_params": "log-level=0"}
PQ = {**TEN_BITS, "x265_params": "log-level=0:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"}
TEN = every(25, 10)
SHOWN = {
    **{
        f"turned{number}.mov": Shown(f"a display matrix: {way_name(way)}", lambda p, way=way: turned(p, way))
        for number, way in enumerate(ORIENTATIONS)
    },
    "phone.mp4": Shown(
        "H.264, turned by a quarter",
        lambda p: turned(p, (True, False, True), codec="libx264", pixels="yuv420p", bf="3"),
        codec="libx264",
        off=(2, 0.2),
    ),
    "wide.mov": Shown("pixels 4:3", lambda p: write(p, TEN, shape=Fraction(4, 3), **EXACT), (128, 64), SQUARE, (2, 0.2)),
    "narrow.mov": Shown("pixels 8:9", lambda p: write(p, TEN, shape=Fraction(8, 9), **EXACT), (85, 64), SQUARE, (2, 0.2)),
    "wide.mkv": Shown(
        "pixels 4:3, H.264", lambda p: write(p, TEN, shape=Fraction(4, 3)), (128, 64), SQUARE, (2, 0.2), codec="libx264"
    ),
    "widened.mov": Shown(
        "pixels 4:3, turned by a quarter",
        lambda p: turned(p, (True, True, False), shape=Fraction(4, 3)),
        (72, 64),
        SQUARE,
        (2, 0.2),
    ),
    "growing.webm": Shown("size changes in mid-stream", growing, off=(2, 0.2), codec="libvpx-vp9"),
    "tagged.mp4": Shown(
        "tagged and converted BT.709",
        lambda p: write(p, TEN, colours="ITU709", pixels="yuv444p", qp="0"),
        codec="libx264",
        off=(2, 0.2),
    ),
    "full.mov": Shown("full range", lambda p: write(p, TEN, pixels="yuvj420p", codec="mjpeg"), codec="mjpeg", off=(2, 0.2)),
    "deep.mkv": Shown("10 bits, HEVC", lambda p: write(p, TEN, **TEN_BITS), codec="libx265", off=(2, 0.2)),
    "prores.mov": Shown(
        "10 bits, 4:2:2, ProRes",
        lambda p: write(p, TEN, codec="prores_ks", pixels="yuv422p10le"),
        codec="prores_ks",
        off=(2, 0.2),
    ),
    "hdr.mkv": Shown("HDR (PQ, BT.2020)", lambda p: write(p, TEN, **PQ), codec="libx265", off=(2, 0.2), note="it is HDR (PQ)"),
    "combed.mpg": Shown(
        "interlaced MPEG-2",
        lambda p: write(p, TEN, codec="mpeg2video", flags="+ildct+ilme", qmin="1", qmax="2"),
        codec="mpeg2video",
        off=(2, 0.2),
        note="it is interlaced",
    ),
    "clear.mov": Shown(
        "transparent",
        lambda p: clear(p, codec="png", pixels="rgba"),
        filters="format=rgba",
        note="it is transparent in places",
        off=(0.51, 0.2),
    ),
    "clear.webm": Shown(
        "transparency beside the pictures",
        lambda p: clear(p, codec="libvpx-vp9", pixels="yuva420p"),
        codec="libvpx-vp9",
        note="it has transparency that its decoder leaves away",
        off=(2, 0.2),
    ),
}


@dataclass(frozen=True)
class Damaged:
    """A file of 60 frames, 25 a second, that lost something.

    Attributes:
        what: happened to it.
        make: writes it.
        note: what the report says of it before training.
        whole: the same file before that.
        there: how many frames it may be taken to hold, at least and at most.
        sound: of them that must be usable.
        begins: the frame that it begins with.
        known: whether all damage is known before anything is decoded.
    """

    what: str
    make: Callable[[Path], object]
    note: str
    whole: Callable[[Path], object] = steady
    there: tuple[int, int] = (25, 45)
    sound: int = 25
    begins: int = 0
    known: bool = True
    codec: str = "libx264"


def table_in_front(path: Path) -> Path:
    """An MP4 whose table of frames comes before them."""
    return steady(path, container={"movflags": "faststart"})


def without_b_frames(path: Path) -> Path:
    """For containers that tell nothing but the order of decoding."""
    return steady(path, bf="0")


DAMAGED = {
    "losses.ts": Damaged(
        "a transport stream that lost two packets of 188 bytes",
        lambda p: without_packets(steady(p), [150, 420]),
        "it is damaged",
        there=(58, 60),
        sound=45,
    ),
    "joined.ts": Damaged(
        "a transport stream that begins in the middle",
        lambda p: cut(steady(p), 0.13, 1.0),
        "",
        there=(40, 60),
        sound=40,
        begins=8,
    ),
    "cut.mkv": Damaged("a Matroska that ends early", lambda p: cut(steady(p)), "it is cut short: it ends at 1.4 s of 2.4 s"),
    "cut.mp4": Damaged(
        "an MP4 that ends early",
        lambda p: cut(table_in_front(p)),
        "it is cut short: it ends at 1.4 s of 2.4 s",
        table_in_front,
    ),
    "cut.avi": Damaged(
        "an AVI that ends early",
        lambda p: cut(without_b_frames(p)),
        "it is cut short: it ends at 1.4 s of 2.4 s",
        without_b_frames,
    ),
    "struck.mp4": Damaged(
        "an MP4 of which 400 bytes are others", lambda p: struck(steady(p)), "", there=(60, 60), sound=50, known=False
    ),
}
