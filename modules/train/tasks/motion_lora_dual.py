"""A MotionLoRA as MotionDirector trains it: beside a second LoRA that takes up the clips' looks meanwhile, and is thrown away.

Zhao et al., arXiv:2310.08465, Section 3.2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from ...checkpoints.export import LORA_LAYOUTS
from ...checkpoints.motion import MotionModule
from ...checkpoints.motion_lora import LowRank, MotionLora
from ...noise.seeded import frame_seed
from ...temporal.motion import MotionModel
from ..in_base import Setup
from ..lora import image_projections
from ..losses import LossSettings
from ..native import named_parameters
from ..start_lora import begin, deltas_to_start
from ..task import Together
from ..train_blocks import read_blocks
from ..trainable import APPEARANCE, LORA, TaskContext, Trainable
from .low_rank import installed, lora_writer, motion_layers, single_frames, with_gains
from .motion_lora import moving
from .row import Row

TEXT = ".attn2."  # in the names of attentions to text, which are no matter of looks


def dual_path(
    context: TaskContext,
    motion: MotionModel,
    looks: Mapping[str, nn.Module],
    rank: int,
    train_blocks: Sequence[str] = (),
    looks_rank: int = 0,
    start: Mapping[str, LowRank] | None = None,
) -> Trainable:
    """Train a MotionLoRA and, for the time of training, a LoRA of the clips' looks beside it.

    The first path shows single frames, without the MotionLoRA, and trains the looks on squared errors; the second shows clips with both
    and trains the MotionLoRA alone: the looks act there with the same weights, as constants. So the MotionLoRA need not learn looks.

    Args:
        context: whose network has ``motion`` in its slots; its objective's loss is for the second path, ``debiased`` as a rule.
        motion: a trained module; it stays as it is.
        looks: linear layers of the image model by name (``lora.image_projections``); those that attend to text are left out.
        rank: of the MotionLoRA.
        train_blocks: beginnings of slots' names whose attentions change; all if empty.
        looks_rank: of the change of looks; 0 for ``rank``.
        start: what the MotionLoRA begins with, by layer; None for nothing.

    Raises:
        ValueError: a rank that no layer can have, no layers, or a name is no slot's.
    """
    seed = context.settings.seed
    moves, still = motion_layers(motion, train_blocks), {name: layer for name, layer in looks.items() if TEXT not in name}
    lora = installed(moves, rank, seed)
    appearance = installed(still, looks_rank or rank, frame_seed(seed, 1, APPEARANCE))
    facts = {"rank": rank, "looks_rank": looks_rank or rank, "train_blocks": list(train_blocks), **begin(lora, start or {}, rank)}
    first = replace(
        context,
        network=with_gains(context.network, {lora: (None, False)}),
        source=single_frames(context.source, seed),
        objective=replace(context.objective, loss=LossSettings(space=context.objective.loss.space), levels="shared"),
    ).task(named_parameters(appearance=appearance), trains="looks", **facts)
    second = replace(context, network=with_gains(context.network, {appearance: (torch.ones(()), True)})).task(
        named_parameters(lora=lora), trains="MotionLoRA", **facts
    )
    return Trainable(
        *("motion_lora_dual", Together([first, second]), context.settings, lora_writer(lora), LORA_LAYOUTS),
        branches={LORA: lora, APPEARANCE: appearance},
        layers=[*moves.values(), *still.values()],
        watched=motion,
    )


def make(setup: Setup, motion: MotionModule | None, rank: int, start: MotionLora | None = None) -> Trainable:
    """A MotionLoRA for a motion module, or for the base's own, with the looks of its clips kept out.

    Raises:
        ValueError: there is no such module, rank or block, or the file to start from does not fit.
    """
    begun = deltas_to_start("motion_lora_dual", start)
    network, motions = moving(setup, motion)
    context = setup.context(network, motions, loss="debiased")
    blocks = read_blocks(setup.options.train_blocks)
    return setup.finished(dual_path(context, motions[-1], image_projections(setup.base.unet), rank, blocks, start=begun), network)


ROW = Row("motion_loras", make, in_motion="It is the same, and the looks of the clips are kept out.")
