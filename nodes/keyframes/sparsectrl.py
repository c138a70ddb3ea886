"""SparseCtrl: a clip that meets a few pictures and fills in between."""

from typing import Any

from ... import host
from ...modules.checkpoints.sparsectrl import PICTURES, load_sparse_control
from ...modules.control.keyframes import Keyframes
from ...modules.control.sparse_pictures import SparseSettings
from ...modules.fields.setting import Setting
from ...modules.fields.span import check_percents
from ..fields import inputs_of, settings_of, widget
from ..node import LongTakeNode, checked
from .keyframes import CATEGORY, CLIP_FRAMES, KeyframesType

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
            description="Loads a SparseCtrl encoder, temporal modules included: AnimateDiff's v3_sd15_sparsectrl files, diffusers',"
            " or one"
            " trained here.",
            inputs=[
                io.Combo.Input(
                    "sparse_control",
                    options=host.files("controlnets"),
                    tooltip="The file lies in models/controlnet, such as v3_sd15_sparsectrl_rgb.ckpt.",
                ),
                widget(
                    "pictures",
                    AUTO,
                    Setting(
                        "The encoder was trained on pictures of this kind. auto finds out: the file says whether it takes rgb; of the"
                        " others"
                        " those with depth in their name take depth, the rest scribble. A file for other pictures is refused.",
                        menu=[AUTO, *PICTURES],
                        advanced=True,
                    ),
                ),
            ],
            outputs=[SparseType.Output(display_name="sparse_control", tooltip="The encoder goes to Apply Sparse Control.")],
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
                    "positive", tooltip="The prompt says what the clip shows. A control that it has already stays."
                ),
                io.Conditioning.Input(
                    "negative", tooltip="The negative prompt says what it does not show; the same keyframes lead it."
                ),
                SparseType.Input("sparse_control", tooltip="The encoder comes from Load Sparse Control."),
                KeyframesType.Input(
                    "keyframes",
                    tooltip="The pictures come from Keyframes. A keyframe's strength counts: 0 is as if it was not there. Its reach"
                    " does not,"
                    " since frames between keyframes are filled in anyway.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="The VAE is the checkpoint's. Files for rgb are shown latents and need it; others do not use it.",
                ),
                widget("clip_frames", 0, CLIP_FRAMES),
                *inputs_of(SparseSettings),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The prompt goes to the sampler."),
                io.Conditioning.Output(display_name="negative", tooltip="The prompt goes to the sampler."),
            ],
        )

    validate_inputs = checked(check_percents)

    @classmethod
    def execute(
        cls,
        positive: Any,
        negative: Any,
        sparse_control: Any,
        keyframes: Keyframes,
        vae: Any,
        clip_frames: int,
        **given: Any,
    ) -> "io.NodeOutput":
        settings = settings_of(SparseSettings, given, keyframes=keyframes.resolved(clip_frames))
        return io.NodeOutput(*host.apply_sparse_control(positive, negative, sparse_control, settings, vae))
