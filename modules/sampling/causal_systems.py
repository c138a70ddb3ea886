"""The published causal systems on Wan's networks, each a row: frames of a block, the levels of its calls, what is cached and where.

Times are those that the authors' networks were told, in thousandths of the noise level; of a warped list 1000, 750, 500, 250 they are
``1000 f(u)`` with ``f(u) = 5u / (1 + 4u)``. To add a system, add its row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from ..fields.setting import check, documented, setting
from ..temporal.kv_cache import SWITCHES, CacheSettings
from .causal import BlockLevels

FOUR = (1000.0, 937.5, 1000 * 5 / 6, 625.0)
TWO = (1000.0, 1000 * 5 / 6)
ONE = (1000.0,)


@dataclass(frozen=True)
class CausalSystem:
    """What a causal model's authors run it with.

    Attributes:
        block: frames in a block.
        times: what the network is told in the calls of a block, falling, 1000 for pure noise.
        cache: what it sees of the past.
        first: times of the first block, where they are others.
        source: paper or repository.
        weights: whose weights it is for, and their licence.
    """

    block: int
    times: tuple[float, ...]
    cache: CacheSettings
    first: tuple[float, ...] = ()
    source: str = ""
    weights: str = ""

    def __post_init__(self) -> None:
        for times in (self.times, self.first):
            falling = all(after < before for before, after in pairwise(times))
            if times and not (times[0] == 1000 and times[-1] > 0 and falling):
                told = ", ".join(f"{time:g}" for time in times)
                raise ValueError(f"the times of a block are {told}: they fall from 1000 and stay above 0")
        if not self.times:
            raise ValueError("a block without times is never made: give at least 1000")

    @property
    def _all_times(self) -> list[float]:
        return sorted({*self.times, *self.first})

    def sigmas(self) -> Tensor:
        """The noise level of each level, 0 first. Returns ``l``."""
        return torch.tensor([0.0, *(time / 1000 for time in self._all_times)])

    def plan(self, frames: int = 0, known: int = 0, prompts: Sequence[int] = ()) -> BlockLevels:
        """The plan of a take.

        Args:
            frames: latent frames; 0 for no end.
            known: how many of them, the first ones, are given.
            prompts: the first frame of each further prompt, the first of a block, rising.
        """
        numbers = {time: place for place, time in enumerate(self._all_times, 1)}
        levels, first = (tuple(numbers[time] for time in times) for times in (self.times, self.first))
        shots = tuple((start, self.cache.shown_again(start)) for start in prompts)
        return BlockLevels(levels, self.block, len(numbers), frames, first, known, shots)


SELF = "Self-Forcing (Wan 2.1 1.3B), Apache-2.0"
CAUSAL = "Causal-Forcing (Wan 2.1 1.3B), Apache-2.0"
SYSTEMS: dict[str, CausalSystem] = {
    "Self-Forcing": CausalSystem(3, FOUR, CacheSettings(21), source="arXiv:2506.08009", weights=SELF),
    "Self-Forcing, sink frames": CausalSystem(3, FOUR, CacheSettings(21, 3), source="arXiv:2506.08009", weights=SELF),
    "Causal-Forcing, chunks": CausalSystem(3, FOUR, CacheSettings(21), source="thu-ml/Causal-Forcing", weights=CAUSAL),
    "Causal-Forcing, frames": CausalSystem(1, FOUR, CacheSettings(21), source="thu-ml/Causal-Forcing", weights=CAUSAL),
    "Causal-Forcing++, 2 steps": CausalSystem(3, TWO, CacheSettings(21), FOUR, "thu-ml/Causal-Forcing", CAUSAL),
    "Causal-Forcing++, 1 step": CausalSystem(3, ONE, CacheSettings(21), FOUR, "thu-ml/Causal-Forcing", CAUSAL),
    "LongLive 1.0": CausalSystem(
        3,
        FOUR,
        CacheSettings(12, 3),
        source="NVlabs/LongLive",
        weights="LongLive 1.0 (Wan 2.1 1.3B with its LoRA), see its repository",
    ),
    "LongLive infinity": CausalSystem(
        3,
        FOUR,
        CacheSettings(12, 3, "window"),
        source="NVlabs/LongLive",
        weights="LongLive 1.0 infinity (Wan 2.1 1.3B with its LoRA), see its repository",
    ),
    "Infinity-RoPE": CausalSystem(
        3, FOUR, CacheSettings(6, 1, "window", "flush"), source="yesiltepe-hidir/infinity-rope", weights=SELF
    ),
}
AS_SYSTEM = "as the system"


@documented
@dataclass(frozen=True)
class CausalSettings:
    """Which system a take is made with, and what of it is changed."""

    system: str = setting(
        "Self-Forcing",
        "The system is the published one whose weights the model has: it says how many frames a block has, its steps, and what is"
        " cached.",
        menu={
            name: f"Blocks have {row.block} frames and {len(row.times)} steps; it is for {row.weights}."
            for name, row in SYSTEMS.items()
        },
    )
    room: int = setting(
        0,
        "The room is how many latent frames are cached, the present block among them; 0 is the system's. More room sees more of the"
        " past and takes more memory.",
        least=0,
        most=1000,
        aliases=("local_attn_size",),
        advanced=True,
    )
    sink_frames: int = setting(
        -1,
        "The sink frames are the first frames of the take, which are never dropped from the cache; -1 is the system's number.",
        least=-1,
        most=1000,
        aliases=("sink_size",),
        advanced=True,
    )
    positions: str = setting(
        AS_SYSTEM,
        "The positions say where in time the network is told that cached frames are.",
        menu={
            AS_SYSTEM: "They are where the system has them.",
            "absolute": "Each is at its own number.",
            "window": "They stand one after the other, whatever was between them.",
            "adjoining": "Sink frames lie right before the oldest other frame.",
        },
        advanced=True,
    )
    switch: str = setting(
        AS_SYSTEM,
        "The switch says what happens to what is cached when another prompt begins.",
        menu={AS_SYSTEM: "It does what the system does.", **SWITCHES},
        aliases=("recache",),
    )
    fps: float = setting(
        16.0,
        "The frame rate is that of the pictures, by which times of prompts are counted; Wan 2.1 makes 16 a second, Wan 2.2 5B 24.",
        least=1.0,
        most=240.0,
        step=1.0,
        advanced=True,
    )
    context_noise: float = setting(
        0.0,
        "The context noise is the noise level that the network is told finished blocks have; nothing is added to them.",
        least=0.0,
        most=1.0,
        step=0.01,
        advanced=True,
    )

    def __post_init__(self) -> None:
        check(self)

    def chosen(self) -> CausalSystem:
        """The system with what is changed of it.

        Raises:
            ValueError: the cache has no room for what is asked, see ``CacheSettings``.
        """
        system = SYSTEMS[self.system]
        cache = CacheSettings(
            self.room or system.cache.room,
            system.cache.sinks if self.sink_frames < 0 else self.sink_frames,
            system.cache.positions if self.positions == AS_SYSTEM else self.positions,
            system.cache.switch if self.switch == AS_SYSTEM else self.switch,
        )
        return replace(system, cache=cache)
