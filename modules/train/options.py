"""What can be trained in an image model, and everything about it that has a usual value."""

import re
from dataclasses import dataclass

import torch

from ..checkpoints.motion import MotionModule
from .denoising import Objective
from .losses import LossSettings
from .settings import RunSettings
from .weights import WeightSettings

AUTO = "auto"
AUTHORS, MODELS = "authors", "model"  # whose noise schedule: what the module was trained with, or the model's own


@dataclass(frozen=True)
class Kind:
    """Something that can be trained.

    Attributes:
        folder: kind of the folder that the file goes to.
        loss: a name in ``losses.LOSSES``, what is usual.
        moves: whether a motion module is part of it.
    """

    folder: str
    loss: str = "mse"
    moves: bool = True


SPARSE, PROMPT = "sparse_control", "image_prompt"
# what Train Motion trains
MOTION_KINDS: dict[str, Kind] = {
    "motion_module": Kind("motion_modules"),
    "motion_lora": Kind("motion_loras"),
    "motion_lora_dual": Kind("motion_loras", loss="debiased"),
    "domain_adapter": Kind("loras", moves=False),
}
KINDS: dict[str, Kind] = {**MOTION_KINDS, SPARSE: Kind("controlnets"), PROMPT: Kind("image_prompts")}


@dataclass(frozen=True)
class Options:
    """How something is trained, beside what, for how long and how fast.

    Attributes:
        batch: clips per step.
        at_once: of them that go through the model at once; 0 for all.
        warmup: steps of rising learning rate.
        decay: a name in ``settings.DECAYS``.
        optimizer: a name in ``settings.OPTIMIZERS``.
        weight_decay, clip_norm, ema: see ``settings.RunSettings``.
        precision: a name in ``settings.PRECISIONS``, or ``auto`` for what the device does best.
        recompute: whether layers compute again instead of keeping what they computed.
        loss: a name in ``losses.LOSSES``, or ``auto`` for what is usual.
        loss_share: of differences, see ``losses.LossSettings.share``.
        loss_space: see ``losses.LossSettings.space``; ``auto`` for what the model predicts.
        levels: a name in ``levels.LEVELS``.
        weight: a name in ``weights.WEIGHTS``.
        dropout: share of clips that are shown without words.
        noise_offset: see ``denoising.Objective``.
        noise_schedule: ``authors``, ``model`` or a name in ``noise.NOISE_SCHEDULES``.
        scope: parts of the U-Net whose modules train, as ``read_scope`` takes them.
        cuts: of each video, where the clips come cut anew every time; 0 to encode every clip when it is needed.
        layout: of the file, a name in ``export.MOTION_LAYOUTS``.
        half: whether the file is written in float16.
        save_every: steps from one checkpoint to the next.
        sample_every: steps from one sample clip to the next; 0 for one at the end.
        sample_steps: that a sample takes.
        sample_cfg: guidance of the samples.
        sample_prompt: what they show; empty for the caption of the first clip.
        watch_every: steps from one look at the attentions to the next; 0 for none.
        lower_rate: whether the learning rate is lowered when attentions are about to collapse.
        log: a name in ``recorder.LOGS``.
        sigma_reparam: whether the attention weights of a motion module have lengths of their own while training.
    """

    batch: int = 2
    at_once: int = 1
    warmup: int = 100
    decay: str = "cosine"
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema: float = 0.999
    precision: str = AUTO
    recompute: bool = True
    loss: str = AUTO
    loss_share: float = 0.5
    loss_space: str = AUTO
    levels: str = "shared"
    weight: str = "uniform"
    dropout: float = 0.1
    noise_offset: float = 0.0
    noise_schedule: str = AUTHORS
    scope: str = ""
    cuts: int = 4
    layout: str = "AnimateDiff"
    half: bool = False
    save_every: int = 250
    sample_every: int = 0
    sample_steps: int = 20
    sample_cfg: float = 7.5
    sample_prompt: str = ""
    watch_every: int = 50
    lower_rate: bool = False
    log: str = "jsonl"
    sigma_reparam: bool = False

    def run(self, steps: int, learning_rate: float, seed: int) -> RunSettings:
        """Settings of a run."""
        return RunSettings(
            steps=steps,
            batch=self.batch,
            micro=self.at_once,
            learning_rate=learning_rate,
            warmup=min(self.warmup, steps),
            decay=self.decay,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            ema=self.ema,
            optimizer=self.optimizer,
            precision=usual_precision() if self.precision == AUTO else self.precision,
            seed=seed,
        )

    def objective(self, what: str, prediction: str) -> Objective:
        """What is asked of a network that predicts this."""
        kind = KINDS[what].loss if self.loss == AUTO else self.loss
        space = "" if self.loss_space == AUTO else self.loss_space
        return Objective(
            prediction,
            self.levels,
            WeightSettings(self.weight, causal=False),
            LossSettings(kind, share=self.loss_share, space=space),
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


def read_scope(text: str) -> tuple[str, ...]:
    """Beginnings of slots' names from words such as ``down, mid, up.1``; none for an empty text.

    Raises:
        ValueError: a word is no part of a U-Net.

    >>> read_scope("down, mid up.1")
    ('down_blocks', 'mid_block', 'up_blocks.1')
    """
    names = []
    for word in re.split(r"[,;\s]+", text.strip()):
        match = re.fullmatch(r"(down|up)(?:_blocks)?((?:\.\d+)?)|mid(?:_block)?", word)
        if word and match is None:
            raise ValueError(
                f"the scope {word!r} is no part of a U-Net: write down, mid, up, or one level such as up.1; empty for all"
            )
        if match is not None:
            names.append(f"{match[1]}_blocks{match[2]}" if match[1] else "mid_block")
    return tuple(names)
