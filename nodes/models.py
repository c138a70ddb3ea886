"""Video models: load one, say what it should show, start from nothing."""

import torch

from .. import host
from ..modules.video_model import VideoModelInfo, load_video_model
from .node import LongTakeNode

io = host.io
CATEGORY = "LongTake/model"


def described(model: object) -> VideoModelInfo:
    """What a LongTake video model says about itself.

    Raises:
        ValueError: the MODEL is of another kind.
    """
    info = host.video_info(model)
    if info is None:
        raise ValueError("this MODEL is no LongTake video model: connect one from Load Video Model")
    return info


class LongTakeLoadVideoModel(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeLoadVideoModel",
            display_name="Load Video Model",
            category=CATEGORY,
            description="A video model trained by this pack, as one file: U-Net, temporal modules and what they mean. "
            "Models that work on pixels need no VAE file; their VAE comes out here.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=host.files("video_models"),
                    default="longtake_shapes.safetensors",
                    tooltip="A .safetensors file of models/longtake, or the one bundled with the pack.",
                )
            ],
            outputs=[io.Model.Output(), io.Vae.Output()],
        )

    @classmethod
    def fingerprint_inputs(cls, model_name: str) -> str:
        stat = host.file("video_models", model_name).stat()
        return f"{stat.st_mtime_ns}/{stat.st_size}"

    @classmethod
    def execute(cls, model_name: str) -> "io.NodeOutput":
        video = load_video_model(host.file("video_models", model_name))
        return io.NodeOutput(host.video_model(video), host.vae(video.info))


class LongTakeLabelPrompt(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeLabelPrompt",
            display_name="Label Prompt",
            category=CATEGORY,
            description="What a label-conditioned video model should show, in the words it was trained with.",
            inputs=[
                io.Model.Input("model", tooltip="The model that the words are for."),
                io.String.Input(
                    "prompt",
                    default="red disk bouncing",
                    tooltip="Words of the model, in any order; word:0.5 for half of it; empty for anything. "
                    "The bundled model knows: disk square triangle ring, red green blue yellow, bouncing turning growing.",
                ),
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, model: object, prompt: str) -> "io.NodeOutput":
        return io.NodeOutput(labelled(model, prompt))


def labelled(model: object, prompt: str) -> list:
    """CONDITIONING of a prompt in the model's words; empty for "anything"."""
    y = described(model).label_vector(prompt)
    return [[torch.zeros(1, 1, 1), {"pooled_output": y[None]}]]


class LongTakeEmptyClip(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeEmptyClip",
            display_name="Empty Clip",
            category=CATEGORY,
            description="An empty latent of the size a video model was trained at, for KSampler and other samplers.",
            inputs=[
                io.Model.Input("model", tooltip="The model that the clip is for."),
                io.Int.Input("frames", default=16, min=1, max=100000, tooltip="Length of the clip."),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, model: object, frames: int) -> "io.NodeOutput":
        return io.NodeOutput({"samples": empty_clip(described(model), frames)})


def empty_clip(info: VideoModelInfo, frames: int) -> torch.Tensor:
    """Zeros of the trained size, ``f c h w``."""
    if frames < 1:
        raise ValueError(f"frames is {frames}: a clip has at least 1")
    side = max(info.patch, 1)
    return torch.zeros(frames, info.unet.in_channels, info.size[0] // side, info.size[1] // side)
