"""Everything about a training that has a usual value, whatever is trained."""

from dataclasses import dataclass

import torch

from ..checkpoints.export import MOTION_LAYOUTS
from ..checkpoints.motion import MotionModule
from ..fields.setting import check, documented, setting
from ..noise.levels import NOISE_SCHEDULES
from .denoising import Objective
from .levels import LEVELS
from .losses import LOSSES, LossSettings
from .recorder import LOGS
from .settings import DECAYS, OPTIMIZERS, PRECISIONS, RunSettings
from .train_blocks import read_blocks
from .weights import WEIGHTS, WeightSettings

AUTO = "auto"
SPACES = (AUTO, "eps", "v", "x0")
AUTHORS, MODELS = "authors", "model"  # whose noise schedule: what the module was trained with, or the model's own
EVER = 10**6  # steps


@documented
@dataclass(frozen=True)
class BasicSettings:
    """What every training is asked first."""

    name: str = setting(
        "my_training", "The name is that of the file, and of the checkpoint that a cancelled run is resumed from."
    )
    steps: int = setting(1000, "The steps are those of the optimizer, in all.", least=1, most=10_000_000)
    learning_rate: float = setting(
        1e-4, "The learning rate is the highest that the run reaches.", least=1e-8, most=1.0, step=1e-5, exact=True
    )
    seed: int = setting(
        0, "The seed is that of new weights, of what is drawn, and of the samples' noise.", least=0, most=2**64 - 1, control=False
    )
    restart: bool = setting(
        False,
        "Restart begins anew where there is a run of this name, which is kept in a folder with the date in its name. When it is off, the"
        " run goes on, with the settings that it has now.",
    )

    def __post_init__(self) -> None:
        check(self)


@documented
@dataclass(frozen=True)
class Options:
    """How something is trained, beside what, for how long and how fast."""

    batch: int = setting(2, "The batch is the number of clips per step.", least=1, most=4096)
    micro_batch: int = setting(
        1,
        "The micro-batch is how many clips of a batch go through the model at once (gradient accumulation). Fewer take less memory and"
        " give the same step. 0 means all.",
        least=0,
        most=4096,
    )
    warmup: int = setting(100, "The learning rate rises for so many steps.", least=0, most=EVER)
    decay: str = setting("cosine", "The decay says what the learning rate does after that.", menu=DECAYS.keys())
    optimizer: str = setting(
        "adamw",
        "The optimizer moves the weights. adamw8bit needs the package bitsandbytes. lion takes half the memory, and a third to a tenth of"
        " the learning rate.",
        menu=OPTIMIZERS.keys(),
    )
    weight_decay: float = setting(0.01, "The weight decay pulls weights to zero.", least=0.0, most=1.0, step=0.001)
    clip_norm: float = setting(
        1.0, "A gradient of a larger norm than this is shortened to it.", least=1e-6, most=1e6, step=0.1, exact=True
    )
    ema: float = setting(
        0.999,
        "This is the memory of the averaged weights, which are those that are saved. 0 saves the last ones.",
        least=0.0,
        most=0.999999,
        step=0.0001,
        exact=True,
    )
    precision: str = setting(
        AUTO,
        "The precision is that of what is computed, while trained weights stay in float32. auto is bfloat16 where the GPU has it.",
        menu=(AUTO, *PRECISIONS),
    )
    gradient_checkpointing: bool = setting(
        True, "Layers are computed again for their gradients instead of being kept: a third slower, a fraction of the memory."
    )
    loss: str = setting(
        AUTO,
        "The loss says what errors cost. auto is mse, and debiased for motion_lora_dual. mse looks at each frame by itself; chain, suffix,"
        " blend and second_difference look at differences from frame to frame, and blend and second_difference bear the learning rates of"
        " mse. debiased counts what frames share little.",
        menu=(AUTO, *LOSSES),
    )
    loss_share: float = setting(
        0.5, "This is the share of differences in blend and second_difference.", least=0.0, most=1.0, step=0.05
    )
    loss_space: str = setting(
        AUTO,
        "The error is taken of this. auto is what the model predicts, and x0 for differences of frames that have noise levels of their"
        " own in a video model.",
        menu=SPACES,
    )
    levels: str = setting(
        AUTO,
        "The levels say how noisy frames are. shared: all of a clip alike, as AnimateDiff. independent: each frame by itself. forcing:"
        " half of the clips so, half as forcing samplers pass through. fopp: never falling (AR-Diffusion). keyframe_aware: some frames"
        " known. between: as filling in between known frames. auto is shared, and for a video model what its method says.",
        menu=(AUTO, *LEVELS),
    )
    weight: str = setting(
        AUTO,
        "The weight says how much an error counts by noise level. min_snr learns faster from little. capped_v counts errors of v, up to 5;"
        " fused_snr is Diffusion Forcing's. auto is uniform, and capped_v for a video model.",
        menu=(AUTO, *WEIGHTS),
    )
    dropout: float = setting(
        0.1,
        "This share of clips is shown without caption, so that a negative prompt means something.",
        least=0.0,
        most=1.0,
        step=0.01,
    )
    noise_offset: float = setting(
        0.0,
        "The noise offset is noise that is the same everywhere in a frame, so that dark and bright are learned; 0.05 to 0.1 if at all.",
        least=0.0,
        most=1.0,
        step=0.01,
    )
    noise_schedule: str = setting(
        AUTHORS,
        "The noise schedule is what is trained over. authors is that of the motion module's kind, which Apply Motion Module sets as well;"
        " model is the model's own. A video model has its own.",
        menu=(AUTHORS, MODELS, *NOISE_SCHEDULES),
    )
    train_blocks: str = setting(
        "",
        "These parts of the U-Net have modules that train: down, mid, up.1 and so on, with commas between them. Empty means all. down, mid"
        " is steadier. A video model trains whole.",
    )
    crops_per_video: int = setting(
        4,
        "So many crops of each video are encoded and kept, where the clips come with variants at 0. 0 keeps none: every clip goes through"
        " the VAE whenever it is seen.",
        least=0,
        most=EVER,
    )
    file_format: str = setting(
        "AnimateDiff",
        "The file format is AnimateDiff for what ComfyUI's packs read. diffusers is a folder for MotionAdapter, or PEFT's keys for a LoRA,"
        " which AnimateDiff-Evolved does not read. This pack reads both.",
        menu=MOTION_LAYOUTS,
    )
    fp16: bool = setting(False, "The file is written in float16, half as large.")
    save_every: int = setting(250, "A checkpoint is written every so many steps.", least=1, most=EVER)
    sample_every: int = setting(
        0,
        "A sample clip is made every so many steps, always from the same noise. 0 makes one at the end alone.",
        least=0,
        most=EVER,
    )
    sample_steps: int = setting(20, "A sample clip takes so many steps.", least=1, most=1000)
    sample_cfg: float = setting(7.5, "This is the guidance scale of samples; 1 is none.", least=1.0, most=30.0, step=0.5)
    sample_prompt: str = setting(
        "", "This prompt says what samples show. Empty is the caption of the first clip, and for a video model anything."
    )
    watch_every: int = setting(
        50,
        "The attentions over time are looked at every so many steps, since they collapse before the loss says anything. 0 is never.",
        least=0,
        most=EVER,
    )
    auto_lower_lr: bool = setting(
        False, "The learning rate is halved when attentions are about to collapse; watch_every must be above 0."
    )
    log: str = setting(
        "jsonl",
        "The log is a line per step, for Loss Plot. tensorboard writes for it as well, where it is installed.",
        menu=LOGS.keys(),
    )
    sigma_reparam: bool = setting(
        False,
        "The weights of temporal attentions of a motion module or a video model get a learned length while training, so that entropy does"
        " not collapse. The file has plain weights.",
    )
    keep_every: int = setting(
        0,
        "Every so many steps the weights are kept as a file that can be used, in a folder NAME.steps, with a checkpoint to begin with. 0"
        " keeps none.",
        least=0,
        most=EVER,
    )
    keep_last: int = setting(0, "So many of those that keep_every keeps stay, the last ones. 0 keeps all.", least=0, most=EVER)
    begin_with: str = setting(
        "",
        "A new run begins as this one was: the name of another training, or NAME@STEP for one of its kept steps. Empty begins anew.",
    )
    held_out: int = setting(
        0,
        "So many of the videos are not trained on: the loss on them, always with the same noise, goes to log and plot. It is for motion"
        " modules, MotionLoRAs and domain adapters. 0 trains on all.",
        least=0,
        most=EVER,
    )
    look_every: int = setting(100, "The loss on held_out videos is taken every so many steps.", least=1, most=EVER)
    stop_at_best: int = setting(
        0,
        "The run stops when so many looks in a row have found no lower loss on held_out videos, and its file has the weights of the lowest."
        " 0 goes to the end.",
        least=0,
        most=1000,
    )
    read_ahead: int = setting(
        2,
        "So many threads read and decode the clips of coming steps while a step is computed. At 0 each step waits for its own; the clips"
        " are the same.",
        least=0,
        most=32,
    )
    cache_gb: float = setting(
        100.0,
        "The latents and texts that all trainings keep on disk take so many GB: those that were not used for the longest are deleted when"
        " new ones are made, never this run's. 0 is no limit.",
        least=0.0,
        most=1e6,
        step=1.0,
    )

    def __post_init__(self) -> None:
        check(self)
        read_blocks(self.train_blocks)
        if self.stop_at_best and not self.held_out:
            raise ValueError(
                f"stop_at_best is {self.stop_at_best} and no video is held out, on which a run could be best: set held_out, or stop_at_best"
                " to 0"
            )

    def run(self, basic: BasicSettings) -> RunSettings:
        """Settings of a run."""
        return RunSettings(
            steps=basic.steps,
            batch=self.batch,
            micro_batch=self.micro_batch,
            learning_rate=basic.learning_rate,
            warmup=min(self.warmup, basic.steps),
            decay=self.decay,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            ema=self.ema,
            optimizer=self.optimizer,
            precision=usual_precision() if self.precision == AUTO else self.precision,
            seed=basic.seed,
        )

    def objective(
        self, prediction: str, loss: str = "mse", levels: str = "shared", weight: str = "uniform", *, causal: bool = False
    ) -> Objective:
        """What is asked of a network.

        Args:
            prediction: what it predicts.
            loss: a name in ``losses.LOSSES``, what is usual.
            levels: a name in ``levels.LEVELS``, what is usual.
            weight: a name in ``weights.WEIGHTS``, what is usual.
            causal: whether it sees the past alone.
        """
        levels = levels if self.levels == AUTO else self.levels
        loss = loss if self.loss == AUTO else self.loss
        space = "" if self.loss_space == AUTO else self.loss_space
        return Objective(
            prediction,
            levels,
            WeightSettings(weight if self.weight == AUTO else self.weight, causal=causal),
            LossSettings(loss, share=self.loss_share, space=space),
            self.noise_offset,
            self.dropout,
        )

    def schedule(self, motion: MotionModule | None) -> str:
        """``model`` or a name in ``noise.NOISE_SCHEDULES``: what is trained over, beside this motion module."""
        if self.noise_schedule != AUTHORS:
            return self.noise_schedule
        return MODELS if motion is None else motion.noise_schedule


def usual_precision() -> str:
    """A name in ``settings.PRECISIONS``: bfloat16 on GPUs that compute in it, float16 on others, float32 elsewhere."""
    if not torch.cuda.is_available():
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
