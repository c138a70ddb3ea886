"""Schedules that are written out as a matrix, row by row: what no offsets can say, and what users write themselves.

Levels may lie between whole numbers here, as in AR-Diffusion for text (arXiv:2305.09515); a sampler then goes between the sigmas of the
two levels. To add such a schedule, write a function of frames and steps that gives its matrix, and name it in ``MATRICES``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .extent import Extent
from .known_frames import known_frames
from .noise_levels import NoiseLevels
from .plan import ClipPlan
from .schedules import SCHEDULES, check_schedule

CUSTOM = "custom"


def ar_diffusion(frames: int, steps: int) -> Tensor:
    """It is AR-Diffusion for text: each frame has a speed of its own, the window holds the clip, and lag and block do nothing.

    arXiv:2305.09515, Section 3.2: levels lie on a line between two anchors. One anchor stands still, at frame 2N and level T.
    The other slides with the row t = N + T ... 0: down the levels at place 0, then along the frames at level 0. N is ``frames``, T is
    ``steps``, and the first frame is number 1. Returns ``m f``, float64.
    """
    place = torch.arange(1, frames + 1, dtype=torch.float64)
    t = torch.arange(frames + steps, -1, -1, dtype=torch.float64)[:, None]
    moving_place, moving_level = (frames - t).clamp(0, frames), (t - frames).clamp(0, steps)
    slope = (steps - moving_level) / (2 * frames - moving_place)
    return (slope * (place - moving_place) + moving_level).clamp(0, steps)


MATRICES: dict[str, Callable[[int, int], Tensor]] = {ar_diffusion.__name__: ar_diffusion}
NAMES = (*SCHEDULES, *MATRICES, CUSTOM)  # all there is to choose from


@dataclass(frozen=True)
class LevelMatrix(ClipPlan):
    """A schedule for a clip, written out.

    Attributes:
        levels: ``m f``, every state on the way: whole numbers (int64) or levels in between (float). Frames that are 0 in every row are
            known.
        steps: the level of pure noise.
        waiting: whether frames that have not begun are shown as far as the window reaches.
        known: ``f``, bool, frames that are 0 in every row.

    Raises:
        ValueError: it is not one: see ``check_matrix``.
    """

    levels: Tensor
    steps: int
    waiting: bool = True
    known: Tensor = field(init=False)

    def __post_init__(self) -> None:
        check_matrix(self.levels, self.steps)
        object.__setattr__(self, "known", (self.levels == 0).all(dim=0))

    def extent(self, window: int, sink_frames: int = 0, *, ahead: bool = True) -> Extent:  # noqa: ARG002  as of all plans
        """As ``Plan.extent``: no row is that of a longer clip."""
        return Extent({"noise_levels": str(self.levels.tolist()), "waiting": self.waiting}, self.frames)

    @property
    def rows_total(self) -> int:
        """Rows that move something, each a model call."""
        return len(self.levels) - 1

    def part(self, rows: Tensor, ids: Tensor) -> Tensor:
        """Some rows and columns of the matrix: ``rows``: ``m``, ``ids``: ``f``. Returns ``m f``."""
        return self.levels[rows][:, ids]

    def moves(self) -> Tensor:
        """How many rows move each frame. Returns ``f``."""
        return (self.levels[:-1] != self.levels[1:]).sum(dim=0)

    @property
    def _rising(self) -> bool:
        return bool((self.levels[:, ~self.known].diff(dim=1) >= 0).all())

    def _busy(self) -> tuple[Tensor, Tensor]:
        now, then = self.levels[:-1], self.levels[1:]
        busy = (now != then) | ((now > 0) & (now < self.steps))
        return busy.int().argmax(dim=1), self.frames - 1 - busy.flip(1).int().argmax(dim=1)


def check_matrix(levels: Tensor, steps: int) -> None:
    """Refuse a matrix that no sampler can follow: ``levels``: ``m f``.

    Raises:
        ValueError: one sentence that names the row, the frame and the value.
    """
    if levels.ndim != 2 or len(levels) < 2 or levels.shape[1] < 1:
        raise ValueError(f"a matrix of levels has rows and frames, and at least 2 rows: this one's shape is {list(levels.shape)}")
    if steps < 1:
        raise ValueError(f"steps is {steps}: every frame takes at least 1 step from noise to clean")
    now, then = levels[:-1], levels[1:]
    _refuse(~((levels >= 0) & (levels <= steps)), levels, f"levels lie between 0 (clean) and {steps} (noise)")
    first = (levels[:1] != steps) & (levels[:1] != 0)
    _refuse(first, levels, f"in row 0 every frame is noise, {steps}, or known, 0")
    rises = then > now
    if bool(rises.any()):
        row, frame = rises.nonzero()[0].tolist()
        raise ValueError(
            f"row {row + 1} takes frame {frame} up from {_text(now[row, frame])} to {_text(then[row, frame])}: levels never rise"
        )
    jumps = now - then > 1
    if not levels.is_floating_point() and bool(jumps.any()):
        row, frame = jumps.nonzero()[0].tolist()
        raise ValueError(
            f"row {row + 1} takes frame {frame} from {_text(now[row, frame])} to {_text(then[row, frame])}: whole levels fall by 1 at a"
            " time; for larger steps write levels with a point, such as 3.0"
        )
    idle = (now == then).all(dim=1)
    if bool(idle.any()):
        row = int(idle.nonzero()[0])
        raise ValueError(
            f"row {row + 1} moves no frame (frame 0 stays at {_text(now[row, 0])}): leave it out, it costs a model call"
        )
    last = torch.zeros_like(levels, dtype=torch.bool)
    last[-1] = levels[-1] != 0
    _refuse(last, levels, "in the last row every frame is clean, 0")


def _refuse(wrong: Tensor, levels: Tensor, rule: str) -> None:
    if bool(wrong.any()):
        row, frame = wrong.nonzero()[0].tolist()
        raise ValueError(f"row {row} has frame {frame} at level {_text(levels[row, frame])}: {rule}")


def _text(level: Tensor) -> str:
    return f"{level.item():g}"


def matrix_of(text: str) -> LevelMatrix:
    """A matrix as users write it: rows on lines or between semicolons, levels between spaces or commas.

    Levels below 10 may be written without anything between them, a row in a word; then all rows may stand on one line. Numbers with a
    point make it a matrix of real levels.

    >>> matrix_of("33 23 12 01 00").levels.tolist() == matrix_of("3 3; 2, 3; 1 2; 0 1; 0 0").levels.tolist()
    True

    Raises:
        ValueError: it cannot be read, or ``check_matrix``.
    """
    lines = [line.replace(",", " , ").split() for line in text.replace(";", "\n").splitlines() if line.strip()]
    if not lines:
        raise ValueError("the custom matrix is empty: write a row of levels per model call, such as 33 23 12 01 00")
    if len(lines) == 1 and "," not in lines[0]:
        lines = [[word] for word in lines[0]]
    digits = all(len(line) == 1 and line[0].isdecimal() for line in lines)
    rows = [list(line[0]) if digits else [word for word in line if word != ","] for line in lines]
    for row, words in enumerate(rows):
        if len(words) != len(rows[0]):
            raise ValueError(
                f"row {row} of the custom matrix has {len(words)} levels and row 0 has {len(rows[0])}: one per frame"
            )
    real = any("." in word for words in rows for word in words)
    values = [[_number(word, row, frame, real=real) for frame, word in enumerate(words)] for row, words in enumerate(rows)]
    steps = max(values[0])
    if steps != int(steps):
        raise ValueError(f"row 0 has frame {values[0].index(steps)} at level {steps:g}: the level of noise is a whole number")
    return LevelMatrix(torch.tensor(values, dtype=torch.float64 if real else torch.int64), int(steps))


def _number(word: str, row: int, frame: int, *, real: bool) -> float:
    try:
        value = float(word) if real else int(word)
    except ValueError:
        raise ValueError(f"row {row} has frame {frame} at level {word!r}: write numbers between spaces or commas") from None
    if not abs(value) <= 100_000:  # nor is it nan
        raise ValueError(
            f"row {row} has frame {frame} at level {word}: levels lie between 0 (clean) and the steps that a frame takes"
        )
    return value


def planned(
    name: str,
    frames: int,
    steps: int,
    *,
    lag: float = 1.0,
    block: int = 1,
    known: int | Sequence[int] | Tensor = 0,
    window: int = 0,
    text: str = "",
) -> ClipPlan:
    """A schedule by any of ``NAMES``.

    Args:
        name: of the schedule.
        frames: length of the clip; a custom matrix has its own.
        steps: of each frame; likewise.
        lag: see ``schedules.py``.
        block: the same.
        known: see ``known_frames``; of a custom matrix, the frames that are 0 in every row.
        window: see ``schedules.between``.
        text: the custom matrix.

    Raises:
        ValueError: one sentence.
    """
    if name == CUSTOM:
        return _custom(text, known)
    if name not in MATRICES:
        return NoiseLevels.named(name, frames, steps, lag=lag, block=block, known=known, window=window)
    check_schedule("full_sequence", frames, steps, lag, block)
    mask = known_frames(known, frames)
    own = MATRICES[name](int((~mask).sum()), steps)
    levels = own.new_zeros(len(own), frames)
    levels[:, ~mask] = own
    return LevelMatrix(levels, steps)


def _custom(text: str, known: int | Sequence[int] | Tensor) -> LevelMatrix:
    matrix = matrix_of(text)
    given = known > 0 if isinstance(known, int) else len(known) > 0
    if given and not torch.equal(known_frames(known, matrix.frames), matrix.known):
        zeros = ", ".join(map(str, matrix.known.nonzero().flatten().tolist())) or "none"
        raise ValueError(
            f"the frames that are 0 in every row of the custom matrix ({zeros}) are the known ones, and others are said to be: leave known"
            " at 0 and known_at empty"
        )
    return matrix
