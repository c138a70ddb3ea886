"""How strongly a motion module acts: where in the U-Net, on which frames, on which part of the picture, at which noise levels.

One engine for all of it: a keyframe holds from its percent of the sampling until the next one's; every frame of a call is looked up by its
own sigma, so frames at different noise levels get what belongs to each.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .frames import Gain, resized
from .motion import STRETCHES, check_window

RULE = re.compile(r"^(all|down|mid|up)((?:\.\d+){0,2})$")
MOST = 10.0  # an effect or a scale beyond this is a slip of the hand


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


@dataclass(frozen=True)
class BlockRule:
    """What one part of the U-Net gets.

    Attributes:
        place: ``all``, ``down``, ``mid``, ``up``, a level as in ``up.1``, or one slot as in ``up.1.2``.
        effect: factor on the effect, None to leave it.
        scales: factors on the attentions' scales, the last one going on; empty to leave them.
    """

    place: str
    effect: float | None = None
    scales: tuple[float, ...] = ()

    def holds(self, slot: str) -> bool:
        """Whether a slot, by AnimateDiff's name for it, is in this part."""
        side, *numbers = self.place.split(".")
        parts = slot.replace("_blocks", "").replace("_block", "").replace("motion_modules.", "").split(".")
        return side == "all" or parts[: 1 + len(numbers)] == [side, *numbers]


def parse_blocks(text: str) -> tuple[BlockRule, ...]:
    """Rules from text, one per line or between semicolons; later ones override earlier ones.

    ``up 0.5`` halves the effect on the way up, ``down.1.0 effect=0`` rests one slot, ``mid scale=1.2`` and ``up.2 scale=1.2,0.8`` change
    the temperature of both attentions or of each.

    Raises:
        ValueError: a line does not read so.

    >>> parse_blocks("up 0.5; mid scale=1.2")
    (BlockRule(place='up', effect=0.5, scales=()), BlockRule(place='mid', effect=None, scales=(1.2,)))
    """
    return tuple(_rule(line.strip()) for line in re.split(r"[\n;]", text) if line.strip())


def _rule(line: str) -> BlockRule:
    place, *words = line.split()
    if not RULE.match(place):
        raise ValueError(
            f"{line!r} names no part of the U-Net: start with all, down, mid, up, a level such as up.1, or a slot such as up.1.2"
        )
    effect: float | None = None
    scales: tuple[float, ...] = ()
    for word in words:
        key, _, value = word.rpartition("=")
        numbers = parse_numbers(value, f"{line!r}")
        if key == "scale" and numbers:
            scales = numbers
        elif key in ("", "effect") and len(numbers) == 1:
            effect = numbers[0]
        else:
            raise ValueError(f"{word!r} in {line!r} is not understood: write a number, effect=0.5, scale=1.2 or scale=1.2,0.8")
    if effect is None and not scales:
        raise ValueError(f"{line!r} changes nothing: add a number, effect=0.5 or scale=1.2")
    return BlockRule(place, effect, scales)


def parse_numbers(text: str, where: str = "the list") -> tuple[float, ...]:
    """Numbers between commas or spaces.

    Raises:
        ValueError: something else is there, or a number beyond +-10 or not finite.

    >>> parse_numbers("1, 0.5 0")
    (1.0, 0.5, 0.0)
    """
    numbers = []
    for word in text.replace(",", " ").split():
        try:
            number = float(word)
        except ValueError:
            raise ValueError(f"{word!r} in {where} is no number: write numbers such as 1, 0.5, 0") from None
        if not abs(number) <= MOST:
            raise ValueError(f"{word} in {where} is out of range: use numbers between -{MOST:g} and {MOST:g}")
        numbers.append(number)
    return tuple(numbers)


def block_factor(rules: Iterable[BlockRule], slot: str) -> float:
    """What the last rule that holds a slot makes of its effect; 1 where none does."""
    found = [rule.effect for rule in rules if rule.effect is not None and rule.holds(slot)]
    return found[-1] if found else 1.0


@dataclass(frozen=True)
class MotionKeyframe:
    """What holds from one point of the sampling on.

    Attributes:
        start_percent: 0 at the noisiest step, 1 at the end.
        effect: how much of the module's change is added.
        scale: temperature of its attentions: above 1 sharper, more motion; below 1 softer, less.
        blocks: rules by part of the U-Net.
    """

    start_percent: float = 0.0
    effect: Strength = Strength()
    scale: Strength = Strength()
    blocks: tuple[BlockRule, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.start_percent <= 1:
            raise ValueError(f"start_percent is {self.start_percent}: it must lie between 0, the noisiest step, and 1, the end")
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


@dataclass(frozen=True)
class MotionSettings:
    """All that a user can set about one motion module on one model.

    Attributes:
        effect: factor on every keyframe's.
        scale: factor on every keyframe's.
        start_percent: before this part of the sampling the module rests.
        end_percent: after it, too.
        keyframes: in any order; before the first the module acts plainly.
        positions: a name in ``motion.STRETCHES``.
        window: frames that a frame sees at most, itself in the middle; 0 for all.
        first_frame: whether it sees the first one besides.
    """

    effect: float = 1.0
    scale: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0
    keyframes: tuple[MotionKeyframe, ...] = field(default=())
    positions: str = "trained"
    window: int = 0
    first_frame: bool = False

    def __post_init__(self) -> None:
        for name in ("effect", "scale"):
            if not 0 <= getattr(self, name) <= MOST:
                raise ValueError(
                    f"{name} is {getattr(self, name)}: it must lie between 0 and {MOST:g}; 1 is the module as it was trained"
                )
        if not 0 <= self.start_percent < self.end_percent <= 1:
            raise ValueError(
                f"start_percent is {self.start_percent} and end_percent {self.end_percent}: they must lie between 0 and 1, and start first"
            )
        if self.positions not in STRETCHES:
            raise ValueError(f"the positions {self.positions!r} are not known: choose one of {', '.join(STRETCHES)}")
        check_window(self.window)
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
