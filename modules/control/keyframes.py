"""Keyframes: pictures that a clip should meet, when, how strongly, and how far each reaches into its neighbours.

Frames may be counted from the end until the clip's length is known; ``Keyframes.at`` resolves them and refuses what does not fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..sampling.known_frames import numbers_of
from ..temporal.block_rules import MOST, parse_numbers

EVEN = "even"


@dataclass(frozen=True, eq=False)
class Keyframes:
    """Pictures with their times.

    Attributes:
        images: ``k h w c`` in 0..1.
        frames: the frame of each; a negative one counts from the end.
        strengths: how strongly each is followed, 0 to 10; 1 as the control was trained.
        reach: how many frames on either side each still touches, its strength falling linearly; 0 for its own frame only.
        clip: the length of clip that they were laid out for; 0 for any.
    """

    images: Tensor
    frames: tuple[int, ...]
    strengths: tuple[float, ...]
    reach: tuple[int, ...]
    clip: int = 0

    def __post_init__(self) -> None:
        check_images(self.images)
        count = len(self.images)
        for name, values in (("frame numbers", self.frames), ("strengths", self.strengths), ("reaches", self.reach)):
            if len(values) != count:
                raise ValueError(f"{count} images and {len(values)} {name} were given: each image needs its own")
        for strength in self.strengths:
            check_strength(strength)
        if any(reach < 0 for reach in self.reach):
            raise ValueError(f"a keyframe's reach is {min(self.reach)}: it must be 0, its own frame only, or more")

    def __len__(self) -> int:
        return len(self.frames)

    def at(self, count: int) -> "Keyframes":
        """The same for a clip of ``count`` frames: counted from the start, in order of time.

        Raises:
            ValueError: a frame lies outside the clip, two images share one, or they were laid out for a clip of another length.
        """
        if self.clip not in (0, count):
            raise ValueError(
                f"the keyframes were laid out for a clip of {self.clip} frames and this one has {count}: set clip_frames of"
                f" Keyframes to {count}, or to 0 for any length"
            )
        resolved = resolved_frames(self.frames, count)
        order = sorted(range(len(self)), key=resolved.__getitem__)
        return replace(
            self,
            images=self.images[order],
            frames=tuple(resolved[place] for place in order),
            strengths=tuple(self.strengths[place] for place in order),
            reach=tuple(self.reach[place] for place in order),
            clip=count,
        )

    def resolved(self, count: int = 0) -> "Keyframes":
        """``at`` the clip's length, or where that is 0 at the one that they were laid out for.

        Raises:
            ValueError: neither is known; or as ``at``.
        """
        if not count and not self.clip:
            raise ValueError("the clip's length is not known: set clip_frames here or in Keyframes to the latent's batch size")
        return self.at(count or self.clip)

    def weights(self, count: int) -> Tensor:
        """How strongly each keyframe is followed in each frame of a clip: its strength times 1 - distance / (reach + 1).

        Args:
            count: frames of the clip.

        Returns:
            weights: ``k count``; the keyframes in order of time.

        Raises:
            ValueError: as ``at``.
        """
        at = self.at(count)
        distance = (torch.arange(count) - torch.tensor(at.frames)[:, None]).abs()
        reach, strength = (torch.tensor(values, dtype=torch.float32)[:, None] for values in (at.reach, at.strengths))
        return strength * (1 - distance / (reach + 1)).clamp_min(0)

    def and_then(self, others: "Keyframes") -> "Keyframes":
        """Both together.

        Raises:
            ValueError: their images differ in size, or they were laid out for clips of different lengths.
        """
        if self.images.shape[1:] != others.images.shape[1:]:
            sizes = [f"{images.shape[2]}x{images.shape[1]}" for images in (self.images, others.images)]
            raise ValueError(f"keyframes of {sizes[0]} and {sizes[1]} pixels cannot be joined: scale them to the same size first")
        if self.clip and others.clip and self.clip != others.clip:
            raise ValueError(
                f"keyframes for clips of {self.clip} and {others.clip} frames cannot be joined: give both the same clip_frames"
            )
        return Keyframes(
            torch.cat([self.images, others.images.to(self.images)]),
            self.frames + others.frames,
            self.strengths + others.strengths,
            self.reach + others.reach,
            self.clip or others.clip,
        )


def resolved_frames(frames: Sequence[int], count: int) -> list[int]:
    """Frames of a clip of ``count``, counted from its start.

    Raises:
        ValueError: one lies outside the clip, or two are the same.
    """
    outside = [frame for frame in frames if not -count <= frame < count]
    if outside:
        raise ValueError(
            f"a keyframe is at frame {outside[0]} and the clip has {count} frames: choose 0 to {count - 1}, or -1 to {-count}"
            " counted from the end"
        )
    resolved = [frame % count for frame in frames]
    for frame in resolved:
        if resolved.count(frame) > 1:
            given = [said for said, at in zip(frames, resolved, strict=True) if at == frame]
            raise ValueError(f"two images are keyframes of frame {frame} ({given[0]} and {given[1]}): give each its own frame")
    return resolved


def check_text(frames: str, strength: str, clip_frames: int) -> None:
    """Refuse what can be seen to be wrong without the images.

    Args:
        frames: as ``read_frames`` takes them.
        strength: as ``read_strengths`` does.
        clip_frames: of the clip; 0 for any number.

    Raises:
        ValueError: something else than numbers is among them, a frame lies outside the clip, or the two are not as many. One sentence.
    """
    strengths = parse_numbers(strength, "strength")
    images = len(strengths) if frames.strip().lower() == EVEN else len(numbers_of(frames))
    read = read_frames(frames, images, clip_frames)
    if clip_frames:
        resolved_frames(read, clip_frames)
    for one in read_strengths(strength, images):
        check_strength(one)


def check_strength(strength: float) -> None:
    """Refuse a strength that is out of range.

    Raises:
        ValueError: it is.
    """
    if not 0 <= strength <= MOST:
        raise ValueError(f"a keyframe's strength is {strength:g}: it must lie between 0 and {MOST:g}; 1 is as trained")


def check_images(images: Tensor) -> None:
    """Refuse what is no batch of pictures, ``k h w c``: ``images``: ``...``."""
    if images.ndim != 4 or images.shape[-1] < 3 or 0 in images.shape:
        raise ValueError(
            f"the images have the shape {list(images.shape)}: keyframes are pictures, height x width x 3 colours each"
        )
    if not bool(torch.isfinite(images).all()):
        raise ValueError("an image has numbers that are not finite (NaN or infinite): decode or load it again")


def read_frames(text: str, images: int, count: int = 0) -> tuple[int, ...]:
    """The frame of each image, as users write them: numbers, or ``even`` to spread them over the clip.

    >>> read_frames("0, 8, -1", 3)
    (0, 8, -1)
    >>> read_frames("even", 3, 17)
    (0, 8, 16)

    Args:
        text: numbers with commas or spaces between them; negative ones count from the end.
        images: how many there are.
        count: frames of the clip, for ``even``.

    Raises:
        ValueError: there are not as many numbers as images, something else is among them, or ``even`` has no length or no room.
    """
    if text.strip().lower() == EVEN:
        if count < images:
            room = f"the clip has {count} frames" if count else "clip_frames is 0, so its length is not known"
            raise ValueError(f"{images} images cannot be spread evenly over the clip: {room}; say how long it is")
        return tuple(torch.linspace(0, count - 1, images, dtype=torch.float64).round().long().tolist())
    frames = tuple(numbers_of(text))
    if len(frames) != images:
        raise ValueError(
            f"{images} {'image was' if images == 1 else 'images were'} given and {len(frames)} frame numbers ({text.strip() or 'none'}):"
            " write one for each image, or even"
        )
    return frames


def read_strengths(text: str, images: int) -> tuple[float, ...]:
    """The strength of each image: one number for all, or one each.

    >>> read_strengths("1, 0.5", 2)
    (1.0, 0.5)

    Raises:
        ValueError: something else is among them, or there are neither one nor as many as images.
    """
    strengths = parse_numbers(text, "strength")
    if len(strengths) not in (1, images):
        raise ValueError(f"{images} images and {len(strengths)} strengths were given: write one for all, or one for each image")
    return strengths * images if len(strengths) == 1 else strengths
