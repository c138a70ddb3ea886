"""A given first frame, or several given frames, as an input of the network."""

from typing import Any

from torch import Tensor

from ... import host
from ...modules.control.first_frame import AFFINITIES, MODES, MOTION, FirstFrameSettings, given_pictures
from ...modules.control.keyframes import Keyframes
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
            description="Gives a model the picture that its clip begins with, or several with their times: for inpainting checkpoints with"
            " 9 channels (inpainting, MoonShot, TempoFunk), and for the motion modules PIA and AnimateLCM-I2V.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="An inpainting checkpoint, or a model with PIA or AnimateLCM-I2V as its motion module."
                ),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE, by which the picture becomes latents."),
                io.Latent.Input(
                    "latent", tooltip="The same latent as the sampler gets: its size and its number of frames are used."
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="auto",
                    tooltip="auto: by the model. inpaint, moonshot: mask 0 or 1 where the picture is given. tempofunk: go on from the"
                    " picture, which is not among the frames. pia, animatelcm_i2v: for these motion modules.",
                ),
                io.Combo.Input(
                    "motion",
                    options=list(AFFINITIES),
                    default=MOTION,
                    tooltip="For PIA: how far frames may move away from the picture. loop: and back again. restyling: the picture is"
                    " followed loosely from the start.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip="How much the picture counts: a factor on masks, PIA's resemblance and the encoder's features. 1: as trained.",
                ),
                io.Float.Input(
                    "drift",
                    default=0.8,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="For AnimateLCM-I2V: how much frames are told to move away from the picture. The authors use 0.8.",
                ),
                io.Image.Input("image", optional=True, tooltip="The first frame. Cut to the latent's shape around its middle."),
                KeyframesType.Input(
                    "keyframes", optional=True, tooltip="From Keyframes, in place of image: pictures and their times."
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The same model, which knows the pictures.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        latent: dict[str, Any],
        mode: str,
        motion: str,
        strength: float,
        drift: float,
        image: Tensor | None,
        keyframes: Keyframes | None,
    ) -> "io.NodeOutput":
        given = given_pictures(image, keyframes)
        return io.NodeOutput(host.apply_first_frame(model, vae, latent, given, FirstFrameSettings(mode, motion, strength, drift)))
