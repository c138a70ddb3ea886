"""Context windows: which frames a motion model sees together, and how overlapping results are averaged.

A long clip is cut into windows of the length that the motion model was trained on; neighbours overlap, and where they do, results
are averaged with weights. Names and frame lists are those of ComfyUI's context windows and AnimateDiff-Evolved; the uniform ones come
from AnimateDiff's command line (neggles/animatediff-cli), the pyramid weights from FreeNoise (arXiv:2310.15169, section 4.2).

Differs from them, each time because theirs cannot be used:

- A frame that strided windows of ``standard_uniform`` leave out of all gets a window. Theirs give it no result.
- A stride whose windows are longer than the clip is left out. Theirs then show a frame twice in one window, or frames past the end.
- ``overlap-linear`` works without overlap, where neighbours overlap by more than half, and across the seam of a loop.
- ``relative`` measures distances along the window, so it holds for windows that cross the seam of a loop.

To add a schedule, write a function of a plan, a number of frames and a step, and name it in ``SCHEDULES``; to add a fuse method, a
function of positions, and name it in ``FUSES``. Menus and property tests read these tables.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

Frames = list[int]
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


@dataclass(frozen=True)
class WindowPlan:
    """Settings of the windows, for a clip of any length.

    Attributes:
        schedule: a name in ``SCHEDULES``.
        length: frames in a window, at least 2; 0 is for ``resolved`` to choose, together with the overlap.
        overlap: frames that a window has in common with the next, less than ``length``; ``batched`` has none whatever this says.
        stride: how many scales the uniform schedules use, from 1: every frame, every 2nd, every 4th...
        closed_loop: whether the last frame leads back to the first; only ``looped_uniform`` can.
        fuse: a name in ``FUSES``.
        fuse_at: "attention" or "module", see ``Windows``.
    """

    schedule: str = "standard_static"
    length: int = 16
    overlap: int = 4
    stride: int = 1
    closed_loop: bool = False
    fuse: str = "pyramid"
    fuse_at: str = "attention"

    def __post_init__(self) -> None:
        _check_name("schedule", self.schedule, SCHEDULES)
        _check_name("fuse method", self.fuse, FUSES)
        _check_name("place to fuse", self.fuse_at, FUSE_AT)
        if self.length != 0 and self.length < 2:
            raise ValueError(f"the window length is {self.length}: a window needs at least 2 frames, or 0 for automatic")
        if self.overlap < 0:
            raise ValueError(f"the overlap is {self.overlap}: it must be at least 0")
        if self.length and self.overlap >= self.length:
            raise ValueError(
                f"windows of {self.length} frames cannot overlap by {self.overlap}: use an overlap of at most {self.length - 1};"
                " a quarter of the length is usual"
            )
        if self.stride < 1:
            raise ValueError(f"the stride is {self.stride}: it must be at least 1, which is neighbouring frames only")
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


def standard_static(plan: WindowPlan, frames: int, step: int) -> list[Frames]:
    """The same windows at every step, from the first frame on; the last is moved back so that it ends with the clip.

    >>> [(w[0], w[-1]) for w in standard_static(WindowPlan(length=16, overlap=4), 30, 0)]
    [(0, 15), (12, 27), (14, 29)]
    """
    if frames <= plan.length:
        return [list(range(frames))]
    last = frames - plan.length
    starts = [*range(0, last, plan.length - plan.overlap), last]
    return [list(range(start, start + plan.length)) for start in starts]


def batched(plan: WindowPlan, frames: int, step: int) -> list[Frames]:
    """Windows end to end, without overlap; the last may be shorter.

    >>> [len(w) for w in batched(WindowPlan(length=16), 40, 0)]
    [16, 16, 8]
    """
    return [list(range(start, min(start + plan.length, frames))) for start in range(0, frames, plan.length)]


def looped_uniform(plan: WindowPlan, frames: int, step: int) -> list[Frames]:
    """Windows at several scales that run past the end into the beginning, shifted at every step."""
    if frames < plan.length:
        return [list(range(frames))]
    scales = [scale for scale in _scales(plan, frames) if frames // math.gcd(frames, scale) >= plan.length]
    return [window for scale in scales for window in _uniform(plan, frames, step, scale)]


def standard_uniform(plan: WindowPlan, frames: int, step: int) -> list[Frames]:
    """As ``looped_uniform``, with windows that would run past the end moved back to end with the clip, and none twice."""
    if frames <= plan.length:
        return [list(range(frames))]
    scales = [scale for scale in _scales(plan, frames) if (plan.length - 1) * scale < frames]
    windows = [window for scale in scales for window in _uniform(plan, frames, step, scale)]
    unrolled: list[Frames] = []
    for place, window in enumerate(windows):
        first, scale = window[0], (window[1] - window[0]) % frames
        if window[-1] > first:
            unrolled.append(window)
            continue
        unrolled.append([frames - 1 - scale * back for back in reversed(range(plan.length))])
        start = next(later for frame, later in pairwise(window) if later < frame)  # where it came in again at the beginning
        following = windows[place + 1] if place + 1 < len(windows) else unrolled[0]
        if start not in following:
            unrolled.append(list(range(start, start + plan.length)))
    return [list(window) for window in dict.fromkeys(map(tuple, [*unrolled, *_leftover(unrolled, frames, plan.length)]))]


def _leftover(windows: list[Frames], frames: int, length: int) -> Iterator[Frames]:
    """Windows of neighbouring frames for those that strided windows, moved back at the end, left out of all."""
    seen = {frame for window in windows for frame in window}
    for frame in range(frames):
        if frame not in seen:
            start = min(frame, frames - length)
            seen.update(range(start, start + length))
            yield list(range(start, start + length))


def _scales(plan: WindowPlan, frames: int) -> list[int]:
    """Distances between the frames of a window: powers of 2, as many as the stride asks for and the clip has use for."""
    useful = math.ceil(math.log2(frames / plan.length)) + 1
    return [2**level for level in range(min(plan.stride, useful))]


def _uniform(plan: WindowPlan, frames: int, step: int, scale: int) -> list[Frames]:
    fraction = radical_inverse(step)
    shift = round(frames * fraction)
    end = frames + shift - (0 if plan.closed_loop else plan.overlap)
    starts = range(int(fraction * scale) + shift, end, plan.length * scale - plan.overlap)
    return [[frame % frames for frame in range(start, start + plan.length * scale, scale)] for start in starts]


def radical_inverse(step: int) -> float:
    """The step's binary digits behind the point, in reverse (van der Corput): fractions of a clip that fill it evenly.

    >>> [radical_inverse(step) for step in range(5)]
    [0.0, 0.5, 0.25, 0.75, 0.125]
    """
    fraction, digit = 0.0, 0.5
    while step:
        fraction, step, digit = fraction + digit * (step & 1), step >> 1, digit / 2
    return fraction


def flat(plan: WindowPlan, index: Tensor, frames: int) -> Tensor:
    """Every window counts the same: ``index``: ``w l``. Returns ``w l``."""
    return torch.ones(index.shape, dtype=torch.float64)


def pyramid(plan: WindowPlan, index: Tensor, frames: int) -> Tensor:
    """1, 2, 3 ... towards the middle of the window: ``index``: ``w l``. Returns ``w l``."""
    place = torch.arange(index.shape[1], dtype=torch.float64)
    return torch.minimum(place + 1, index.shape[1] - place).expand(index.shape)


def relative(plan: WindowPlan, index: Tensor, frames: int) -> Tensor:
    """1 in the middle of the window, falling to 0.01 at its ends: ``index``: ``w l``. Returns ``w l``."""
    along = torch.cat([index.new_zeros(len(index), 1), (index.diff(dim=1) % frames).cumsum(1)], dim=1).double()
    span = along[:, -1:]
    return (1 - (along - span / 2).abs() / ((span + 0.01) / 2)).clamp_min(0.01)


def overlap_linear(plan: WindowPlan, index: Tensor, frames: int) -> Tensor:
    """1, with straight ramps over the overlaps; none at the ends of a clip that is no loop: ``index``: ``w l``. Returns ``w l``."""
    length = index.shape[1]
    overlap = min(plan.overlap, length)
    ramp = torch.ones(length, dtype=torch.float64)
    ramp[:overlap] = torch.linspace(LEAST, 1, overlap, dtype=torch.float64)
    looping = plan.schedule in LOOPING
    rises = (index[:, :1] > 0) | looping
    falls = (index[:, -1:] < frames - 1) | looping
    one = torch.ones((), dtype=torch.float64)
    return torch.minimum(torch.where(rises, ramp, one), torch.where(falls, ramp.flip(0), one))


LEAST = 1e-37  # a ramp starts here, not at 0: a frame that only one window shows counts fully whatever its weight
Schedule = Callable[[WindowPlan, int, int], list[Frames]]
SCHEDULES: dict[str, Schedule] = {f.__name__: f for f in (standard_static, standard_uniform, looped_uniform, batched)}
LOOPING = frozenset({"looped_uniform"})
Fuse = Callable[[WindowPlan, Tensor, int], Tensor]
FUSES: dict[str, Fuse] = {"pyramid": pyramid, "flat": flat, "relative": relative, "overlap-linear": overlap_linear}
