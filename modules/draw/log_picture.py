"""Training logs as curves and as a few lines of text."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..disk.log import Record, column
from .pictures import curves, smoothed

LOSS = "loss"
HELD = "held_out"  # the loss on clips that are not trained on
RATE = "lr"
BESIDE = (HELD, "grad_norm", RATE)  # drawn below the loss where a log has them
LAST = 100  # steps whose mean is told
POINTS = 2000  # of a curve; more would not be seen


def log_picture(logs: Mapping[str, Sequence[Record]], smoothing: float, *, logarithmic: bool = True) -> Tensor:
    """A panel for the loss and one for each other thing that the logs tell; a single log's loss is drawn without smoothing, too.

    Args:
        logs: records by the log's name.
        smoothing: memory of the moving average, 0 for none, below 1.
        logarithmic: whether equal distances upwards are equal factors.

    Returns:
        image: ``1 h w 3``.

    Raises:
        ValueError: no log has a loss, or the smoothing would never forget.
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing is {smoothing}: it must be 0, none, or more, and below 1")
    panels = [panel for name in (LOSS, *BESIDE) if (panel := _panel(logs, name, smoothing, logarithmic)) is not None]
    if not any(column(records, LOSS)[1] for records in logs.values()):
        raise ValueError(f'no line of {", ".join(logs)} has a loss: a log\'s lines are such as {{"step": 1, "loss": 0.5}}')
    return torch.cat(panels, dim=1)


def _panel(logs: Mapping[str, Sequence[Record]], name: str, smoothing: float, logarithmic: bool) -> Tensor | None:
    found = {log: column(records, name) for log, records in logs.items()}
    found = {log: (steps, values) for log, (steps, values) in found.items() if values}
    if not found:
        return None
    smoothing = 0.0 if name in (HELD, RATE) else smoothing  # they are as smooth as they were meant to be
    series: dict[str, Sequence[float]] = {}
    for log, (_, values) in found.items():
        if len(found) == 1 and smoothing:
            series[f"{log}, as logged"] = _thinned(values)
        series[log] = _thinned(smoothed(values, smoothing))
    last = max(steps[-1] for steps, _ in found.values())
    return curves(series, title=f"{name}, up to step {last:g}", logarithmic=logarithmic)


def _thinned(values: Sequence[float]) -> list[float]:
    """Evenly chosen, the first and the last among them."""
    if len(values) <= POINTS:
        return list(values)
    return [values[int(place)] for place in torch.linspace(0, len(values) - 1, POINTS, dtype=torch.float64).round()]


def log_text(logs: Mapping[str, Sequence[Record]]) -> str:
    """For each log: its steps, the lowest loss, the mean of the last losses, and the highest gradient norm."""
    return "\n".join(_line(name, records) for name, records in logs.items())


def _line(name: str, records: Sequence[Record]) -> str:
    steps, losses = column(records, LOSS)
    if not losses:
        return f"{name}: no loss"
    lowest = min(range(len(losses)), key=losses.__getitem__)
    recent = losses[-LAST:]
    text = (
        f"{name}: steps {steps[0]:g} to {steps[-1]:g}, lowest loss {losses[lowest]:.5g} at step {steps[lowest]:g}, mean of the last"
        f" {len(recent)} {sum(recent) / len(recent):.5g}"
    )
    norms = column(records, "grad_norm")[1]
    return text + (f", highest gradient norm {max(norms):.5g}" if norms else "")
