"""What a SparseCtrl encoder is shown: keyframes at its size, and how strongly each frame of a clip is conditioned and acted on."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.sizes import Size, crop, resized
from ..temporal.settings import MOST
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


@dataclass(frozen=True, eq=False)
class SparseSettings:
    """What a clip is to be led by, and how strongly.

    Attributes:
        keyframes: for a clip of so many frames as ``keyframes.clip`` says.
        strength: of everything.
        hint: of what is added to keyframes, on top.
        other: of what is added to all other frames, on top.
        start: from which share of the sampling on, 0 to 1.
        end: up to which share of it.
        motion: whether the temporal modules act; without them only keyframes are led.
    """

    keyframes: Keyframes
    strength: float = 1.0
    hint: float = 1.0
    other: float = 1.0
    start: float = 0.0
    end: float = 1.0
    motion: bool = True

    def __post_init__(self) -> None:
        for name, value in (("strength", self.strength), ("hint_multiplier", self.hint), ("other_multiplier", self.other)):
            if not 0 <= value <= MOST:
                raise ValueError(f"{name} is {value:g}: it must lie between 0 and {MOST:g}; 1 is as trained")
        if not 0 <= self.start <= self.end <= 1:
            raise ValueError(
                f"start_percent is {self.start:g} and end_percent {self.end:g}: both lie in 0 to 1, and the end not before the start"
            )

    def gains(self, ids: Tensor) -> Tensor:
        """What residuals of some frames are multiplied with, ``strength`` aside: ``ids``: ``n``, frame numbers. Returns ``n``."""
        return torch.where(self.place(ids) >= 0, self.hint, self.other)

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
