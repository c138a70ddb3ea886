"""A model's own mistakes as training data: noisy frames made of what it guessed from noisier ones, still asked for the truth.

In a rollout every frame is made of earlier guesses, and what training never showed adds up along a take (exposure bias; Ning et al.,
arXiv:2301.11706, Section 3). Here some clips are first shown noisier, without gradients; the guess takes the true clip's place under the
noise of the step. Half of these clips are one step of an eight-step sampler noisier, the others anything up to 0.6 of the schedule; half
keep the noise that the guess leaves over, as a deterministic sampler does, the others get fresh noise; two fifths guess without
conditions, which loses more of the shape.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..noise.levels import NoiseSchedule
from ..noise.seeded import frame_seed

Guess = Callable[[Tensor, Tensor, Tensor], Tensor]  # (noisy ``n f c h w``, sigma ``n f``, conditioned ``n``, bool) -> clean

SAMPLER_STEPS = 8
FURTHEST = 0.6
UNCONDITIONED = 0.4


def chosen_places(places: range, share: float) -> Tensor:
    """Which clips of a batch are made of guesses, spread evenly over its places: ``share``: 0..1. Returns ``n``, bool."""
    place = torch.tensor(list(places), dtype=torch.float64)
    return ((place + 1) * share).floor() > (place * share).floor()


@torch.no_grad()
def from_guesses(
    guess: Guess,
    noisy: Tensor,
    shown: Tensor,
    levels: Tensor,
    schedule: NoiseSchedule,
    *,
    share: float,
    seed: int,
    step: int,
    places: range,
) -> Tensor:
    """The noisy frames, those of some clips made of the network's guesses.

    Args:
        guess: what is trained.
        noisy: ``n f c h w``, at the levels of the step.
        shown: ``n f c h w``, the clips before noise.
        levels: ``n f``, timesteps of the noise schedule.
        schedule: of the noise.
        share: of the clips, 0..1.
        seed: of the run.
        step: counted from 0.
        places: of the clips in the batch.

    Returns:
        noisy: ``n f c h w``.
    """
    chosen = chosen_places(places, share)
    if not bool(chosen.any()):
        return noisy
    top, f = len(schedule.sigmas), levels.shape[1]
    before, kept, conditioned, drawn, fresh = [], [], [], [], []
    for place, level in zip(places, levels, strict=True):
        g = torch.Generator().manual_seed(frame_seed(seed, place, f"guess {step}"))
        near, far, keep, told = torch.rand(4, generator=g)
        raised = top / SAMPLER_STEPS if near < 0.5 else FURTHEST * top * far
        before.append((level + raised * torch.rand(f, generator=g).clamp_min(0.5)).long().clamp(max=top - 1))
        kept.append(bool(keep < 0.5))
        conditioned.append(bool(told >= UNCONDITIONED))
        drawn.append(torch.randn(shown.shape[1:], generator=g))
        fresh.append(torch.randn(shown.shape[1:], generator=g))
    wide = lambda level: schedule.sigmas[level].to(shown)[..., None, None, None]  # noqa: E731
    sigma = schedule.sigmas[torch.stack(before)].to(shown.device)
    noisier = shown + wide(torch.stack(before)) * torch.stack(drawn).to(shown)
    guessed = guess(noisier, sigma, torch.tensor(conditioned, device=shown.device))
    left = (noisier - guessed) / wide(torch.stack(before))
    keep = torch.tensor(kept, device=shown.device)[:, None, None, None, None]
    made = guessed + wide(levels) * torch.where(keep, left, torch.stack(fresh).to(shown))
    return torch.where(chosen.to(shown.device)[:, None, None, None, None], made, noisy)
