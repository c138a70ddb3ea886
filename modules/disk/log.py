"""A training run's log: one line per step, as JSON lines or CSV.

A line holds ``step`` and any other numbers by name: ``loss``, ``grad_norm``, ``lr`` ... JSON lines are written by ``add``; CSV with a line
of names first is read as well. A process that is killed while it writes leaves half a line at the end, which the reader passes over and
``cut`` removes, so a resumed run's log is that of an unbroken one.
"""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from .atomic import append, replacing

Record = dict[str, float]


def parse(text: str, name: str = "the log") -> list[Record]:
    r"""The lines of a log.

    Args:
        text: JSON lines, or CSV with names.
        name: for messages.

    Returns:
        One record per line, in the log's order; entries that are no numbers are left out.

    Raises:
        ValueError: it is neither, it is empty, or a line other than the last is broken.

    >>> parse('{"step": 1, "loss": 0.5}')
    [{'step': 1.0, 'loss': 0.5}]
    >>> parse("step,loss\n1,0.5\n2,\n")
    [{'step': 1.0, 'loss': 0.5}, {'step': 2.0}]
    """
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise ValueError(f'{name} is empty: it has one line per step, such as {{"step": 1, "loss": 0.5}}')
    records = _json(lines, name) if lines[0][1].lstrip().startswith("{") else _csv([line for _, line in lines], name)
    if not any("step" in record for record in records):
        raise ValueError(
            f'{name} has no step: each line must say {{"step": 1, ...}}, or the first line of a CSV file names a step column'
        )
    return [record for record in records if "step" in record]


def _json(lines: Sequence[tuple[int, str]], name: str) -> list[Record]:
    records = []
    for place, (number, line) in enumerate(lines):
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            if place == len(lines) - 1 and place:
                break  # cut short: whoever wrote it was stopped
            raise ValueError(f"line {number} of {name} is no JSON: {error}") from error
        if not isinstance(values, Mapping):
            raise ValueError(f"line {number} of {name} is {type(values).__name__}: each line must be names and numbers in braces")
        records.append({key: float(value) for key, value in values.items() if isinstance(value, int | float)})
    return records


def _csv(lines: Sequence[str], name: str) -> list[Record]:
    names, *rows = csv.reader(io.StringIO("\n".join(lines)))
    if "step" not in names:
        raise ValueError(f"{name} is neither JSON lines nor CSV: its first line is {lines[0][:60]!r} and names no step")
    return [_numbers(names, row) for row in rows if len(row) == len(names) or row is not rows[-1]]


def _numbers(names: Sequence[str], row: Sequence[str]) -> Record:
    record = {}
    for key, value in zip(names, row, strict=False):
        try:
            record[key.strip()] = float(value)
        except ValueError:
            continue  # an empty cell, or words
    return record


def read(path: Path) -> list[Record]:
    """The lines of a log file, or the losses of a training checkpoint.

    Raises:
        ValueError: there is no such file, or it is neither.
    """
    if not path.is_file():
        raise ValueError(f"there is no log {path.name}: train something first, or check the name")
    if path.suffix == ".safetensors":
        return _losses(path)
    try:
        return parse(path.read_text(encoding="utf-8"), path.name)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is no text: a log is JSON lines or CSV") from error


def _losses(path: Path) -> list[Record]:
    try:
        with safe_open(path, framework="pt") as file:
            if "losses" not in file.keys():  # noqa: SIM118  not a dict
                raise ValueError(f"{path.name} is no training checkpoint: it holds no losses")
            losses = file.get_tensor("losses").tolist()
    except SafetensorError as error:
        raise ValueError(f"{path.name} cannot be read: it is cut short or no safetensors file ({error})") from error
    return [{"step": float(step), "loss": loss} for step, loss in enumerate(losses, 1)]


def add(path: Path, record: Mapping[str, Any]) -> None:
    """Write one more line. ``record`` must have a step; numbers that JSON has no word for are written as null.

    Raises:
        ValueError: it has no step, or cannot be written.
    """
    if "step" not in record:
        raise ValueError(f"a line of the log needs its step: this one has {', '.join(record) or 'nothing'}")
    line = json.dumps({key: _plain(value) for key, value in record.items()}) + "\n"
    append(path, line)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cut(path: Path, step: int) -> None:
    """Leave out all lines after ``step`` and what is cut short, as a resumed run begins there; no file is fine, too."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    with replacing(path) as partial:
        partial.write_text("".join(kept), encoding="utf-8")


def column(records: Sequence[Record], name: str) -> tuple[list[float], list[float]]:
    """(steps, values) of the finite numbers under a name; where a step comes twice, as after a resume, the later one counts."""
    found = {record["step"]: record[name] for record in records if math.isfinite(record.get(name, math.nan))}
    steps = sorted(found)
    return steps, [found[step] for step in steps]
