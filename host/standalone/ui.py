"""What a node shows beside its outputs: ``comfy_api.latest.ui`` without ComfyUI, as far as this pack uses it."""

import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ...modules.disk.atomic import whole_files
from .schema import ComfyNode, FolderType
from .session import check_interrupt, input_directory, output_directory, temp_directory
from .writing import next_name, numbered


class SavedResult(dict[str, str]):
    """A file that a node wrote."""

    def __init__(self, filename: str, subfolder: str, type: FolderType):
        super().__init__(filename=filename, subfolder=subfolder, type=type.value)

    @classmethod
    def of(cls, path: Path, type: FolderType) -> "SavedResult":
        """The record of a file at ``path`` in the folder of its type."""
        folder = path.parent.relative_to(directory_of(type)).as_posix()
        return cls(path.name, "" if folder == "." else folder, type)


class SavedImages:
    """Files to show as pictures."""

    def __init__(self, results: Sequence[SavedResult], is_animated: bool = False):
        self.results, self.is_animated = list(results), is_animated

    def as_dict(self) -> dict[str, Any]:
        """What ComfyUI's web page is told."""
        return {"images": self.results} | ({"animated": (True,)} if self.is_animated else {})


class PreviewImage:
    """Pictures to show, written to the temporary folder."""

    def __init__(self, image: Tensor, animated: bool = False, cls: type[ComfyNode] | None = None):
        self.values = save_pngs(image, f"ComfyUI_temp_{secrets.token_hex(3)}", FolderType.temp, cls, compress_level=1)
        self.animated = animated

    def as_dict(self) -> dict[str, Any]:
        """What ComfyUI's web page is told."""
        return {"images": self.values, "animated": (self.animated,)}


class PreviewVideo:
    """Video files to show."""

    def __init__(self, values: Sequence[SavedResult]):
        self.values = list(values)

    def as_dict(self) -> dict[str, Any]:
        """What ComfyUI's web page is told."""
        return {"images": self.values, "animated": (True,)}


class PreviewText:
    """A text to show."""

    def __init__(self, value: str):
        self.value = value

    def as_dict(self) -> dict[str, Any]:
        """What ComfyUI's web page is told."""
        return {"text": (self.value,)}


def directory_of(type: FolderType) -> Path:
    """The folder that files of a type lie in."""
    return {FolderType.output: output_directory, FolderType.input: input_directory, FolderType.temp: temp_directory}[type]()


def pictures(images: Tensor) -> list[Image.Image]:
    """Eight-bit pictures of ``images``: ``f h w c`` in 0..1, rounded down as ComfyUI does."""
    if images.ndim != 4 or len(images) < 1:
        raise ValueError(
            f"pictures are frames, height, width, channels with at least 1 frame; these have the shape {tuple(images.shape)}"
        )
    return [Image.fromarray(frame) for frame in (images.detach().cpu().float() * 255.0).clamp(0, 255).byte().numpy()]


def texts(cls: type[ComfyNode] | None) -> dict[str, str]:
    """What a node writes into its files about the workflow that made them, as JSON by name."""
    hidden = cls.hidden if cls is not None else None
    if hidden is None:
        return {}
    values = {"prompt": hidden.prompt, **(hidden.extra_pnginfo or {})}
    return {name: json.dumps(value) for name, value in values.items() if value is not None}


def save_pngs(
    images: Tensor, prefix: str, type: FolderType, cls: type[ComfyNode] | None, *, compress_level: int = 4
) -> list[SavedResult]:
    """Write one PNG per frame, all or none.

    Args:
        images: ``f h w c`` in 0..1.
        prefix: of the file names; ``%batch_num%`` becomes the frame's number.
        type: the folder.
        cls: the node, for the workflow it is part of.
        compress_level: zlib's.
    """
    frames = pictures(images)
    path, number = next_name(prefix, directory_of(type), *frames[0].size)
    info = PngInfo()
    for name, text in texts(cls).items():
        info.add_text(name, text)
    saved = []
    with whole_files() as draft:
        for index, frame in enumerate(frames):
            check_interrupt()
            target = numbered(path.with_name(path.name.replace("%batch_num%", str(index))), number + index, "png")
            frame.save(draft(target), "PNG", pnginfo=info, compress_level=compress_level)
            saved.append(SavedResult.of(target, type))
    return saved
