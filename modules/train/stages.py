"""What AnimateDiff and MotionDirector train, each as a task for the engine and as the file that comes out of it.

A base model stays as it is. Beside it are trained, one after the other and each on what came before (AnimateDiff, arXiv:2307.04725,
Section 4): a domain adapter, on single frames, that takes up how the clips look; a motion module, on clips; a MotionLoRA, on few clips
of one motion. The last also as MotionDirector does it (arXiv:2310.08465, Section 3.2), with a second LoRA that takes up looks meanwhile.

A stage knows nothing of the network but how to call it, so native models and models of a host train alike::

    lesson = Lesson(network, source, schedule, objective, settings, {"base": "the file's name and what else a checkpoint must agree with"})
    stage = motion_module(lesson, motion)                        # ``network`` has ``motion`` in its slots
    run = Run(stage.task, settings, checkpoint)
    for step in train(run): ...
    tensors, metadata = stage.file(run.weights(), "AnimateDiff")  # for ``checkpoints.export.save``

``network`` is called with noisy clips ``n f c h w``, sigmas ``n f`` and the batch, and returns clean clips in the same coordinates
(``denoising.Network``); its frozen weights are the caller's business, and so is the motion model's ``during``. Branches are put on layers
by shadowing their ``forward`` (``temporal/slots.py``): fill a U-Net's slots before a stage is made, not after, since filling empties them.
Who computes layers again when gradients come back counts ``stage.holders`` among those whose attributes are remembered
(``gradients.checkpointed``).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints.export import LORA_LAYOUTS, MOTION_LAYOUTS, adapter_state, lora_state, motion_state
from ..checkpoints.motion_lora import LowRank
from ..noise.levels import NoiseSchedule
from ..noise.seeded import frame_seed
from ..temporal.motion import MotionModel
from .denoising import Batch, Network, Objective, Source
from .engine import Task
from .lora import TrainableBranches, beside, deltas_of, motion_projections, trainable_branches
from .losses import LossSettings
from .native import frozen, named_parameters, scoped
from .settings import RunSettings
from .sigma_reparam import Reparametrised, SigmaReparam, folded, with_length
from .task import Denoising, Together

MOTION, LORA, APPEARANCE, ADAPTER = "motion", "lora", "appearance", "adapter"  # what names of parameters begin with
OWN = "LongTake"  # a file with a network's own keys
TEXT = ".attn2."  # in the names of attentions to text, which are no matter of looks
State = tuple[dict[str, Tensor], dict[str, str]]


@dataclass(frozen=True)
class Lesson:
    """What a stage is given, whatever it trains.

    Attributes:
        network: what the trained part works in.
        source: of clips.
        schedule: noise of the network's timesteps.
        objective: what is asked.
        settings: of the run.
        facts: what a checkpoint must agree with, such as the base model and the data; JSON-able.
    """

    network: Network
    source: Source
    schedule: NoiseSchedule
    objective: Objective
    settings: RunSettings
    facts: Mapping[str, Any] = field(default_factory=dict)

    def task(self, parameters: Mapping[str, nn.Parameter], **facts: Any) -> Denoising:
        """The task of training these parameters; ``facts`` are added to the lesson's."""
        return Denoising(
            self.network,
            parameters,
            self.source,
            self.objective,
            self.schedule,
            self.settings,
            {**self.facts, **facts},
        )


@dataclass(frozen=True, eq=False)
class Stage:
    """A task and what becomes of its weights.

    Attributes:
        task: for ``engine.Run``.
        branches: low-rank changes that train, by what their parameters' names begin with; none for a motion module.
        layouts: names of the files' layouts, the first is the usual one.
        write: (weights by parameter name, layout) -> tensors and metadata of the file.
        layers: that the branches were put on.
        told: what else is told things for the length of a call.
    """

    task: Task
    branches: Mapping[str, TrainableBranches]
    layouts: tuple[str, ...]
    write: Callable[[Mapping[str, Tensor], str], State]
    layers: Sequence[nn.Module] = ()
    told: Sequence[Any] = ()

    @property
    def holders(self) -> list[Any]:
        """What is told things for the length of a call."""
        return [*self.branches.values(), *self.told]

    def file(self, weights: Mapping[str, Tensor], layout: str = "") -> State:
        """Tensors and metadata of the file that others read.

        Args:
            weights: of the run (``engine.Run.weights``).
            layout: one of ``layouts``; empty for the first.

        Raises:
            ValueError: it is none of them.
        """
        layout = layout or self.layouts[0]
        if layout not in self.layouts:
            raise ValueError(f"the layout {layout!r} is not known here: choose one of {', '.join(self.layouts)}")
        return self.write(weights, layout)

    def deltas(self, weights: Mapping[str, Tensor], part: str = LORA) -> dict[str, LowRank]:
        """The low-rank changes by weight key: of ``lora``, ``appearance`` or ``adapter``.

        Raises:
            ValueError: this stage has no such part.
        """
        if part not in self.branches:
            raise ValueError(f"this stage trains no {part}: it has {', '.join(self.branches) or 'no low-rank changes'}")
        return deltas_of(self.branches[part], dict(weights), f"{part}.")

    @contextmanager
    def showing(self, weights: Mapping[str, Tensor] | None = None, strength: float = 1.0) -> Iterator[None]:
        """While open, what trains has these weights, such as the averaged ones, and low-rank changes this strength; for samples.

        A change of looks that is trained beside a MotionLoRA rests meanwhile: it is not part of what is kept.

        Args:
            weights: by parameter name; None for the present ones.
            strength: of the low-rank changes; 1 as trained, 0 nothing, below 0 turned around.
        """
        parameters = self.task.parameters()
        before = {name: parameters[name].data for name in weights or {}}
        try:
            for name, value in (weights or {}).items():
                parameters[name].data = value.to(before[name])
            with ExitStack() as stack:
                for part, branches in self.branches.items():
                    gain = None if part == APPEARANCE else torch.tensor(strength, device=branches.device)
                    stack.enter_context(branches.told(gain))
                yield
        finally:
            for name, value in before.items():
                parameters[name].data = value


def motion_module(
    lesson: Lesson,
    motion: MotionModel,
    scope: Sequence[str] = (),
    start: Mapping[str, Tensor] | None = None,
    frames: int = 32,
    *,
    sigma_reparam: bool = False,
) -> Stage:
    """Train a motion module (arXiv:2307.04725, Section 4.2).

    Args:
        lesson: whose network has ``motion`` in its slots.
        motion: what is trained, its weights in float32; from zero, where it changes nothing, unless ``start`` is given.
        scope: beginnings of slots' names that train, such as ``down_blocks`` or ``up_blocks.1``; all if empty.
        start: weights to start from, by the motion model's keys.
        frames: the most that the finished module says it knows times for.
        sigma_reparam: whether attention weights have lengths of their own while training (``sigma_reparam.py``); the file is plain.

    Raises:
        ValueError: ``start`` does not fit the module, a word of the scope names no slot, or there is no attention to reparametrise.
    """
    if start is None:
        motion.zero()
    else:
        _load(motion, start)
    scoped(motion.train().requires_grad_(True), scope)
    reparam = SigmaReparam(with_length(motion)) if sigma_reparam else None
    facts = {"sigma_reparam": True} if sigma_reparam else {}  # its parameters have other names; without it a run is what it was
    parameters = named_parameters(motion=motion)
    task = lesson.task(parameters, stage="motion module", scope=list(scope), started=start is not None, **facts)

    def write(weights: Mapping[str, Tensor], layout: str) -> State:
        whole = folded({**motion.state_dict(), **{name.removeprefix(f"{MOTION}."): value for name, value in weights.items()}})
        return (whole if layout == OWN else motion_state(whole, frames, layout)), {}

    usual = motion.config.kind == "transformer" and motion.config.positions == "sinusoid"
    return Stage(Reparametrised(task, reparam) if reparam else task, {}, (*MOTION_LAYOUTS, OWN) if usual else (OWN,), write)


def _load(motion: MotionModel, start: Mapping[str, Tensor]) -> None:
    wanted = motion.state_dict()
    wrong = [key for key in {**wanted, **start} if key not in wanted or key not in start or start[key].shape != wanted[key].shape]
    if wrong:
        raise ValueError(
            f"the motion module to start from does not fit: {len(wrong)} weights are missing, extra or of another shape, first {wrong[0]}"
        )
    motion.load_state_dict({key: value.to(wanted[key]) for key, value in start.items()})


def motion_lora(lesson: Lesson, motion: MotionModel, rank: int, scope: Sequence[str] = ()) -> Stage:
    """Train a MotionLoRA on the attentions of a motion module (arXiv:2307.04725, Section 4.3).

    Args:
        lesson: whose network has ``motion`` in its slots.
        motion: a trained module; it stays as it is.
        rank: of the changes; 64 or less is usual.
        scope: beginnings of slots' names whose attentions change; all if empty.

    Raises:
        ValueError: a rank that no layer can have, or a word of the scope names no slot.
    """
    layers = _within(motion, scope)
    branches = _installed(layers, rank, lesson.settings.seed)
    task = lesson.task(named_parameters(lora=branches), stage="MotionLoRA", rank=rank, scope=list(scope))
    parts = {LORA: branches}
    return Stage(task, parts, LORA_LAYOUTS, _lora_writer(branches), list(layers.values()))


def dual_path(
    lesson: Lesson,
    motion: MotionModel,
    looks: Mapping[str, nn.Module],
    rank: int,
    scope: Sequence[str] = (),
    looks_rank: int = 0,
) -> Stage:
    """Train a MotionLoRA and, for the time of training, a LoRA of the clips' looks beside it (arXiv:2310.08465, Section 3.2).

    The first path shows single frames, without the MotionLoRA, and trains the looks on squared errors; the second shows clips with both
    and trains the MotionLoRA alone: the looks act there with the same weights, as constants. So the MotionLoRA need not learn looks.

    Args:
        lesson: whose network has ``motion`` in its slots; its objective's loss is for the second path, ``debiased`` as a rule.
        motion: a trained module; it stays as it is.
        looks: linear layers of the image model by name (``lora.image_projections``); those that attend to text are left out.
        rank: of the MotionLoRA.
        scope: beginnings of slots' names whose attentions change; all if empty.
        looks_rank: of the change of looks; 0 for ``rank``.

    Raises:
        ValueError: a rank that no layer can have, no layers, or a word of the scope names no slot.
    """
    moving, still = _within(motion, scope), {name: layer for name, layer in looks.items() if TEXT not in name}
    lora = _installed(moving, rank, lesson.settings.seed)
    appearance = _installed(still, looks_rank or rank, frame_seed(lesson.settings.seed, 1, APPEARANCE))
    facts = {"rank": rank, "looks_rank": looks_rank or rank, "scope": list(scope)}
    first = replace(
        lesson,
        network=_telling(lesson.network, {lora: (None, False)}),
        source=single_frames(lesson.source, lesson.settings.seed),
        objective=replace(lesson.objective, loss=LossSettings(space=lesson.objective.loss.space), levels="shared"),
    ).task(named_parameters(appearance=appearance), stage="looks", **facts)
    second = replace(lesson, network=_telling(lesson.network, {appearance: (torch.ones(()), True)})).task(
        named_parameters(lora=lora), stage="MotionLoRA", **facts
    )
    parts = {LORA: lora, APPEARANCE: appearance}
    layers = [*moving.values(), *still.values()]
    return Stage(Together([first, second]), parts, LORA_LAYOUTS, _lora_writer(lora), layers)


def domain_adapter(lesson: Lesson, looks: Mapping[str, nn.Module], rank: int) -> Stage:
    """Train a LoRA of the image model on single frames of the clips, so that a motion module need not learn their looks.

    AnimateDiff (arXiv:2307.04725, Section 4.1): all attention projections; it is left out, or weakened, when clips are made.

    Args:
        lesson: whose network sees each frame by itself: an image model, or one whose motion model rests.
        looks: linear layers of the image model by name (``lora.image_projections``).
        rank: of the changes; the released adapter has 128.

    Raises:
        ValueError: a rank that no layer can have, or no layers.
    """
    branches = _installed(looks, rank, lesson.settings.seed)
    alone = replace(lesson, source=single_frames(lesson.source, lesson.settings.seed))
    task = alone.task(named_parameters(adapter=branches), stage="domain adapter", rank=rank)

    def write(weights: Mapping[str, Tensor], layout: str) -> State:  # noqa: ARG001  there is one layout
        deltas = deltas_of(branches, dict(weights), f"{ADAPTER}.")
        return adapter_state({key.removesuffix(".weight"): delta for key, delta in deltas.items()}), {}

    return Stage(task, {ADAPTER: branches}, ("AnimateDiff",), write, list(looks.values()))


def image_model(lesson: Lesson, unet: nn.Module) -> Stage:
    """Train an image model from the weights that it has on single frames: what a motion module can later be trained for.

    Args:
        lesson: whose network is the image model.
        unet: what is trained, its weights in float32.
    """
    unet.train().requires_grad_(True)
    alone = replace(lesson, source=single_frames(lesson.source, lesson.settings.seed))
    task = alone.task(named_parameters(unet=unet), stage="image model")

    def write(weights: Mapping[str, Tensor], layout: str) -> State:  # noqa: ARG001  there is one layout
        return {name.removeprefix("unet."): value for name, value in weights.items()}, {}

    return Stage(task, {}, (OWN,), write)


def single_frames(source: Source, seed: int) -> Source:
    """One random frame of each clip, as a clip of one frame with the clip's conditions.

    Args:
        source: of clips.
        seed: which frames; the same one gives the same frames, however a batch is cut up.
    """

    def drawn(step: int, places: range) -> Batch:
        batch = source(step, places)
        frames = batch.clips.shape[1] - batch.images
        chosen = [frame_seed(seed, place, f"single frame {step}") % frames for place in places]
        pick = lambda values, axis: torch.stack([row.select(axis, at) for row, at in zip(values, chosen, strict=True)])  # noqa: E731
        context, labels = batch.context, batch.labels
        return replace(
            batch,
            clips=pick(batch.clips, 0)[:, None],
            images=0,
            context=pick(context, 0) if context is not None and context.ndim == 4 else context,
            labels=pick(labels, 0) if labels is not None and labels.ndim == 3 else labels,
        )

    return drawn


def _within(motion: MotionModel, scope: Sequence[str]) -> dict[str, nn.Module]:
    """The attention projections of those slots; the motion model does not train. Refuses slots that are not there."""
    frozen(scoped(motion, scope))
    return {name: layer for name, layer in motion_projections(motion).items() if name.startswith(tuple(scope) or "")}


def _installed(layers: Mapping[str, nn.Module], rank: int, seed: int) -> TrainableBranches:
    device = next((parameter.device for layer in layers.values() for parameter in layer.parameters()), torch.device("cpu"))
    branches = trainable_branches(dict(layers), rank, seed, device)
    beside(dict(layers), branches)
    return branches


def _telling(network: Network, told: Mapping[TrainableBranches, tuple[Tensor | None, bool]]) -> Network:
    """The network while branches have another strength, or none, and their weights are constants or not."""

    def run(x: Tensor, sigma: Tensor, batch: Batch) -> Tensor:
        with ExitStack() as stack:
            for branches, (gain, constant) in told.items():
                stack.enter_context(branches.told(gain, constant=constant))
            return network(x, sigma, batch)

    return run


def _lora_writer(branches: TrainableBranches) -> Callable[[Mapping[str, Tensor], str], State]:
    return lambda weights, layout: lora_state(deltas_of(branches, dict(weights), f"{LORA}."), layout)
