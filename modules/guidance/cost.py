"""What a sampling costs, before it begins: how often the model is called, what each call is made into, and whether gradients go through it.

A sampler says its calls itself (``job.Counted``); what a guide makes of a call is a row of ``ROWS``. All is counted and nothing is
measured: how long a call takes only the machine knows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..sampling.job import Algorithm, Counted
from ..sampling.model_view import Guide
from ..temporal.gradients import Gradients
from .goals import GoalGuidance
from .history import HistoryGuidance
from .reconstruction import ReconstructionGuidance
from .steering import asked_by, parts_of


class Asked(NamedTuple):
    """What a guide makes of a call: how often it asks for a guess, whether gradients go back through each, and its name for that."""

    times: int = 1
    gradients: bool = False
    name: str = ""


def of_history(guide: HistoryGuidance) -> Asked:
    """Its variants are guesses of their own."""
    return Asked(guide.variants_at_most, name="history guidance")


def of_reconstruction(guide: ReconstructionGuidance) -> Asked:
    """It needs the gradient of the guess."""
    return Asked(gradients=True, name="reconstruction guidance") if guide.weight else Asked()


def of_goal(guide: GoalGuidance) -> Asked:
    """Every continuation is a guess with its gradient."""
    return Asked(guide.futures, gradients=True, name="goal guidance") if guide.weight else Asked()


# by kind of guide; one that is not named here asks once
ROWS: dict[type, Callable[[Any], Asked]] = {
    HistoryGuidance: of_history,
    ReconstructionGuidance: of_reconstruction,
    GoalGuidance: of_goal,
}


@dataclass(frozen=True)
class SamplingCost:
    """What a sampling costs at most.

    Attributes:
        calls: of the sampler; 0 where it has no end, None where the sampler does not say.
        frames: of the clip; 0 where it has no end.
        shown: frames in a call.
        conditions: that each guess is made of: 2 with CFG.
        guesses: that each call is made into.
        backwards: times that gradients go back in each call.
        windows: windows of the whole model that a guess is made of.
        asking: names of the guides that make more of a call.
        gradients: what guides ask of the host; None where none asks for gradients.
        further: what the host knows besides, a sentence each, such as the memory.
    """

    calls: int | None
    frames: int
    shown: int
    conditions: int = 1
    guesses: int = 1
    backwards: int = 0
    windows: int = 1
    asking: tuple[str, ...] = ()
    gradients: Gradients | None = None
    further: tuple[str, ...] = ()

    @property
    def passes(self) -> int:
        """Clips of ``shown`` frames that go through the network for each call of the sampler."""
        again = self.backwards if self.gradients is not None and self.gradients.conditional and self.conditions > 1 else 0
        return self.windows * (self.conditions * self.guesses + again)

    def lines(self) -> list[str]:
        """The same in words."""
        count = "a number of" if self.calls is None else f"{self.calls}" if self.calls else "an endless number of"
        pace = f", {self.calls / self.frames:.3g} per frame" if self.calls and self.frames else ""
        made = [f"{self.conditions} conditions"] if self.conditions > 1 else []
        made += [f"{self.guesses} guesses ({', '.join(self.asking)})"] if self.guesses > 1 else []
        made += [f"{self.windows} windows"] if self.windows > 1 else []
        each = f"; each is {' x '.join(made)}, {self.passes} passes of the network" if made else ""
        return [f"cost: {count} model calls of up to {self.shown} frames{pace}{each}", self._gradients(), *self.further]

    def _gradients(self) -> str:
        if not self.backwards:
            return "gradients: none"
        again = " and layers computed twice (gradient_checkpointing)"
        twice = again if self.gradients is not None and self.gradients.gradient_checkpointing else ""
        return (
            f"gradients: {self.backwards} times back through the network in each call{twice}, for {' and '.join(self.asking)};"
            " weight 0 does without"
        )


def cost_of(
    algorithm: Algorithm, guide: Guide, *, frames: int, steps: int, trained: int = 0, conditions: int = 1, windows: int = 1
) -> SamplingCost:
    """What a sampling costs.

    Args:
        algorithm: the sampler.
        guide: what is done around the model.
        frames: of the latent.
        steps: of each frame.
        trained: frames that the model was trained on; 0 where it does not say.
        conditions: 2 with CFG, 1 without.
        windows: windows of the whole model that a guess is made of.
    """
    guesses, backwards, asking = 1, 0, []
    for part in parts_of(guide):  # the outermost first, which asks the next for each of its guesses
        asked = next((row(part) for kind, row in ROWS.items() if isinstance(part, kind)), Asked())
        guesses *= asked.times
        backwards += guesses if asked.gradients else 0
        asking += [asked.name] if asked.name else []
    shown = getattr(algorithm, "shown", None)
    length = getattr(algorithm, "frames", None)
    return SamplingCost(
        algorithm.calls(frames, steps, trained) if isinstance(algorithm, Counted) else None,
        frames if length is None else length,
        frames if shown is None else shown(frames, trained),
        conditions,
        guesses,
        backwards,
        windows,
        tuple(asking),
        asked_by(guide),
    )
