"""Image prompts: pictures that a clip is told of beside its text."""

from typing import Any

from torch import Tensor

from ... import host
from ...modules.checkpoints.image_prompt import ImagePrompt, load_image_prompt
from ...modules.control.keyframes import Keyframes
from ...modules.control.prompt_settings import PromptSettings, parse_scales
from ...modules.fields.setting import Setting
from ...modules.temporal.block_rules import BLOCKS
from ..fields import inputs_of, settings_of, widget
from ..node import LongTakeNode, checked
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
                    tooltip="The file lies in models/ipadapter, such as ip-adapter-plus_sd15.safetensors; .bin is read too, and"
                    " FaceID is not.",
                )
            ],
            outputs=[ImagePromptType.Output(display_name="image_prompt", tooltip="The image prompt goes to Apply Image Prompt.")],
        )

    @classmethod
    def fingerprint_inputs(cls, image_prompt: str, **_: Any) -> str:
        stat = host.file("image_prompts", image_prompt).stat()
        return f"{stat.st_mtime_ns}/{stat.st_size}"

    @classmethod
    def execute(cls, image_prompt: str) -> "io.NodeOutput":
        return io.NodeOutput(load_image_prompt(host.file("image_prompts", image_prompt)))


def check_settings(blocks: str = "", start_percent: float = 0.0, end_percent: float = 1.0) -> None:
    """Refuse settings of Apply Image Prompt that do not go together.

    Raises:
        ValueError: the blocks cannot be read, or the start does not lie before the end.
    """
    PromptSettings(start_percent=start_percent, end_percent=end_percent, blocks=parse_scales(blocks))


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
                    "model",
                    tooltip="The model is of the image prompt's base. Motion modules and LoRAs may come before or after this node.",
                ),
                ImagePromptType.Input("image_prompt", tooltip="The image prompt comes from Load Image Prompt."),
                *inputs_of(PromptSettings),
                widget(
                    "blocks",
                    "",
                    Setting(f"{BLOCKS} It gives a factor on the scale, as in up 0.5 or mid 0.", multiline=True, advanced=True),
                ),
                ClipVisionType.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="The image encoder comes from Load CLIP Vision: it is the one that the image prompt was trained with,"
                    " CLIP-ViT-H-14"
                    " for most.",
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="Every frame looks at these pictures, all together. Connect them or keyframes, not both.",
                ),
                KeyframesType.Input(
                    "keyframes", optional=True, tooltip="The pictures come from Keyframes, with their times in the clip."
                ),
                ClipVisionOutputType.Input(
                    "clip_vision_output",
                    optional=True,
                    tooltip="The pictures come from CLIP Vision Encode, encoded already, in the place of images.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="It is the same model, which looks at the pictures.")],
        )

    validate_inputs = checked(check_settings)

    @classmethod
    def execute(
        cls,
        model: Any,
        image_prompt: ImagePrompt,
        blocks: str,
        clip_vision: Any,
        images: Tensor | None,
        keyframes: Keyframes | None,
        clip_vision_output: Any,
        **given: Any,
    ) -> "io.NodeOutput":
        settings = settings_of(PromptSettings, given, blocks=parse_scales(blocks))
        return io.NodeOutput(
            host.apply_image_prompt(model, image_prompt, settings, clip_vision, images, keyframes, clip_vision_output)
        )
