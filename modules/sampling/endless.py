"""Takes without an end: each row's finished frames are handed on at once, and what is kept fits a window.

What a take needs to go on is a ``State``: the number of the next row and the frames of the last window. From it the same frames are made
as if nothing had happened, since noise depends on frame numbers alone and a row on its number (``noise_levels.EndlessLevels``).
"""

from collections.abc import Generator
from dataclasses import dataclass

from torch import Tensor

from .job import Job, Step
from .noise_levels import EndlessLevels
from .rollout import Rollout, last_frames, rollout


@dataclass(frozen=True)
class Endless(Rollout):
    """The rollout of a take as hosts run it, an ``Algorithm``: each step has the ``State`` that the take goes on from.

    Attributes:
        plan: when each frame moves.
    """

    plan: EndlessLevels

    @property
    def frames(self) -> int:
        """Length of the take, whatever that of the latent; 0 for no end."""
        return self.plan.frames

    def shown(self, frames: int, trained: int) -> int:
        """Most frames in a call, on a model that was trained on so many."""
        return self.window or trained or frames

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
        return last_frames(rollout(job, self, job.state))
