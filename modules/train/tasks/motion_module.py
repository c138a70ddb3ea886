"""A motion module: the temporal modules of an image model, from zero or from a file (AnimateDiff, arXiv:2307.04725, Section 4.2)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ...checkpoints.export import MOTION_LAYOUTS, adapter_config, motion_state
from ...checkpoints.families import FAMILY
from ...checkpoints.motion import MotionModule
from ...checkpoints.motion_lora import MotionLora
from ...temporal.motion import MotionModel
from ..in_base import Setup
from ..native import named_parameters, scoped
from ..sigma_reparam import Reparametrised, SigmaReparam, folded, with_length
from ..start_module import built
from ..train_blocks import read_blocks
from ..trainable import MOTION, OWN, State, TaskContext, Trainable, Weights
from .row import Row


def motion_module(
    context: TaskContext,
    motion: MotionModel,
    train_blocks: Sequence[str] = (),
    start: Mapping[str, Tensor] | None = None,
    frames: int = 32,
    *,
    sigma_reparam: bool = False,
    family: str = "",
) -> Trainable:
    """Train a motion module.

    Args:
        context: whose network has ``motion`` in its slots.
        motion: what is trained, its weights in float32; from zero, where it changes nothing, unless ``start`` is given.
        train_blocks: beginnings of slots' names that train, such as ``down_blocks`` or ``up_blocks.1``; all if empty.
        start: weights to start from, by the motion model's keys.
        frames: the most that the finished module says it knows times for.
        sigma_reparam: whether attention weights have lengths of their own while training (``sigma_reparam.py``); the file is plain.
        family: which the file says that it is of, a name in ``FAMILIES``; empty to say nothing.

    Raises:
        ValueError: ``start`` does not fit the module, a name is no slot's, or there is no attention to reparametrise.
    """
    if start is None:
        motion.zero()
    else:
        _load(motion, start)
    scoped(motion.train().requires_grad_(True), train_blocks)
    reparam = SigmaReparam(with_length(motion)) if sigma_reparam else None
    facts = {"sigma_reparam": True} if sigma_reparam else {}  # its parameters have other names; without it a run is what it was
    parameters = named_parameters(motion=motion)
    task = context.task(parameters, trains="motion module", train_blocks=list(train_blocks), started=start is not None, **facts)

    def write(weights: Weights, file_format: str, _: Mapping[str, Any]) -> State:
        whole = folded({**motion.state_dict(), **{name.removeprefix(f"{MOTION}."): value for name, value in weights.items()}})
        return (whole if file_format == OWN else motion_state(whole, frames, file_format)), ({FAMILY: family} if family else {})

    usual = motion.config.kind == "transformer" and motion.config.positions == "sinusoid"
    formats = (*MOTION_LAYOUTS, OWN) if usual else (OWN,)
    return Trainable(
        "motion_module", Reparametrised(task, reparam) if reparam else task, context.settings, write, formats, watched=motion
    )


def _load(motion: MotionModel, start: Mapping[str, Tensor]) -> None:
    wanted = motion.state_dict()
    wrong = [key for key in {**wanted, **start} if key not in wanted or key not in start or start[key].shape != wanted[key].shape]
    if wrong:
        raise ValueError(
            f"the motion module to start from does not fit: {len(wrong)} weights are missing, extra or of another shape, first {wrong[0]}"
        )
    motion.load_state_dict({key: value.to(wanted[key]) for key, value in start.items()})


def make(setup: Setup, motion: MotionModule | None, rank: int, start: MotionLora | None = None) -> Trainable:  # noqa: ARG001  as all rows
    """The motion module that is trained in a base, beside the base's own.

    Args:
        setup: what is at hand.
        motion: to start from.
        rank: of LoRAs alone.
        start: for LoRAs alone.

    Raises:
        ValueError: there is none to start from, a LoRA is given to start from, or a block has none.
    """
    if start is not None:
        raise ValueError(
            f"{start.name} is a LoRA, and a motion module is trained: connect the module to start from as motion_module"
        )
    if motion is None:
        raise ValueError("a motion module is trained from one, new or from a file, and there is none")
    model = built(motion, setup.base.device)
    motions = [*setup.base.motions, model]
    network = setup.base.network(motions, clip_norms=motion.clip_norms)
    trainable = motion_module(
        setup.context(network, motions),
        model,
        read_blocks(setup.options.train_blocks),
        start=dict(model.state_dict()),
        frames=motion.max_frames,
        sigma_reparam=setup.options.sigma_reparam,
        family=motion.family,
    )
    config = adapter_config(motion.widths, motion.max_frames, motion.config.heads, motion.config.groups)
    return setup.finished(replace(trainable, adapter_config=config), network)


ROW = Row(
    "motion_modules",
    make,
    in_motion="A motion module learns all that moves, from nothing or from the module connected.",
    sigma_reparam=True,
    module=True,
    new=True,
)
