"""Tasks for the engine: a network, what of it is trained, where clips come from and what is asked."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from ..noise.levels import NoiseSchedule
from .denoising import Network, Objective, Source, losses
from .settings import RunSettings


class Task(Protocol):
    """What a run trains."""

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """What the optimizer changes, by name; float32."""
        ...

    def losses(self, step: int, places: range) -> Tensor:
        """The loss of each clip at ``places`` of the batch of step ``step``, differentiable. Returns ``n``.

        What it draws depends on the step and the place alone.
        """
        ...

    def description(self) -> dict[str, Any]:
        """What a checkpoint must agree with to be this run's: architecture, data, objective; JSON-able."""
        ...

    def after_step(self, step: int) -> None:
        """Called when the optimizer has moved, such as for a power iteration."""
        ...


@runtime_checkable
class Keeping(Protocol):
    """A task that keeps more than its parameters, such as the directions of sigma-reparametrised weights."""

    def undecayed(self) -> Collection[str]:
        """Names of the parameters that take no weight decay."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What a resumed run needs beside the parameters, by name."""
        ...

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what ``tensors`` gave."""
        ...


class Denoising:
    """Train some parameters of a network to undo noise.

    Args:
        network: what the parameters are part of.
        parameters: by name.
        source: of clips.
        objective: what is asked.
        schedule: noise of the network's timesteps.
        settings: seed and batch are read.
        facts: what a checkpoint must agree with beside the objective; JSON-able.
    """

    def __init__(
        self,
        network: Network,
        parameters: Mapping[str, nn.Parameter],
        source: Source,
        objective: Objective,
        schedule: NoiseSchedule,
        settings: RunSettings,
        facts: Mapping[str, Any],
    ):
        self.network, self._parameters, self.source = network, dict(parameters), source
        self.objective, self.schedule, self.settings = objective, schedule, settings
        self.facts = dict(facts)

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """As the engine wants them."""
        return self._parameters

    def losses(self, step: int, places: range) -> Tensor:
        """The loss of each clip. Returns ``n``."""
        device = next(iter(self._parameters.values())).device
        return losses(
            self.network,
            self.source(step, places).to(device),
            self.objective,
            self.schedule,
            seed=self.settings.seed,
            step=step,
            places=places,
            total=self.settings.batch,
        )

    def description(self) -> dict[str, Any]:
        """Facts and objective."""
        return {**self.facts, "objective": self.objective.facts()}

    def after_step(self, step: int) -> None:
        """Nothing: no part of it follows the weights."""


class Together:
    """Several tasks on the same steps, their losses added: MotionDirector's dual path (arXiv:2310.08465, Section 3.2).

    Args:
        tasks: whose parameters have different names.
    """

    def __init__(self, tasks: Sequence[Denoising]):
        self.tasks = tasks

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """Of all."""
        return {name: parameter for task in self.tasks for name, parameter in task.parameters().items()}

    def losses(self, step: int, places: range) -> Tensor:
        """The sum for each clip. Returns ``n``."""
        return sum((task.losses(step, places) for task in self.tasks[1:]), start=self.tasks[0].losses(step, places))

    def description(self) -> dict[str, Any]:
        """Of each, by its place."""
        return {str(place): task.description() for place, task in enumerate(self.tasks)}

    def after_step(self, step: int) -> None:
        """Tell all."""
        for task in self.tasks:
            task.after_step(step)
