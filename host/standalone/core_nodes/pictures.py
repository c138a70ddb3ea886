"""ComfyUI's nodes that read and write pictures."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError
from torch import Tensor

from ....modules.disk.atomic import whole_files
from .. import schema as io
from .. import ui
from ..session import check_interrupt, input_directory
from ..writing import next_name, numbered

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
