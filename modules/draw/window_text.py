"""A window plan for one clip in words and numbers: its windows, how often a frame is in one, and what that costs."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..temporal.windows import MODES, WindowPlan, Windows

# Of the arithmetic of a step, what SD1.5's motion modules do: at 512x512 with 16 frames they add 0.375 of the bare model's.
MOTION_SHARE = 0.375 / 1.375
LISTED_ROWS, LISTED_WINDOWS, LISTED_RANGES = 4, 8, 12


@dataclass(frozen=True)
class Row:
    """Sampling steps with the same windows.

    Attributes:
        first: the step where they begin.
        last: the last step that has them.
        windows: the frames of each.
        weights: what each counts for at each of its frames, ``w`` lists beside ``windows``.
    """

    first: int
    last: int
    windows: list[list[int]]
    weights: list[list[float]]

    @property
    def steps(self) -> int:
        """How many sampling steps."""
        return self.last - self.first + 1

    @property
    def name(self) -> str:
        """How a reader calls it."""
        return f"step {self.first}" if self.steps == 1 else f"steps {self.first}-{self.last}"


def rows_of(plan: WindowPlan | None, frames: int, steps: int) -> list[Row]:
    """The windows of every step, neighbouring equal steps together; None for a plan is one window over the clip.

    Raises:
        ValueError: there are no frames or no steps.
    """
    for what, value in (("frames", frames), ("steps", steps)):
        if value < 1:
            raise ValueError(f"{what} is {value}: it must be at least 1")
    rows: list[Row] = []
    for step in range(steps):
        windows = None if plan is None else plan.windows(frames, step)
        shown, weights = ([list(range(frames))], [[1.0] * frames]) if windows is None else _in_order(windows)
        if rows and rows[-1].windows == shown:
            rows[-1] = Row(rows[-1].first, step, shown, weights)
        else:
            rows.append(Row(step, step, shown, weights))
    return rows


def _in_order(windows: Windows) -> tuple[list[list[int]], list[list[float]]]:
    """Windows and weights without their groups, by first frame: the shortest distance between frames first."""
    both = [pair for index, weight in windows.groups for pair in zip(index.tolist(), weight.tolist(), strict=True)]
    both.sort(key=lambda pair: (abs(pair[0][1] - pair[0][0]) if len(pair[0]) > 1 else 1, pair[0][0]))
    return [window for window, _ in both], [weight for _, weight in both]


def settings_of(plan: WindowPlan) -> str:
    """The settings in one phrase.

    >>> settings_of(WindowPlan())
    'standard_static, windows of 16, overlap 4, pyramid'
    """
    parts = [plan.schedule, f"windows of {plan.length}"]
    if plan.schedule != "batched":
        parts.append(f"overlap {plan.overlap}")
    if plan.schedule.endswith("uniform") and plan.stride > 1:
        parts.append(f"stride {plan.stride}")
    return ", ".join([*parts, *(["closed loop"] if plan.closed_loop else []), plan.fuse])


def ranges(frames: list[int]) -> str:
    """Frame numbers as ranges.

    >>> ranges([0, 1, 2, 7]), ranges([0, 2, 4, 6]), ranges([6, 7, 0, 1])
    ('0-2+7', '0-6 by 2', '6-7+0-1')
    """
    parts, rest = [], list(frames)
    while rest:
        apart = rest[1] - rest[0] if len(rest) > 1 else 1
        count = next((n for n in range(1, len(rest)) if rest[n] - rest[n - 1] != apart), len(rest)) if apart > 0 else 1
        count = 1 if count == 2 and apart > 1 else count
        run, rest = rest[:count], rest[count:]
        parts.append(str(run[0]) if count == 1 else f"{run[0]}-{run[-1]}" + (f" by {apart}" if apart > 1 else ""))
    return "+".join(parts)


def costs(coverage: float) -> dict[str, float]:
    """Arithmetic of a step against one pass over all frames at once, by mode, where a frame is in ``coverage`` windows on average.

    ``temporal`` repeats nothing but the attention over a window's few frames, under a hundredth of a step; ``views`` repeats the motion
    modules, ``whole`` everything. An estimate for SD1.5: see ``MOTION_SHARE``.

    >>> {mode: round(cost, 2) for mode, cost in costs(2.0).items()}
    {'temporal': 1.0, 'views': 1.27, 'whole': 2.0}
    """
    return {"temporal": 1.0, "views": 1 + MOTION_SHARE * (coverage - 1), "whole": coverage}


def describe(
    plan: WindowPlan | None,
    frames: int,
    steps: int,
    *,
    mode: str = "temporal",
    trained: int | None = None,
    most: int | None = None,
) -> str:
    """The plan in words and numbers.

    Args:
        plan: with a length; None where the model has no windows.
        frames: length of the clip, at least 1.
        steps: sampling steps, at least 1.
        mode: which of ``MODES`` the model uses.
        trained: frames that the motion model was trained on; None where there is none.
        most: frames that it knows times for; None for any number.

    Raises:
        ValueError: there are no frames or no steps.
    """
    rows = rows_of(plan, frames, steps)
    if plan is None or frames <= plan.length:
        return "\n".join(_one_window(plan, frames, trained, most))
    counts = [_counts(row, frames) for row in rows]
    coverage = sum(float(count.mean()) * row.steps for count, row in zip(counts, rows, strict=True)) / steps
    cost = costs(coverage)
    lines = [
        f"{frames} frames: {settings_of(plan)}; mode {mode}",
        f"windows per step: {_span([len(row.windows) for row in rows])}",
        f"windows per frame: least {min(int(c.min()) for c in counts)}, mean {coverage:.2f}, most {max(int(c.max()) for c in counts)}",
        _fused(counts[0]),
        "arithmetic of a step, one pass over all frames being 1 (estimate for SD1.5): "
        + ", ".join(f"{name} {cost[name]:.2f}" + (" (this model)" if name == mode else "") for name in MODES),
        *_trained(plan.length, trained, most),
        *(f"{row.name}: {_listed(row.windows)}" for row in rows[:LISTED_ROWS]),
    ]
    return "\n".join(
        [*lines, f"... and {steps - rows[LISTED_ROWS - 1].last - 1} more steps"] if len(rows) > LISTED_ROWS else lines
    )


def _one_window(plan: WindowPlan | None, frames: int, trained: int | None, most: int | None) -> Iterator[str]:
    if plan is None:
        yield f"{frames} frames in one pass: the model has no context windows"
    else:
        yield f"{frames} frames in one pass: they fit one window of {plan.length}"
        if plan.closed_loop:
            yield "a loop is closed by windows that cross its seam, and one window crosses none: use a length below the clip's"
    yield from _trained(frames, trained, most)


def _trained(length: int, trained: int | None, most: int | None) -> Iterator[str]:
    if most is not None and length > most:
        yield f"too many: the motion module knows times for {most} frames, so add context windows of at most {most}"
    elif trained is not None and length != trained:
        yield f"the motion module was trained on {trained} frames at once and sees {length}"


def _counts(row: Row, frames: int) -> np.ndarray:
    return np.bincount(np.concatenate([np.asarray(window) for window in row.windows]), minlength=frames)


def _fused(counts: np.ndarray) -> str:
    shared = np.flatnonzero(counts > 1).tolist()
    if not shared:
        return "frames in more than one window: none, so neighbouring windows meet without a transition"
    parts = ranges(shared).split("+")
    parts = [*parts[:LISTED_RANGES], "..."] if len(parts) > LISTED_RANGES else parts
    return f"frames in more than one window: {len(shared)} of {len(counts)}: {', '.join(parts)}"


def _span(values: list[int]) -> str:
    return str(values[0]) if min(values) == max(values) else f"{min(values)} to {max(values)}"


def _listed(windows: list[list[int]]) -> str:
    more = f", ... ({len(windows)} in all)" if len(windows) > LISTED_WINDOWS else ""
    return ", ".join(map(ranges, windows[:LISTED_WINDOWS])) + more
