"""How noisy each frame of a training clip is: the choice that makes a model a Diffusion Forcing model or another.

Timesteps count the noise schedule's table, 0 the cleanest. To add a way, write a function and name it in ``LEVELS``.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor


def shared(clips: int, frames: int, top: int, g: Generator) -> Tensor:
    """One level for the whole clip: full-sequence diffusion (Ho et al., arXiv:2204.03458). Returns ``b f``."""
    return torch.randint(0, top, (clips, 1), generator=g).expand(-1, frames)


def independent(clips: int, frames: int, top: int, g: Generator) -> Tensor:
    """A level of its own for every frame (Diffusion Forcing, arXiv:2407.01392, Algorithm 1). Returns ``b f``."""
    return torch.randint(0, top, (clips, frames), generator=g)


def ramps(clips: int, frames: int, top: int, g: Generator) -> Tensor:
    """States that rollouts pass through: a clean past, then a ramp of 1 to 12 frames up to noise. Returns ``b f``.

    The past may be empty, with the ramp already under way in the first frame, as at the start of a take.
    """
    first = (1.25 * torch.rand(clips, 1, generator=g) - 0.25) * frames
    slope = top / (1 + 11 * torch.rand(clips, 1, generator=g))
    return ((torch.arange(frames) - first) * slope).long().clamp(0, top - 1)


def forcing(clips: int, frames: int, top: int, g: Generator) -> Tensor:
    """Half the clips independent, half ramps: every combination is seen, and what sampling visits is seen often. Returns ``b f``."""
    half = clips // 2
    return torch.cat([independent(clips - half, frames, top, g), ramps(half, frames, top, g)])


def fopp(clips: int, frames: int, top: int, g: Generator) -> Tensor:
    """Levels that never fall from frame to frame, drawn among all such sequences (AR-Diffusion, arXiv:2503.07418: FoPP).

    A random frame gets a random level; from there outwards each frame is drawn such that all ways to fill the clip are equally likely.

    Returns:
        levels: ``b f``.
    """
    pivot = torch.randint(0, frames, (clips,), generator=g)
    levels = torch.randint(0, top, (clips, 1), generator=g).repeat(1, frames)
    for frame in range(1, frames):  # one after the other: a frame's choice hangs on its neighbour's
        drawn = _not_below(levels[:, frame - 1], frames - frame, top, g)
        levels[:, frame] = torch.where(frame > pivot, drawn, levels[:, frame])
    for frame in reversed(range(frames - 1)):  # the same, mirrored in time and level
        drawn = top - 1 - _not_below(top - 1 - levels[:, frame + 1], frame + 1, top, g)
        levels[:, frame] = torch.where(frame < pivot, drawn, levels[:, frame])
    return levels


def _not_below(level: Tensor, rest: int, top: int, g: Generator) -> Tensor:
    """The next of ``rest`` levels that never fall, all such rows being equally likely: ``level``: ``b``, the one before. Returns ``b``.

    Rows of ``rest`` levels from some level up are ``binomial(room + rest, rest)``, where ``room`` is how far it is below the top. So
    this is the chance, relative to the present room's, that the next level leaves at most that room; in logarithms, since the numbers
    are huge.
    """
    room = torch.arange(top, dtype=torch.float64)
    ways = torch.lgamma(room + rest + 1) - torch.lgamma(room + 1)  # but for a factor that cancels
    present = top - 1 - level
    wanted = ways[present] + torch.rand(len(level), generator=g, dtype=torch.float64).log()
    return top - 1 - torch.minimum(torch.searchsorted(ways, wanted), present)


def ascending(clips: int, frames: int, top: int, g: Generator) -> Tensor:
    """A level of its own for every frame, in order: the later, the noisier. Returns ``b f``."""
    return independent(clips, frames, top, g).sort(dim=1).values


def blocks(clips: int, frames: int, top: int, g: Generator) -> Tensor:
    """A level of its own for every block of frames; each clip's blocks are 1 frame to half the clip long. Returns ``b f``."""
    length = torch.randint(1, max(1, frames // 2) + 1, (clips, 1), generator=g)
    return independent(clips, frames, top, g).gather(1, torch.arange(frames) // length)


def keyframe_aware(clips: int, frames: int, top: int, g: Generator) -> Tensor:
    """One level for the clip, but for 1 frame to half the clip, anywhere, that are clean or nearly: what keyframes look like.

    Nearly clean is the lowest twentieth of levels, half the keyframes are at 0, and none is noisier than the rest.

    Returns:
        levels: ``b f``; a clip of one frame has no keyframe.
    """
    level = torch.randint(0, top, (clips, 1), generator=g)
    count = torch.randint(1, max(1, frames // 2) + 1, (clips, 1), generator=g).clamp_max(frames - 1)
    rank = torch.rand(clips, frames, generator=g).argsort(dim=1)
    near = torch.randint(0, max(1, top // 20), (clips, frames), generator=g)
    near = near * torch.randint(0, 2, (clips, frames), generator=g)
    return torch.where(rank < count, torch.minimum(near, level), level)


def between(clips: int, frames: int, top: int, g: Generator) -> Tensor:
    """What filling in between keyframes passes through: half the clips keyframe-aware, half tents over clean keyframes.

    A tent rises with the distance to the nearest keyframe, from clean to noise in 1 to 12 frames, and is caught anywhere between all noise
    and all clean, as the trapezoid schedule goes through it; there are 1 to 4 keyframes, anywhere.

    Returns:
        levels: ``b f``; a clip of one frame has no keyframe.
    """
    half = clips // 2
    aware = keyframe_aware(clips - half, frames, top, g)
    count = torch.randint(1, 5, (half, 1), generator=g).clamp_max(frames - 1)
    keys = torch.rand(half, frames, generator=g).argsort(dim=1).argsort(dim=1) < count
    frame = torch.arange(frames)
    away = (frame - frame[:, None]).abs().expand(half, -1, -1).masked_fill(~keys[:, :, None], frames).amin(dim=1)
    climb, progress = 1 + 11 * torch.rand(half, 1, generator=g), torch.rand(half, 1, generator=g)
    farthest = away.amax(dim=1, keepdim=True)
    sunk = progress * (farthest + climb) - climb
    tents = ((away - sunk) * top / climb).long().clamp(0, top - 1)
    return torch.cat([aware, torch.where(keys, 0, tents)])


def first_frame_known(clips: int, frames: int, top: int, g: Generator) -> Tensor:
    """One level for the clip, but for its first frame, which is clean: the clip goes on from a picture. Returns ``b f``."""
    levels = shared(clips, frames, top, g).clone()
    levels[:, 0] = 0
    return levels


LEVELS: dict[str, Callable[[int, int, int, Generator], Tensor]] = {
    **{f.__name__: f for f in (forcing, independent, ramps, shared)},
    **{f.__name__: f for f in (fopp, blocks, keyframe_aware, between, first_frame_known)},
    "sorted": ascending,
}
