"""What a causal model sees in each part of a take: the cache goes through the plan's calls without a network."""

from collections.abc import Iterator
from dataclasses import dataclass

from ..temporal.kv_cache import CacheSettings, KeyValueCache
from .causal import BlockLevels


@dataclass(frozen=True)
class Seen:
    """What calls about the same frames see.

    Attributes:
        ids: the frames that the calls are about.
        frames: all that is cached then, these among them, sink frames first.
        positions: when each of ``frames`` is said to be, counted from the first of ``ids``.
        sinks: how many of ``frames`` never leave.
        again: whether finished frames are shown once more, for another prompt.
        shot: number of the prompt.
        evicted: frames that have left so far.
    """

    ids: range
    frames: tuple[int, ...]
    positions: tuple[float, ...]
    sinks: int
    again: bool
    shot: int
    evicted: int


def seen(plan: BlockLevels, settings: CacheSettings) -> Iterator[Seen]:
    """What each block of a take sees, and each call for another prompt, in their order.

    Args:
        plan: of the take.
        settings: of its cache.

    Raises:
        ValueError: a block has no room in the cache. One sentence.
    """
    cache, before = KeyValueCache(settings), range(0)
    for row in plan.rows(plan.block):
        ids = range(int(row.ids[0]), int(row.ids[-1]) + 1)
        if ids == before:
            continue
        cache.begin(ids, row.shot)
        again, before = ids.start < before.stop, ids
        sinks = min(settings.sinks, len(cache.frames))
        yield Seen(ids, tuple(cache.frames), tuple(cache.positions()), sinks, again, row.shot, cache.evicted)
