"""What a node may ask of the run that it is part of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class ProgressBar(Protocol):
    """Tells the user how far a node is, and lets the user stop it."""

    def update(self, done: int, preview: Tensor | None = None) -> None:
        """Say how much is done in all, with a picture if there is one.

        Args:
            done: from 0 to the total.
            preview: ``h w c`` in 0..1, or None.

        Raises:
            Interrupted: the user cancelled.
        """
        ...


class Run(Protocol):
    """What a node may ask of the run that it is part of: files, progress, and whether the user cancelled."""

    @property
    def name(self) -> str:
        """Which host it is: ``comfyui`` or ``standalone``."""
        ...

    @property
    def Interrupted(self) -> type[BaseException]:  # noqa: N802  a class
        """What is raised when the user cancels."""
        ...

    def Progress(self, total: int) -> ProgressBar:  # noqa: N802  a class
        """A new progress bar, full at ``total``; 0 where there is no end."""
        ...

    def check_interrupt(self) -> None:
        """Raise ``Interrupted`` if the user cancelled."""
        ...

    def show_files(self, text: str, files: Sequence[Path]) -> None:
        """Show at the node that runs what it has written, also where it does not come to its end.

        Args:
            text: what has been done.
            files: pictures or clips below the output folder.
        """
        ...

    def device(self) -> torch.device:
        """Where networks run."""
        ...

    def files(self, kind: str) -> list[str]:
        """The names of all files of a kind, for a menu."""
        ...

    def file(self, kind: str, name: str) -> Path:
        """The path of a file by the name that ``files`` gives.

        Raises:
            ValueError: there is none; the sentence says what there is and where to put it.
        """
        ...

    def model_directory(self, kind: str) -> Path:
        """Where new files of a kind are written."""
        ...

    def output_directory(self) -> Path:
        """Where results go."""
        ...

    def input_directory(self) -> Path:
        """Where the user's pictures and clips lie."""
        ...

    def temp_directory(self) -> Path:
        """Where previews go."""
        ...
