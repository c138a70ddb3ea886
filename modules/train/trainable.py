"""What is trained: a task for the engine, and the file that becomes of its weights.

A trainable in a frozen model knows nothing of the network but how to call it, so native models and models of a host train alike::

    context = TaskContext(network, source, schedule, objective, settings, {"base": "the file's name and what else must agree"})
    trainable = motion_module(context, motion)                         # ``network`` has ``motion`` in its slots
    run = Run(trainable.task, settings, checkpoint)
    for step in train(run): ...
    tensors, metadata = trainable.file(run.weights(), "AnimateDiff")   # for ``checkpoints.export.save``

``network`` is called with noisy clips ``n f c h w``, sigmas ``n f`` and the batch, and returns clean clips in the same coordinates
(``denoising.Network``); its frozen weights are the caller's business, and so is the motion model's ``during``. Branches are put on layers
by shadowing their ``forward`` (``temporal/slots.py``): fill a U-Net's slots before a trainable is made, not after, since filling empties
them. Gradient checkpointing counts ``Trainable.holders`` among those whose attributes are remembered (``gradients.checkpointed``).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints.export import save, save_diffusers_adapter
from ..checkpoints.motion_lora import LowRank
from ..data.clips import ClipDataset
from ..noise.levels import NoiseSchedule
from .about_file import metadata_of
from .denoising import Network, Objective, Source
from .held_out import Shown
from .lora import TrainableBranches, deltas_of
from .settings import RunSettings
from .task import Denoising, Task

MOTION, LORA, APPEARANCE, ADAPTER = "motion", "lora", "appearance", "adapter"  # what names of parameters begin with
OWN = "LongTake"  # a file with a network's own keys
DIFFUSERS, PEFT = "diffusers", "PEFT"
FOLDER = "/diffusion_pytorch_model.safetensors"  # where diffusers looks for weights below the name that it is given
Weights = Mapping[str, Tensor]  # by parameter name
State = tuple[dict[str, Tensor], dict[str, str]]  # tensors and metadata of a file


@dataclass(frozen=True)
class TaskContext:
    """What a trainable is given, whatever it is.

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
        """The task of training these parameters; ``facts`` are added to the context's."""
        return Denoising(
            self.network,
            parameters,
            self.source,
            self.objective,
            self.schedule,
            self.settings,
            {**self.facts, **facts},
        )


def known_of(dataset: ClipDataset) -> dict[str, Any]:
    """What a finished file says of the clips that it was made of; JSON-able."""
    about = dataset.settings
    return {
        "trigger": about.caption_before.strip(),
        "size": f"{about.width}x{about.height}",
        "frames": about.frames,
        "clips": len(dataset),
    }


@dataclass(frozen=True, eq=False)
class Trainable:
    """A task, and what becomes of its weights.

    Attributes:
        what: a name in ``tasks.TRAINABLES``.
        task: for ``engine.Run``.
        settings: of the run.
        write: (weights, file format, what is known of the run) -> tensors and metadata of the file.
        file_formats: the first is the usual one.
        branches: low-rank changes that train, by what their parameters' names begin with.
        layers: that the branches were put on.
        told: what else is told things for the length of a call.
        adapter_config: ``config.json`` of diffusers' ``MotionAdapter``, for a motion module.
        watched: whose temporal attentions are looked at; None for nobody's.
        sampled: what makes pictures, ``f h w c`` in 0..1, by weights; None where nothing was said of samples.
        data: says what was wrong with the clips.
        known: what the file says of the clips, JSON-able.
        shown: the source of the task, where some of its clips are not trained on.
    """

    what: str
    task: Task
    settings: RunSettings
    write: Callable[[Weights, str, Mapping[str, Any]], State]
    file_formats: tuple[str, ...]
    branches: Mapping[str, TrainableBranches] = field(default_factory=dict)
    layers: Sequence[nn.Module] = ()
    told: Sequence[Any] = ()
    adapter_config: Mapping[str, Any] | None = None
    watched: nn.Module | None = None
    sampled: Callable[[Weights], Tensor] | None = None
    data: Callable[[], str] = lambda: ""
    known: Mapping[str, Any] = field(default_factory=dict)
    shown: Shown | None = None

    @property
    def holders(self) -> list[Any]:
        """What is told things for the length of a call."""
        return [*self.branches.values(), *self.told]

    def file(self, weights: Weights, file_format: str = "", about: Mapping[str, Any] | None = None) -> State:
        """Tensors and metadata of the file that others read.

        Args:
            weights: of the run (``engine.Run.weights``).
            file_format: one of ``file_formats``; empty for the first.
            about: what is known of the run, such as its ``steps``.

        Raises:
            ValueError: the format is none of them.
        """
        file_format = file_format or self.file_formats[0]
        if file_format not in self.file_formats:
            raise ValueError(f"the file format {file_format!r} is not known here: choose one of {', '.join(self.file_formats)}")
        return self.write(weights, file_format, about or {})

    def written_as(self, file_format: str) -> tuple[str, str]:
        """What a user's wish for a format comes to here: the format, and what is added to a stem to name the file with the weights."""
        if file_format == DIFFUSERS and file_format not in self.file_formats:
            file_format = PEFT
        chosen = file_format if file_format in self.file_formats else self.file_formats[0]
        return chosen, FOLDER if chosen == DIFFUSERS and self.adapter_config is not None else ".safetensors"

    def save(self, stem: Path, weights: Weights, file_format: str, dtype: torch.dtype | None, about: Mapping[str, Any]) -> Path:
        """Write the finished file, or diffusers' folder. Returns where the weights are.

        Args:
            stem: of the file, without an ending; what is there is replaced (``run_files.free`` finds one that may be).
            weights: of the run.
            file_format: what is wanted; where this trainable has none of that name, its nearest.
            dtype: of the file; None for that of the weights.
            about: see ``file``.

        Raises:
            ValueError: it cannot be written.
        """
        chosen, suffix = self.written_as(file_format)
        state, metadata = self.file(weights, chosen, about)
        metadata = metadata | metadata_of(self.what, {**self.known, **about}, self.task.description())
        path = Path(f"{stem}{suffix}")
        if suffix == FOLDER:
            state = {key: value.to(dtype or value.dtype) for key, value in state.items()}
            save_diffusers_adapter(stem, state, self.adapter_config or {}, metadata)
        else:
            save(path, state, metadata, dtype)
        return path

    def deltas(self, weights: Weights, part: str = LORA) -> dict[str, LowRank]:
        """The low-rank changes by weight key: of ``lora``, ``appearance`` or ``adapter``.

        Raises:
            ValueError: this trainable has no such part.
        """
        if part not in self.branches:
            raise ValueError(f"no {part} is trained here: there is {', '.join(self.branches) or 'no low-rank change'}")
        return deltas_of(self.branches[part], dict(weights), f"{part}.")

    @contextmanager
    def with_weights(self, weights: Weights | None = None, strength: float = 1.0) -> Iterator[None]:
        """While open, what trains has these weights, such as the averaged ones, and low-rank changes this strength; for samples.

        A change of looks that is trained beside a MotionLoRA rests meanwhile: it is not part of what is kept.

        Args:
            weights: by parameter name; None for the present ones.
            strength: of the low-rank changes; 1 as trained, 0 nothing, below 0 subtracted.
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
