"""Which files may be read: regular ones, none that the system makes up, and, where a server says so, those of its own folders alone."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .report import Report, counted

MADE_UP = tuple(map(Path, ("/proc", "/sys")))  # no files on a disk, and without end
STRICT = "LONGTAKE_STRICT_PATHS"  # what a server's environment says it with


@dataclass
class Places:
    """Where may be looked, and what was met that may not.

    Attributes:
        within: folders; empty for all of the machine.
        lost: links that lead nowhere.
        outside: links and rows of tables that lead where may not be looked.
        special: pipes, sockets and devices.
    """

    within: Sequence[Path] = ()
    lost: int = field(default=0, init=False)
    outside: int = field(default=0, init=False)
    special: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.within = [_real(folder) for folder in self.within]

    def hold(self, path: Path) -> bool:
        """Whether a path, wherever its links lead, is one that may be looked at."""
        real = _real(path)
        made_up = any(real.is_relative_to(folder) for folder in MADE_UP)
        return not made_up and (not self.within or any(real.is_relative_to(folder) for folder in self.within))

    def check(self, path: Path) -> None:
        """Refuse a place; nothing is said of what is there.

        Raises:
            ValueError: it may not be looked at.
        """
        if not self.hold(path):
            raise ValueError(f"{path} {self.refusal}")

    @property
    def refusal(self) -> str:
        """What is said of a place that may not be looked at."""
        if not self.within:
            return "is made up by the system: give the path of a folder, a CSV or a video on a disk"
        folders = ", ".join(map(str, self.within))
        return f"lies outside of the folders that this server reads ({STRICT} is set): put the clips below {folders}"

    def files(self, folder: Path, names: Sequence[str]) -> Iterator[str]:
        """The names of a folder's files that may be read; the others are counted."""
        for name in names:
            path = folder / name
            if not self.hold(path):
                self.outside += 1
            elif path.is_file():
                yield name
            elif path.exists():
                self.special += 1
            else:
                self.lost += 1

    def tell(self, report: Report) -> None:
        """Say what was passed over."""
        if self.lost:
            report.notes.append(f"{counted(self.lost, 'link')} to files that are not there: passed over.")
        if self.outside:
            report.notes.append(f"{counted(self.outside, 'link')} out of the folders that may be read: not followed.")
        if self.special:
            report.notes.append(f"{counted(self.special, 'file')} that is a pipe or a device: passed over.")


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
