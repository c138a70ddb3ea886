"""Filling in between keyframes: what a model is told of them, and how many frames there are.

Hint latents are those of the article "Make a longer Stable Diffusion video" (lxj616, 2023-03-05): every k-th frame of a clip is known, its
latent is held until the next one, and stands beside the noisy latent where an inpainting checkpoint expects the masked picture; the mask
says that nothing is to be painted. Five frames become 17, and 17 become 65, by the same model. Make-A-Video (arXiv:2209.14792, Section 3.4)
has the same input with zeros for frames that are to be made and a mask that names them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .hint_tables import HINTS, MASKS, Places, given


def grown(frames: int, factor: int, passes: int = 1) -> int:
    """Length of a clip of ``frames`` when ``factor - 1`` frames are put between each two, so many times over.

    Raises:
        ValueError: there is nothing to fill in between, or nothing is put there.

    >>> [grown(5, 4, passes) for passes in (0, 1, 2)]
    [5, 17, 65]
    """
    if frames < 2:
        raise ValueError(f"the clip has {frames} frame: filling in between needs at least 2")
    if factor < 2:
        raise ValueError(f"factor is {factor}: it must be at least 2, which puts one frame between each two")
    if passes < 0:
        raise ValueError(f"passes is {passes}: it must be 0 or more")
    return (frames - 1) * factor**passes + 1


@dataclass(frozen=True)
class Layout:
    """How keyframes are told to a model.

    Attributes:
        hint: what stands beside each frame, a name in ``HINTS``.
        mask: a name in ``MASKS``.
        before: the one keyframe comes before the clip and is no part of it; the model makes what follows.
        text: a sentence for users.
    """

    hint: str = "hold"
    mask: str = "zeros"
    before: bool = False
    text: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for name, table in (("hint", HINTS), ("mask", MASKS)):
            if getattr(self, name) not in table:
                raise ValueError(f"{name} is {getattr(self, name)!r}: choose one of {', '.join(table)}")

    def hints(self, keys: Tensor, frames: Places, count: int) -> "Hints":
        """What a model is told.

        Args:
            keys: ``k c h w``, latents of the keyframes.
            frames: their numbers, in order.
            count: frames of the clip; with ``before`` the keyframe counts among them, as frame 0.

        Raises:
            ValueError: the numbers do not fit the keyframes or the clip.
        """
        check_places(frames, len(keys), count)
        if self.before:
            if tuple(frames) != (0,):
                raise ValueError(
                    f"{len(keys)} keyframes were given, at {', '.join(map(str, frames))}: this layout goes on from one keyframe, at"
                    f" frame 0"
                )
            count -= 1
            if count < 1:
                raise ValueError("the clip has 1 frame, which is the keyframe: give it at least 2")
        shares = HINTS[self.hint](frames, count)
        mask = MASKS[self.mask](() if self.before else frames, count)
        wide = mask.to(keys)[:, None, None, None].expand(-1, 1, *keys.shape[-2:])
        known = torch.zeros(count, dtype=torch.bool) if self.before else given(frames, count).bool()
        return Hints(mixed(keys, shares), wide.contiguous(), known)


# ways that models were trained in, by name
LAYOUTS: dict[str, Layout] = {
    "article": Layout("hold", "zeros", text="Each keyframe is held until the next, and the mask is 0."),
    "make_a_video": Layout("blank", "between", text="Zeros stand between keyframes, and the mask is 1 there."),
    "moonshot": Layout("hold", "keyframes", text="Each keyframe is held until the next, and the mask is 1 on keyframes."),
    "tempofunk": Layout("hold", "zeros", before=True, text="One keyframe comes before the clip and is held, and the mask is 0."),
}
TEMPOFUNK_FRAMES = 22  # of its training clips, the first of which is the hint


@dataclass(frozen=True)
class Hints:
    """What stands beside the noisy latents of a clip, in the order of an inpainting checkpoint's input: mask, then latents.

    Attributes:
        latents: ``f c h w``.
        mask: ``f 1 h w``.
        known: ``f``, bool, which frames are keyframes themselves.
    """

    latents: Tensor
    mask: Tensor
    known: Tensor

    def joined(self) -> Tensor:
        """Mask and latents as further channels of the input. Returns ``f d h w``, where ``d`` is ``c + 1``."""
        return torch.cat([self.mask, self.latents], dim=1)

    def pinned(self, clip: Tensor) -> Tensor:
        """The clip with its keyframes as they were given, bit for bit: ``clip``: ``f c h w``. Returns ``f c h w``."""
        return torch.where(self.known.to(clip.device)[:, None, None, None], self.latents.to(clip), clip)


def mixed(keys: Tensor, shares: Tensor) -> Tensor:
    """Keyframes as hints of each frame; where a frame has one keyframe alone, it is that keyframe bit for bit.

    Args:
        keys: ``k ...``.
        shares: ``f k``.

    Returns:
        hints: ``f ...``.
    """
    most = shares.max(dim=1)
    blended = (
        torch.einsum("fk,k...->f...", shares.to(keys), keys) if bool(((most.values != 1) & (most.values != 0)).any()) else None
    )
    picked = keys[most.indices.to(keys.device)]
    wide = lambda values: values.to(keys.device).view(-1, *(1,) * (keys.ndim - 1))  # noqa: E731
    if blended is not None:
        picked = torch.where(wide(most.values == 1), picked, blended)
    return torch.where(wide(most.values == 0), torch.zeros_like(picked), picked)


def beside(latents: Tensor | None, mask: Tensor | None, size: Sequence[int]) -> Tensor:
    """What stands beside the noisy frames of a model with hints, from what a CONDITIONING holds.

    Args:
        latents: ``k c h w``, one per frame, or one for all; None where there is none.
        mask: ``m ...``, the same.
        size: frames, channels, height and width of the clip.

    Returns:
        channels: ``f d h w``, where ``d`` is ``c + 1``: mask first.

    Raises:
        ValueError: the conditioning holds no hints, or those of another clip.
    """
    if latents is None or mask is None:
        raise ValueError(
            "this video model fills in between keyframes and its conditioning has none: put Hint Latents between the prompt and the"
            " sampler, for the negative prompt too"
        )
    frames, channels, height, width = size
    mask = mask.reshape(-1, 1, *mask.shape[-2:])
    for what, one, wide in (("hints", latents, channels), ("hint mask", mask, 1)):
        if one.shape[1:] != (wide, height, width) or len(one) not in (1, frames):
            raise ValueError(
                f"the {what} are {len(one)} frames of {list(one.shape[1:])} and the clip {frames} of {[wide, height, width]}: make"
                " both with the same Hint Latents"
            )
    return torch.cat([one.float().expand(frames, -1, -1, -1) for one in (mask, latents)], dim=1)


def check_places(frames: Places, keys: int, count: int) -> None:
    """Refuse numbers that are not those of keyframes of a clip: as many as keyframes, in order, inside.

    Raises:
        ValueError: they are not.
    """
    if not keys or len(frames) != keys:
        raise ValueError(
            f"{keys} keyframes and {len(frames)} frame numbers were given: each keyframe needs its own, and one is needed"
        )
    if any(later <= earlier for earlier, later in zip(frames, frames[1:], strict=False)):
        raise ValueError(
            f"the keyframes' numbers {', '.join(map(str, frames))} are not in order: each must be above the one before it"
        )
    if frames[0] < 0 or frames[-1] >= count:
        outside = frames[0] if frames[0] < 0 else frames[-1]
        raise ValueError(f"a keyframe is at frame {outside} and the clip has {count} frames: choose 0 to {count - 1}")


def every(frames: int, factor: int) -> tuple[int, ...]:
    """The numbers of a clip's frames in the clip that is ``grown`` from it.

    >>> every(5, 4)
    (0, 4, 8, 12, 16)
    """
    grown(frames, factor)
    return tuple(range(0, (frames - 1) * factor + 1, factor))


@dataclass(frozen=True)
class HintInputs:
    """All that a sampler and its conditions need of keyframes.

    Attributes:
        hints: what stands beside the noisy frames.
        clip: ``f c h w``, what is sampled over: pinned keyframes in their places, and elsewhere a clip that is there, or zeros.
        made: ``f 1 h w``, a noise mask, 0 on keyframes that are kept as they are and 1 elsewhere; None where all are made again.
    """

    hints: Hints
    clip: Tensor
    made: Tensor | None

    @property
    def numbers(self) -> str:
        """The frames that are kept as they are, as users write them."""
        return "" if self.made is None else ", ".join(map(str, self.hints.known.nonzero().flatten().tolist()))


def told(keys: Tensor, frames: Places, count: int, layout: Layout, *, pin: bool = True, over: Tensor | None = None) -> HintInputs:
    """What is told of keyframes.

    Args:
        keys: ``k ...``, their latents; anything but ``k c h w`` is refused.
        frames: their numbers, in order.
        count: frames of the clip.
        layout: how they are told.
        pin: whether a sampler keeps them as they are; else it makes them again like all others, as the article does.
        over: ``f c h w``, a clip that is sampled over, or None.

    Raises:
        ValueError: they do not fit the clip or the layout, or are not finite.
    """
    if keys.ndim != 4:
        raise ValueError(
            f"the keyframes' latents have the shape {list(keys.shape)}: they must be keyframes, channels, height, width; use the VAE"
            f" of an"
            " image model"
        )
    if not bool(torch.isfinite(keys).all()):
        raise ValueError("a keyframe has numbers that are not finite (NaN or infinite): encode or load it again")
    hints = layout.hints(keys, frames, count)
    clip = keys.new_zeros(len(hints.known), *keys.shape[1:]) if over is None else over
    if clip.shape != (len(hints.known), *keys.shape[1:]):
        raise ValueError(
            f"the clip to sample over has the shape {list(clip.shape)} and that of the hints is {[len(hints.known), *keys.shape[1:]]}: give"
            " it as many frames, of the keyframes' size"
        )
    if not pin or not bool(hints.known.any()):
        return HintInputs(hints, clip, None)
    made = (~hints.known).to(keys)[:, None, None, None].expand_as(hints.mask)
    return HintInputs(hints, hints.pinned(clip), made.contiguous())


def length(keys: int, factor: int, frames: int, layout: Layout) -> int:
    """Frames of a clip that is made of keyframes ``factor`` apart, or ``frames`` if that is not 0.

    Raises:
        ValueError: it cannot be told, or the keyframes do not fit into so many frames.
    """
    if layout.before:
        return frames or TEMPOFUNK_FRAMES
    if frames and (keys - 1) * factor >= frames:
        raise ValueError(
            f"{keys} keyframes {factor} frames apart take {grown(keys, factor)} frames and the clip has {frames}: set frames to 0, or"
            " factor lower"
        )
    if keys == 1 and not frames:
        raise ValueError("there is one keyframe, which says nothing of the clip's length: set frames")
    return frames or grown(keys, factor)


def layout_named(name: str) -> Layout:
    """A layout by name.

    Raises:
        ValueError: there is none.
    """
    if name not in LAYOUTS:
        raise ValueError(f"the layout {name!r} is not known: choose one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
