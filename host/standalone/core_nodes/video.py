"""ComfyUI's nodes for video files."""

from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from ....modules.disk.atomic import whole_files
from ...mp4 import mp4
from .. import schema as io
from .. import ui
from ..session import Progress, check_interrupt
from ..writing import next_name, numbered


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
