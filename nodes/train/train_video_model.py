"""Training a video model of this pack's own, whole."""

from typing import Any

import torch

from ... import host
from ...modules.checkpoints.autoencoder import AutoencoderVae
from ...modules.checkpoints.video_model import load_video_model
from ...modules.data.clips import ClipDataset
from ...modules.train.native_models import Architecture
from ...modules.train.native_task import NativeChoices
from ...modules.train.options import BasicSettings, Options
from ...modules.train.tasks import TRAINABLES
from ...modules.train.tasks.video_model import DEFAULTS, LEARNING_RATE, STEPS, PictureSide
from ..fields import inputs_of, settings_of
from ..models.models import vae_of
from ..node import LongTakeNode
from . import train_inputs as inputs
from .train_in_model import decoded, files_of, outputs, trained

io = host.io
WHAT = "video_model"


class LongTakeTrainVideoModel(LongTakeNode):
    """A native video model, whole."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeTrainVideoModel",
            display_name="Train Video Model",
            category=inputs.CATEGORY,
            description="Trains a video model from scratch on your clips, or on a procedural world of moving shapes. A run that was"
            " cancelled or killed is resumed from its last checkpoint when it is queued again with the same settings.",
            inputs=[
                *inputs_of(BasicSettings, name="my_video_model", steps=STEPS, learning_rate=LEARNING_RATE),
                *inputs_of(NativeChoices),
                *inputs_of(Architecture),
                inputs.ClipsType.Input(
                    "clips",
                    optional=True,
                    tooltip="The model is trained on these clips, from Clip Folder or another clips node, and learns the words that tell"
                    " the captions apart. Where nothing is connected, it learns the procedural shapes.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="The model is trained on the latents of this VAE, which are kept on disk: that of an image model, for clips"
                    " larger than about 64 pixels, or that of Train Autoencoder. Where nothing is connected, it is trained on pixels.",
                ),
                inputs.options_input(),
            ],
            outputs=inputs.trained_outputs(
                io.Model.Output(display_name="model", tooltip="It is the trained model."),
                io.Vae.Output(display_name="vae", tooltip="The VAE turns its latents into pictures."),
            ),
            is_output_node=True,
        )

    @classmethod
    def execute(cls, clips: ClipDataset | None, vae: Any, options: Options | None, **given: Any) -> "io.NodeOutput":
        chosen, basic = options or DEFAULTS, settings_of(BasicSettings, given)
        settings, files = chosen.run(basic), files_of(WHAT, basic.name)
        side = None if vae is None else side_of(vae)
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
        ):  # the host runs nodes in inference mode, whose tensors cannot be trained
            task = TRAINABLES[WHAT].make(
                *(chosen, settings, files.folder, settings_of(Architecture, given), settings_of(NativeChoices, given)),
                dataset=clips,
                vae=side,
                device=host.device(),
            )
            made = trained(task, files, chosen, restart=basic.restart)
        video = load_video_model(made.path)
        return outputs(made, host.video_model(video), vae_of(video) if vae is None else vae)


def side_of(vae: Any) -> PictureSide:
    """A VAE as a trainer takes it; this pack's own goes into the model's file."""
    if isinstance(vae, AutoencoderVae):
        return PictureSide.of(vae)
    return PictureSide(host.clip_encoder(vae), lambda latents: decoded(vae, latents))
