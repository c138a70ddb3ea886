"""A MotionLoRA: a low-rank change of a motion module's attentions, learned from few clips of one motion.

AnimateDiff, arXiv:2307.04725, Section 4.3.
"""

from collections.abc import Mapping, Sequence

from ...checkpoints.export import LORA_LAYOUTS
from ...checkpoints.motion import MotionModule
from ...checkpoints.motion_lora import LowRank, MotionLora
from ...temporal.motion import MotionModel
from ..denoising import Network
from ..in_base import Setup
from ..native import named_parameters
from ..start_lora import begin, deltas_to_start
from ..start_module import built
from ..train_blocks import read_blocks
from ..trainable import LORA, TaskContext, Trainable
from .low_rank import installed, lora_writer, motion_layers
from .row import Row


def motion_lora(
    context: TaskContext,
    motion: MotionModel,
    rank: int,
    train_blocks: Sequence[str] = (),
    start: Mapping[str, LowRank] | None = None,
) -> Trainable:
    """Train a MotionLoRA on the attentions of a motion module.

    Args:
        context: whose network has ``motion`` in its slots.
        motion: a trained module; it stays as it is.
        rank: of the changes; 64 or less is usual.
        train_blocks: beginnings of slots' names whose attentions change; all if empty.
        start: what it begins with, by layer; None for nothing.

    Raises:
        ValueError: the start does not fit, a rank that no layer can have, or a name is no slot's.
    """
    layers = motion_layers(motion, train_blocks)
    branches = installed(layers, rank, context.settings.seed)
    facts = {"rank": rank, "train_blocks": list(train_blocks), **begin(branches, start or {}, rank)}
    task = context.task(named_parameters(lora=branches), trains="MotionLoRA", **facts)
    return Trainable(
        *("motion_lora", task, context.settings, lora_writer(branches), LORA_LAYOUTS),
        branches={LORA: branches},
        layers=list(layers.values()),
        watched=motion,
    )


def moving(setup: Setup, motion: MotionModule | None) -> tuple[Network, list[MotionModel]]:
    """A base's network and its motion models, the last of which a MotionLoRA is for.

    Args:
        setup: what is at hand.
        motion: that is put into the base; None for the base's own.

    Raises:
        ValueError: there is none.
    """
    motions = [*setup.base.motions, *([] if motion is None else [built(motion, setup.base.device)])]
    if not motions:
        raise ValueError("a MotionLoRA is trained on a motion module and there is none: connect Load Motion Module")
    return setup.base.network(motions, clip_norms=motion is not None and motion.clip_norms), motions


def make(setup: Setup, motion: MotionModule | None, rank: int, start: MotionLora | None = None) -> Trainable:
    """A MotionLoRA for a motion module, or for the base's own.

    Raises:
        ValueError: there is no such module, rank or block, or the file to start from does not fit.
    """
    begun = deltas_to_start("motion_lora", start)
    network, motions = moving(setup, motion)
    trainable = motion_lora(setup.context(network, motions), motions[-1], rank, read_blocks(setup.options.train_blocks), begun)
    return setup.finished(trainable, network)


ROW = Row("motion_loras", make, in_motion="A MotionLoRA learns one motion from 10 to 50 clips, on the module connected.")
