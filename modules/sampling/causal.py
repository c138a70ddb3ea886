"""Blocks of frames one after the other, for models that keep keys and values of what they have seen: Self-Forcing and its like.

A block starts from noise and takes a few steps with fresh noise in each; then the finished block is shown once more, so that what is
cached of it is that of clean frames (Self-Forcing, arXiv:2506.08009, Algorithm 2). A call shows nothing but its block: the past is in the
cache (``temporal/kv_cache.py``).
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .context_noise import ContextNoise
from .extent import Extent
from .job import Job, Step
from .plan import Row
from .rollout import Rollout, collected, rollout


@dataclass(frozen=True)
class BlockLevels:
    """A plan of blocks: each is taken down a list of levels, and shown clean at its end.

    Attributes:
        levels: of the calls of a block, falling; clean follows.
        block: frames in a block.
        steps: the level of pure noise, with which each block's levels begin.
        frames: of the clip, given ones included; 0 for no end.
        first: levels of the first block that is made; empty for those of all.
        known: frames that are given at the start; each of their blocks is shown once.
        shots: the first frame of each further prompt, the first of a block, and the frames before it that are shown once more with it.
    """

    levels: tuple[int, ...]
    block: int
    steps: int
    frames: int = 0
    first: tuple[int, ...] = ()
    known: int = 0
    shots: tuple[tuple[int, range], ...] = ()

    def __post_init__(self) -> None:
        if self.block < 1:
            raise ValueError(f"block is {self.block}: a block has at least 1 frame")
        for levels in (self.levels, *([self.first] if self.first else [])):
            falling = all(after < before for before, after in pairwise(levels))
            if not levels or levels[0] != self.steps or levels[-1] < 1 or not falling:
                raise ValueError(
                    f"the levels of a block are {', '.join(map(str, levels)) or 'none'}: they fall from {self.steps}, pure noise, to 1"
                )
        for what, number in (("frames", self.frames), ("known", self.known)):
            if number < 0 or number % self.block:
                nearest = max(self.block, round(number / self.block) * self.block)
                raise ValueError(f"{what} is {number} and a block has {self.block} frames: use whole blocks, such as {nearest}")
        if self.frames and self.known >= self.frames:
            raise ValueError(f"{self.known} of {self.frames} frames are given: nothing is left to make")
        for before, (start, _) in pairwise(((0, range(0)), *self.shots)):
            if start % self.block or start <= before[0]:
                raise ValueError(
                    f"prompts begin at frames {before[0]} and {start}: they follow each other, each at a block's first frame"
                )

    @property
    def rows_total(self) -> int:
        """Model calls in all; 0 for no end."""
        return self._counted

    @cached_property
    def _counted(self) -> int:
        return sum(1 for _ in self._calls()) if self.frames else 0

    @property
    def widest(self) -> int:
        """Most frames in a call."""
        return max([self.block, *(len(again) for _, again in self.shots)])

    def extent(self, window: int, sink_frames: int = 0, *, ahead: bool = True) -> Extent:  # noqa: ARG002  as of all plans
        """As ``Plan.extent``: a block knows nothing of those behind it."""
        levels = {
            "levels": str(self.levels),
            "first": str(self.first),
            "shots": str(self.shots),
        }
        return Extent(
            {**levels, "block": self.block, "steps": self.steps, "known": self.known}, self.frames, self.rows_total or None
        )

    def is_known(self, ids: Tensor) -> Tensor:
        """Which frames are given: ``ids``: ``n``. Returns ``n``, bool."""
        return (ids >= 0) & (ids < self.known)

    def in_flight(self) -> int:
        """Frames that a call moves."""
        return self.block

    def rows(self, window: int, sink_frames: int = 0, start: int = 0, *, ahead: bool = True) -> Iterator[Row]:  # noqa: ARG002  of all plans
        """The calls from number ``start`` on.

        Raises:
            ValueError: a call's window is shorter than a block, or sink frames are asked of the window; the cache has its own.
        """
        if window < self.block:
            raise ValueError(f"the window holds {window} frames and a block has {self.block}: use a window of {self.block}")
        if sink_frames:
            raise ValueError(
                f"sink_frames is {sink_frames}: a causal model's sink frames are in its cache; set those there, and these to 0"
            )
        return map(self._row, islice(self._calls(), start, None))

    def _row(self, call: "Call") -> Row:
        ids = torch.arange(call.ids.start, call.ids.stop)
        levels = (torch.full_like(ids, level) for level in (call.before, call.after))
        return Row(ids, *levels, keep=max(0, call.keep), shot=call.shot)

    def _calls(self) -> Iterator["Call"]:
        shots = dict(self.shots)
        longest, shot = max((len(again) for again in shots.values()), default=0), 0
        for first in count(0, self.block):
            if self.frames and first >= self.frames:
                return
            keep = first - longest
            if first in shots:
                shot += 1
                if shots[first]:
                    yield Call(shots[first], 0, 0, keep, shot)
            ids = range(first, first + self.block)
            levels = () if first < self.known else self.first if self.first and first == self.known else self.levels
            for before, after in pairwise((*levels, 0, 0)):
                yield Call(ids, before, after, keep, shot)


class Call(NamedTuple):
    """A call of the model: all of its frames go from one level to one other.

    Attributes:
        ids: its frames.
        before, after: their levels.
        keep: see ``Row``.
        shot: number of the prompt.
    """

    ids: range
    before: int
    after: int
    keep: int
    shot: int


@dataclass(frozen=True)
class CausalTake(Rollout):
    """A clip in blocks as hosts run it, an ``Algorithm``: fresh noise in each step, the finished block shown once more.

    Attributes:
        plan: of its blocks.
    """

    plan: BlockLevels

    @classmethod
    def of(cls, plan: BlockLevels, context_noise: float = 0.0) -> "CausalTake":
        """One whose finished blocks are shown as if they had noise of that sigma, which is told and not added."""
        return cls(plan, plan.block, order="renoise", context_noise=ContextNoise(context_noise, "label"))

    def shown(self, frames: int, trained: int) -> int:  # noqa: ARG002  what hosts ask of an algorithm
        """Most frames in a call."""
        return self.plan.widest

    def __call__(self, job: Job) -> Generator[Step, None, Tensor]:
        """Run it; the known frames of the job's latent come first.

        Raises:
            ValueError: the latent has another length than the plan.
        """
        if len(job.latent) != self.plan.frames:
            raise ValueError(f"the latent has {len(job.latent)} frames and the plan is for {self.plan.frames}: make them equal")
        return collected(job, rollout(job, self, job.state), job.latent)
