"""Any ControlNet, as strong in each frame as keyframes say."""

from typing import Any

from torch import Tensor

from ... import host
from ...modules.control.keyed_settings import KeyedSettings
from ...modules.control.keyframes import Keyframes
from ...modules.control.schedule import numbers_per_frame
from ..fields import inputs_of, settings_of, widget
from ..node import LongTakeNode, checked
from .keyframes import CATEGORY, CLIP_FRAMES, STRENGTH_PER_FRAME, KeyframesType

io = host.io
ControlType: Any = io.Custom("CONTROL_NET")


def check_strengths(strength: float, start_percent: float, end_percent: float, strength_per_frame: str) -> None:
    """Refuse settings that do not go together, and strengths that are no numbers.

    Raises:
        ValueError: one sentence.
    """
    KeyedSettings(strength, start_percent, end_percent)
    numbers_per_frame(strength_per_frame, "strength_per_frame")


class LongTakeKeyframedControlNet(LongTakeNode):
    """A ControlNet that acts around keyframes."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeKeyframedControlNet",
            display_name="Keyframed ControlNet",
            category=CATEGORY,
            description="Applies any of ComfyUI's ControlNets or T2I adapters with a strength of its own in each frame: strongest at"
            " keyframes, falling over their reach, nothing beyond. Hints and strengths follow Context Windows.",
            inputs=[
                io.Conditioning.Input(
                    "positive", tooltip="The prompt says what the clip shows. A control that it has already stays."
                ),
                io.Conditioning.Input(
                    "negative", tooltip="The negative prompt says what it does not show; it is controlled alike."
                ),
                ControlType.Input("control_net", tooltip="The ControlNet comes from Load ControlNet Model."),
                KeyframesType.Input(
                    "keyframes",
                    tooltip="The pictures come from Keyframes. Without hints they are the hints, prepared as the ControlNet needs"
                    " them (edges,"
                    " depth ...), each for the frames that it is nearest to.",
                ),
                io.Image.Input(
                    "hints",
                    optional=True,
                    tooltip="Every frame has its own hint here, such as edges of a video; keyframes then say only how strongly each is"
                    " followed.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="A few ControlNets ask for a VAE, such as those of SD3 and Flux."),
                widget("clip_frames", 0, CLIP_FRAMES),
                *inputs_of(KeyedSettings),
                widget("strength_per_frame", "", STRENGTH_PER_FRAME),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The prompt goes to the sampler."),
                io.Conditioning.Output(display_name="negative", tooltip="The prompt goes to the sampler."),
            ],
        )

    validate_inputs = checked(check_strengths)

    @classmethod
    def execute(
        cls,
        positive: Any,
        negative: Any,
        control_net: Any,
        keyframes: Keyframes,
        hints: Tensor | None,
        vae: Any,
        clip_frames: int,
        strength_per_frame: str,
        **given: Any,
    ) -> "io.NodeOutput":
        settings, keyed = settings_of(KeyedSettings, given), keyframes.resolved(clip_frames)
        span = settings.start_percent, settings.end_percent
        per_frame = numbers_per_frame(strength_per_frame, "strength_per_frame")
        return io.NodeOutput(
            *host.apply_keyed_control(positive, negative, control_net, keyed, hints, vae, settings.strength, span, per_frame)
        )
