"""Blocks of frames one after the other, for models that keep keys and values of what they have seen: Self-Forcing and its like.

A block starts from noise and takes a few steps with fresh noise in each; then the finished block is shown once more, so that what is
cached of it is that of clean frames (Self-Forcing, arXiv:2506.08009, Algorithm 2). A call shows nothing but its block: the past is in the
cache (``temporal/kv_cache.py``).
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .context_noise import ContextNoise
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
    """

    levels: tuple[int, ...]
    block: int
    steps: int
    frames: int = 0
    first: tuple[int, ...] = ()
    known: int = 0

    def __post_init__(self) -> None:
        if self.block < 1:
            raise ValueError(f"block is {self.block}: a block has at least 1 frame")
        for levels in (self.levels, *([self.first] if self.first else [])):
            falling = all(after < before for before, after in pairwise(levels))
            if not levels or levels[0] != self.steps or levels[-1] < 1 or not falling:
                raise ValueError(
                    f"the levels of a block are {', '.join(map(str, levels)) or 'none'}: they fall from {self.steps}, pure noise, to 1"
                )
        for what, count in (("frames", self.frames), ("known", self.known)):
            if count < 0 or count % self.block:
                nearest = max(self.block, round(count / self.block) * self.block)
                raise ValueError(f"{what} is {count} and a block has {self.block} frames: use whole blocks, such as {nearest}")
        if self.frames and self.known >= self.frames:
            raise ValueError(f"{self.known} of {self.frames} frames are given: nothing is left to make")

    @property
    def rows_total(self) -> int:
        """Model calls in all; 0 for no end."""
        if not self.frames:
            return 0
        return self._given + self._opening + ((self.frames - self.known) // self.block - 1) * self._each

    def is_known(self, ids: Tensor) -> Tensor:
        """Which frames are given: ``ids``: ``n``. Returns ``n``, bool."""
        return (ids >= 0) & (ids < self.known)

    def in_flight(self) -> int:
        """Frames of a call."""
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
        return self._rows(start)

    def _rows(self, number: int) -> Iterator[Row]:
        while not self.rows_total or number < self.rows_total:
            block, before, after = self._at(number)
            ids = torch.arange(block * self.block, (block + 1) * self.block)
            yield Row(ids, torch.full_like(ids, before), torch.full_like(ids, after), keep=int(ids[0]))
            number += 1

    def _at(self, number: int) -> tuple[int, int, int]:
        """The block of a call, and its levels before and after."""
        if number < self._given:
            return number, 0, 0
        number -= self._given
        if number < self._opening:
            block, levels = 0, self.first or self.levels
        else:
            block, number = divmod(number - self._opening, self._each)
            block, levels = block + 1, self.levels
        path = (*levels, 0, 0)
        return self._given + block, path[number], path[number + 1]

    @property
    def _given(self) -> int:
        return self.known // self.block

    @property
    def _opening(self) -> int:
        return len(self.first or self.levels) + 1

    @property
    def _each(self) -> int:
        return len(self.levels) + 1


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
        return self.plan.block

    def __call__(self, job: Job) -> Generator[Step, None, Tensor]:
        """Run it; the known frames of the job's latent come first.

        Raises:
            ValueError: the latent has another length than the plan.
        """
        if len(job.latent) != self.plan.frames:
            raise ValueError(f"the latent has {len(job.latent)} frames and the plan is for {self.plan.frames}: make them equal")
        return collected(rollout(job, self), job.latent)
