"""Image prompts: pictures that a clip is told of beside its text."""

from typing import Any

from torch import Tensor

from ... import host
from ...modules.checkpoints.image_prompt import ImagePrompt, load_image_prompt
from ...modules.control.keyframe_blend import BLENDS
from ...modules.control.keyframes import Keyframes
from ...modules.control.prompt_settings import PromptSettings, parse_scales
from ..node import LongTakeNode
from .keyframes import CATEGORY, KeyframesType

io = host.io
ImagePromptType: Any = io.Custom("LONGTAKE_IMAGE_PROMPT")
ClipVisionType: Any = io.Custom("CLIP_VISION")
ClipVisionOutputType: Any = io.Custom("CLIP_VISION_OUTPUT")


class LongTakeLoadImagePrompt(LongTakeNode):
    """Read an IP-Adapter file."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeLoadImagePrompt",
            display_name="Load Image Prompt",
            category=CATEGORY,
            description="Reads an IP-Adapter (plain, plus or full, for SD1.5 or SDXL) from models/ipadapter, or one trained here. The"
            " kind is found out by itself.",
            inputs=[
                io.Combo.Input(
                    "image_prompt",
                    options=host.files("image_prompts"),
                    tooltip="A file in models/ipadapter, such as ip-adapter-plus_sd15.safetensors; .bin too. Not FaceID files.",
                )
            ],
            outputs=[ImagePromptType.Output(display_name="image_prompt", tooltip="For Apply Image Prompt.")],
        )

    @classmethod
    def fingerprint_inputs(cls, image_prompt: str, **_: Any) -> str:
        stat = host.file("image_prompts", image_prompt).stat()
        return f"{stat.st_mtime_ns}/{stat.st_size}"

    @classmethod
    def execute(cls, image_prompt: str) -> "io.NodeOutput":
        return io.NodeOutput(load_image_prompt(host.file("image_prompts", image_prompt)))


class LongTakeApplyImagePrompt(LongTakeNode):
    """Let a model look at pictures beside its text."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeApplyImagePrompt",
            display_name="Apply Image Prompt",
            category=CATEGORY,
            description="Lets a model look at pictures beside its text (IP-Adapter, MoonShot). With keyframes each frame looks at its own"
            " picture, or between two. Works with motion modules, LoRAs and Context Windows; several may follow each other.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="A model of the image prompt's base. Motion modules and LoRAs may come before or after."
                ),
                ImagePromptType.Input("image_prompt", tooltip="From Load Image Prompt."),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.01,
                    tooltip="How strongly the pictures count beside the text. 1: as trained. 0: nothing at all. 0.5 to 0.8 leaves"
                    " room for the text.",
                ),
                io.Combo.Input(
                    "blend",
                    options=list(BLENDS),
                    default="interpolate",
                    tooltip="What frames between keyframes see. interpolate: the two pictures around them, in shares. nearest: one picture"
                    " after the other. reach: each as far as it reaches, nothing beyond.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Part of the sampling where it begins: 0 is the noisiest step, 1 the end. Each frame counts by its own level.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Part of the sampling where it ends.",
                ),
                io.String.Input(
                    "blocks",
                    default="",
                    multiline=True,
                    tooltip="Factors by part of the U-Net, one rule a line: up 0.5, mid 0, up.1.2 0. Empty: the same everywhere.",
                ),
                ClipVisionType.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="From Load CLIP Vision: the image encoder that the image prompt was trained with, CLIP-ViT-H-14 for most.",
                ),
                io.Image.Input(
                    "images", optional=True, tooltip="Pictures that every frame looks at, all together. Not with keyframes."
                ),
                KeyframesType.Input("keyframes", optional=True, tooltip="From Keyframes: pictures with their times in the clip."),
                ClipVisionOutputType.Input(
                    "clip_vision_output",
                    optional=True,
                    tooltip="From CLIP Vision Encode, in the place of images: pictures that are encoded already.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The same model, which looks at the pictures.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        image_prompt: ImagePrompt,
        scale: float,
        blend: str,
        start_percent: float,
        end_percent: float,
        blocks: str,
        clip_vision: Any,
        images: Tensor | None,
        keyframes: Keyframes | None,
        clip_vision_output: Any,
    ) -> "io.NodeOutput":
        settings = PromptSettings(scale, start_percent, end_percent, parse_scales(blocks), blend)
        return io.NodeOutput(
            host.apply_image_prompt(model, image_prompt, settings, clip_vision, images, keyframes, clip_vision_output)
        )
