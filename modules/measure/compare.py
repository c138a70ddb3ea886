"""Two versions of a clip in one picture per frame.

To add a way, write a function of (first, second, settings) and name it in ``COMPARISONS``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..fields.setting import check, documented, sentences, setting
from .spectrum import check_clip

GAP = 4  # white pixels between two pictures


def side_by_side(first: Tensor, second: Tensor, settings: "CompareSettings") -> Tensor:
    """The first clip is left and the second right. ``first``: ``f h w c``, ``second``: ``f h w c``. Returns ``f h q c``."""
    return torch.cat([first, torch.ones_like(first[:, :, :1]).expand(-1, -1, GAP, -1), second], dim=2)


def above(first: Tensor, second: Tensor, settings: "CompareSettings") -> Tensor:
    """The first clip is above the second. ``first``: ``f h w c``, ``second``: ``f h w c``. Returns ``f p w c``."""
    return torch.cat([first, torch.ones_like(first[:, :1]).expand(-1, GAP, -1, -1), second], dim=1)


def difference(first: Tensor, second: Tensor, settings: "CompareSettings") -> Tensor:
    """Black is where both agree, and bright where they differ. ``first``: ``f h w c``, ``second``: ``f h w c``. Returns ``f h w c``."""
    return ((first - second).abs() * settings.gain).clamp(0, 1)


def slider(first: Tensor, second: Tensor, settings: "CompareSettings") -> Tensor:
    """The first clip is left of a line and the second right of it. ``first``: ``f h w c``, ``second``: ``f h w c``. Returns ``f h w c``."""
    width = first.shape[2]
    line = round(settings.position * width)
    together = torch.cat([first[:, :, :line], second[:, :, line:]], dim=2)
    if 0 < line < width:
        together[:, :, line - 1 : line + 1] = 1.0
    return together


COMPARISONS: dict[str, Callable[[Tensor, Tensor, "CompareSettings"], Tensor]] = {
    f.__name__: f for f in (side_by_side, above, slider, difference)
}


@documented
@dataclass(frozen=True)
class CompareSettings:
    """How a comparison is drawn."""

    show: str = setting("side_by_side", "This says how the two clips are shown.", menu=sentences(COMPARISONS))
    position: float = setting(
        0.5, "For slider the line is here: 0 is left and 1 is right.", least=0.0, most=1.0, step=0.01, advanced=True
    )
    gain: float = setting(
        4.0, "For difference the picture is made so much brighter.", least=0.1, most=100.0, step=0.1, advanced=True
    )

    def __post_init__(self) -> None:
        check(self)


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
    return COMPARISONS[settings.show](first, second, settings)
