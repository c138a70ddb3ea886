"""Reference pictures that every frame's self-attention looks at."""

from typing import Any

from torch import Tensor

from ... import host
from ...modules.control.keyframes import Keyframes
from ...modules.control.prompt_settings import parse_scales
from ...modules.control.reference import ReferenceSettings
from ...modules.control.schedule import numbers_per_frame
from ...modules.fields.setting import Setting
from ...modules.temporal.block_rules import BLOCKS
from ..fields import inputs_of, settings_of, widget
from ..node import LongTakeNode, checked
from .keyframes import CATEGORY, STRENGTH_PER_FRAME, KeyframesType

io = host.io


def check_settings(strength_per_frame: str = "", blocks: str = "", start_percent: float = 0.0, end_percent: float = 1.0) -> None:
    """Refuse what the texts do not say.

    Raises:
        ValueError: a text cannot be read, a strength lies outside 0..1, or the start does not lie before the end.
    """
    ReferenceSettings(
        start_percent=start_percent,
        end_percent=end_percent,
        per_frame=numbers_per_frame(strength_per_frame, "strength_per_frame"),
        blocks=parse_scales(blocks),
    )


class LongTakeReferenceAttention(LongTakeNode):
    """Look at reference pictures in every self-attention."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeReferenceAttention",
            display_name="Reference Attention",
            category=CATEGORY,
            description="Lets every frame look at reference pictures in its self-attentions: the same pictures in all windows of a clip. It"
            " needs no file (the reference-only of other packs); a reference costs one more row per"
            " prompt in a step, however many windows there are. Works with SD1.5 and SDXL, with motion modules and without.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model is a checkpoint of Stable Diffusion's family, with motion or without."
                ),
                io.Vae.Input("vae", tooltip="The VAE is the checkpoint's, by which the pictures become latents."),
                io.Latent.Input("latent", tooltip="The latent is the same as the sampler gets: the pictures get its size."),
                *inputs_of(ReferenceSettings),
                widget("strength_per_frame", "", STRENGTH_PER_FRAME),
                widget(
                    "blocks",
                    "",
                    Setting(f"{BLOCKS} It gives a factor on the strength, as in up 0.5 or mid 0.", multiline=True, advanced=True),
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="Every frame looks at all of these images. They are cut to the latent's shape around their middle.",
                ),
                KeyframesType.Input(
                    "keyframes", optional=True, tooltip="Each frame looks at the nearest of these pictures, in place of images."
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="It is the same model, which looks at the references.")],
        )

    validate_inputs = checked(check_settings)

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        latent: dict[str, Any],
        strength_per_frame: str,
        blocks: str,
        images: Tensor | None = None,
        keyframes: Keyframes | None = None,
        **given: Any,
    ) -> "io.NodeOutput":
        per_frame = numbers_per_frame(strength_per_frame, "strength_per_frame")
        settings = settings_of(ReferenceSettings, given, per_frame=per_frame, blocks=parse_scales(blocks))
        return io.NodeOutput(host.apply_reference(model, vae, latent, images, keyframes, settings))
