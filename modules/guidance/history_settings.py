"""History guidance as users have it: a preset, and the numbers that its branches are made of.

To add a preset, add its row to ``PRESETS``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ..fields.setting import check, documented, setting
from .branches import Branch, fractional, items_of, read_branches, temporal, vanilla


class Preset(NamedTuple):
    """A sentence, and the branches for some settings."""

    text: str
    branches: "Callable[[HistorySettings], tuple[Branch, ...]]"


PRESETS = {
    "vanilla": Preset("It leads away from the guess without history.", lambda of: vanilla(of.weight, of.context_noise, of.given)),
    "fractional": Preset(
        "It does the same, but leads away only as far as a noisy history says, which keeps motion.",
        lambda of: fractional(of.weight, of.level, of.context_noise, of.given),
    ),
    "temporal": Preset(
        "Several parts of the history, named in branches, count each by itself.",
        lambda of: temporal(of.parts, [of.weight / len(of.parts)] * len(of.parts), of.context_noise, of.given),
    ),
    "custom": Preset("What branches says is done.", lambda of: read_branches(of.branches)),
}


@documented
@dataclass(frozen=True)
class HistorySettings:
    """Which branches are combined, and which new frames are guessed together."""

    preset: str = setting(
        "vanilla", "The preset says how the history leads the new frames.", menu={name: row.text for name, row in PRESETS.items()}
    )
    weight: float = setting(
        1.5,
        "The weight says how firmly the history leads; 1 is off, 1.5 to 4 are usual. It is not for custom, where every branch has one.",
        least=0.0,
        most=100.0,
        step=0.1,
    )
    level: float = setting(
        0.8,
        "For fractional, the history that leads is so noisy: 0 is clean, 1 is all noise, and 0.4 to 0.8 are usual.",
        least=0.0,
        most=1.0,
        step=0.01,
    )
    context_noise: float = setting(
        0.0,
        "The history is shown with so much noise, so that its own errors do not count: 0 is none, 1 is all noise, and 0.02 is DFoT's in"
        " stabilized_vanilla and stabilized_fractional. It is not for custom, where branches say it.",
        least=0.0,
        most=1.0,
        step=0.01,
        aliases=("stabilization level",),
    )
    generated_only: bool = setting(
        True,
        "Context noise is for frames that were generated, as in DFoT, and given ones stay clean. When it is off, it is for all.",
    )
    branches: str = setting(
        "all:1.5, none:-0.5",
        "For custom, branches are frames@level:weight, divided by commas. Frames are all, none, last 4, first 4, or numbers such as 0..3+8;"
        " negative ones count back from the newest finished frame, h0 is the oldest in the window. What is missing to a sum of 1 goes to"
        " none. For temporal, they are frames only, such as h0..h2, h1..h3, and share the weight.",
    )
    segments: str = setting(
        "all",
        "Segments are the new frames that are guessed together while the others are hidden: all, or parts that may overlap such as 0..2,"
        " 1..3, counted from the oldest. A frame in several is their mean. Each is a guess of its own.",
    )

    def __post_init__(self) -> None:
        check(self)
        self.chosen()
        items_of(self.segments)

    @property
    def given(self) -> float | None:
        """The context noise of given frames; None for that of the others."""
        return 0.0 if self.generated_only else None

    @property
    def parts(self) -> tuple[str, ...]:
        """The frames of ``temporal``.

        Raises:
            ValueError: they have weights, as those of ``custom`` have.
        """
        parts = items_of(self.branches)
        if not parts or any(":" in part for part in parts):
            raise ValueError(
                f"the branches {self.branches!r} are for custom: for temporal write frames alone, such as all, last 4 or h0..h2, h1..h3"
            )
        return parts

    def chosen(self) -> tuple[Branch, ...]:
        """The branches.

        Raises:
            ValueError: they cannot be read.
        """
        return PRESETS[self.preset].branches(self)
