"""Footage made on the spot, whose every frame carries its number and four coloured corners; ``odd_files.py`` lists the odd ones."""

import struct
from collections.abc import Sequence
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
    shape: Fraction | None = None,
    colours: str = "",
    container: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """A video whose frames are shown at these moments, in seconds, as far as its container can say so.

    Args:
        path: of the file; its ending says which container.
        moments: of the frames.
        codec, pixels: how they are encoded.
        rate: what the header says.
        unit: of the encoder's times.
        images: the frames, ``h w 3`` or ``h w 4``, uint8 each; pictures with their numbers without.
        sound: whether there is a silent one, from 0 s on.
        shape: width of a pixel to its height.
        colours: the matrix to convert to and to tag, a name of PyAV's.
        container, options: of the container and of the codec.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    images = [picture(number) for number in range(len(moments))] if images is None else images
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=rate, options={key.replace("_", "-"): value for key, value in options.items()})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = unit or 1 / rate
        if shape:
            stream.codec_context.sample_aspect_ratio = shape
        if colours:
            stream.codec_context.colorspace = av.video.reformatter.Colorspace[colours]
        if sound:
            voice = file.add_stream("aac", rate=48000)
            for start in range(0, int(48000 * moments[-1]) + 1, 1024):
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                samples.sample_rate, samples.pts = 48000, start
                file.mux(voice.encode(samples))
            file.mux(voice.encode())
        for moment, image in zip(moments, images, strict=True):
            shown = av.VideoFrame.from_ndarray(image, format="rgba" if image.shape[2] == 4 else "rgb24")
            if colours:
                shown = shown.reformat(format=pixels, dst_colorspace=colours)
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


ORIENTATIONS = [(transposed, across, down) for transposed in (False, True) for across in (False, True) for down in (False, True)]
PLAIN_MATRIX = (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def turned(path: Path, way: tuple[bool, bool, bool], **options: object) -> Path:
    """A video whose pixels lie otherwise than they are looked at, with the matrix in its header that says how to turn them."""
    transposed, across, down = way
    stored = [image[:: -1 if down else 1, :: -1 if across else 1] for image in map(picture, range(10))]
    stored = [np.ascontiguousarray(image.swapaxes(0, 1) if transposed else image) for image in stored]
    write(path, every(25, 10), images=stored, **{"codec": "png", "pixels": "rgb24", **options})
    x, y = -0x10000 if across else 0x10000, -0x10000 if down else 0x10000
    matrix = (0, y, 0, x, 0, 0, 0, 0, 0x40000000) if transposed else (x, 0, 0, 0, y, 0, 0, 0, 0x40000000)
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    assert struct.unpack(">9i", content[place : place + 36]) == PLAIN_MATRIX
    content[place : place + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(content)
    return path


def growing(path: Path) -> Path:
    """Ten frames, ten larger ones and ten of another shape, in one stream, as recorded calls have it."""
    import av

    with av.open(str(path), "w") as file:
        stream = file.add_stream("libvpx-vp9", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv444p"
        for part, (width, height) in enumerate([(WIDTH, HEIGHT), (144, 96), (64, 96)]):
            coder = av.CodecContext.create("libvpx-vp9", "w")
            coder.width, coder.height, coder.pix_fmt = width, height, "yuv444p"
            coder.time_base, coder.framerate = Fraction(1, 25), Fraction(25)
            coder.options = {"lossless": "1", "lag-in-frames": "0"}
            packets = []
            for number in range(10 * part, 10 * part + 10):
                shown = av.VideoFrame.from_ndarray(picture(number, width, height), format="rgb24")
                shown.pts, shown.time_base = number, Fraction(1, 25)
                packets += coder.encode(shown)
            for packet in [*packets, *coder.encode()]:
                packet.stream = stream
                file.mux(packet)
    return path


def clear(path: Path, **options: str) -> Path:
    """Frames whose right half is half transparent."""
    images = []
    for number in range(10):
        alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
        alpha[:, WIDTH // 2 :] = 128
        images.append(np.concatenate([picture(number), alpha], axis=2))
    return write(path, every(25, 10), images=images, **options)


# Damage


def busy(count: int) -> list[np.ndarray]:
    """Frames with another noise beside the corners in each, so that each takes some room in a file."""
    numbers = np.random.default_rng(0)
    images = []
    for number in range(count):
        image = picture(number)
        for rows in (slice(4, 20), slice(44, 60)):
            image[rows, 24:72] = numbers.integers(16, 235, (16, 48, 3), dtype=np.uint8)
        images.append(image)
    return images


def steady(path: Path, **options: object) -> Path:
    """60 busy frames, a key frame every ten."""
    coded = {"g": "10", "bf": "2", "sc_threshold": "0", "qp": "20", **options}
    return write(path, every(25, 60), images=busy(60), **coded)


def without_packets(path: Path, numbers: Sequence[int]) -> Path:
    """A transport stream that lost these of its packets of 188 bytes."""
    content = path.read_bytes()
    packets = [content[place : place + 188] for place in range(0, len(content), 188)]
    path.write_bytes(b"".join(packet for number, packet in enumerate(packets) if number not in set(numbers)))
    return path


def cut(path: Path, first: float = 0.0, last: float = 0.6) -> Path:
    """A part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[int(len(content) * first) : int(len(content) * last)])
    return path


def struck(path: Path, part: float = 0.5, length: int = 400) -> Path:
    """A file in which some bytes are others."""
    content = bytearray(path.read_bytes())
    place = int(len(content) * part)
    content[place : place + length] = bytes(byte ^ 0x5A for byte in content[place : place + length])
    path.write_bytes(content)
    return path
