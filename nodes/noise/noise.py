"""What noise a clip starts from, and sampling again from a better one."""

from typing import Any

from torch import Tensor

from ... import host
from ...modules.noise.clip_noise import Layer
from ...modules.noise.freeinit import FreeInit
from ..fields import inputs_of, settings_of
from ..node import LongTakeNode

io = host.io
CATEGORY = "LongTake/noise"


class LongTakeClipNoise(LongTakeNode):
    """Noise for a whole clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongTakeClipNoise",
            display_name="Clip Noise",
            category=CATEGORY,
            description="Says how the noise that frames start from is related: FreeNoise for long clips, repeated, one for all, or partly"
            " shared. Every sampler that runs the model uses it, with its own seed; several of these nodes are layers.",
            inputs=[
                io.Model.Input("model", tooltip="The model is the one that samples; the noise of its sampler is replaced."),
                *inputs_of(Layer),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="The mask says where this layer is: white is all of it. It holds one mask for all frames, or one per frame.",
                ),
                io.Noise.Input(
                    "noise",
                    optional=True,
                    tooltip="The noise comes from RandomNoise or another Clip Noise. Only the noise output needs it.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="It is the same model; its samplers start from this noise."),
                io.Noise.Output(
                    display_name="noise", tooltip="It is the same noise for nodes that take NOISE, with frame numbers."
                ),
            ],
        )

    @classmethod
    def execute(cls, model: Any, mask: Tensor | None, noise: Any, **given: Any) -> io.NodeOutput:
        return io.NodeOutput(*host.add_clip_noise(model, settings_of(Layer, given, mask=mask), noise))


class LongTakeFreeInit(LongTakeNode):
    """Sample several times, each from the slow part of the last result."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongTakeFreeInit",
            display_name="FreeInit",
            category=CATEGORY,
            description="Makes steadier clips without training: it samples several times, each time from noise whose slow part is"
            " that of the last"
            " result. Takes iterations times as long.",
            inputs=[
                io.Model.Input("model", tooltip="The model is the one that samples, motion module and all."),
                *inputs_of(FreeInit),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="It is the same model; its samplers run iterations times.")],
        )

    @classmethod
    def execute(cls, model: Any, **given: Any) -> io.NodeOutput:
        return io.NodeOutput(host.add_freeinit(model, settings_of(FreeInit, given)))
