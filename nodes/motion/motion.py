"""AnimateDiff's motion modules on an image checkpoint."""

from typing import Any

from ... import host
from ...modules.checkpoints.motion import MotionModule, load_motion_module
from ...modules.noise.levels import NOISE_SCHEDULES
from ...modules.temporal.motion import STRETCHES
from ...modules.temporal.settings import MOST, MotionKeyframe, MotionSettings, Strength, parse_blocks, parse_numbers
from ..node import LongTakeNode

io = host.io
MotionModuleType = io.Custom("LONGTAKE_MOTION_MODULE")
KeyframesType = io.Custom("LONGTAKE_MOTION_KEYFRAMES")
CATEGORY = "LongTake/motion"
START = "Part of the sampling where it begins: 0 is the noisiest step, 1 the end. Each frame counts by its own noise level."


class LongTakeLoadMotionModule(LongTakeNode):
    """Read a motion module file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongTakeLoadMotionModule",
            display_name="Load Motion Module",
            category=CATEGORY,
            description=(
                "Reads a motion module from models/animatediff_models: AnimateDiff v1, v2, v3 and SDXL, HotshotXL, AnimateLCM, PIA, or a"
                " motion adapter of diffusers. The kind is found out by itself."
            ),
            inputs=[
                io.Combo.Input(
                    "motion_module",
                    options=host.files("motion_modules"),
                    tooltip="A file in models/animatediff_models, such as v3_sd15_mm.ckpt or mm_sd_v15_v2.ckpt; safetensors too.",
                )
            ],
            outputs=[MotionModuleType.Output(display_name="motion_module")],
        )

    @classmethod
    def execute(cls, motion_module: str) -> io.NodeOutput:
        return io.NodeOutput(load_motion_module(host.file("motion_modules", motion_module)))


class LongTakeApplyMotionModule(LongTakeNode):
    """Put a motion module into an image model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongTakeApplyMotionModule",
            display_name="Apply Motion Module",
            category=CATEGORY,
            description=(
                "Lets an image model draw the frames of a clip together: the latents of one batch become its frames. Works with KSampler"
                " and LoRAs as usual, and sets the noise schedule that the module was trained with. Several may follow each other."
            ),
            inputs=[
                io.Model.Input(
                    "model", tooltip="A model of the module's base (SD1.5 or SDXL). LoRAs may come before or after this node."
                ),
                MotionModuleType.Input("motion_module", tooltip="From Load Motion Module."),
                io.Float.Input(
                    "effect",
                    default=1.0,
                    min=0.0,
                    max=MOST,
                    step=0.01,
                    optional=True,
                    tooltip="How much of the module's change is added. 1: as trained. 0: no motion, frames that do not know each other.",
                ),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=0.0,
                    max=MOST,
                    step=0.01,
                    optional=True,
                    tooltip="Sharpness of the attention over time. Above 1: more motion, less stable. Below 1: calmer.",
                ),
                io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.001, optional=True, tooltip=START),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    optional=True,
                    tooltip="Part of the sampling where it ends. The rest is sampled frame by frame.",
                ),
                io.Combo.Input(
                    "positions",
                    options=list(STRETCHES),
                    default="trained",
                    optional=True,
                    tooltip="What happens beyond the frames that the module knows times for. trained: refused. stretch: times are squeezed"
                    " into those it knows, motion gets slower. extend: times go on, the module has never seen them.",
                ),
                io.Combo.Input(
                    "noise_schedule",
                    options=["authors", "model", *NOISE_SCHEDULES],
                    default="authors",
                    optional=True,
                    tooltip="authors: what the module was trained with, which is right. model: leave the model's own. The rest by name.",
                ),
                KeyframesType.Input(
                    "keyframes",
                    optional=True,
                    tooltip="From Motion Keyframe: per frame, per block, by mask, changing over sampling.",
                ),
                io.Int.Input(
                    "attention_window",
                    default=0,
                    min=0,
                    max=1023,
                    optional=True,
                    tooltip="Frames that each frame sees: itself and as many on either side, so an odd number, such as 5. 0: all. For clips"
                    " whose keyframes are told by other means, such as Hint Latents; otherwise things change their looks along the clip.",
                ),
                io.Boolean.Input(
                    "see_first_frame",
                    default=False,
                    optional=True,
                    tooltip="With an attention_window: every frame sees the first one besides. In context windows only where that is in the"
                    " window.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The same model; one batch of latents is now one clip.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        motion_module: MotionModule,
        effect: float,
        scale: float,
        start_percent: float,
        end_percent: float,
        positions: str,
        noise_schedule: str,
        keyframes: tuple[MotionKeyframe, ...] | None,
        attention_window: int,
        see_first_frame: bool,
    ) -> io.NodeOutput:
        settings = MotionSettings(
            effect,
            scale,
            start_percent,
            end_percent,
            () if keyframes is None else keyframes,
            positions,
            attention_window,
            see_first_frame,
        )
        return io.NodeOutput(host.apply_motion(model, motion_module, settings, noise_schedule))


class LongTakeMotionKeyframe(LongTakeNode):
    """How a motion module acts from one point of the sampling on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongTakeMotionKeyframe",
            display_name="Motion Keyframe",
            category=CATEGORY,
            description=(
                "How a motion module acts from one point of the sampling on: as a whole, per frame, by mask, per block of the U-Net. One"
                " keyframe at 0 holds throughout; chain several to change over sampling."
            ),
            inputs=[
                io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.001, tooltip=START),
                io.Float.Input(
                    "effect",
                    default=1.0,
                    min=0.0,
                    max=MOST,
                    step=0.01,
                    tooltip="Multiplied with the effect of Apply Motion Module.",
                ),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=0.0,
                    max=MOST,
                    step=0.01,
                    tooltip="Multiplied with the scale of Apply Motion Module.",
                ),
                io.String.Input(
                    "effect_per_frame",
                    default="",
                    tooltip="One number per frame, such as 1, 0.8, 0.5; the last goes on to the end. Empty: the same for all.",
                ),
                io.String.Input("scale_per_frame", default="", tooltip="The same for the scale."),
                io.String.Input(
                    "blocks",
                    default="",
                    multiline=True,
                    tooltip="One rule per line: a part of the U-Net (all, down, mid, up, up.1, up.1.2) and a number for its effect,"
                    " effect=0.5 or scale=1.2. Later lines override earlier ones.",
                ),
                io.Mask.Input(
                    "effect_mask",
                    optional=True,
                    tooltip="Where the effect acts: one mask, or one per frame. White is full, black none.",
                ),
                io.Mask.Input(
                    "scale_mask", optional=True, tooltip="What the scale is multiplied with: one mask, or one per frame."
                ),
                KeyframesType.Input("keyframes", optional=True, tooltip="Keyframes to add this one to."),
            ],
            outputs=[
                KeyframesType.Output(display_name="keyframes", tooltip="For Apply Motion Module, or for another Motion Keyframe.")
            ],
        )

    @classmethod
    def execute(
        cls,
        start_percent: float,
        effect: float,
        scale: float,
        effect_per_frame: str,
        scale_per_frame: str,
        blocks: str,
        effect_mask: Any,
        scale_mask: Any,
        keyframes: tuple[MotionKeyframe, ...] | None,
    ) -> io.NodeOutput:
        keyframe = MotionKeyframe(
            start_percent,
            Strength(effect, parse_numbers(effect_per_frame, "effect_per_frame"), effect_mask),
            Strength(scale, parse_numbers(scale_per_frame, "scale_per_frame"), scale_mask),
            parse_blocks(blocks),
        )
        return io.NodeOutput((*(() if keyframes is None else keyframes), keyframe))
