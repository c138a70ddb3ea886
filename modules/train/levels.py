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


LEVELS: dict[str, Callable[[int, int, int, Generator], Tensor]] = {f.__name__: f for f in (forcing, independent, ramps, shared)}
