"""The large part of a state, in files of its own: what a model remembers of each frame, written once and shared by the states that name it.

A part's name changes whenever what is in it may have. So a state that is written again brings to the disk what is new alone, and the state
before it stays whole until it is dropped.
"""

import zlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from .state import load_sealed, save_sealed
from .tensor_file import Damaged

MARK = "longtake_past"  # in the metadata
ENDING = ".safetensors"
Parts = Mapping[str, Mapping[str, Tensor]]  # name of a part -> its tensors by name


@dataclass(frozen=True)
class PastFiles:
    """The files of one take's past.

    Attributes:
        folder: that holds them and nothing else.
    """

    folder: Path

    def path(self, name: str) -> Path:
        """The file of a part."""
        return self.folder / f"{name}{ENDING}"

    def write(self, parts: Parts, there: Mapping[str, int]) -> dict[str, int]:
        """Bring parts to the disk.

        Args:
            parts: all of them.
            there: checksums of those that are on the disk already, by name.

        Returns:
            sums: a checksum of each part, by name.

        Raises:
            NotWritten: one cannot be written; none of the new ones is left.
        """
        sums: dict[str, int] = {}
        try:
            for name, tensors in parts.items():
                sums[name] = there[name] if name in there else _sum(save_sealed(self.path(name), MARK, name, tensors))
        except BaseException:
            for name in sums.keys() - there.keys():
                with suppress(OSError):  # what kept it from being written is being said
                    self.path(name).unlink()
            raise
        return sums

    def read(self, sums: Mapping[str, int]) -> dict[str, Tensor]:
        """The tensors of parts, by ``part/name``.

        Args:
            sums: of the parts, as ``write`` gave them.

        Raises:
            Damaged: one is missing, or not what was written.
        """
        found: dict[str, Tensor] = {}
        for name, sum in sums.items():
            path = self.path(name)
            shown = f"{self.folder.name}/{path.name}"
            if not path.exists():
                raise Damaged(f"{shown} is missing")
            try:
                part = load_sealed(path, MARK, "part of a take's past")
            except ValueError as error:
                raise Damaged(f"{self.folder.name}/{error}") from error
            if part.about != name or _sum(part.sums) != sum:
                raise Damaged(f"{shown} is the past of another take")
            found |= {f"{name}/{key}": tensor for key, tensor in part.tensors.items()}
        return found

    def keep(self, names: Collection[str]) -> None:
        """Remove all but these, and what a killed run left half-written; whoever calls this holds the take's lock."""
        if not self.folder.is_dir():
            return
        wanted = {self.path(name).name for name in names}
        for path in sorted(self.folder.iterdir()):
            if path.name not in wanted and path.is_file():
                path.unlink(missing_ok=True)
        with suppress(OSError):  # it is not empty
            self.folder.rmdir()


def _sum(sums: str) -> int:
    return zlib.crc32(sums.encode())
