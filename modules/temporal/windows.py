"""Context windows: which frames a motion model sees together, and how overlapping results are averaged.

A long clip is cut into windows of the length that the motion model was trained on; neighbours overlap, and where they do, results
are averaged with weights. Which frames a window holds, and what each counts, are tables of functions in ``window_schedules.py``.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..fields.setting import check, documented, sentences, setting
from .window_schedules import FUSES, LOOPING, SCHEDULES, Frames

FUSE_AT = ("attention", "module")
# how a model uses its windows -> where overlapping results are averaged; for "whole", that is after the model and not in it
MODES = {"temporal": "attention", "views": "module", "whole": "module"}


@dataclass(frozen=True)
class Windows:
    """Windows over the frames of one call, and what each counts for.

    Attributes:
        groups: pairs of ``index``, ``w l`` int64, the frames of ``w`` windows of equal length, and ``weight``, ``w l`` float32; the
            weights of one frame sum to 1 over all windows of all groups.
        fuse_at: "attention" (outputs of each temporal attention are averaged) or "module" (outputs of the whole motion module are).
    """

    groups: tuple[tuple[Tensor, Tensor], ...]
    fuse_at: str = "attention"


@documented
@dataclass(frozen=True)
class WindowPlan:
    """Settings of the windows, for a clip of any length.

    Attributes:
        fuse_at: "attention" or "module", see ``Windows``.
    """

    schedule: str = setting(
        "standard_static", "The schedule says which frames are in a window together.", menu=sentences(SCHEDULES)
    )
    length: int = setting(
        16,
        "A window has so many frames. 0 takes the length that the motion module was trained on (16 for AnimateDiff), which moves"
        " best, and"
        " sets the overlap to a quarter of it; shorter windows move less well, and longer ones are refused beyond what the module knows.",
        least=0,
        most=4096,
    )
    overlap: int = setting(
        4,
        "Neighbouring windows share so many frames, fewer than the length; it is not used where the length is 0. More makes transitions"
        " softer, and in mode whole it costs time: an overlap of half the length doubles it.",
        least=0,
        most=4095,
    )
    stride: int = setting(
        1,
        "The stride is for uniform schedules: 1 has windows of neighbouring frames, 2 adds windows of every 2nd frame, 3 of every 4th"
        " and so"
        " on. Then distant frames agree better and motion gets calmer, and each adds time in modes views and whole.",
        least=1,
        most=16,
        advanced=True,
    )
    closed_loop: bool = setting(
        False, "The last frame leads back to the first; this needs looped_uniform and a clip longer than a window."
    )
    fuse: str = setting(
        "pyramid",
        "This says how results are averaged where windows overlap; none costs more than another.",
        menu=sentences(FUSES),
        advanced=True,
    )
    fuse_at: str = "attention"

    def __post_init__(self) -> None:
        check(self)
        _check_name("place to fuse", self.fuse_at, FUSE_AT)
        if self.length == 1:
            raise ValueError("length is 1: a window needs at least 2 frames, or 0 for automatic")
        if self.length and self.overlap >= self.length:
            raise ValueError(
                f"windows of {self.length} frames cannot overlap by {self.overlap}: use an overlap of at most {self.length - 1};"
                " a quarter of the length is usual"
            )
        if self.closed_loop and self.schedule not in LOOPING:
            raise ValueError(
                f"the schedule {self.schedule} cannot close a loop: choose {' or '.join(sorted(LOOPING))}, or switch closed_loop off"
            )

    def resolved(self, trained_frames: int | None, max_frames: int | None) -> "WindowPlan":
        """The plan for one motion model, with length and overlap chosen where the length is 0: the trained length, and a quarter of it.

        Args:
            trained_frames: clip length that the motion model was trained on; None where there is no motion model.
            max_frames: most frames it knows times for; None for any number, also where its positions are stretched or extended.

        Raises:
            ValueError: windows are longer than ``max_frames``, or nothing is known to choose a length from.
        """
        if self.length == 0:
            if trained_frames is None:
                raise ValueError(
                    "the window length is automatic and the model has no motion module to take it from: give a length"
                )
            length = max(2, trained_frames if max_frames is None else min(trained_frames, max_frames))
            return replace(self, length=length, overlap=length // 4)
        if max_frames is not None and self.length > max_frames:
            raise ValueError(
                f"windows of {self.length} frames are longer than the {max_frames} frames this motion model knows times for: use a"
                f" length of at most {max_frames}, or 0 for automatic, or stretch its positions"
            )
        return self

    def plan(self, frames: int, step: int = 0) -> list[Frames]:
        """The frames of each window, in order.

        Args:
            frames: length of the clip, at least 1.
            step: sampling step, from 0; the uniform schedules shift with it.

        Raises:
            ValueError: ``frames`` or ``step`` is out of range, or the length is still to be chosen.
        """
        if self.length == 0:
            raise ValueError("the window length is 0, automatic: ask resolved() for the plan of one motion model first")
        for what, value, least in (("frames", frames, 1), ("step", step, 0)):
            if value < least:
                raise ValueError(f"{what} is {value}: it must be at least {least}")
        return SCHEDULES[self.schedule](self, frames, step)

    def windows(self, frames: int, step: int = 0) -> Windows | None:
        """The windows of a clip at a step, with normalised weights; None where one window holds the clip."""
        if frames <= self.length:
            return None
        groups = [(torch.tensor(same), self._raw(torch.tensor(same), frames)) for same in _by_length(self.plan(frames, step))]
        total = torch.zeros(frames, dtype=torch.float64)
        for index, weight in groups:
            total.index_add_(0, index.flatten(), weight.flatten())
        return Windows(tuple((index, (weight / total[index]).float()) for index, weight in groups), self.fuse_at)

    def _raw(self, index: Tensor, frames: int) -> Tensor:
        """Weights before they are normalised: ``index``: ``w l``. Returns ``w l``, float64."""
        return FUSES[self.fuse](self, index, frames)


def fused_at(mode: str) -> str:
    """Where a model in a mode of ``MODES`` averages overlapping windows: a plan's ``fuse_at``.

    Raises:
        ValueError: no such mode.
    """
    _check_name("mode", mode, MODES)
    return MODES[mode]


def frames_of(samples: Tensor) -> int:
    """The length of a clip of latents, ``samples``: ``...``: pictures ``f c h w`` or a video ``b c f h w``.

    Raises:
        ValueError: it is neither.
    """
    if samples.ndim not in (4, 5):
        raise ValueError(f"latents have 4 axes, or 5 for video models; these have the shape {tuple(samples.shape)}")
    return samples.shape[2 if samples.ndim == 5 else 0]


def _check_name(what: str, name: str, names: Iterable[str]) -> None:
    if name not in names:
        raise ValueError(f"the {what} {name!r} is not known: choose one of {', '.join(names)}")


def _by_length(windows: list[Frames]) -> list[list[Frames]]:
    groups: dict[int, list[Frames]] = {}
    for window in windows:
        groups.setdefault(len(window), []).append(window)
    return list(groups.values())
