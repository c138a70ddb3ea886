"""Which frames each context window holds, and how much a frame counts where windows overlap.

Names and frame lists are those of ComfyUI's context windows and AnimateDiff-Evolved; the uniform ones come from AnimateDiff's command line
(neggles/animatediff-cli), the pyramid weights from FreeNoise (arXiv:2310.15169, section 4.2).

Differs from them, each time because theirs cannot be used:

- A frame that strided windows of ``standard_uniform`` leave out of all gets a window. Theirs give it no result.
- A stride whose windows are longer than the clip is left out. Theirs then show a frame twice in one window, or frames past the end.
- ``overlap-linear`` works without overlap, where neighbours overlap by more than half, and across the seam of a loop.
- ``relative`` measures distances along the window, so it holds for windows that cross the seam of a loop.

To add a schedule, write a function of a plan, a number of frames and a step, and name it in ``SCHEDULES``; to add a fuse method, a
function of positions, and name it in ``FUSES``. Its docstring begins with a sentence for users, which menus show. Menus and property tests
read these tables.
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .windows import WindowPlan

Frames = list[int]


def standard_static(plan: "WindowPlan", frames: int, step: int) -> list[Frames]:
    """Windows are the same at every step; the last is moved back so that it ends with the clip.

    >>> from types import SimpleNamespace
    >>> [(w[0], w[-1]) for w in standard_static(SimpleNamespace(length=16, overlap=4), 30, 0)]
    [(0, 15), (12, 27), (14, 29)]
    """
    if frames <= plan.length:
        return [list(range(frames))]
    last = frames - plan.length
    starts = [*range(0, last, plan.length - plan.overlap), last]
    return [list(range(start, start + plan.length)) for start in starts]


def batched(plan: "WindowPlan", frames: int, step: int) -> list[Frames]:
    """Windows stand end to end without overlap, which is cheapest, and motion jumps where they meet.

    The last may be shorter.

    >>> from types import SimpleNamespace
    >>> [len(w) for w in batched(SimpleNamespace(length=16), 40, 0)]
    [16, 16, 8]
    """
    return [list(range(start, min(start + plan.length, frames))) for start in range(0, frames, plan.length)]


def looped_uniform(plan: "WindowPlan", frames: int, step: int) -> list[Frames]:
    """Windows shift at every step and run past the end into the beginning, as a loop needs it. They are of several scales."""
    if frames < plan.length:
        return [list(range(frames))]
    scales = [scale for scale in _scales(plan, frames) if frames // math.gcd(frames, scale) >= plan.length]
    return [window for scale in scales for window in _uniform(plan, frames, step, scale)]


def standard_uniform(plan: "WindowPlan", frames: int, step: int) -> list[Frames]:
    """Windows shift at every step, so that no frame is always at a seam.

    As ``looped_uniform``, with windows that would run past the end moved back to end with the clip, and none twice.
    """
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


def _scales(plan: "WindowPlan", frames: int) -> list[int]:
    """Distances between the frames of a window: powers of 2, as many as the stride asks for and the clip has use for."""
    useful = math.ceil(math.log2(frames / plan.length)) + 1
    return [2**level for level in range(min(plan.stride, useful))]


def _uniform(plan: "WindowPlan", frames: int, step: int, scale: int) -> list[Frames]:
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


def flat(plan: "WindowPlan", index: Tensor, frames: int) -> Tensor:
    """Every window counts the same. ``index``: ``w l``. Returns ``w l``."""
    return torch.ones(index.shape, dtype=torch.float64)


def pyramid(plan: "WindowPlan", index: Tensor, frames: int) -> Tensor:
    """A window counts most in its middle, which gives the softest transition. ``index``: ``w l``. Returns ``w l``, 1, 2, 3 ... inwards."""
    place = torch.arange(index.shape[1], dtype=torch.float64)
    return torch.minimum(place + 1, index.shape[1] - place).expand(index.shape)


def relative(plan: "WindowPlan", index: Tensor, frames: int) -> Tensor:
    """A window counts 1 in its middle, falling to almost nothing at its ends. ``index``: ``w l``. Returns ``w l``."""
    along = torch.cat([index.new_zeros(len(index), 1), (index.diff(dim=1) % frames).cumsum(1)], dim=1).double()
    span = along[:, -1:]
    return (1 - (along - span / 2).abs() / ((span + 0.01) / 2)).clamp_min(0.01)


def overlap_linear(plan: "WindowPlan", index: Tensor, frames: int) -> Tensor:
    """One window fades into the next over the overlap. ``index``: ``w l``. Returns ``w l``, without a ramp at the ends of a clip."""
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
Schedule = Callable[["WindowPlan", int, int], list[Frames]]
SCHEDULES: dict[str, Schedule] = {f.__name__: f for f in (standard_static, standard_uniform, looped_uniform, batched)}
LOOPING = frozenset({"looped_uniform"})
Fuse = Callable[["WindowPlan", Tensor, int], Tensor]
FUSES: dict[str, Fuse] = {"pyramid": pyramid, "flat": flat, "relative": relative, "overlap-linear": overlap_linear}
