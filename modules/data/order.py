"""In which order the sources come: a pass takes every one once, in batches of one size.

The order is sorted by numbers drawn for each source, so it needs no random state and is the same on every machine. Where the clips of a
size do not divide evenly, the last batch is filled up from the start of that size's order.
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence

from ..noise.seeded import frame_seed


def steps_in_a_pass(sizes: Sequence[Hashable], batch: int) -> int:
    """Steps until every source was seen.

    >>> steps_in_a_pass(["wide", "wide", "wide", "tall"], 2)
    3
    """
    return sum(math.ceil(count / batch) for count in Counter(sizes).values())


def batches_of_a_pass(sizes: Sequence[Hashable], batch: int, seed: int, number: int) -> list[list[int]]:
    """The sources of each batch of one pass.

    Args:
        sizes: of the sources' clips; a batch is of one.
        batch: sources in a batch.
        seed: of the order.
        number: of the pass, from 0.
    """
    batches = []
    for size in dict.fromkeys(sizes):
        members = [source for source, own in enumerate(sizes) if own == size]
        members.sort(key=lambda source: frame_seed(seed, number, f"order {source}"))
        firsts = range(0, len(members), batch)
        batches += [[members[(first + place) % len(members)] for place in range(batch)] for first in firsts]
    drawn = {index: frame_seed(seed, number, f"batch {index}") for index in range(len(batches))}
    return [batches[index] for index in sorted(drawn, key=drawn.__getitem__)]
