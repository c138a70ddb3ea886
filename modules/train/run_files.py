"""Where a training keeps what, and what of that may be replaced: nothing that is not this run's, and nothing old before there is new."""

import itertools
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..disk.aside import set_aside
from ..disk.atomic import leftovers
from ..disk.file_names import check_name, check_writable
from ..disk.state import has_state, state_before

RUN = "longtake_run"  # in the metadata of a finished file: which run made it
ENDING = ".run.safetensors"
AT = "@"  # between a training's name and a step of it


@dataclass(frozen=True)
class Files:
    """Where a training keeps what.

    Attributes:
        name: of the training and of its file.
        folder: of checkpoint, log and samples.
        models: of the finished file.
        run: of the checkpoint, if it is to lie elsewhere.
    """

    name: str
    folder: Path
    models: Path
    run: Path | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        check_writable(self.folder, self.name)
        check_writable(self.models, self.name)

    @property
    def checkpoint(self) -> Path:
        """What a run is resumed from."""
        return self.run or self.folder / f"{self.name}{ENDING}"

    @property
    def lock(self) -> Path:
        """Who writes all this now."""
        return self.folder / f".{self.name}.lock"

    @property
    def model(self) -> Path:
        """The finished file, without an ending."""
        return self.models / self.name

    @property
    def samples(self) -> Path:
        """The folder of sample clips."""
        return self.folder / f"{self.name}.samples"

    @property
    def kept(self) -> Path:
        """The folder of checkpoints that are kept."""
        return self.folder / f"{self.name}.kept"

    def kept_at(self, step: int) -> Path:
        """The checkpoint that is kept of a step."""
        return self.kept / f"step_{step:07d}{ENDING}"

    def weights_at(self, step: int) -> Path:
        """The finished file by the weights of a step, without an ending: in a folder of its own, below which menus look, too."""
        return self.models / f"{self.name}.steps" / f"{self.name}_{step:07d}"

    def steps_kept(self) -> list[int]:
        """Steps of which a checkpoint is kept, in their order."""
        names = [path.name.removeprefix("step_").removesuffix(ENDING) for path in self.kept.glob(f"step_*{ENDING}")]
        return sorted(int(name) for name in names if name.isdecimal())

    def old(self) -> list[Path]:
        """Everything that is there of the run so far, finished files aside."""
        names = [f"{self.name}.{ending}" for ending in ("jsonl", "csv", "tensorboard")]
        paths = [*(self.folder / name for name in names), self.samples, self.kept, state_before(self.checkpoint), self.checkpoint]
        return [path for path in paths if path.exists()]

    def sweep(self) -> None:
        """Take away what a process that was killed while it wrote any of this has left; only for who holds the lock."""
        logs = [self.folder / f"{self.name}.{ending}" for ending in ("jsonl", "csv")]
        for path in (self.checkpoint, *logs, Path(f"{self.model}.safetensors")):
            for partial in leftovers(path):
                partial.unlink(missing_ok=True)

    def set_aside(self) -> Path | None:
        """Make room for a new run of this name. Returns the folder where the old one is now; None where there was none.

        Raises:
            NotWritten: it cannot be moved.
        """
        old, folder = self.old(), None
        for parent in dict.fromkeys(path.parent for path in old):
            folder = set_aside([path for path in old if path.parent == parent], self.name)
        return folder

    def named(self, words: str) -> Path:
        """The checkpoint that a user means by ``NAME``, or by ``NAME@STEP`` for one that is kept.

        Raises:
            ValueError: there is none, or it is this training's own.
        """
        name, at, step = words.partition(AT)
        check_name(name)
        if name == self.name:
            raise ValueError(f"begin_with names {words!r} and this run is {name} itself: give this run another name")
        other = Files(name, self.folder, self.models)
        if not at and has_state(other.checkpoint):
            return other.checkpoint
        if at and step.isdecimal() and other.kept_at(int(step)).is_file():
            return other.kept_at(int(step))
        kept = [f"{name}{AT}{step}" for step in other.steps_kept()]
        there = [path.name.removesuffix(ENDING) for path in sorted(self.folder.glob(f"*{ENDING}"))]
        raise ValueError(
            f"begin_with names {words!r}, of which there is no checkpoint: there are {', '.join([*there, *kept]) or 'none'}"
        )


def run_of(path: Path) -> str:
    """Which run a finished file says that it is of; nothing where it says none, or is no such file."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get(RUN, "")
    except (SafetensorError, OSError):
        return ""


def free(stem: Path, run: str, suffix: str) -> Path:
    """The first of ``stem``, ``stem-2``, ``stem-3`` and so on under which a run may write: nobody's, or its own.

    Args:
        stem: of the file, without an ending.
        run: which.
        suffix: from the stem to the file with the weights; what begins with / lies in a folder of that name.
    """
    for number in itertools.count(1):
        candidate = stem if number == 1 else stem.with_name(f"{stem.name}-{number}")
        file = Path(f"{candidate}{suffix}")
        whole = candidate if suffix.startswith("/") else file
        if not whole.exists() or (run and run_of(file) == run):
            return candidate
    raise AssertionError("numbers have no end")
