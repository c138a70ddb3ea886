"""How far a plan goes, for takes that are interrupted and go on, or are made longer later."""

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Extent:
    """How far a plan goes, and what it hangs on besides: of two that differ in their end alone, the first rows are the same.

    Attributes:
        facts: what the rows hang on besides the plan's end, JSON-able; lists go on with the clip.
        frames: length of the clip, known frames included; 0 for no end.
        open_rows: rows that are the same whatever comes after the clip's end; None for all.
        in_flight: see ``Plan.in_flight``; a clip that is shorter than the schedule's own has other rows from the first one on.
    """

    facts: Mapping[str, Any]
    frames: int
    open_rows: int | None = 0
    in_flight: int = 0

    def differing(self, other: "Extent") -> list[str]:
        """Names of the facts that are not the same in another plan, as far as both go."""
        return [name for name in self.facts if not agree(self.facts[name], other.facts.get(name))]

    def shared(self, other: "Extent") -> float:
        """How many rows are the same in another plan of the same facts."""
        if self.frames == other.frames:
            return math.inf
        if self.in_flight != other.in_flight:
            return 0
        return min(math.inf if item.open_rows is None else item.open_rows for item in (self, other))


def agree(one: Any, other: Any) -> bool:
    """Whether two facts are the same, lists as far as both go."""
    if isinstance(one, list) and isinstance(other, list):
        return all(map(operator.eq, one, other))
    return one == other
