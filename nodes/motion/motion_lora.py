"""LoRAs for motion: camera moves, trained motions, and the domain adapter that belongs to AnimateDiff v3."""

from pathlib import Path
from typing import Any

from ... import host
from ...modules.checkpoints.motion_lora import block_strength, load_motion_lora
from ...modules.fields.setting import Setting
from ...modules.fields.span import check_percents
from ...modules.temporal.block_rules import BLOCKS
from ...modules.temporal.lora_settings import LoraSettings
from ..fields import inputs_of, settings_of, widget
from ..node import LongTakeNode, checked

io = host.io
FOLDERS = ("motion_loras", "loras")  # a name that is in both means the first


def lora_files() -> list[str]:
    """Names of all LoRAs, those of the MotionLoRA folder first."""
    return list(dict.fromkeys(name for kind in FOLDERS for name in host.files(kind)))


def lora_file(name: str) -> Path:
    """The file of that name."""
    return host.file(next((kind for kind in FOLDERS if name in host.files(kind)), FOLDERS[0]), name)


def check_settings(blocks: str, start_percent: float, end_percent: float) -> None:
    """Refuse settings of Apply MotionLoRA that do not go together.

    Raises:
        ValueError: the blocks cannot be read, or the start does not lie before the end.
    """
    block_strength(blocks)
    check_percents(start_percent, end_percent)


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
                    "model",
                    tooltip="The model comes from Apply Motion Module. The motion module that was applied last takes the LoRA.",
                ),
                io.Combo.Input(
                    "lora_name",
                    options=lora_files(),
                    tooltip="The file lies in models/animatediff_motion_lora or models/loras. Those of AnimateDiff, MotionDirector,"
                    " diffusers"
                    " and PEFT are read.",
                ),
                *inputs_of(LoraSettings),
                widget(
                    "blocks",
                    "",
                    Setting(
                        f"{BLOCKS} It gives a factor on the strength, as in up 0.5 or down.1 -1.", multiline=True, advanced=True
                    ),
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="It is the same model, moved by the LoRA too.")],
        )

    @classmethod
    def fingerprint_inputs(cls, lora_name: str, **_: Any) -> str:
        stat = lora_file(lora_name).stat()
        return f"{stat.st_mtime_ns}/{stat.st_size}"

    validate_inputs = checked(check_settings)

    @classmethod
    def execute(cls, model: Any, lora_name: str, blocks: str, **given: Any) -> io.NodeOutput:
        settings, by_block = settings_of(LoraSettings, given), block_strength(blocks)
        lora = load_motion_lora(lora_file(lora_name))
        return io.NodeOutput(
            host.apply_motion_lora(model, lora, settings.strength, by_block, settings.start_percent, settings.end_percent)
        )
