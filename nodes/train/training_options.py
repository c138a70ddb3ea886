"""Everything about a training that has a usual value."""

from ... import host
from ...modules.checkpoints.export import MOTION_LAYOUTS
from ...modules.noise.levels import NOISE_SCHEDULES
from ...modules.train.options import AUTHORS, AUTO, MODELS, Options
from ...modules.train.settings import DECAYS
from ..node import LongTakeNode
from .train_inputs import CATEGORY, OptionsType, shared, with_more

io = host.io
DEFAULTS = Options()
SPACES = (AUTO, "eps", "v", "x0")


class LongTakeTrainingOptions(LongTakeNode):
    """Everything about a training that has a usual value."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeTrainingOptions",
            display_name="Training Options",
            category=CATEGORY,
            description="Everything about a training that has a usual value: how clips go through the model, what an error costs, what is"
            " watched, what the file is like. Training nodes do without this node.",
            inputs=[
                shared("batch", DEFAULTS.batch, "Clips per step."),
                shared(
                    "at_once",
                    DEFAULTS.at_once,
                    "Clips of a step that go through the model at once; 0 for all. Fewer take less memory and give the same step.",
                ),
                io.Int.Input(
                    "warmup", default=DEFAULTS.warmup, min=0, max=10**6, tooltip="Steps in which the learning rate rises."
                ),
                io.Combo.Input(
                    "decay", options=list(DECAYS), default=DEFAULTS.decay, tooltip="What the learning rate does after that."
                ),
                shared(
                    "optimizer",
                    DEFAULTS.optimizer,
                    "adamw8bit needs the package bitsandbytes. lion: half the memory; a third to a tenth of the learning rate.",
                ),
                io.Float.Input(
                    "weight_decay",
                    default=DEFAULTS.weight_decay,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Pull of weights to zero.",
                ),
                io.Float.Input(
                    "clip_norm",
                    default=DEFAULTS.clip_norm,
                    min=1e-6,
                    max=1e6,
                    step=0.1,
                    round=False,
                    tooltip="Largest gradient norm.",
                ),
                shared(
                    "ema", DEFAULTS.ema, "Memory of the averaged weights, which are those that are saved; 0 saves the last ones."
                ),
                shared(
                    "precision",
                    DEFAULTS.precision,
                    "Of what is computed; trained weights stay in float32. auto: bfloat16 where the GPU has it.",
                    **with_more("precision", AUTO),
                ),
                shared(
                    "recompute",
                    DEFAULTS.recompute,
                    "Compute layers again for their gradients instead of keeping them: a third slower, a fraction of the memory.",
                ),
                shared(
                    "loss",
                    DEFAULTS.loss,
                    "auto: mse, and debiased for motion_lora_dual. chain, suffix, blend, second_difference look at differences from"
                    " frame to frame; blend and second_difference bear the learning rates of mse.",
                    **with_more("loss", AUTO),
                ),
                shared("loss_share", DEFAULTS.loss_share, "blend, second_difference: share of the differences."),
                io.Combo.Input(
                    "loss_space",
                    options=list(SPACES),
                    default=DEFAULTS.loss_space,
                    tooltip="Of what the error is taken. auto: of what the model predicts. x0 where frames have noise levels of their own"
                    " and the loss looks at differences.",
                ),
                shared(
                    "levels",
                    DEFAULTS.levels,
                    "How noisy frames are. shared: all of a clip alike, as AnimateDiff. independent and others: each frame by"
                    " itself, for the forcing samplers.",
                ),
                shared("weight", DEFAULTS.weight, "How much an error counts by noise level. min_snr learns faster from little."),
                io.Float.Input(
                    "dropout",
                    default=DEFAULTS.dropout,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of clips shown without their words.",
                ),
                io.Float.Input(
                    "noise_offset",
                    default=DEFAULTS.noise_offset,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Noise that is the same everywhere in a frame, so that dark and bright are learned; 0.05 to 0.1 if at all.",
                ),
                io.Combo.Input(
                    "noise_schedule",
                    options=[AUTHORS, MODELS, *NOISE_SCHEDULES],
                    default=DEFAULTS.noise_schedule,
                    tooltip="authors: that of the motion module's kind, which Apply Motion Module sets as well. model: the model's own.",
                ),
                io.String.Input(
                    "scope",
                    default=DEFAULTS.scope,
                    tooltip="Parts of the U-Net whose modules train: down, mid, up.1 and so on. Empty: all. down, mid is steadier.",
                ),
                io.Int.Input(
                    "cuts",
                    default=DEFAULTS.cuts,
                    min=0,
                    max=10**6,
                    tooltip="Cuts of each video that are encoded and kept, where the clips come with variants at 0. 0: no cache, every clip"
                    " through the VAE whenever it is seen.",
                ),
                io.Combo.Input(
                    "layout",
                    options=list(MOTION_LAYOUTS),
                    default=DEFAULTS.layout,
                    tooltip="AnimateDiff: what ComfyUI's packs read. diffusers: a folder for MotionAdapter, or PEFT's keys for a LoRA,"
                    " which AnimateDiff-Evolved does not read. This pack reads both.",
                ),
                io.Boolean.Input("half", default=DEFAULTS.half, tooltip="Write the file in float16: half as large."),
                shared("save_every", DEFAULTS.save_every, "Steps between checkpoints."),
                shared(
                    "sample_every",
                    DEFAULTS.sample_every,
                    "Steps between sample clips, always from the same noise; 0: one at the end.",
                ),
                io.Int.Input("sample_steps", default=DEFAULTS.sample_steps, min=1, max=1000, tooltip="Steps of a sample clip."),
                io.Float.Input(
                    "sample_cfg", default=DEFAULTS.sample_cfg, min=1.0, max=30.0, step=0.5, tooltip="Guidance of samples."
                ),
                shared("sample_prompt", DEFAULTS.sample_prompt, "What samples show; empty: the caption of the first clip."),
                shared(
                    "watch_every",
                    DEFAULTS.watch_every,
                    "Steps between two looks at the attentions over time, which collapse before the loss says anything; 0: none.",
                ),
                shared("lower_rate", DEFAULTS.lower_rate, "Halve the learning rate when attentions are about to collapse."),
                shared("log", DEFAULTS.log, "How each step is written down, for Loss Plot. tensorboard needs that package."),
                shared(
                    "sigma_reparam",
                    DEFAULTS.sigma_reparam,
                    "motion_module: give attention weights a learned length while training, so that entropy does not collapse; the file has"
                    " plain weights.",
                    optional=True,
                ),
            ],
            outputs=[
                OptionsType.Output(
                    display_name="options", tooltip="For Train Motion, Train Sparse Control or Train Image Prompt."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        batch: int,
        at_once: int,
        warmup: int,
        decay: str,
        optimizer: str,
        weight_decay: float,
        clip_norm: float,
        ema: float,
        precision: str,
        recompute: bool,
        loss: str,
        loss_share: float,
        loss_space: str,
        levels: str,
        weight: str,
        dropout: float,
        noise_offset: float,
        noise_schedule: str,
        scope: str,
        cuts: int,
        layout: str,
        half: bool,
        save_every: int,
        sample_every: int,
        sample_steps: int,
        sample_cfg: float,
        sample_prompt: str,
        watch_every: int,
        lower_rate: bool,
        log: str,
        sigma_reparam: bool = DEFAULTS.sigma_reparam,
    ) -> "io.NodeOutput":
        return io.NodeOutput(
            Options(
                *(batch, at_once, warmup, decay, optimizer, weight_decay, clip_norm, ema, precision, recompute),
                *(loss, loss_share, loss_space, levels, weight, dropout, noise_offset, noise_schedule, scope),
                *(cuts, layout, half, save_every, sample_every, sample_steps, sample_cfg, sample_prompt),
                *(watch_every, lower_rate, log, sigma_reparam),
            )
        )
