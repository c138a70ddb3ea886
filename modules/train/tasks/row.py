"""A row of the table of trainables."""

from collections.abc import Callable
from dataclasses import dataclass

from ..trainable import Trainable


@dataclass(frozen=True)
class Row:
    """Something that can be trained.

    Attributes:
        folder: kind of the model folder that the file goes to.
        make: puts it together; its first argument is what is at hand (``in_base.Setup`` where a frozen model is trained in), further
            ones are its own.
        moves: whether a motion module is part of it.
        in_motion: what it is, in a sentence, where Train Motion offers it: ``make`` takes a ``MotionModule`` or None, a rank, and a
            ``MotionLora`` to start from or None.
        sigma_reparam: whether its attention weights can have lengths of their own while training.
        module: whether its file is a whole motion module, which the model gets in place of a LoRA.
        new: whether it can begin from a new motion module, where none is connected.
    """

    folder: str
    make: Callable[..., Trainable]
    moves: bool = True
    in_motion: str = ""
    sigma_reparam: bool = False
    module: bool = False
    new: bool = False

    @property
    def beside_module(self) -> bool:
        """Whether it trains beside a motion module that there is, as a MotionLoRA does."""
        return self.moves and not self.module
