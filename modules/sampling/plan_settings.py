"""Schedules as users choose them: for a clip, for its noise levels as an object of their own, and for a take that need not end."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..fields.setting import check, documented, sentences, setting
from .known_frames import known_frames, numbers_of
from .level_matrix import CUSTOM, MATRICES, NAMES, planned
from .noise_levels import EndlessLevels
from .plan import ClipPlan
from .schedules import ENDLESS, SCHEDULES

MENU = {**sentences(SCHEDULES), **sentences(MATRICES), CUSTOM: "The matrix is the one that is written below."}


def schedule(names: Iterable[str]) -> Any:
    """The field ``schedule``, with these to choose from."""
    return setting(
        "pyramid",
        "The schedule says when each frame moves from noise to clean.",
        menu={name: MENU[name] for name in names},
    )


@documented
@dataclass(frozen=True)
class ClipPlanSettings:
    """The schedule of a clip."""

    frames: int = setting(64, "The clip has so many frames, known ones included.", least=1, most=100000)
    schedule: str = schedule(name for name in NAMES if name != CUSTOM)
    steps: int = setting(12, "Each frame takes so many denoising steps from noise to clean.", least=1, most=1000)
    lag: float = setting(
        3.0,
        "A block is so many steps behind its neighbour, and a frame costs so many model calls: small is fast, as large as steps is"
        " autoregressive, 0 is full_sequence.",
        least=0.0,
        most=1000.0,
        step=0.25,
    )
    block: int = setting(1, "So many frames move together.", least=1, most=1024)

    def __post_init__(self) -> None:
        check(self)

    def plan(self, known: int = 0) -> ClipPlan:
        """The plan of a clip that begins with so many known frames."""
        return planned(self.schedule, self.frames, self.steps, lag=self.lag, block=self.block, known=known)


@documented
@dataclass(frozen=True)
class NoiseLevelSettings(ClipPlanSettings):
    """The schedule of a clip, with known frames anywhere, or written out."""

    schedule: str = schedule(NAMES)
    known: int = setting(0, "So many frames at the start are given and stay clean.", least=0, most=100000)
    known_at: str = setting(
        "",
        "Further frames with these numbers are given, such as 0, 16, -1 (the last). A trapezoid fills each gap between them from its ends"
        " inward.",
    )
    custom: str = setting(
        "",
        "For custom, the matrix has a line per model call with the level of every frame, from noise down to 0; the largest is the number of"
        " steps. A line is 3 3 3 or 333, and real numbers do too. Columns of zeros are known frames.",
        multiline=True,
    )
    window: int = setting(
        0,
        "The model sees so many frames at once, for the cost, and for a trapezoid between many known frames, which then fills as many gaps"
        " at a time as fit; 0 is the least.",
        least=0,
        most=100000,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.levels()  # refuses what does not go together

    def levels(self) -> ClipPlan:
        """The plan.

        Raises:
            ValueError: there is no such plan.
        """
        known = self.known_frames() if self.schedule != CUSTOM else numbers_of(self.known_at) or self.known
        numbers = {"lag": self.lag, "block": self.block, "window": self.window}
        return planned(self.schedule, self.frames, self.steps, known=known, text=self.custom, **numbers)

    def known_frames(self) -> Tensor | int:
        """Frames known at the start and elsewhere: ``f``, bool, or how many at the start."""
        numbers = numbers_of(self.known_at)
        if not numbers:
            return self.known
        return known_frames([*range(min(self.known, self.frames)), *numbers], self.frames)


@documented
@dataclass(frozen=True)
class EndlessPlanSettings(ClipPlanSettings):
    """The schedule of a take that need not end."""

    frames: int = setting(
        1000,
        "The take has so many frames, known ones included; 0 goes on until you cancel. A take that was cancelled can be given another"
        " length and goes on.",
        least=0,
        most=100_000_000,
    )
    schedule: str = schedule(ENDLESS)

    def endless(self, known: int) -> EndlessLevels:
        """The plan of a take that begins with so many known frames.

        Raises:
            ValueError: no frame would ever be finished first.
        """
        return EndlessLevels(self.schedule, self.steps, self.lag, self.block, known, self.frames)
