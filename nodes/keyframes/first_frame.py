"""A given first frame, or several given frames, as an input of the network."""

from typing import Any

from torch import Tensor

from ... import host
from ...modules.control.first_frame import FirstFrameSettings, given_pictures
from ...modules.control.keyframes import Keyframes
from ..fields import inputs_of, settings_of
from ..node import LongTakeNode
from .keyframes import CATEGORY, KeyframesType

io = host.io


class LongTakeFirstFrame(LongTakeNode):
    """Tell a model of the pictures that a clip begins with."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeFirstFrame",
            display_name="First Frame",
            category=CATEGORY,
            description="Gives a model the picture that its clip begins with, or several with their times: for inpainting checkpoints"
            " with"
            " 9 channels (inpainting, MoonShot, TempoFunk), and for the motion modules PIA and AnimateLCM-I2V.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model is an inpainting checkpoint, or one with PIA or AnimateLCM-I2V as its motion module.",
                ),
                io.Vae.Input("vae", tooltip="The VAE is the checkpoint's, by which the picture becomes latents."),
                io.Latent.Input(
                    "latent", tooltip="The latent is the same as the sampler gets: its size and its number of frames are used."
                ),
                *inputs_of(FirstFrameSettings),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The image is the first frame. It is cut to the latent's shape around its middle.",
                ),
                KeyframesType.Input(
                    "keyframes", optional=True, tooltip="The pictures and their times come from Keyframes, in place of image."
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="It is the same model, which knows the pictures.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        latent: dict[str, Any],
        image: Tensor | None,
        keyframes: Keyframes | None,
        **given: Any,
    ) -> "io.NodeOutput":
        pictures, settings = given_pictures(image, keyframes), settings_of(FirstFrameSettings, given)
        return io.NodeOutput(host.apply_first_frame(model, vae, latent, pictures, settings))
