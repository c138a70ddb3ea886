"""UniPC of second order with a past per frame: a multistep method where every frame is at a noise level of its own.

A multistep method goes on from what a model guessed at earlier levels. What it remembers is of one frame and of that frame's own levels, so
frames that start at other times, wait, or are told other levels do not mix (SkyReels-V2 runs one scheduler per frame likewise).
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .coordinates import SIGNAL

STEPS = "steps."  # what names of a past's tensors begin with
LEAST = 1e-6  # of the signal at the noisiest level, where flow models have none and its logarithm is no number


@dataclass(frozen=True)
class Past:
    """What a frame's last steps leave for its next one.

    Attributes:
        begun: ``...``, the frame that the last step began from, corrected.
        clean: ``...``, the model's guess there.
        sigma: its level.
        earlier: ``...``, the guess of the step before; ``clean`` again where there was none.
        earlier_sigma: its level; 0 where there was none.
    """

    begun: Tensor
    clean: Tensor
    sigma: float
    earlier: Tensor
    earlier_sigma: float = 0.0


def unipc(x: Tensor, clean: Tensor, before: float, after: float, past: Past | None, coordinates: str) -> tuple[Tensor, Past]:
    """A step of UniPC-2 in its variant ``B2(h) = exp(-h) - 1`` (arXiv:2302.04867, algorithms 1, 2 and 5 to 8, guesses of clean data).

    First the step before is corrected with what the model guesses now, then the next is predicted; the first step of a frame and its last
    one are of first order, which is Euler's method.

    Args:
        x: ``...``, one frame now.
        clean: ``...``, the model's guess of it.
        before: its sigma.
        after: its sigma afterwards, less than ``before``.
        past: of its earlier steps; None for the first.
        coordinates: a name in ``coordinates.SIGNAL``.

    Returns:
        x: ``...``, and what its next step goes on from.
    """
    if past is not None:
        x = _corrected(clean, before, past, coordinates)
    earlier, earlier_sigma = (clean, 0.0) if past is None else (past.clean, past.sigma)
    made = Past(x, clean, before, earlier, earlier_sigma)
    if after == 0:
        return clean.clone(), made
    ratio, gain, step = _terms(before, after, coordinates)
    moved = ratio * x + gain * clean
    if past is not None:
        moved = moved + gain * 0.5 * (past.clean - clean) / (_log_signal(past.sigma, before, coordinates) / step)
    return moved, made


def _corrected(clean: Tensor, now: float, past: Past, coordinates: str) -> Tensor:
    """Where the step before should have led, as is known from the guess at its end, ``clean``: ``...``. Returns ``...``."""
    ratio, gain, step = _terms(past.sigma, now, coordinates)
    fixed = ratio * past.begun + gain * past.clean
    if past.earlier_sigma == 0:
        return fixed + gain * 0.5 * (clean - past.clean)
    first = math.expm1(-step)  # B(h), and h phi_1(h)
    second = first / -step - 1
    third = second / -step - 0.5
    place = _log_signal(past.earlier_sigma, past.sigma, coordinates) / step  # of the earlier guess, in steps
    of_earlier = (2 * third - second) / first / (place - 1)
    of_now = second / first - of_earlier
    return fixed + gain * (of_earlier / place * (past.earlier - past.clean) + of_now * (clean - past.clean))


def _terms(before: float, after: float, coordinates: str) -> tuple[float, float, float]:
    """What the frame and the guess are multiplied with, and the step in the logarithm of signal to noise."""
    step = _log_signal(after, before, coordinates)
    return after / before, -_signal(after, coordinates) * math.expm1(-step), step


def _signal(sigma: float, coordinates: str) -> float:
    return max(LEAST, float(SIGNAL[coordinates](torch.tensor(sigma, dtype=torch.float64))))


def _log_signal(sigma: float, other: float, coordinates: str) -> float:
    """How much larger the logarithm of signal to noise is at one level than at another."""
    return math.log(_signal(sigma, coordinates) / sigma) - math.log(_signal(other, coordinates) / other)


class Multistep:
    """The pasts of all frames in flight, by frame number; they go into a take's file and are taken up again."""

    def __init__(self):
        self.of: dict[int, Past] = {}

    def step(
        self, x: Tensor, clean: Tensor, ids: Iterable[int], before: Iterable[float], after: Iterable[float], coordinates: str
    ) -> Tensor:
        """One row: ``x``: ``n ...``, ``clean``: ``n ...``; ``ids``, sigmas ``before`` and ``after`` of each frame.

        Returns:
            x: ``n ...``, frames whose sigma does not change bit for bit.
        """
        moved = x.clone()
        for place, (number, now, then) in enumerate(zip(ids, before, after, strict=True)):
            if now == then:
                continue
            moved[place], self.of[number] = unipc(x[place], clean[place], now, then, self.of.get(number), coordinates)
            if then == 0:
                del self.of[number]
        return moved

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, each name beginning with ``STEPS``; nothing where no frame is in flight."""
        if not self.of:
            return {}
        pasts = self.of.values()
        return {
            f"{STEPS}ids": torch.tensor(list(self.of)),
            f"{STEPS}sigmas": torch.tensor([[past.sigma, past.earlier_sigma] for past in pasts], dtype=torch.float64),
            **{f"{STEPS}{name}": torch.stack([get(past) for past in pasts]) for name, get in FRAMES.items()},
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Be as when ``tensors`` were given, among whose names others may be."""
        mine = {name.removeprefix(STEPS): tensor for name, tensor in tensors.items() if name.startswith(STEPS)}
        self.of = {}
        for place, number in enumerate(mine.pop("ids", torch.tensor([])).tolist()):
            sigma, earlier_sigma = mine["sigmas"][place].tolist()
            begun, clean, earlier = (mine[name][place] for name in FRAMES)
            self.of[int(number)] = Past(begun, clean, sigma, earlier, earlier_sigma)


FRAMES: dict[str, Callable[[Past], Tensor]] = {
    "begun": lambda past: past.begun,
    "clean": lambda past: past.clean,
    "earlier": lambda past: past.earlier,
}
