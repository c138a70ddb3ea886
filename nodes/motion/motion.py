"""AnimateDiff's motion modules on an image checkpoint."""

from typing import Any

from torch import Tensor

from ... import host
from ...modules.checkpoints.families import FAMILIES
from ...modules.checkpoints.motion import MotionModule, graft_picture, load_motion_module
from ...modules.control.schedule import numbers_per_frame
from ...modules.fields.setting import Setting
from ...modules.noise.levels import NOISE_SCHEDULES
from ...modules.temporal.block_rules import BLOCKS, MOST, parse_blocks
from ...modules.temporal.settings import MotionKeyframe, MotionSettings, Strength
from ..fields import inputs_of, settings_of, widget
from ..node import LongTakeNode, checked

io = host.io
MotionModuleType = io.Custom("LONGTAKE_MOTION_MODULE")
KeyframesType = io.Custom("LONGTAKE_MOTION_KEYFRAMES")
CATEGORY = "LongTake/motion"
SCHEDULES = {
    "authors": "The schedule is the one that the module was trained with, which is right.",
    "model": "The model's own schedule stays.",
    **{name: f"The schedule is {name}, whatever the module was trained with." for name in NOISE_SCHEDULES},
}
AUTO, NONE = "auto", "none"


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
                    tooltip="The file lies in models/animatediff_models, such as v3_sd15_mm.ckpt or mm_sd_v15_v2.ckpt; safetensors"
                    " are read"
                    " too.",
                ),
                io.Combo.Input(
                    "family",
                    options=[AUTO, *(family.name for family in FAMILIES)],
                    default=AUTO,
                    optional=True,
                    tooltip="The family says how the module was trained: its noise schedule, its norms and, for AnimateLCM, its few steps."
                    " auto takes what the file says or shows, and is usual. Set it for a file that auto refuses or takes for another, such"
                    " as a retrained one, or AnimateLCM in diffusers' layout without lcm in its name.",
                ),
                io.Combo.Input(
                    "picture_from",
                    options=[NONE, *host.files("motion_modules")],
                    default=NONE,
                    optional=True,
                    tooltip="The file of PIA or AnimateLCM-I2V whose way of following a picture, for First Frame, is put into this module."
                    " none is usual: a module follows a picture if its own file has that.",
                ),
            ],
            outputs=[
                MotionModuleType.Output(
                    display_name="motion_module", tooltip="The module goes to Apply Motion Module, or to Graft Camera first."
                )
            ],
        )

    @classmethod
    def execute(cls, motion_module: str, family: str = AUTO, picture_from: str = NONE) -> io.NodeOutput:
        motion = load_motion_module(host.file("motion_modules", motion_module), "" if family == AUTO else family)
        if picture_from != NONE:
            motion = graft_picture(motion, load_motion_module(host.file("motion_modules", picture_from)))
        return io.NodeOutput(motion)


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
                    "model",
                    tooltip="The model is of the module's base (SD1.5 or SDXL). LoRAs may come before or after this node.",
                ),
                MotionModuleType.Input("motion_module", tooltip="The motion module comes from Load Motion Module."),
                *inputs_of(MotionSettings),
                widget(
                    "noise_schedule",
                    "authors",
                    Setting(
                        "The noise schedule says how much noise the model expects at each timestep. It stays when ModelSamplingDiscrete"
                        " follows; with model that node's counts.",
                        menu=SCHEDULES,
                        advanced=True,
                    ),
                ),
                KeyframesType.Input(
                    "keyframes",
                    optional=True,
                    tooltip="Keyframes come from Motion Keyframe: they change effect and scale per frame, per block, by mask, or over the"
                    " sampling.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="It is the same model; one batch of latents is now one clip.")
            ],
        )

    validate_inputs = checked(MotionSettings)

    @classmethod
    def execute(
        cls,
        model: Any,
        motion_module: MotionModule,
        noise_schedule: str,
        keyframes: tuple[MotionKeyframe, ...] | None,
        **given: Any,
    ) -> io.NodeOutput:
        settings = settings_of(MotionSettings, given, keyframes=() if keyframes is None else keyframes)
        return io.NodeOutput(host.apply_motion(model, motion_module, settings, noise_schedule))


def check_texts(effect_per_frame: str = "", scale_per_frame: str = "", blocks: str = "") -> None:
    """Refuse texts of Motion Keyframe.

    Raises:
        ValueError: one cannot be read.
    """
    numbers_per_frame(effect_per_frame, "effect_per_frame")
    numbers_per_frame(scale_per_frame, "scale_per_frame")
    parse_blocks(blocks)


class LongTakeMotionKeyframe(LongTakeNode):
    """How a motion module acts from one point of the sampling on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        factor: dict[str, Any] = {"least": 0.0, "most": MOST, "step": 0.01}
        return io.Schema(
            node_id="LongTakeMotionKeyframe",
            display_name="Motion Keyframe",
            category=CATEGORY,
            description=(
                "Says how a motion module acts from one point of the sampling on: as a whole, per frame, by mask, per block of the U-Net."
                " One keyframe at 0 holds throughout; chain several to change over sampling."
            ),
            inputs=[
                *inputs_of(MotionKeyframe),
                widget("effect", 1.0, Setting("The effect of Apply Motion Module is multiplied with this.", **factor)),
                widget("scale", 1.0, Setting("The scale of Apply Motion Module is multiplied with this.", **factor)),
                widget(
                    "effect_per_frame",
                    "",
                    Setting(
                        "Each frame's effect is multiplied with its number in this list, such as 1, 0.8, 0.5, or in this schedule,"
                        " such as 0: 1; 24: 0.5; the last one holds to the end, and an empty list changes nothing."
                    ),
                ),
                widget(
                    "scale_per_frame",
                    "",
                    Setting(
                        "Each frame's scale is multiplied with its number in this list or schedule; the last one holds to the end."
                    ),
                ),
                widget(
                    "blocks",
                    "",
                    Setting(
                        f"{BLOCKS} It gives a number for the effect, effect=0.5 or scale=1.2.", multiline=True, advanced=True
                    ),
                ),
                io.Mask.Input(
                    "effect_mask",
                    optional=True,
                    tooltip="The mask says where the effect acts: white is full, black none. It holds one mask for all frames, or one per"
                    " frame.",
                ),
                io.Mask.Input(
                    "scale_mask",
                    optional=True,
                    tooltip="The scale is multiplied with this mask. It holds one mask for all frames, or one per frame.",
                ),
                KeyframesType.Input(
                    "keyframes", optional=True, tooltip="This keyframe is added to those that are connected here."
                ),
            ],
            outputs=[
                KeyframesType.Output(
                    display_name="keyframes", tooltip="Keyframes go to Apply Motion Module, or to another Motion Keyframe."
                )
            ],
        )

    validate_inputs = checked(check_texts)

    @classmethod
    def execute(
        cls,
        effect: float,
        scale: float,
        effect_per_frame: str,
        scale_per_frame: str,
        blocks: str,
        effect_mask: Tensor | None,
        scale_mask: Tensor | None,
        keyframes: tuple[MotionKeyframe, ...] | None,
        **given: Any,
    ) -> io.NodeOutput:
        keyframe = settings_of(
            MotionKeyframe,
            given,
            effect=Strength(effect, numbers_per_frame(effect_per_frame, "effect_per_frame"), effect_mask),
            scale=Strength(scale, numbers_per_frame(scale_per_frame, "scale_per_frame"), scale_mask),
            blocks=parse_blocks(blocks),
        )
        return io.NodeOutput((*(() if keyframes is None else keyframes), keyframe))
