"""Where a run's log goes: JSON lines, CSV, or JSON lines and TensorBoard. To add a way, write a class and name it in ``LOGS``.

A run that resumes cuts its log back to its checkpoint, so a log tells of an unbroken run. TensorBoard's own files cannot be cut; what a
broken run wrote there beyond its checkpoint is written once more.
"""

import csv
import importlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ..disk import log
from ..disk.atomic import append, replacing

COLUMNS = ("step", "loss", "grad_norm", "lr", "seconds", "entropy", "lowest_entropy", "max_logit", "held_out")


class Recorder(Protocol):
    """Takes a line for every step."""

    path: Path

    def add(self, record: Mapping[str, Any]) -> None:
        """Write a line."""
        ...

    def picture(self, name: str, image: Tensor, step: int) -> None:
        """Keep a picture where the format has room for it. ``image``: ``h w c`` in 0..1."""
        ...


class JsonLines:
    """``NAME.jsonl``.

    Args:
        folder: where.
        name: of the run.
        done: steps of the run so far; later lines are taken out.
    """

    def __init__(self, folder: Path, name: str, done: int):
        self.path = folder / f"{name}.jsonl"
        log.cut(self.path, done)

    def add(self, record: Mapping[str, Any]) -> None:
        """See ``Recorder``."""
        log.add(self.path, record)

    def picture(self, name: str, image: Tensor, step: int) -> None:
        """A line has no room for it: ``image``: ``h w c``."""


class Csv:
    """``NAME.csv``, numbers only; see ``JsonLines``."""

    def __init__(self, folder: Path, name: str, done: int):
        self.path = folder / f"{name}.csv"
        kept = [COLUMNS]
        if self.path.is_file():
            rows = list(csv.reader(io.StringIO(self.path.read_text(encoding="utf-8"))))[1:]
            kept += [tuple(row) for row in rows if len(row) == len(COLUMNS) and row[0].isdigit() and int(row[0]) <= done]
        with replacing(self.path) as partial:
            partial.write_text(_rows(kept), encoding="utf-8", newline="")

    def add(self, record: Mapping[str, Any]) -> None:
        """See ``Recorder``."""
        append(self.path, _rows([tuple(record.get(name, "") for name in COLUMNS)]))

    def picture(self, name: str, image: Tensor, step: int) -> None:
        """A line has no room for it: ``image``: ``h w c``."""


class TensorBoard(JsonLines):
    """``NAME.jsonl``, and beside it a folder ``NAME.tensorboard``; see ``JsonLines``.

    Raises:
        ValueError: the package tensorboard is not installed.
    """

    def __init__(self, folder: Path, name: str, done: int):
        package = _tensorboard()
        super().__init__(folder, name, done)
        self.writer = package.SummaryWriter(str(folder / f"{name}.tensorboard"), purge_step=done + 1)

    def add(self, record: Mapping[str, Any]) -> None:
        """See ``Recorder``."""
        super().add(record)
        for name in COLUMNS[1:]:
            if name in record:
                self.writer.add_scalar(name, record[name], int(record["step"]))
        self.writer.flush()

    def picture(self, name: str, image: Tensor, step: int) -> None:
        """Shown under ``name``: ``image``: ``h w c`` in 0..1."""
        self.writer.add_image(name, image.numpy(), step, dataformats="HWC")


LOGS: dict[str, Callable[[Path, str, int], Recorder]] = {"jsonl": JsonLines, "csv": Csv, "tensorboard": TensorBoard}


def check_log(kind: str) -> None:
    """Refuse a log that cannot be written here; ``kind`` is a name in ``LOGS``.

    Raises:
        ValueError: a package is lacking.
    """
    if LOGS[kind] is TensorBoard:
        _tensorboard()


def _tensorboard() -> Any:
    try:
        return importlib.import_module("torch.utils.tensorboard")
    except ImportError as error:
        raise ValueError(
            "the log tensorboard needs the package tensorboard, which is not installed: python -m pip install tensorboard, or choose"
            " jsonl"
        ) from error


def _rows(rows: list[tuple[Any, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
