"""SparseCtrl: a clip that meets a few pictures and fills in between."""

from typing import Any

from ... import host
from ...modules.checkpoints.sparsectrl import PICTURES, load_sparse_control
from ...modules.control.keyframes import Keyframes
from ...modules.control.sparse_pictures import SparseSettings
from ..node import LongTakeNode
from .keyframes import CATEGORY, KeyframesType

io = host.io
SparseType: Any = io.Custom("LONGTAKE_SPARSE_CONTROL")
AUTO = "auto"


class LongTakeLoadSparseControl(LongTakeNode):
    """A SparseCtrl encoder from a file."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeLoadSparseControl",
            display_name="Load Sparse Control",
            category=CATEGORY,
            description="Loads a SparseCtrl encoder, temporal modules included: AnimateDiff's v3_sd15_sparsectrl files, diffusers', or one"
            " trained here.",
            inputs=[
                io.Combo.Input(
                    "sparse_control",
                    options=host.files("controlnets"),
                    tooltip="A file in models/controlnet, such as v3_sd15_sparsectrl_rgb.ckpt.",
                ),
                io.Combo.Input(
                    "pictures",
                    options=[AUTO, *PICTURES],
                    default=AUTO,
                    tooltip="What it is shown. auto: the file says whether it takes rgb; of the others those with depth in their name"
                    " take depth, the rest scribble. A file for other pictures is refused.",
                ),
            ],
            outputs=[SparseType.Output(display_name="sparse_control", tooltip="For Apply Sparse Control.")],
        )

    @classmethod
    def fingerprint_inputs(cls, sparse_control: str, **_: Any) -> str:
        if sparse_control not in host.files("controlnets"):
            return ""
        stat = host.file("controlnets", sparse_control).stat()
        return f"{stat.st_mtime_ns}/{stat.st_size}"

    @classmethod
    def execute(cls, sparse_control: str, pictures: str) -> "io.NodeOutput":
        path = host.file("controlnets", sparse_control)
        return io.NodeOutput(host.sparse_control(load_sparse_control(path, "" if pictures == AUTO else pictures)))


class LongTakeApplySparseControl(LongTakeNode):
    """Keyframes for a clip, through a SparseCtrl encoder."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeApplySparseControl",
            display_name="Apply Sparse Control",
            category=CATEGORY,
            description="Lets a clip meet keyframes and move naturally between them (SparseCtrl). One at the start animates it, one at"
            " either end is a transition, more are interpolation. Works with Context Windows, in all modes.",
            inputs=[
                io.Conditioning.Input(
                    "positive", tooltip="What the clip shows. A control that it has already goes on beside this one."
                ),
                io.Conditioning.Input("negative", tooltip="What it does not show; it is led by the same keyframes."),
                SparseType.Input("sparse_control", tooltip="From Load Sparse Control."),
                KeyframesType.Input(
                    "keyframes",
                    tooltip="From Keyframes. A keyframe's strength counts: 0 is as if it was not there. Its reach does not, since frames"
                    " between keyframes are filled in anyway.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="The checkpoint's. Needed by rgb files, which are shown latents; others do not use it.",
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
                    tooltip="How strongly all frames are led. 1: as trained. 0: not at all.",
                ),
                io.Float.Input(
                    "hint_multiplier",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Multiplies the strength in the keyframes themselves. Less lets them be redrawn.",
                ),
                io.Float.Input(
                    "other_multiplier",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Multiplies the strength in all other frames. 0 leads keyframes only; less gives more freedom between them.",
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
                    tooltip="Share of the sampling after which it ends. Frames with a noise level of their own start and end on their own.",
                ),
                io.Boolean.Input(
                    "motion",
                    default=True,
                    tooltip="Whether its temporal modules carry keyframes to the other frames. Off: only keyframes are led, as by an"
                    " ordinary ControlNet.",
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
        sparse_control: Any,
        keyframes: Keyframes,
        vae: Any,
        clip_frames: int,
        strength: float,
        hint_multiplier: float,
        other_multiplier: float,
        start_percent: float,
        end_percent: float,
        motion: bool,
    ) -> "io.NodeOutput":
        settings = SparseSettings(
            keyframes.resolved(clip_frames), strength, hint_multiplier, other_multiplier, start_percent, end_percent, motion
        )
        return io.NodeOutput(*host.apply_sparse_control(positive, negative, sparse_control, settings, vae))
