"""What models remember from call to call beside the frames of a window, so that an interrupted take can go on with it."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class Remembering(Protocol):
    """Something that can be put down as tensors by name, and taken up again."""

    def tensors(self) -> dict[str, Tensor]:
        """All of it but ``parts``, by name; later calls leave these tensors alone."""
        ...

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """What is too large to be written again and again, as it is now: parts by name, which is another one when what is in it may be."""
        ...

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Be as when ``tensors`` were given, and the tensors of ``parts`` under ``part/name``, and hold nothing else."""
        ...


class Nothing:
    """What models without recurrent modules remember."""

    def tensors(self) -> dict[str, Tensor]:
        """None."""
        return {}

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """None."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Refuse anything.

        Raises:
            ValueError: there is something to remember.
        """
        if tensors:
            raise ValueError(
                "the take was begun by a model that remembers what has left the window, and this one does not: go on with the model that"
                " began it"
            )
