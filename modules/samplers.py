"""Samplers as generators: one model call per row of a noise-level matrix, and one stepping function for all of them.

A sampler knows nothing of hosts: it gets a ``denoise`` function (``view.py``), yields a ``Step`` after every row (the host draws
progress, previews and may stop there) and returns the finished frames.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .noise import broadcast, frame_noise
from .schedules import Call, Levels
from .view import SIGNAL, Denoise, Guide, History, View, plain, start_scale

ORDERS = ("euler", "heun")


@dataclass(frozen=True)
class Step:
    """What a sampler yields after each row.

    Attributes:
        row: rows done.
        total: rows in all; 0 if the take is endless.
        clean: ``n ...``, the model's present guess of the frames it worked on, for previews; or None.
        finished: ``f ...``, frames that this row finished, in order; None where the sampler returns the whole clip at its end.
        ids: ``f``, their absolute numbers.
    """

    row: int
    total: int
    clean: Tensor | None = None
    finished: Tensor | None = None
    ids: Tensor | None = None


@dataclass(frozen=True)
class Job:
    """What a host hands to a sampler.

    Attributes:
        denoise: the model with its conditions.
        latent: ``f ...``, the clip as it is given.
        sigmas: ``l``, sigma of each level, 0 first, rising.
        noise: ``f ...``, unit noise that the user chose, or None to draw it from the seed.
        known: ``f``, bool, frames that the latent's mask leaves alone, or None where there is no mask.
        seed: the user's.
        coordinates: a name in ``view.SIGNAL``.
        guide: what is done around the model.
    """

    denoise: Denoise
    latent: Tensor
    sigmas: Tensor
    noise: Tensor | None = None
    known: Tensor | None = None
    seed: int = 0
    coordinates: str = "diffusion"
    guide: Guide = plain


Algorithm = Callable[[Job], Generator[Step, None, Tensor]]  # returns the clip, ``f ...``


def move(
    x: Tensor,
    clean: Tensor,
    before: Tensor,
    after: Tensor,
    noise: Tensor | None = None,
    eta: float = 0.0,
    coordinates: str = "diffusion",
) -> Tensor:
    """Take every frame from its noise level to its next one (DDIM, arXiv:2010.02502, Equation 12; Euler's method when eta is 0).

    Args:
        x: ``n ...``, the frames now.
        clean: ``n ...``, the model's guess of the clean frames.
        before: ``n``, sigma of each frame now.
        after: ``n``, sigma of each frame afterwards, at most ``before``.
        noise: ``n ...``, standard normal; needed when eta is above 0.
        eta: 0 is deterministic, 1 is ancestral.
        coordinates: a name in ``view.SIGNAL``.

    Returns:
        x: ``n ...``; frames whose sigma does not change come back bit for bit.
    """
    safe = before.clamp_min(torch.finfo(before.dtype).tiny)
    if noise is None or eta == 0:
        moved = torch.lerp(clean, x, broadcast(after / safe, x))  # the same in both coordinates
    else:
        signal = SIGNAL[coordinates]
        a, b = signal(before), signal(after)
        ratio = after * a / (safe * b.clamp_min(torch.finfo(b.dtype).tiny))  # of the noise-to-signal ratios
        fresh = eta * after * (1 - ratio**2).clamp_min(0).sqrt()
        kept = (after**2 - fresh**2).clamp_min(0).sqrt() / safe
        moved = broadcast(kept, x) * x + broadcast(b - a * kept, x) * clean + broadcast(fresh, x) * noise
    return torch.where(broadcast((before == after).float(), x) == 1, x, moved)


def level_noise(like: Tensor, seed: int, ids: Sequence[int], levels: Tensor) -> Tensor:
    """Fresh noise for steps that leave ``levels``, ``n``: a frame's depends on its number and level, not on when that is.

    Args:
        like: ``n ...``.
        seed: the user's.
        ids: absolute frame numbers.
        levels: ``n``.

    Returns:
        noise: ``n ...``.
    """
    pairs = zip(ids, levels.tolist(), strict=True)
    drawn = [frame_noise(like.shape[1:], seed, [frame], f"level {level:g}") for frame, level in pairs]
    return torch.cat(drawn).to(like)


def sigma_of(levels: Tensor, sigmas: Tensor) -> Tensor:
    """The sigma of levels, whole or between two: ``levels``: ``n``, ``sigmas``: ``l``. Returns ``n``."""
    if not levels.is_floating_point():
        return sigmas[levels.to(sigmas.device)]
    levels = levels.to(sigmas)
    low = levels.floor().long().clamp(0, len(sigmas) - 1)
    return torch.lerp(sigmas[low], sigmas[(low + 1).clamp_max(len(sigmas) - 1)], levels - low)


@dataclass(frozen=True)
class Stepper:
    """One row of a schedule on the frames of its window: what every sampler with a noise level per frame does.

    Attributes:
        denoise: the model with its conditions.
        sigmas: ``l``, sigma of each level, 0 first, rising.
        seed: of fresh noise.
        eta: see ``move``.
        order: ``euler``, or ``heun``: a second call at the next levels, whose slope is averaged with the first (Karras et al.,
            arXiv:2206.00364, Algorithm 1); a frame that becomes clean takes Euler's step.
        guide: what is done around the model.
        history: how finished frames are shown.
        coordinates: a name in ``view.SIGNAL``.
    """

    denoise: Denoise
    sigmas: Tensor
    seed: int
    eta: float = 0.0
    order: str = "euler"
    guide: Guide = plain
    history: History | None = None
    coordinates: str = "diffusion"

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ValueError(f"the order {self.order!r} is not known: choose one of {', '.join(ORDERS)}")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta is {self.eta}: it must lie between 0 (deterministic) and 1 (ancestral)")
        if self.order == "heun" and self.eta > 0:
            raise ValueError(
                f"eta is {self.eta} with heun, which is for deterministic sampling: set eta to 0, or the order to euler"
            )

    def step(self, x: Tensor, call: Call, number: int) -> tuple[Tensor, Tensor]:
        """Do one row.

        Args:
            x: ``n ...``, the window's frames.
            call: which frames they are and how they move.
            number: of the row, from 0.

        Returns:
            x: ``n ...``, frames that do not move bit for bit.
            clean: ``n ...``, the model's guess.
        """
        before, after = (sigma_of(levels, self.sigmas).to(x) for levels in (call.before, call.after))
        view = self._view(x, call, before, number)
        clean = self.guide(self.denoise, view)
        if self.order == "heun" and bool(((after < before) & (after > 0)).any()):
            return self._corrected(x, clean, view, before, after), clean
        fresh = level_noise(x, self.seed, call.ids.tolist(), call.before) if self.eta > 0 else None
        return move(x, clean, before, after, fresh, self.eta, self.coordinates), clean

    def _view(self, x: Tensor, call: Call, sigma: Tensor, number: int) -> View:
        ids, times = (None if part is None else part.to(x.device) for part in (call.ids, call.times))
        assert ids is not None
        finished = (call.before == 0).to(x.device)
        return View(x, sigma, ids, finished, times, number, float(self.sigmas[-1]), self.coordinates, self.history)

    def _corrected(self, x: Tensor, clean: Tensor, view: View, before: Tensor, after: Tensor) -> Tensor:
        guessed = move(x, clean, before, after)
        second = self.guide(self.denoise, replace(view, x=guessed, sigma=after))
        first_slope = (x - clean) / broadcast(before.clamp_min(torch.finfo(before.dtype).tiny), x)
        second_slope = (guessed - second) / broadcast(after.clamp_min(torch.finfo(after.dtype).tiny), x)
        better = x + broadcast(after - before, x) * (first_slope + second_slope) / 2
        return torch.where(broadcast(((after < before) & (after > 0)).float(), x) == 1, better, guessed)


def rollout(
    denoise: Denoise,
    latent: Tensor,
    *,
    levels: Levels,
    sigmas: Tensor,
    window: int,
    seed: int,
    eta: float = 0.0,
    order: str = "euler",
    guide: Guide = plain,
    history: History | None = None,
    coordinates: str = "diffusion",
    anchors: int = 0,
    start: Tensor | None = None,
) -> Generator[Step, None, Tensor]:
    """Generate a clip of any length through a sliding window, every frame at its own noise level.

    Args:
        denoise: the model with its conditions.
        latent: ``f ...``; frames that ``levels.known`` names are given and come back unchanged, the others are ignored.
        levels: when each frame moves.
        sigmas: ``l``, sigma of each level, 0 first, rising (``NoiseSchedule.levels``).
        window: most frames in one call; what is not in flight is context.
        seed: of all noise; frame ``i`` of the same seed starts from the same noise under any schedule, window or length.
        eta: see ``move``.
        order: see ``Stepper``.
        guide: what is done around the model.
        history: how finished frames are shown; None shows them as they are.
        coordinates: a name in ``view.SIGNAL``.
        anchors: first frames of the clip that stay in the window for good.
        start: ``f ...``, unit noise to start from instead of the seed's.

    Returns:
        clip: ``f ...``.

    Raises:
        ValueError: lengths disagree, the window cannot hold the frames in flight, or something is not finite.
    """
    check_lengths(latent, levels, sigmas)
    calls = levels.calls(window, anchors)
    stepper = Stepper(denoise, sigmas.to(latent), seed, eta, order, guide, history, coordinates)
    device = latent.device
    clip = latent.clone()
    unknown = (~levels.known).nonzero().flatten()
    noise = frame_noise(latent.shape[1:], seed, unknown.tolist()) if start is None else start[unknown.to(start.device)]
    clip[unknown.to(device)] = noise.to(latent) * start_scale(stepper.sigmas[-1], coordinates)
    for number, call in enumerate(calls):
        ids = call.ids.to(device)
        clip[ids], clean = stepper.step(clip[ids], call, number)
        yield Step(number + 1, levels.calls_total, clean)
    if not torch.isfinite(clip).all():
        raise ValueError("the sampler's result is not finite: the model or its precision is broken, nothing was kept")
    return clip


def forcing(
    job: Job,
    *,
    levels: Levels,
    window: int,
    eta: float = 0.0,
    order: str = "euler",
    history: History | None = None,
    anchors: int = 0,
) -> Generator[Step, None, Tensor]:
    """``rollout`` of a host's job. Returns ``f ...``."""
    if job.known is not None and not torch.equal(job.known.cpu(), levels.known):
        raise ValueError(
            f"the latent's mask leaves {int(job.known.sum())} frames alone and the noise levels are for {int(levels.known.sum())} known"
            " ones, or for others: give both the same frames"
        )
    return rollout(
        job.denoise,
        job.latent,
        levels=levels,
        sigmas=job.sigmas,
        window=window,
        seed=job.seed,
        eta=eta,
        order=order,
        guide=job.guide,
        history=history,
        coordinates=job.coordinates,
        anchors=anchors,
        start=job.noise,
    )


def check_lengths(latent: Tensor, levels: Levels, sigmas: Tensor) -> None:
    """Refuse what does not fit together: ``latent``: ``f ...``, ``sigmas``: ``l``.

    Raises:
        ValueError: one sentence.
    """
    if len(latent) != levels.frames:
        raise ValueError(f"the latent has {len(latent)} frames and the noise levels are for {levels.frames}: they must agree")
    if len(sigmas) != levels.steps + 1:
        raise ValueError(f"{len(sigmas)} sigmas were given for {levels.steps} steps: give one per level, {levels.steps + 1}")
    if not torch.isfinite(latent[levels.known.to(latent.device)]).all():
        raise ValueError("a known frame holds values that are not finite: the latent is broken, encode it again")
