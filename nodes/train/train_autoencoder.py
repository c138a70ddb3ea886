"""Training an autoencoder of this pack's own, whole."""

from typing import Any

import torch

from ... import host
from ...modules.checkpoints.autoencoder import AutoencoderVae, load_autoencoder
from ...modules.data.clips import ClipDataset
from ...modules.train.options import BasicSettings, Options
from ...modules.train.tasks import TRAINABLES
from ...modules.train.tasks.autoencoder import DEFAULTS, LEARNING_RATE, STEPS, AutoencoderChoices
from ..fields import inputs_of, settings_of
from ..node import LongTakeNode
from . import train_inputs as inputs
from .train_in_model import files_of, outputs, trained

io = host.io
WHAT = "autoencoder"


class LongTakeTrainAutoencoder(LongTakeNode):
    """A small autoencoder, whose latents a video model can work on."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeTrainAutoencoder",
            display_name="Train Autoencoder",
            category=inputs.CATEGORY,
            description="Trains a small autoencoder from scratch on the frames of your clips, or on a procedural world of postcards: a VAE"
            " that a video model can be trained with, and that its file then holds. A run that was cancelled or killed is resumed from its"
            " last checkpoint when it is queued again with the same settings.",
            inputs=[
                *inputs_of(BasicSettings, name="my_autoencoder", steps=STEPS, learning_rate=LEARNING_RATE),
                *inputs_of(AutoencoderChoices),
                inputs.ClipsType.Input(
                    "clips",
                    optional=True,
                    tooltip="It is trained on single frames of these, from Clip Folder or another clips node, whose sides 8 divides."
                    " Where nothing is connected, it learns procedural postcards.",
                ),
                inputs.options_input(),
            ],
            outputs=inputs.trained_outputs(
                io.Vae.Output(display_name="vae", tooltip="The trained autoencoder, for Train Video Model.")
            ),
            is_output_node=True,
        )

    @classmethod
    def execute(cls, clips: ClipDataset | None, options: Options | None, **given: Any) -> "io.NodeOutput":
        chosen, basic = options or DEFAULTS, settings_of(BasicSettings, given)
        settings, files = chosen.run(basic), files_of(WHAT, basic.name)
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
        ):  # the host runs nodes in inference mode, whose tensors cannot be trained
            choices = settings_of(AutoencoderChoices, given)
            task = TRAINABLES[WHAT].make(chosen, settings, choices, dataset=clips, device=host.device())
            made = trained(task, files, chosen, restart=basic.restart)
            network = load_autoencoder(made.path).to(host.device())
        return outputs(made, AutoencoderVae(network))
