"""Video models: load one, say what it should show, start from nothing."""

from typing import Any

import torch

from ... import host
from ...modules.checkpoints.pseudo3d import FOLDER, load_pseudo3d
from ...modules.checkpoints.video_model import NoVae, VideoModel, VideoModelInfo, load_video_model
from ...modules.fields.setting import Setting
from ...modules.temporal.motion import check_window
from ..fields import widget
from ..node import LongTakeNode

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
            description="Loads a video model trained by this pack, as one file: U-Net, temporal modules and what they mean. "
            "Models that work on pixels need no VAE file; their VAE comes out here. It also loads the pseudo-3-D U-Net of "
            "make-a-stable-diffusion-video or TempoFunk, as its diffusers folder in models/longtake, "
            "which takes the CLIP and VAE of Stable Diffusion 1.5.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=[*(name for name in host.files("video_models") if not FOLDER.search(name)), *pseudo3d_files()],
                    default="longtake_shapes.safetensors",
                    tooltip="The file is a .safetensors file of models/longtake, or one bundled with the pack, or"
                    " unet/diffusion_pytorch_model of a"
                    " pseudo-3-D U-Net's folder there.",
                ),
                widget(
                    "attention_window",
                    0,
                    Setting(
                        "Each frame sees so many frames: itself and as many on either side, so the number is odd; 0 is all. A clip"
                        " that is longer than the model was trained for wants about its trained length, if the model looks both ways.",
                        least=0,
                        most=1023,
                        advanced=True,
                    ),
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The model goes to a sampler of this pack, or to KSampler."),
                io.Vae.Output(tooltip="The VAE turns its latents into pictures."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, model_name: str, attention_window: int = 0) -> str:
        stat = host.file(kind_of(model_name), model_name).stat()
        return f"{stat.st_mtime_ns}/{stat.st_size}/{attention_window}"

    @classmethod
    def execute(cls, model_name: str, attention_window: int = 0) -> "io.NodeOutput":
        check_window(attention_window)
        path = host.file(kind_of(model_name), model_name)
        if kind_of(model_name) == "pseudo3d_models":
            pseudo = load_pseudo3d(path)
            return io.NodeOutput(looking(host.pseudo3d_model(pseudo), attention_window), NoVae(pseudo.name))
        video = load_video_model(path)
        return io.NodeOutput(looking(host.video_model(video), attention_window), vae_of(video))


def looking(model: Any, window: int) -> Any:
    """A MODEL that was just loaded, whose frames see so many frames around them; 0 for as many as it was trained with."""
    for motion in host.motion_models(model):
        motion.looking(window)
    return model


def vae_of(video: VideoModel) -> Any:
    """The VAE of a video model file: its own autoencoder, or what folds pixels."""
    return video.vae(host.device()) or host.vae(video.info)


def pseudo3d_files() -> list[str]:
    """Those files of pseudo-3-D U-Nets that are where diffusers puts a U-Net; what else is in their folders is left out of the menu."""
    return [name for name in host.files("pseudo3d_models") if FOLDER.search(name)]


def kind_of(model_name: str) -> str:
    """Which kind of file a name of the menu is of."""
    return "pseudo3d_models" if FOLDER.search(model_name) else "video_models"


class LongTakeLabelPrompt(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeLabelPrompt",
            display_name="Label Prompt",
            category=CATEGORY,
            description="Says what a video model of this pack should show, in the words it was trained with.",
            inputs=[
                io.Model.Input("model", tooltip="The prompt is for this model, which knows its words."),
                widget(
                    "prompt",
                    "red disk bouncing",
                    Setting(
                        "The prompt has words of the model, in any order; word:0.5 is half of it, and an empty prompt is anything."
                        " The bundled"
                        " model knows: disk square triangle ring, red green blue yellow, bouncing turning growing."
                    ),
                ),
            ],
            outputs=[io.Conditioning.Output(tooltip="The conditioning goes to a sampler.")],
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
            description="Makes an empty latent of the size a video model was trained at, for KSampler and other samplers.",
            inputs=[
                io.Model.Input("model", tooltip="The clip is for this model."),
                widget("frames", 16, Setting("The clip has so many frames.", least=1, most=100000)),
            ],
            outputs=[io.Latent.Output(tooltip="The latent goes to a sampler.")],
        )

    @classmethod
    def execute(cls, model: object, frames: int) -> "io.NodeOutput":
        return io.NodeOutput({"samples": empty_clip(described(model), frames)})


def empty_clip(info: VideoModelInfo, frames: int) -> torch.Tensor:
    """Zeros of the trained size, ``f c h w``."""
    if frames < 1:
        raise ValueError(f"frames is {frames}: a clip has at least 1")
    return torch.zeros(frames, info.latent_channels, info.size[0] // info.side, info.size[1] // info.side)
