"""Samplers as generators: one model call per row of a noise-level matrix, and one stepping function for all of them.

Coordinates: ``x = clean + sigma * noise``. A sampler knows nothing of hosts: it gets a ``denoise`` function, yields a ``Step`` after
every call (the host draws progress, previews and may stop there) and returns the finished frames.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from .noise import broadcast, frame_noise
from .schedules import NoiseLevels

Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x ``n c h w``, sigma ``n``, frame numbers ``n``) -> clean ``n c h w``
STABILISATIONS = ("label", "noise")


@dataclass(frozen=True)
class Step:
    """What a sampler yields after each model call.

    Attributes:
        row: model calls done.
        total: model calls in all.
        clean: ``n c h w``, the model's present guess of the frames it worked on, for previews; or None.
    """

    row: int
    total: int
    clean: Tensor | None = None


@dataclass(frozen=True)
class Stabilisation:
    """How finished frames are shown to the model: as if slightly noisy, so that it does not trust its own small errors.

    Diffusion Forcing, arXiv:2407.01392, Section 3.3. ``label`` only tells the model so and leaves the frame as it is, which is right
    when the frame's own error is noise of that size; ``noise`` adds noise of that size, the same at every call. The clip itself
    is never changed.
    """

    sigma: float = 0.0
    kind: str = "noise"

    def __post_init__(self) -> None:
        if self.kind not in STABILISATIONS:
            raise ValueError(f"the stabilisation {self.kind!r} is not known: choose one of {', '.join(STABILISATIONS)}")
        if not 0 <= self.sigma < float("inf"):
            raise ValueError(f"the stabilisation's sigma is {self.sigma}: it must be at least 0, and finite")


def move(x: Tensor, clean: Tensor, before: Tensor, after: Tensor, noise: Tensor | None = None, eta: float = 0.0) -> Tensor:
    """Take every frame from its noise level to its next one (DDIM, arXiv:2010.02502, Equation 12; Euler's method when eta is 0).

    Args:
        x: ``n c h w``, the frames now.
        clean: ``n c h w``, the model's guess of the clean frames.
        before: ``n``, sigma of each frame now.
        after: ``n``, sigma of each frame afterwards, at most ``before``.
        noise: ``n c h w``, standard normal; needed when eta is above 0.
        eta: 0 is deterministic, 1 is ancestral.

    Returns:
        x: ``n c h w``; frames whose sigma does not change come back bit for bit.
    """
    safe = before.clamp_min(torch.finfo(before.dtype).tiny)
    fresh = eta * (after**2 * (before**2 - after**2).clamp_min(0)).sqrt() / safe
    kept = (after**2 - fresh**2).clamp_min(0).sqrt()
    moved = torch.lerp(clean, x, broadcast(kept / safe, x))
    if noise is not None and eta > 0:
        moved = moved + broadcast(fresh, x) * noise
    return torch.where(broadcast((before == after).float(), x) == 1, x, moved)


def rollout(
    denoise: Denoise,
    latent: Tensor,
    *,
    levels: NoiseLevels,
    sigmas: Tensor,
    window: int,
    seed: int,
    eta: float = 0.0,
    stabilisation: Stabilisation | None = None,
) -> Generator[Step, None, Tensor]:
    """Generate a clip of any length through a sliding window, every frame at its own noise level.

    Args:
        denoise: the model with its conditions.
        latent: ``f c h w``; its first ``levels.known`` frames are given and come back unchanged, the others are ignored.
        levels: when each frame moves.
        sigmas: ``l``, sigma of each level, 0 first, rising (``NoiseSchedule.levels``).
        window: most frames in one call; what is not in flight is context.
        seed: of all noise; frame ``i`` of the same seed starts from the same noise under any schedule, window or length.
        eta: see ``move``.
        stabilisation: how finished frames are shown; None shows them as they are.

    Returns:
        clip: ``f c h w``.

    Raises:
        ValueError: lengths disagree, the window cannot hold the frames in flight, or something is not finite.
    """
    if len(latent) != levels.frames:
        raise ValueError(f"the latent has {len(latent)} frames and the noise levels are for {levels.frames}: they must agree")
    if len(sigmas) != levels.steps + 1:
        raise ValueError(f"{len(sigmas)} sigmas were given for {levels.steps} steps: give one per level, {levels.steps + 1}")
    if not torch.isfinite(latent[: levels.known]).all():
        raise ValueError("a known frame holds values that are not finite: the latent is broken, encode it again")
    calls = levels.calls(window)
    total = len(levels.rows)
    stabilisation = stabilisation or Stabilisation()
    sigmas = sigmas.to(latent)
    shape, device = latent.shape[1:], latent.device

    def noise(low: int, high: int, purpose: str) -> Tensor:
        return frame_noise(shape, seed, range(low, high), purpose).to(latent)

    clip = latent.clone()
    start = noise(levels.known, levels.frames, "start")
    clip[levels.known :] = start * (1 + sigmas[-1] ** 2).sqrt()  # ComfyUI's scaling of full noise
    for row, call in enumerate(calls, start=1):
        view = slice(call.low, call.high)
        x, before, after = clip[view], sigmas[call.before.to(device)], sigmas[call.after.to(device)]
        shown, told = x, before
        if stabilisation.sigma > 0:
            finished = call.before.to(device) == 0
            told = torch.where(finished, torch.full_like(before, stabilisation.sigma), before)
            if stabilisation.kind == "noise":
                disturbed = x + stabilisation.sigma * noise(call.low, call.high, "stabilise")
                shown = torch.where(broadcast(finished.float(), x) == 1, disturbed, x)
        clean = denoise(shown, told, torch.arange(call.low, call.high, device=device))
        fresh = noise(call.low, call.high, f"row {row}") if eta > 0 else None
        clip[view] = move(x, clean, before, after, fresh, eta)
        yield Step(row, total, clean)
    if not torch.isfinite(clip).all():
        raise ValueError("the sampler's result is not finite: the model or its precision is broken, nothing was kept")
    return clip
