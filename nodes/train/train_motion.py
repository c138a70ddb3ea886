"""Training in an image model: motion modules, MotionLoRAs and domain adapters."""

from pathlib import Path
from typing import Any

from ... import host
from ...modules.checkpoints.motion import MotionModule, load_motion_module
from ...modules.checkpoints.motion_lora import load_motion_lora
from ...modules.data.clips import ClipDataset
from ...modules.fields.setting import Setting
from ...modules.train.in_base import Setup
from ...modules.train.options import BasicSettings, Options
from ...modules.train.start_module import check_start, new_module
from ...modules.train.tasks import TRAINABLES, check_options
from ...modules.train.trainable import Trainable
from ..fields import inputs_of, settings_of, widget
from ..motion.motion import MotionModuleType
from ..motion.motion_lora import lora_file, lora_files
from ..node import LongTakeNode
from . import train_inputs as inputs
from .train_in_model import encoded_clips, files_of, outputs, train_in

io = host.io
DEFAULTS, RANK, NEW = Options(), 32, "none"
WHAT = {name: row.in_motion for name, row in TRAINABLES.items() if row.in_motion}


class LongTakeTrainMotion(LongTakeNode):
    """Train something that moves an image model."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeTrainMotion",
            display_name="Train Motion",
            category=inputs.CATEGORY,
            description="Trains a motion module, a MotionLoRA or a domain adapter in any SD1.5 or SDXL model, from clips. The model itself"
            " stays as it is. A run that was cancelled goes on from its last checkpoint when it is queued again with the same settings.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model is an image model, with any LoRA that shall be part of it; for a MotionLoRA it needs no motion"
                    " module, if one is connected below.",
                ),
                inputs.clips_input(),
                inputs.vae_input(),
                widget("what", "motion_lora", Setting("What is trained is one of these.", menu=WHAT)),
                widget(
                    "rank",
                    RANK,
                    Setting(
                        "The rank is that of a LoRA or adapter: 8 to 64 for a motion, 128 in AnimateDiff's adapter.", 1, 1024
                    ),
                ),
                *inputs_of(BasicSettings, name="my_motion"),
                inputs.clip_input(),
                MotionModuleType.Input(
                    "motion_module",
                    optional=True,
                    tooltip="A MotionLoRA is for this motion module, and a motion module starts from it.",
                ),
                inputs.conditioning_input(),
                inputs.options_input(),
                io.Combo.Input(
                    "start",
                    options=[NEW, *lora_files()],
                    default=NEW,
                    optional=True,
                    tooltip="A MotionLoRA or domain adapter begins with the weights of this file, which has the same rank; the run itself"
                    " is a new one. A motion module begins with what is connected as motion_module.",
                ),
            ],
            outputs=inputs.trained_outputs(
                io.Model.Output(display_name="model", tooltip="It is the model with what was trained on it, as the file has it.")
            ),
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clips: ClipDataset,
        vae: Any,
        what: str,
        rank: int,
        clip: Any,
        motion_module: MotionModule | None,
        conditioning: Any,
        options: Options | None,
        start: str = NEW,
        **given: Any,
    ) -> "io.NodeOutput":
        chosen, basic = options or DEFAULTS, settings_of(BasicSettings, given)
        check_options(what, chosen)
        settings, files = chosen.run(basic), files_of(what, basic.name)
        motion = start_of(what, model, motion_module, clips, basic.seed)
        begun = None if start == NEW else load_motion_lora(lora_file(start))
        encoded = encoded_clips(model, clips, vae, clip, conditioning, chosen)
        schedule = chosen.schedule(motion)

        def make(setup: Setup) -> Trainable:
            return TRAINABLES[what].make(setup, motion, rank, begun)

        made = train_in(model, vae, make, encoded, chosen, settings, files, schedule, restart=basic.restart)
        return outputs(made, with_trained(what, model, motion, made.path, schedule))


def start_of(what: str, model: Any, motion: MotionModule | None, clips: ClipDataset, seed: int) -> MotionModule | None:
    """The motion module that training starts from or is for; None for the model's own, or none."""
    row = TRAINABLES[what]
    if not row.moves:
        return None
    if row.module and host.motion_models(model):
        raise ValueError(
            "this model has a motion module already: connect the model from before Apply Motion Module, and what to start from as"
            " motion_module"
        )
    frames = clips.settings.frames
    if frames < 2:
        raise ValueError("the clips are single frames, in which nothing moves: cut clips of 2 frames or more, 16 as a rule")
    if motion is None and row.new:
        motion = new_module(host.unet_of(model), seed, frames)
    check_start(motion, frames, host.unet_of(model), module=row.module)
    return motion


def with_trained(what: str, model: Any, motion: MotionModule | None, path: Path, schedule: str) -> Any:
    """The model with what the file holds on it."""
    if TRAINABLES[what].module:
        return host.apply_motion(model, load_motion_module(path), noise_schedule=schedule)
    moved = model if motion is None else host.apply_motion(model, motion, noise_schedule=schedule)
    return host.apply_motion_lora(moved, load_motion_lora(path))
