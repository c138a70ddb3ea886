"""AnimateDiff's motion modules on an image checkpoint."""

from typing import Any

from .. import host
from ..modules.checkpoints.motion import MotionModule, load_motion_module
from .node import LongTakeNode

io = host.io
MotionModuleType = io.Custom("LONGTAKE_MOTION_MODULE")


class LongTakeLoadMotionModule(LongTakeNode):
    """Read a motion module file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongTakeLoadMotionModule",
            display_name="Load Motion Module",
            category="LongTake/motion",
            description="Reads an AnimateDiff motion module (v1, v2 or v3, for SD1.5) from models/animatediff_models.",
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
            category="LongTake/motion",
            description=(
                "Lets an SD1.5 model draw the frames of a clip together: the latents of one batch become its frames. Works with KSampler"
                " and LoRAs as usual, and sets the noise schedule that the module was trained with."
            ),
            inputs=[
                io.Model.Input("model", tooltip="An SD1.5 model. LoRAs may come before or after this node."),
                MotionModuleType.Input("motion_module", tooltip="From Load Motion Module."),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The same model; one batch of latents is now one clip.")],
        )

    @classmethod
    def execute(cls, model: Any, motion_module: MotionModule) -> io.NodeOutput:
        return io.NodeOutput(host.apply_motion(model, motion_module))
