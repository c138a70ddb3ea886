"""What noise a clip starts from, and sampling again from a better one."""

from typing import Any

from ... import host
from ...modules.noise.clip_noise import COMBINATIONS, KINDS, SOURCES, Layer
from ...modules.noise.freeinit import FILTERS, FreeInit
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
                io.Model.Input("model", tooltip="The model that samples; the noise of its sampler is replaced."),
                io.Combo.Input(
                    "kind",
                    options=list(KINDS),
                    default="freenoise",
                    tooltip="freenoise: the first window's noise again and again, shuffled; for context windows. repeated: the same,"
                    " not shuffled. constant: one noise for all frames. mixed: partly shared. independent: each frame its own.",
                ),
                io.Combo.Input(
                    "source",
                    options=list(SOURCES),
                    default="comfyui",
                    tooltip="comfyui: the noise that the sampler would use anyway, so results compare with other workflows. per_frame:"
                    " by seed and frame number alone, so a frame has the same noise in clips of any length.",
                ),
                io.Int.Input(
                    "length",
                    default=16,
                    min=1,
                    max=4096,
                    tooltip="freenoise: frames in a window, as in Context Windows. repeated: after how many frames it comes again.",
                ),
                io.Int.Input(
                    "overlap",
                    default=4,
                    min=0,
                    max=4095,
                    tooltip="freenoise: frames that neighbouring windows have in common, as in Context Windows; less than length.",
                ),
                io.Float.Input(
                    "share",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="mixed: how much all frames have in common. 0 is independent, 1 is constant.",
                ),
                io.Combo.Input(
                    "combine",
                    options=list(COMBINATIONS),
                    default="replace",
                    tooltip="With the noise so far. replace: only this. normalised_sum: both by weight, strength kept. weighted: both by"
                    " weight, weaker. add: on top, stronger.",
                ),
                io.Float.Input(
                    "weight",
                    default=0.5,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="How much of this layer there is; without effect when combine is replace.",
                ),
                io.Int.Input(
                    "seed_offset",
                    default=0,
                    min=-1000000,
                    max=1000000,
                    tooltip="Added to the sampler's seed for this layer. Layers that are mixed need different ones.",
                ),
                io.Mask.Input(
                    "mask", optional=True, tooltip="Where this layer is: one mask for all frames, or one per frame. White is all."
                ),
                io.Noise.Input(
                    "noise",
                    optional=True,
                    tooltip="RandomNoise, or the noise of another Clip Noise. Only needed for the noise output.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The same model; its samplers start from this noise."),
                io.Noise.Output(display_name="noise", tooltip="The same noise for nodes that take NOISE; with frame numbers."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        kind: str,
        source: str,
        length: int,
        overlap: int,
        share: float,
        combine: str,
        weight: float,
        seed_offset: int,
        mask: Any = None,
        noise: Any = None,
    ) -> io.NodeOutput:
        layer = Layer(kind, source, length, overlap, share, combine, weight, seed_offset, mask)
        return io.NodeOutput(*host.add_clip_noise(model, layer, noise))


class LongTakeFreeInit(LongTakeNode):
    """Sample several times, each from the slow part of the last result."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongTakeFreeInit",
            display_name="FreeInit",
            category=CATEGORY,
            description="Steadier clips without training: samples several times, each time from noise whose slow part is that of the last"
            " result. Takes iterations times as long.",
            inputs=[
                io.Model.Input("model", tooltip="The model that samples, motion module and all."),
                io.Int.Input(
                    "iterations",
                    default=3,
                    min=1,
                    max=20,
                    tooltip="How often the whole sampling runs. 1 is off; more than 5 adds little.",
                ),
                io.Combo.Input(
                    "filter",
                    options=list(FILTERS),
                    default="butterworth",
                    tooltip="How what is kept and what is new are divided: butterworth fairly sharply, gaussian softly, ideal and box"
                    " sharply.",
                ),
                io.Int.Input("order", default=4, min=1, max=100, tooltip="butterworth: how sharp the division is."),
                io.Float.Input(
                    "spatial_stop",
                    default=0.25,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="Up to which frequency height and width are kept. More keeps more of the last result's layout.",
                ),
                io.Float.Input(
                    "temporal_stop",
                    default=0.25,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="Up to which frequency motion is kept. Less makes frames agree more and move less.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The same model; its samplers run iterations times.")],
        )

    @classmethod
    def execute(
        cls, model: Any, iterations: int, filter: str, order: int, spatial_stop: float, temporal_stop: float
    ) -> io.NodeOutput:
        return io.NodeOutput(host.add_freeinit(model, FreeInit(iterations, filter, order, spatial_stop, temporal_stop)))
