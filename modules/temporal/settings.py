"""How strongly a motion module acts: where in the U-Net, on which frames, on which part of the picture, at which noise levels.

One engine for all of it: a keyframe holds from its percent of the sampling until the next one's; every frame of a call is looked up by its
own sigma, so frames at different noise levels get what belongs to each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..fields.setting import check, documented, sentences, setting
from ..fields.span import check_span, end_percent, start_percent
from .block_rules import MOST, BlockRule, block_factor
from .frames import Gain, resized
from .motion import check_window
from .positions import STRETCHES


@dataclass(frozen=True)
class Strength:
    """A factor, the same for all frames, or one per frame, or a mask per frame.

    Attributes:
        value: multiplied with the rest.
        frames: one factor per frame; where there are fewer than frames the last goes on. Empty for 1.
        mask: ``k h w``, one factor per frame and place; where there are fewer than frames the last goes on. None for 1.
    """

    value: float = 1.0
    frames: tuple[float, ...] = ()
    mask: Tensor | None = None

    @property
    def plain(self) -> bool:
        """Whether it is one number."""
        return not self.frames and self.mask is None

    def check(self, name: str) -> None:
        """Refuse what frames cannot be multiplied with.

        Raises:
            ValueError: the value is out of range, or the mask is none. Calls them ``name`` and ``name_mask``.
        """
        if not abs(self.value) <= MOST:
            raise ValueError(f"{name} is {self.value}: it must lie between -{MOST:g} and {MOST:g}; 1 changes nothing")
        if self.mask is None:
            return
        if not isinstance(self.mask, Tensor) or self.mask.ndim != 3 or 0 in self.mask.shape:
            given = f"has the shape {list(self.mask.shape)}" if isinstance(self.mask, Tensor) else f"is {self.mask!r}"
            raise ValueError(f"{name}_mask {given}: it must be frames, height, width; connect a MASK")
        if not self.mask.isfinite().all():
            raise ValueError(f"{name}_mask is not finite (NaN or infinite): make it again, with values from 0 to 1")

    def at(self, ids: Tensor) -> Tensor:
        """The factors of some frames.

        Args:
            ids: ``f``, frame numbers in the clip.

        Returns:
            factors: ``f ...``, with a mask ``f h w``.
        """
        factors = torch.full((len(ids),), self.value, device=ids.device)
        if self.frames:
            listed = torch.tensor(self.frames, device=ids.device)
            factors = factors * listed[ids.clamp(0, len(listed) - 1)]
        if self.mask is None:
            return factors
        return factors[:, None, None] * self.mask.to(factors)[ids.clamp(0, len(self.mask) - 1)]


@documented
@dataclass(frozen=True)
class MotionKeyframe:
    """What holds from one point of the sampling on.

    Attributes:
        effect: how much of the module's change is added.
        scale: temperature of its attentions: above 1 sharper, more motion; below 1 softer, less.
        blocks: rules by part of the U-Net.
    """

    start_percent: float = start_percent()
    effect: Strength = Strength()
    scale: Strength = Strength()
    blocks: tuple[BlockRule, ...] = ()

    def __post_init__(self) -> None:
        check(self)
        self.effect.check("effect")
        self.scale.check("scale")

    def effect_at(self, slot: str, ids: Tensor) -> Tensor:
        """``ids``: ``f``. Returns ``f ...``, with a mask ``f h w``."""
        return self.effect.at(ids) * block_factor(self.blocks, slot)

    def scale_at(self, slot: str, attention: int, ids: Tensor) -> Tensor:
        """``ids``: ``f``. Returns ``f ...``, with a mask ``f h w``."""
        found = [rule.scales for rule in self.blocks if rule.scales and rule.holds(slot)]
        return self.scale.at(ids) * (found[-1][min(attention, len(found[-1]) - 1)] if found else 1.0)

    @property
    def neutral(self) -> bool:
        """Whether it leaves the module as it is."""
        return self.effect == Strength() and self.scale == Strength() and not self.blocks


@documented
@dataclass(frozen=True)
class MotionSettings:
    """All that a user can set about one motion module on one model.

    Attributes:
        keyframes: in any order; before the first the module acts plainly.
    """

    effect: float = setting(
        1.0,
        "The effect says how much of the module's change is added: 1 is as trained, and at 0 nothing moves, because frames do not"
        " know each"
        " other.",
        least=0.0,
        most=MOST,
        step=0.01,
    )
    scale: float = setting(
        1.0,
        "The scale is the sharpness of the attention over time: above 1 clips move more and are less stable, below 1 they are calmer.",
        least=0.0,
        most=MOST,
        step=0.01,
    )
    start_percent: float = start_percent()
    end_percent: float = end_percent()
    keyframes: tuple[MotionKeyframe, ...] = ()
    positions: str = setting(
        "trained",
        "Positions say what happens in clips that are longer than what the module knows times for.",
        menu=sentences(STRETCHES),
        advanced=True,
    )
    attention_window: int = setting(
        0,
        "Each frame sees so many frames: itself and as many on either side, so the number is odd, such as 5; 0 is all. It suits clips"
        " whose"
        " keyframes are told by other means, such as Hint Latents; in others things change their looks along the clip.",
        least=0,
        most=1023,
        advanced=True,
    )
    see_first_frame: bool = setting(
        False,
        "With an attention window every frame also sees the first one, in context windows only where the window holds it.",
        advanced=True,
    )

    def __post_init__(self) -> None:
        check(self)
        check_span(self)
        check_window(self.attention_window)
        stranger = next((item for item in self.keyframes if not isinstance(item, MotionKeyframe)), None)
        if stranger is not None:
            raise ValueError(f"keyframes holds {type(stranger).__name__} where motion keyframes belong: connect Motion Keyframe")

    def gain(self, slot: str, attentions: int, ids: Tensor, sigma: Tensor, sigma_of: Callable[[float], float]) -> Gain | None:
        """What a slot's module does in one call; None if it rests.

        Args:
            slot: AnimateDiff's name for it.
            attentions: how many the module has.
            ids: ``f``, frame numbers in the clip.
            sigma: ``f``, noise level of each frame.
            sigma_of: the sigma at a percent of the sampling, falling.
        """
        on = (sigma <= sigma_of(self.start_percent)) & (sigma >= sigma_of(self.end_percent))
        if not on.any():
            return None
        frames = sorted(self.keyframes, key=lambda keyframe: keyframe.start_percent)
        current = keyframe_of(frames, sigma, sigma_of)
        options = [MotionKeyframe(), *frames]
        effect = _chosen([option.effect_at(slot, ids) for option in options], current) * self.effect
        effect = effect * _like(on.to(effect), effect)
        if not effect.any():
            return None
        scales = [
            _chosen([option.scale_at(slot, place, ids) for option in options], current) * self.scale
            for place in range(attentions)
        ]
        return Gain(None if (effect == 1).all() else effect, tuple(None if (scale == 1).all() else scale for scale in scales))

    def gains(
        self, slots: Sequence[str], attentions: int, ids: Tensor, sigma: Tensor, sigma_of: Callable[[float], float]
    ) -> dict[str, Gain | None]:
        """``gain`` of every slot; empty where all act plainly. ``ids``: ``f``, ``sigma``: ``f``."""
        return {} if self.neutral else {slot: self.gain(slot, attentions, ids, sigma, sigma_of) for slot in slots}

    @property
    def neutral(self) -> bool:
        """Whether the module acts as it was trained, always and everywhere."""
        ends = (self.start_percent, self.end_percent) == (0.0, 1.0)
        return ends and self.effect == self.scale == 1 and all(keyframe.neutral for keyframe in self.keyframes)


PLAIN = MotionSettings()


def keyframe_of(keyframes: Sequence[MotionKeyframe], sigma: Tensor, sigma_of: Callable[[float], float]) -> Tensor:
    """Which keyframe each frame is under: ``sigma``: ``f``. Returns ``f``, 0 for none yet, else its place in order of time plus 1."""
    starts = torch.tensor([sigma_of(keyframe.start_percent) for keyframe in keyframes], dtype=torch.float64, device=sigma.device)
    return (sigma[:, None].double() <= starts).sum(dim=1)


def _like(values: Tensor, target: Tensor) -> Tensor:
    return values.view(-1, *([1] * (target.ndim - 1)))


def _chosen(options: Sequence[Tensor], current: Tensor) -> Tensor:
    """Of several values, ``f`` or ``f h w`` each, the one that each frame is under: ``current``: ``f``. Returns ``f ...``."""
    sizes = [option.shape[1:] for option in options if option.ndim == 3]
    if sizes:
        largest = max(sizes, key=lambda size: size[0] * size[1])
        options = [resized(option, *largest).expand(-1, *largest) for option in options]
    return torch.stack(list(options))[current, torch.arange(len(current), device=current.device)]
