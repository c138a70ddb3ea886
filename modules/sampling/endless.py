"""Takes without an end: each row's finished frames are handed on at once, and what is kept fits a window.

What a take needs to go on is a ``State``: the number of the next row and the frames of the last window. From it the same frames are made
as if nothing had happened, since noise depends on frame numbers alone and a row on its number (``noise_levels.EndlessLevels``).
"""

from collections.abc import Generator
from dataclasses import dataclass

from torch import Tensor

from .job import Job, State, Step
from .noise_levels import FAR, EndlessLevels
from .rollout import Rollout, rollout


@dataclass(frozen=True)
class Endless(Rollout):
    """The rollout of a take as hosts run it, an ``Algorithm``: each step has the ``State`` that the take goes on from.

    Attributes:
        plan: when each frame moves.
        state: where the take is; None before it begins.
    """

    plan: EndlessLevels
    state: State | None = None

    @property
    def done(self) -> bool:
        """Whether the take has an end and has come to it."""
        return bool(self.plan.frames) and self.state is not None and self.state.row >= self.plan.rows_total

    def continues(self, before: EndlessLevels) -> bool:
        """Whether all that has been done so far is what a plan that ends elsewhere would have done: ``before`` is that plan."""
        window = self.window or FAR  # whatever the model's own length is
        return self.state is None or self.plan.continues(before, self.state.row, window, self.sink_frames)

    def __call__(self, job: Job) -> Generator[Step, None, Tensor]:
        """Generate frames until the plan ends, or for as long as somebody asks.

        Args:
            job: the known frames of its latent come first, as many as the plan says; its last frame is what new ones begin from, under
                noise: zeros for nothing.

        Returns:
            x: ``n ...``, the frames of the last window.
        """
        if len(job.latent) <= self.plan.known:
            raise ValueError(
                f"the latent has {len(job.latent)} frames and {self.plan.known} are known: it needs one more, from which new frames begin"
            )
        return _last_frames(rollout(job, self, self.state))


def _last_frames(steps: Generator[Step, None, State]) -> Generator[Step, None, Tensor]:
    return (yield from steps).x
