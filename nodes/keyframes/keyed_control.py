"""Any ControlNet, as strong in each frame as keyframes say."""

from typing import Any

from torch import Tensor

from ... import host
from ...modules.control.keyframes import Keyframes
from ..node import LongTakeNode
from .keyframes import CATEGORY, KeyframesType

io = host.io
ControlType: Any = io.Custom("CONTROL_NET")


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
                    "positive", tooltip="What the clip shows. A control that it has already goes on beside this one."
                ),
                io.Conditioning.Input("negative", tooltip="What it does not show; it is controlled alike."),
                ControlType.Input("control_net", tooltip="From Load ControlNet Model."),
                KeyframesType.Input(
                    "keyframes",
                    tooltip="From Keyframes. Without hints its images are the hints, prepared as the ControlNet needs them (edges, depth"
                    " ...), each for the frames that it is nearest to.",
                ),
                io.Image.Input(
                    "hints",
                    optional=True,
                    tooltip="A hint for every frame, such as edges of a video; keyframes then say"
                    " only how strongly each is followed.",
                ),
                io.Vae.Input(
                    "vae", optional=True, tooltip="For the few ControlNets that ask for one, such as those of SD3 and Flux."
                ),
                io.Int.Input(
                    "clip_frames",
                    default=0,
                    min=0,
                    max=1_000_000,
                    tooltip="Length of the clip, the latent's batch size. 0: as Keyframes says.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Multiplies every keyframe's strength. 1: as trained.",
                ),
                io.Float.Input(
                    "start_percent", default=0.0, min=0.0, max=1.0, step=0.001, tooltip="Share of the sampling before it begins."
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Share of the sampling after which it ends. Ending early leaves details to the model.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="For the sampler."),
                io.Conditioning.Output(display_name="negative", tooltip="For the sampler."),
            ],
        )

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
        strength: float,
        start_percent: float,
        end_percent: float,
    ) -> "io.NodeOutput":
        if not start_percent <= end_percent:
            raise ValueError(
                f"start_percent is {start_percent:g} and end_percent {end_percent:g}: the end must not lie before the start"
            )
        keyed = keyframes.resolved(clip_frames)
        return io.NodeOutput(
            *host.apply_keyed_control(positive, negative, control_net, keyed, hints, vae, strength, (start_percent, end_percent))
        )
