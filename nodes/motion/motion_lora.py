"""LoRAs for motion: camera moves, trained motions, and the domain adapter that belongs to AnimateDiff v3."""

from pathlib import Path
from typing import Any

from ... import host
from ...modules.checkpoints.motion_lora import block_strength, load_motion_lora
from ..node import LongTakeNode

io = host.io
FOLDERS = ("motion_loras", "loras")  # a name that is in both means the first


def lora_files() -> list[str]:
    """Names of all LoRAs, those of the MotionLoRA folder first."""
    return list(dict.fromkeys(name for kind in FOLDERS for name in host.files(kind)))


def lora_file(name: str) -> Path:
    """The file of that name."""
    return host.file(next((kind for kind in FOLDERS if name in host.files(kind)), FOLDERS[0]), name)


class LongTakeApplyMotionLora(LongTakeNode):
    """Put a MotionLoRA onto a model's motion module."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongTakeApplyMotionLora",
            display_name="Apply Motion LoRA",
            category="LongTake/motion",
            description=(
                "Puts a MotionLoRA (a camera move, a trained motion) onto the motion module of a model. Chain several nodes for several."
                " The v3 domain adapter and other LoRAs of the image model go onto the image model by themselves."
            ),
            inputs=[
                io.Model.Input(
                    "model", tooltip="A model from Apply Motion Module. The motion module applied last takes the LoRA."
                ),
                io.Combo.Input(
                    "lora_name",
                    options=lora_files(),
                    tooltip="A file in models/animatediff_motion_lora or models/loras, by AnimateDiff, MotionDirector, diffusers or PEFT.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="1 as it was trained, 0 nothing; a negative strength turns the motion around.",
                ),
                io.String.Input(
                    "blocks",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Strength by part of the U-Net, one rule a line: up 0.5, mid 0, down.1 -1. Empty: the same everywhere.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="From which part of the sampling on it acts: 0 is the noisiest step.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="Up to which part of the sampling it acts: 1 is the end. The first half alone decides most of a motion.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The same model, moved by the LoRA too.")],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name: str, **_: Any) -> str:
        stat = lora_file(lora_name).stat()
        return f"{stat.st_mtime_ns}/{stat.st_size}"

    @classmethod
    def execute(
        cls, model: Any, lora_name: str, strength: float, blocks: str = "", start_percent: float = 0.0, end_percent: float = 1.0
    ) -> io.NodeOutput:
        lora = load_motion_lora(lora_file(lora_name))
        return io.NodeOutput(host.apply_motion_lora(model, lora, strength, block_strength(blocks), start_percent, end_percent))
