"""Two versions of a clip in one picture per frame.

To add a way, write a function of (first, second, settings) and name it in ``COMPARISONS``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .spectrum import check_clip

GAP = 4  # white pixels between two pictures


@dataclass(frozen=True)
class CompareSettings:
    """How a comparison is drawn.

    Attributes:
        kind: a name in ``COMPARISONS``.
        position: where ``slider`` changes from the first to the second clip, 0 left to 1 right.
        gain: what ``difference`` is multiplied with.
    """

    kind: str = "side_by_side"
    position: float = 0.5
    gain: float = 4.0

    def __post_init__(self) -> None:
        if self.kind not in COMPARISONS:
            raise ValueError(f"the comparison {self.kind!r} is not known: choose one of {', '.join(COMPARISONS)}")
        if not 0 <= self.position <= 1:
            raise ValueError(
                f"position is {self.position}: it must lie between 0, all of the second clip, and 1, all of the first"
            )
        if not 0 < self.gain < float("inf"):
            raise ValueError(f"gain is {self.gain}: it must be above 0")


def side_by_side(first: Tensor, second: Tensor, settings: CompareSettings) -> Tensor:
    """``first``: ``f h w c`` left, ``second``: ``f h w c`` right. Returns ``f h q c``."""
    return torch.cat([first, torch.ones_like(first[:, :, :1]).expand(-1, -1, GAP, -1), second], dim=2)


def above(first: Tensor, second: Tensor, settings: CompareSettings) -> Tensor:
    """``first``: ``f h w c`` above ``second``: ``f h w c``. Returns ``f p w c``."""
    return torch.cat([first, torch.ones_like(first[:, :1]).expand(-1, GAP, -1, -1), second], dim=1)


def difference(first: Tensor, second: Tensor, settings: CompareSettings) -> Tensor:
    """How far ``first``: ``f h w c`` and ``second``: ``f h w c`` are apart, black for not at all. Returns ``f h w c``."""
    return ((first - second).abs() * settings.gain).clamp(0, 1)


def slider(first: Tensor, second: Tensor, settings: CompareSettings) -> Tensor:
    """``first``: ``f h w c`` left of a white line, ``second``: ``f h w c`` right of it. Returns ``f h w c``."""
    width = first.shape[2]
    line = round(settings.position * width)
    together = torch.cat([first[:, :, :line], second[:, :, line:]], dim=2)
    if 0 < line < width:
        together[:, :, line - 1 : line + 1] = 1.0
    return together


COMPARISONS: dict[str, Callable[[Tensor, Tensor, CompareSettings], Tensor]] = {
    f.__name__: f for f in (side_by_side, above, slider, difference)
}


def compared(first: Tensor, second: Tensor, settings: CompareSettings) -> Tensor:
    """Both clips in one.

    Args:
        first: ``...``, frames, height, width and channels, in 0..1.
        second: ``...``, of the same shape.
        settings: how.

    Returns:
        images: ``f p q c``.

    Raises:
        ValueError: they are no clips, or not of one length and size.
    """
    for video in (first, second):
        check_clip(video, 1)
    if first.shape != second.shape:
        raise ValueError(
            f"the clips have the shapes {list(first.shape)} and {list(second.shape)}: to compare frame by frame, give two of one length"
            " and size"
        )
    return COMPARISONS[settings.kind](first, second, settings)
