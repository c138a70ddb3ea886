"""The few nodes of ComfyUI's own that the shipped workflows use, under ComfyUI's ids, inputs and defaults.

A test compares each with the real one. ``CreateVideo`` and ``SaveVideo`` are there when PyAV is.
"""

import hashlib
import importlib.util
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError
from torch import Tensor

from ..mp4 import mp4
from . import schema as io
from . import ui
from .session import Progress, check_interrupt, input_directory
from .writing import next_name, numbered, whole_files

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


def _input_file(name: str) -> Path | None:
    """The file of a name like ``cat.png`` or ``clip_00001_.png [output]``, or None; never outside its folder."""
    folder = input_directory()
    for kind in io.FolderType:
        if name.endswith(f"[{kind.value}]"):
            folder, name = ui.directory_of(kind), name.removesuffix(f"[{kind.value}]").rstrip()
    path = (folder / name).resolve()
    return path if path.is_file() and folder.resolve() in path.parents else None


class LoadImage(io.ComfyNode):
    """Read a picture or an animation from the input folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The schema."""
        folder = input_directory()
        names = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in PICTURES) if folder.is_dir() else []
        return io.Schema(
            node_id="LoadImage",
            display_name="Load Image",
            category="image",
            inputs=[io.Combo.Input("image", options=names, upload=io.UploadType.image)],
            outputs=[io.Image.Output(), io.Mask.Output()],
        )

    @classmethod
    def validate_inputs(cls, image: str) -> bool | str:
        """Whether the file is there."""
        if _input_file(image) is None:
            return f"there is no picture {image!r} in {input_directory()}"
        return True

    @classmethod
    def fingerprint_inputs(cls, image: str) -> str:
        """The file's contents, so that a changed file is read again."""
        path = _input_file(image)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path else ""

    @classmethod
    def execute(cls, image: str) -> io.NodeOutput:
        """Read it."""
        path = _input_file(image)
        if path is None:
            raise ValueError(f"there is no picture {image!r} in {input_directory()}")
        try:
            with Image.open(path) as opened:
                frames = [ImageOps.exif_transpose(frame) for frame in ImageSequence.Iterator(opened)]
        except UnidentifiedImageError:
            raise ValueError(f"{image} is no picture that can be read: use PNG, JPEG, WebP or GIF") from None
        frames = [frame for frame in frames if frame.size == frames[0].size]
        return io.NodeOutput(torch.stack([_colours(frame) for frame in frames]), torch.stack([_mask(frame) for frame in frames]))


def _colours(picture: Image.Image) -> Tensor:
    if picture.mode.startswith("I"):  # 16 bits
        picture = Image.fromarray((np.asarray(picture, dtype=np.float64) / 256).clip(0, 255).astype(np.uint8))
    return torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255.0)


def _mask(picture: Image.Image) -> Tensor:
    """1 where transparent; ComfyUI's 64x64 of zeros for pictures without transparency."""
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    if "A" not in picture.getbands():
        return torch.zeros(64, 64)
    return 1.0 - torch.from_numpy(np.asarray(picture.getchannel("A"), dtype=np.float32) / 255.0)


class SaveImage(io.ComfyNode):
    """Write each frame as a PNG that holds the workflow it came from."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The schema."""
        return io.Schema(
            node_id="SaveImage",
            display_name="Save Image",
            category="image",
            inputs=[io.Image.Input("images"), io.String.Input("filename_prefix", default="ComfyUI")],
            outputs=[io.Image.Output(display_name="images")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, images: Tensor, filename_prefix: str = "ComfyUI") -> io.NodeOutput:
        """Write ``images``: ``f h w c``."""
        saved = ui.save_pngs(images, filename_prefix, io.FolderType.output, cls)
        return io.NodeOutput(images, ui=ui.SavedImages(saved))


class PreviewImage(io.ComfyNode):
    """Write each frame as a PNG into the temporary folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The schema."""
        return io.Schema(
            node_id="PreviewImage",
            display_name="Preview Image",
            category="image",
            inputs=[io.Image.Input("images")],
            outputs=[io.Image.Output(display_name="images")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, images: Tensor) -> io.NodeOutput:
        """Write ``images``: ``f h w c``."""
        return io.NodeOutput(images, ui=ui.PreviewImage(images, cls=cls))


class SaveAnimatedWEBP(io.ComfyNode):
    """Write the frames as one animated WebP."""

    METHODS = {"default": 4, "fastest": 0, "slowest": 6}

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The schema."""
        return io.Schema(
            node_id="SaveAnimatedWEBP",
            display_name="Save Animated WEBP",
            category="image",
            inputs=[
                io.Image.Input("images"),
                io.String.Input("filename_prefix", default="ComfyUI"),
                io.Float.Input("fps", default=6.0, min=0.01, max=1000.0, step=0.01),
                io.Boolean.Input("lossless", default=True),
                io.Int.Input("quality", default=80, min=0, max=100),
                io.Combo.Input("method", options=list(cls.METHODS)),
            ],
            outputs=[io.Image.Output(display_name="images")],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        images: Tensor,
        filename_prefix: str = "ComfyUI",
        fps: float = 6.0,
        lossless: bool = True,
        quality: int = 80,
        method: str = "default",
    ) -> io.NodeOutput:
        """Write ``images``: ``f h w c``."""
        frames = ui.pictures(images)
        path, number = next_name(filename_prefix, ui.directory_of(io.FolderType.output), *frames[0].size)
        target = numbered(path, number, "webp")
        facts = frames[0].getexif()
        for tag, (name, text) in zip(range(0x0110, 0, -1), ui.texts(cls).items(), strict=False):  # "Model", "Make" and so on down
            facts[tag] = f"{name}:{text}"
        check_interrupt()
        with whole_files() as draft:
            frames[0].save(
                draft(target),
                "WEBP",
                save_all=True,
                append_images=frames[1:],
                duration=int(1000.0 / fps),
                exif=facts,
                lossless=lossless,
                quality=quality,
                method=cls.METHODS[method],
            )
        return io.NodeOutput(
            images, ui=ui.SavedImages([ui.SavedResult.of(target, io.FolderType.output)], is_animated=len(frames) > 1)
        )


class VAEDecode(io.ComfyNode):
    """Latents to pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The schema."""
        return io.Schema(
            node_id="VAEDecode",
            display_name="VAE Decode",
            category="latent",
            inputs=[io.Latent.Input("samples"), io.Vae.Input("vae")],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, samples: dict[str, Any], vae: Any) -> io.NodeOutput:
        """Decode ``samples["samples"]``: ``f c h w``."""
        return io.NodeOutput(vae.decode(samples["samples"]))


class VAEEncode(io.ComfyNode):
    """Pictures to latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The schema."""
        return io.Schema(
            node_id="VAEEncode",
            display_name="VAE Encode",
            category="latent",
            inputs=[io.Image.Input("pixels"), io.Vae.Input("vae")],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, pixels: Tensor, vae: Any) -> io.NodeOutput:
        """Encode ``pixels``: ``f h w c``."""
        return io.NodeOutput({"samples": vae.encode(pixels[..., :3])})


class ImageScaleBy(io.ComfyNode):
    """Make pictures larger or smaller."""

    METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The schema."""
        return io.Schema(
            node_id="ImageScaleBy",
            display_name="Upscale Image By",
            category="image/upscaling",
            inputs=[
                io.Image.Input("image"),
                io.Combo.Input("upscale_method", options=list(cls.METHODS)),
                io.Float.Input("scale_by", default=1.0, min=0.01, max=8.0, step=0.01),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image: Tensor, upscale_method: str = "nearest-exact", scale_by: float = 1.0) -> io.NodeOutput:
        """Scale ``image``: ``f h w c``."""
        height, width = (round(side * scale_by) for side in image.shape[1:3])
        if min(height, width) < 1:
            size = f"{image.shape[2]}x{image.shape[1]}"
            raise ValueError(f"pictures of {size} scaled by {scale_by} would have no pixels: use a larger scale_by")
        if upscale_method == "lanczos":
            scaled = [np.asarray(frame.resize((width, height), Image.Resampling.LANCZOS)) for frame in ui.pictures(image)]
            return io.NodeOutput(torch.from_numpy(np.stack(scaled)).float() / 255.0)
        frames = F.interpolate(rearrange(image, "f h w c -> f c h w"), size=(height, width), mode=upscale_method)
        return io.NodeOutput(rearrange(frames, "f c h w -> f h w c"))


@dataclass(frozen=True)
class Clip:
    """A VIDEO.

    Attributes:
        images: ``f h w c`` in 0..1.
        fps: frames per second.
        bit_depth: 8 or 10.
    """

    images: Tensor
    fps: Fraction
    bit_depth: int = 8


class CreateVideo(io.ComfyNode):
    """Frames and their rate."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The schema."""
        return io.Schema(
            node_id="CreateVideo",
            display_name="Create Video",
            category="video",
            description="Create a video from images.",
            inputs=[
                io.Image.Input("images", tooltip="The images to create a video from."),
                io.Float.Input("fps", default=30.0, min=1.0, max=120.0, step=1.0),
                io.Int.Input("bit_depth", default=8, min=8, max=10, step=2, optional=True, display_mode=io.NumberDisplay.number),
            ],
            outputs=[io.Video.Output()],
        )

    @classmethod
    def execute(cls, images: Tensor, fps: float = 30.0, bit_depth: int = 8) -> io.NodeOutput:
        """Join ``images``: ``f h w c`` and their rate."""
        return io.NodeOutput(Clip(images, Fraction(round(fps * 1000), 1000), bit_depth))


class SaveVideo(io.ComfyNode):
    """Write a video as MP4."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The schema."""
        return io.Schema(
            node_id="SaveVideo",
            display_name="Save Video",
            category="video",
            description="Saves the input images to your output directory.",
            inputs=[
                io.Video.Input("video", tooltip="The video to save."),
                io.String.Input("filename_prefix", default="video/ComfyUI"),
                io.Combo.Input("format", options=["auto", "mp4"], default="auto", tooltip="The format to save the video as."),
                io.Combo.Input(
                    "codec", options=["auto", "h264"], default="auto", optional=True, tooltip="The codec to use for the video."
                ),
            ],
            outputs=[io.Video.Output(display_name="video")],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        video: Clip,
        filename_prefix: str = "video/ComfyUI",
        format: str = "auto",  # noqa: ARG003  one container and one codec here, whatever their name
        codec: str = "auto",  # noqa: ARG003
    ) -> io.NodeOutput:
        """Write it."""
        height, width = video.images.shape[1:3]
        if height % 2 or width % 2:
            raise ValueError(f"the frames are {width}x{height} and H.264 needs even sides: scale or crop them first")
        path, number = next_name(filename_prefix, ui.directory_of(io.FolderType.output), width, height)
        target = numbered(path, number, "mp4")
        with whole_files() as draft:
            draft(target).write_bytes(_mp4(video, ui.texts(cls)))
        return io.NodeOutput(video, ui=ui.PreviewVideo([ui.SavedResult.of(target, io.FolderType.output)]))


def _mp4(video: Clip, facts: dict[str, str]) -> bytes:
    progress = Progress(len(video.images))
    content = mp4(video.images, video.fps, deep=video.bit_depth > 8, facts=facts, told=progress.update)
    check_interrupt()
    return content


VIDEO_NODES = (CreateVideo, SaveVideo)
NODES = (LoadImage, SaveImage, PreviewImage, SaveAnimatedWEBP, VAEDecode, VAEEncode, ImageScaleBy)


def core_nodes() -> dict[str, type[io.ComfyNode]]:
    """The nodes by id; the two for video files only where PyAV is installed."""
    available = NODES + (VIDEO_NODES if importlib.util.find_spec("av") else ())
    return {node.__name__: node for node in available}
