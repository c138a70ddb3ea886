"""Training inside the graph."""

from typing import Any

import torch

from ... import host
from ...modules.control.hints import LAYOUTS
from ...modules.data.clips import ClipDataset
from ...modules.noise.levels import PREDICTIONS
from ...modules.temporal.normalise import QK_NORMS
from ...modules.train.attention_watch import WatchSettings
from ...modules.train.losses import LossSettings
from ...modules.train.methods import METHODS
from ...modules.train.native_task import NativeChoices
from ...modules.train.plan import DEFAULTS, Architecture, PictureSide, native_training
from ...modules.train.recipes import TEMPORAL
from ...modules.train.session import Manner, Place, Training
from ...modules.train.settings import RunSettings
from ...modules.train.weights import WeightSettings
from ..node import LongTakeNode
from .train_inputs import CATEGORY, ClipsType, shared, with_more

io = host.io
MODEL, MANNER, CHOICES = Architecture(), Manner(), NativeChoices()
OWN, NONE = "of the method", "none"


def further_inputs() -> list[Any]:
    """What came later than the node; workflows from before do without."""
    return [
        ClipsType.Input(
            "clips",
            optional=True,
            tooltip="What to train on, from Clip Folder or another clips node. The model learns the words that tell the"
            " captions apart. Nothing"
            " connected: the procedural shapes.",
        ),
        io.Vae.Input(
            "vae",
            optional=True,
            tooltip="Train on the latents of an image model's VAE, kept on disk; for clips larger than about 64 pixels."
            " Nothing connected: on"
            " pixels.",
        ),
        io.Combo.Input(
            "prediction",
            options=list(PREDICTIONS),
            default=MODEL.prediction,
            optional=True,
            tooltip="What the network puts out: the clean frame (x0), the noise (eps), or v.",
        ),
        shared(
            "levels",
            OWN,
            "How noisy each frame of a clip is. shared: all alike. independent: a level for each. forcing: half of the clips so, half as"
            " sampling passes through. fopp: never falling (AR-Diffusion). keyframe_aware: some frames known. between: as filling in"
            " between known frames passes through.",
            optional=True,
            **with_more("levels", OWN),
        ),
        shared(
            "loss",
            CHOICES.loss.kind,
            "What errors cost. mse: each frame by itself. chain, suffix: a frame and the differences from there on. blend,"
            " second_difference: squared error and differences, as steep as mse at most. debiased: what frames share counts little.",
            optional=True,
        ),
        shared("loss_share", CHOICES.loss.share, "Share of the differences in blend and second_difference.", optional=True),
        shared(
            "weight",
            CHOICES.weight.kind,
            "How much an error counts by noise level. capped_v: as errors of v, up to 5. min_snr, fused_snr"
            " (Diffusion Forcing) and so on"
            " are in the help.",
            optional=True,
        ),
        io.Int.Input(
            "images",
            default=CHOICES.images,
            min=0,
            max=256,
            optional=True,
            tooltip="Single pictures beside each clip that neither see it nor are seen (joint image-video training); 4"
            " to 8 steady the looks.",
        ),
        shared(
            "precision", DEFAULTS.precision, "Of activations; weights stay in float32. bfloat16 is faster on GPUs.", optional=True
        ),
        shared(
            "at_once",
            DEFAULTS.micro,
            "Most clips in the network at once; the gradients of a batch add up. 0: the whole batch. Lower it"
            " when memory is short.",
            optional=True,
        ),
        shared(
            "ema", DEFAULTS.ema, "Memory of the averaged weights, which are those that are saved. 0: no average.", optional=True
        ),
        io.Combo.Input(
            "qk_norm",
            options=[NONE, *QK_NORMS],
            default=NONE,
            optional=True,
            tooltip="Normalise queries and keys of temporal attentions, so that logits cannot explode; part of the model from then on.",
        ),
        io.Float.Input(
            "skip_scale",
            default=MODEL.skip_scale,
            min=0.1,
            max=1.0,
            step=0.05,
            optional=True,
            tooltip="Skips from deeper levels count less by this factor, for steadier training of deep models; 0.7 is usual, 1 is off.",
        ),
        shared(
            "sigma_reparam",
            CHOICES.sigma_reparam,
            "Give temporal attention weights a learned length while training, so that entropy does not collapse; the file has plain"
            " weights.",
            optional=True,
        ),
        shared(
            "watch_every",
            0,
            "Steps from one look at the temporal attentions to the next: entropy and logits go to the log,"
            " warnings to the report. 0:"
            " never.",
            optional=True,
        ),
        shared(
            "lower_rate",
            False,
            "Halve the learning rate when the attentions are about to collapse; needs watch_every.",
            optional=True,
        ),
        shared(
            "sample_every",
            MANNER.sample_every,
            "Steps from one sample clip to the next, always of the same noise: in the preview, and as files"
            " beside the model. 0: only one at"
            " the end.",
            optional=True,
        ),
        shared(
            "sample_prompt", MANNER.sample_prompt, "What samples show, in the model's words; empty for anything.", optional=True
        ),
        shared(
            "log",
            MANNER.log,
            "A line per step, for Loss Plot and others. tensorboard writes for it as well, where it is installed.",
            optional=True,
        ),
        io.Int.Input(
            "width", default=MODEL.width, min=8, max=1024, step=8, optional=True, tooltip="Channels of the model's first level."
        ),
        shared(
            "optimizer",
            DEFAULTS.optimizer,
            "adamw; adamw8bit needs the package bitsandbytes; lion takes less memory and a third to a tenth of"
            " the learning rate.",
            optional=True,
        ),
        shared(
            "recompute",
            CHOICES.recompute,
            "Compute layers again when gradients come back: less memory, a third slower, the same result.",
            optional=True,
        ),
        io.Combo.Input(
            "hints",
            options=[NONE, *LAYOUTS],
            default=NONE,
            optional=True,
            tooltip="Train a model that fills in between keyframes, for Hint Latents: every hint_factor-th frame of each clip stands beside"
            " the noisy ones. article, make_a_video, moonshot, tempofunk: how; see Hint Latents. Use with method full.",
        ),
        io.Int.Input(
            "hint_factor",
            default=CHOICES.hint_factor,
            min=2,
            max=1024,
            optional=True,
            tooltip="Frames from one keyframe to the next, with hints.",
        ),
        io.Float.Input(
            "own_guesses",
            default=CHOICES.own_guesses,
            min=0.0,
            max=1.0,
            step=0.05,
            optional=True,
            tooltip="Share of the clips whose noisy frames are made of the model's own guesses, so that it learns to undo its"
            " mistakes: long rollouts hold better. 0.5 is good for models that have learned the clips; a sixth slower.",
        ),
    ]


class LongTakeTrainVideoModel(LongTakeNode):
    """A native video model from scratch."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeTrainVideoModel",
            display_name="Train Video Model",
            category=CATEGORY,
            description="Train a video model from scratch on your clips, or on a procedural world of moving shapes. Goes"
            " on where it stopped: a"
            " run that was cancelled or killed resumes from its last checkpoint when it is queued again with the same settings.",
            inputs=[
                shared("name", "my_shapes", "The file is models/longtake/NAME.safetensors."),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default=CHOICES.method,
                    tooltip="forcing: a noise level per frame (Diffusion Forcing). both_ways: the same, looking both"
                    " ways. teacher: next frame"
                    " given the true past. full: all frames at one level.",
                ),
                shared("steps", DEFAULTS.steps, "Optimizer steps in all."),
                shared("batch", DEFAULTS.batch, "Clips per step."),
                shared("learning_rate", DEFAULTS.learning_rate, "Highest learning rate."),
                shared("seed", DEFAULTS.seed, "Of weights, data and noise."),
                shared("save_every", MANNER.save_every, "Steps between checkpoints.", max=100000),
                io.Combo.Input(
                    "temporal",
                    options=list(TEMPORAL),
                    default=MODEL.temporal,
                    optional=True,  # workflows from before there was a choice
                    tooltip="What makes it a video model. transformer: frames attend to each other within the window. recurrent: a"
                    " convolutional GRU whose state is carried along the whole take. pseudo3d: convolution over time, then attention.",
                ),
                *further_inputs(),
            ],
            outputs=[
                io.String.Output(display_name="model_name", tooltip="The file, as Load Video Model lists it."),
                io.Image.Output(display_name="loss_curve", tooltip="Loss, gradient norm and learning rate."),
                io.Model.Output(tooltip="The trained model."),
                io.Vae.Output(tooltip="What turns its latents into pictures."),
                io.Image.Output(display_name="sample", tooltip="A clip of the trained model."),
                io.String.Output(display_name="log", tooltip="The log's name, for Loss Plot."),
                io.String.Output(display_name="report", tooltip="Where the run stands, and warnings."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        name: str,
        method: str,
        steps: int,
        batch: int,
        learning_rate: float,
        seed: int,
        save_every: int,
        temporal: str = MODEL.temporal,
        clips: ClipDataset | None = None,
        vae: Any = None,
        prediction: str = MODEL.prediction,
        levels: str = OWN,
        loss: str = CHOICES.loss.kind,
        loss_share: float = CHOICES.loss.share,
        weight: str = CHOICES.weight.kind,
        images: int = CHOICES.images,
        precision: str = DEFAULTS.precision,
        at_once: int = DEFAULTS.micro,
        ema: float = DEFAULTS.ema,
        qk_norm: str = NONE,
        skip_scale: float = MODEL.skip_scale,
        sigma_reparam: bool = CHOICES.sigma_reparam,
        watch_every: int = 0,
        lower_rate: bool = False,
        sample_every: int = MANNER.sample_every,
        sample_prompt: str = MANNER.sample_prompt,
        log: str = MANNER.log,
        width: int = MODEL.width,
        optimizer: str = DEFAULTS.optimizer,
        recompute: bool = CHOICES.recompute,
        hints: str = NONE,
        hint_factor: int = CHOICES.hint_factor,
        own_guesses: float = CHOICES.own_guesses,
    ) -> "io.NodeOutput":
        place = Place(host.model_directory("video_models"), name)
        settings = RunSettings(
            *(steps, batch, at_once, learning_rate, DEFAULTS.warmup),
            ema=ema,
            optimizer=optimizer,
            precision=precision,
            seed=seed,
        )
        choices = NativeChoices(
            *(method, "" if levels == OWN else levels, WeightSettings(weight), LossSettings(loss, loss_share), images),
            sigma_reparam=sigma_reparam,
            recompute=recompute,
            hints="" if hints == NONE else hints,
            hint_factor=hint_factor,
            own_guesses=own_guesses,
        )
        watch = WatchSettings.asked(watch_every, lower=lower_rate)
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
        ):  # the host runs nodes in inference mode, whose tensors cannot be trained
            training = native_training(
                Architecture(temporal, width, prediction, "" if qk_norm == NONE else qk_norm, skip_scale),
                choices,
                settings,
                place,
                Manner(save_every, log, sample_every, sample_prompt, watch),
                dataset=clips,
                vae=None if vae is None else PictureSide(host.clip_encoder(vae), vae.decode),
                device=host.device(),
            )
            shown(training)
            video = training.model()
            video.save(place.model)
            sample, plot, report = training.sampled(), training.plot(), training.report()
        side = host.vae(video.info) if vae is None else vae
        return io.NodeOutput(
            *(place.model.name, plot, host.video_model(video), side, sample, training.log_name, report),
            ui=host.ui.PreviewText(report),
        )


def shown(training: Training) -> None:
    """Train to the end, with the loss as a live picture; Cancel stops after the step and leaves a checkpoint."""
    progress = host.Progress(training.run.settings.steps)
    steps = training.steps()
    try:
        for at in steps:
            progress.update(at.step.step, at.picture)
    finally:
        steps.close()
