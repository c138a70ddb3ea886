"""How a training went, in words."""

from collections.abc import Mapping
from typing import Any

from .engine import Run


def told_of(run: Run, spent: str) -> list[str]:
    """The lines of a report that every run has; ``spent`` is how long this process took.

    Returns:
        lines: at least one.
    """
    lines = [f"{run.done} steps of {run.settings.batch} clips, {spent} this time"]
    if run.losses:
        last = run.losses[-max(1, len(run.losses) // 10) :]
        over = "in the last step" if len(last) == 1 else f"over the last {len(last)} steps"
        lines.append(f"loss {run.losses[0]:.4g} at first, {sum(last) / len(last):.4g} {over}")
    if run.looks.each:
        (step, lowest), (_, loss) = run.looks.lowest, run.looks.each[-1]
        stopped = "stopped at the best: " if run.done < run.settings.steps else ""
        lines.append(f"{stopped}loss on the held out clips {lowest:.4g} after step {step}, its best, and {loss:.4g} at last")
    lines += [change_text(change) for change in run.changes]
    if run.slowed < 1:
        lines.append(f"the learning rate was lowered to {run.slowed:g} of what was set")
    return lines


def change_text(change: Mapping[str, Any]) -> str:
    """An entry of ``engine.Run.changes`` as people say it.

    >>> change_text({"step": 300, "settings": {"learning_rate": [1e-4, 5e-5]}, "rate": 2.5e-5})
    'from step 300 on: learning_rate 5e-05 instead of 0.0001; the rate goes on at 2.5e-05'
    """
    told = ", ".join(f"{name} {now} instead of {before}" for name, (before, now) in change["settings"].items())
    return f"from step {change['step']} on: {told}; the rate goes on at {change['rate']:.3g}"


def in_words(seconds: float) -> str:
    """A time as people say it.

    >>> in_words(5), in_words(150), in_words(8000)
    ('5 s', '2 min', '2 h 13 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
