"""Odd footage, made on the spot: files whose every frame carries its number and four coloured corners, with what is true of them.

``python tests/helpers/odd_footage.py docs/footage.md`` writes them to a temporary folder, reads each through this pack and through
ffmpeg's own decoder, and writes what both gave into the page.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT, CORNER, BITS = 96, 64, 16, 8
COLOURS = {"R": (230, 20, 20), "G": (20, 200, 20), "B": (20, 20, 230), "W": (235, 235, 235)}
UPRIGHT = "RGBW"  # top left, top right, bottom left, bottom right
GROUND = (96, 96, 96)


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A frame: four corners in colours of their own, and its number as a row of black and white blocks. Gives ``h w 3``, uint8."""
    image = np.empty((height, width, 3), np.uint8)
    image[:] = GROUND
    corner = height * CORNER // HEIGHT
    for place, letter in enumerate(UPRIGHT):
        rows = slice(0, corner) if place < 2 else slice(height - corner, height)
        columns = slice(width - corner, width) if place % 2 else slice(0, corner)
        image[rows, columns] = COLOURS[letter]
    for bit in range(BITS):
        columns = slice(width * bit // BITS, width * (bit + 1) // BITS)
        image[height * 3 // 8 : height * 5 // 8, columns] = 235 if number >> (BITS - 1 - bit) & 1 else 16
    return image


def number_in(image: np.ndarray) -> int:
    """The number that a frame carries: ``image`` is ``h w 3`` in 0..255, of any size."""
    height, width = image.shape[:2]
    row = image[height * 7 // 16 : height * 9 // 16].mean(axis=(0, 2))
    blocks = [row[int(width * (bit + 0.3) / BITS) : int(width * (bit + 0.7) / BITS)].mean() for bit in range(BITS)]
    return sum((block > 128) << (BITS - 1 - bit) for bit, block in enumerate(blocks))


def corners_in(image: np.ndarray) -> str:
    """The colours of a frame's corners, ``RGBW`` if it stands upright: ``image`` is ``h w 3`` in 0..255."""
    height, width = image.shape[:2]
    found = ""
    for top, left in ((0, 0), (0, 1), (1, 0), (1, 1)):
        y, x = (height - 6 if top else 2), (width - 6 if left else 2)
        colour = image[y : y + 4, x : x + 4].reshape(-1, 3).mean(0)
        found += min(COLOURS, key=lambda letter: float(np.abs(colour - COLOURS[letter]).sum()))
    return found


def write(
    path: Path,
    moments: Sequence[Fraction],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rate: Fraction = Fraction(25),
    unit: Fraction | None = None,
    images: Sequence[np.ndarray] | None = None,
    sound: bool = False,
    container: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """A video whose frames are shown at these moments, in seconds, as far as its container can say so."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    images = [picture(number) for number in range(len(moments))] if images is None else images
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=rate, options={key.replace("_", "-"): value for key, value in options.items()})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = unit or 1 / rate
        if sound:
            voice = file.add_stream("aac", rate=48000)
            for start in range(0, int(48000 * moments[-1]) + 1, 1024):
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                samples.sample_rate, samples.pts = 48000, start
                file.mux(voice.encode(samples))
            file.mux(voice.encode())
        for moment, image in zip(moments, images, strict=True):
            shown = av.VideoFrame.from_ndarray(image, format="rgba" if image.shape[2] == 4 else "rgb24")
            shown.pts, shown.time_base = round(moment / stream.codec_context.time_base), stream.codec_context.time_base
            file.mux(stream.encode(shown))
        file.mux(stream.encode())
    return path


def animation(path: Path, milliseconds: Sequence[int], *, first: bool = False) -> Path:
    """GIF, WebP or APNG, whose frames are shown so long each; ``first`` puts a picture before it for those who show no animations."""
    images = [Image.fromarray(picture(number)) for number in range(len(milliseconds))]
    images = [image.quantize(64) for image in images] if path.suffix == ".gif" else images
    options = {"lossless": True} if path.suffix == ".webp" else {}
    if first:
        options["default_image"] = True
        images.insert(0, Image.fromarray(picture(200)))
    images[0].save(path, save_all=True, append_images=images[1:], duration=list(milliseconds), loop=0, **options)
    return path


def every(rate: Fraction | int, count: int, start: Fraction | int = 0) -> list[Fraction]:
    """``count`` moments, evenly spaced."""
    return [Fraction(start) + Fraction(number) / rate for number in range(count)]


def varying() -> list[Fraction]:
    """60 frames at 60 per second, then 30 at 5."""
    return every(60, 60) + every(5, 30, start=1)


def lengths(milliseconds: Sequence[int]) -> list[Fraction]:
    """When frames begin that are shown so long each."""
    return [Fraction(sum(milliseconds[:number]), 1000) for number in range(len(milliseconds))]


def dropped() -> list[Fraction]:
    """25 frames per second, some left out."""
    return [moment for number, moment in enumerate(every(25, 70)) if number < 30 or number % 4]


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
        numbers: which frames there are to see, if not all from 0 on.
    """

    what: str
    make: Callable[[Path], object]
    moments: Sequence[Fraction]
    exact: float = 1e-4
    numbers: Sequence[int] | None = None
    codecs: tuple[str, ...] = field(default=("libx264",))


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
        codecs=("mpeg4",),
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


def ffmpeg() -> str | None:
    """Where ffmpeg is, or None."""
    return shutil.which("ffmpeg")
