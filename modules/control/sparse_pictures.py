"""What a SparseCtrl encoder is shown: keyframes at its size, and how strongly each frame of a clip is conditioned and acted on."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.sizes import Size, crop, resized
from ..fields.setting import check, documented, setting
from ..fields.span import check_span, end_percent, start_percent
from ..temporal.block_rules import MOST
from .keyframes import Keyframes


def _as_it_is(pictures: Tensor) -> Tensor:
    """``pictures``: ``k c h w``. Returns ``k c h w``."""
    return pictures


def _strokes(pictures: Tensor) -> Tensor:
    """Grey, and as dark and bright as can be, as the authors' ``normalize_condition_images`` makes scribbles.

    Args:
        pictures: ``k c h w``.

    Returns:
        pictures: ``k c h w``.
    """
    grey = pictures.mean(dim=1, keepdim=True)
    grey = grey - grey.amin(dim=(2, 3), keepdim=True)
    return (grey / grey.amax(dim=(2, 3), keepdim=True).clamp_min(1e-6)).expand_as(pictures)


# what becomes of pictures in 0..1, by what a file takes (``checkpoints.sparsectrl.PICTURES``)
PREPARED: dict[str, Callable[[Tensor], Tensor]] = {"rgb": _as_it_is, "scribble": _strokes, "depth": _as_it_is}


@documented
@dataclass(frozen=True, eq=False)
class SparseSettings:
    """What a clip is to be led by, and how strongly.

    Attributes:
        keyframes: for a clip of so many frames as ``keyframes.clip`` says.
    """

    keyframes: Keyframes
    strength: float = setting(
        1.0,
        "The strength says how firmly all frames are led: 1 is as trained, 0 is not at all.",
        least=0.0,
        most=MOST,
        step=0.01,
    )
    hint_multiplier: float = setting(
        1.0,
        "The strength in the keyframes themselves is multiplied with this; less lets them be redrawn.",
        least=0.0,
        most=MOST,
        step=0.01,
        advanced=True,
    )
    other_multiplier: float = setting(
        1.0,
        "The strength in all other frames is multiplied with this: 0 leads keyframes only, and less gives more freedom between them.",
        least=0.0,
        most=MOST,
        step=0.01,
        advanced=True,
    )
    start_percent: float = start_percent()
    end_percent: float = end_percent()
    motion: bool = setting(
        True,
        "The temporal modules of the encoder carry keyframes to the other frames; without them only keyframes are led, as by an ordinary"
        " ControlNet.",
        advanced=True,
    )

    def __post_init__(self) -> None:
        check(self)
        check_span(self)

    def gains(self, ids: Tensor) -> Tensor:
        """What residuals of some frames are multiplied with, ``strength`` aside: ``ids``: ``n``, frame numbers. Returns ``n``."""
        return torch.where(self.place(ids) >= 0, self.hint_multiplier, self.other_multiplier)

    def place(self, ids: Tensor) -> Tensor:
        """Which keyframe each frame is, or -1: ``ids``: ``n``. Returns ``n``, int64."""
        frames = torch.tensor(self.keyframes.frames, device=ids.device)
        same = ids[:, None] == frames
        return torch.where(same.any(dim=1), same.int().argmax(dim=1), -1)

    def conditions(self, hints: Tensor, ids: Tensor, *, masked: bool) -> tuple[Tensor, Tensor | None]:
        """The condition of some frames, with the mask behind it, and how much of each counts.

        Args:
            hints: ``k c h w``, of the keyframes.
            ids: ``n``, frame numbers.
            masked: whether there is a mask channel.

        Returns:
            condition: ``n d h w``, and strength: ``n``, or None where all of it counts.
        """
        place = self.place(ids).to(hints.device)
        known = (place >= 0).view(-1, 1, 1, 1)
        condition = torch.where(known, hints[place.clamp_min(0)], 0)
        if masked:
            condition = torch.cat([condition, known.to(hints).expand(-1, 1, *hints.shape[-2:])], dim=1)
        strengths = torch.tensor(self.keyframes.strengths, device=hints.device)
        counts = torch.where(place >= 0, strengths[place.clamp_min(0)], 1.0)
        return condition, None if bool((counts == 1).all()) else counts


def at_size(images: Tensor, height: int, width: int, pictures: str) -> Tensor:
    """Keyframes as an encoder is shown them: the middle of each in the size wanted, prepared as its kind needs.

    Args:
        images: ``k h w c`` in 0..1, from three channels on.
        height: wanted.
        width: wanted.
        pictures: a name in ``PREPARED``.

    Returns:
        pictures: ``k 3 p q`` in 0..1.
    """
    size = Size(width, height)
    box = crop(Size(images.shape[2], images.shape[1]), size, 0.5, 0.5)
    return PREPARED[pictures](torch.stack([resized(image[..., :3], box, size) for image in images]))
