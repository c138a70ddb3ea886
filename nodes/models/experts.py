"""Two networks that are one model: Wan 2.2's experts."""

from typing import Any

from ... import host
from ...modules.fields.setting import Setting
from ..fields import widget
from ..node import LongTakeNode
from .models import CATEGORY

io = host.io


class LongTakeTwoExperts(LongTakeNode):
    """Wan 2.2's two models as one."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeTwoExperts",
            display_name="Two Experts (Wan 2.2)",
            category=CATEGORY,
            description="Makes Wan 2.2's high-noise and low-noise models one MODEL, for a single sampler of any kind: each frame goes to"
            " the expert of its noise level, also where frames of a call have levels of their own.",
            inputs=[
                io.Model.Input(
                    "high_noise", tooltip="This model is the expert for much noise; LoRAs and its shift come before this node."
                ),
                io.Model.Input("low_noise", tooltip="This model is the expert for little noise; LoRAs come before this node."),
                widget(
                    "boundary",
                    0.0,
                    Setting(
                        "Frames at this share of the noise and above go to the high-noise model. 0 is the authors': 0.875 for text to"
                        " video, 0.9 for image to video.",
                        least=0.0,
                        most=1.0,
                        step=0.005,
                        advanced=True,
                    ),
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="It is both, for a sampler; further patches come behind it.")],
        )

    @classmethod
    def execute(cls, high_noise: Any, low_noise: Any, boundary: float) -> "io.NodeOutput":
        return io.NodeOutput(host.apply_experts(high_noise, low_noise, boundary))
