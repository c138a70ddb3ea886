"""Clips written to disk for tests, of frames whose every pixel is known."""

import numpy as np
import pytest
import torch
from PIL import Image


def grey_frames(count, height=24, width=32, seed=0):
    """``f h w 3``, uint8: noise in grey, another in every frame, which palettes of 256 colours keep exactly."""
    noise = np.random.default_rng(seed).integers(0, 256, (count, height, width, 1), dtype=np.uint8)
    return noise.repeat(3, axis=3)


def counting_frames(count, height=48, width=64):
    """``f h w 3``, uint8: frame ``i`` is evenly of brightness ``4 i + 20``, which lossy codecs keep well enough to be counted."""
    return np.stack([np.full((height, width, 3), (4 * number + 20) % 256, np.uint8) for number in range(count)])


def as_tensor(frames):
    return torch.from_numpy(frames.astype(np.float32) / 255)


def pictures(frames):
    return [Image.fromarray(frame) for frame in frames]


def write_animation(path, frames, milliseconds=125):
    """GIF, WebP or PNG, by the name's ending; nothing is lost."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = [picture.convert("L") for picture in pictures(frames)] if path.suffix == ".gif" else pictures(frames)
    options = {"lossless": True} if path.suffix == ".webp" else {}
    first.save(path, save_all=True, append_images=rest, duration=milliseconds, **options)
    return path


def write_sequence(folder, frames, name="frame_{}.png"):
    """One PNG per frame, numbered without leading zeros."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures(frames)):
        picture.save(folder / name.format(number))
    return folder


def write_video(path, frames, codec="libx264", pixels="yuv420p", rate=24, container=None, **options):
    """A video through PyAV; the test is skipped where that, or the codec, is missing."""
    av = pytest.importorskip("av")
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    return path


def write_exact_video(path, frames, **options):
    """A video that keeps every pixel."""
    return write_video(path, frames, codec="ffv1", pixels="bgr0", **options)


def caption(path, text):
    """The caption of a file or folder, beside it."""
    path.with_name(path.name + ".txt" if path.is_dir() else path.stem + ".txt").write_text(text, encoding="utf-8")
