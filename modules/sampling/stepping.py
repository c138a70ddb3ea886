"""One row of a noise-level matrix on the frames of a window: the model call, and every frame's step from its level to its next one."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..noise.seeded import KeptNoise, broadcast, frame_noise
from .context_noise import NO_NOISE, ContextNoise
from .coordinates import SIGNAL, mixed
from .job import Job
from .model_view import View
from .multistep import Multistep
from .plan import Row


class Order(NamedTuple):
    """A way to step: a sentence, and how often a row may call the model."""

    text: str
    calls: int = 1


ORDERS = {
    "euler": Order("It makes one model call per row."),
    "heun": Order("It makes two model calls per row, with a smaller error for the same steps; it needs eta 0.", calls=2),
    "unipc": Order(
        "It makes one call and has the smaller error, since each frame goes on from its own earlier calls; SkyReels-V2 and Wan are"
        " sampled so, and it needs eta 0."
    ),
    "renoise": Order("It puts fresh noise on the guess, for models that were distilled to few steps; it needs eta 0."),
}


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
        coordinates: a name in ``coordinates.SIGNAL``.

    Returns:
        x: ``n ...``; frames whose sigma does not change come back bit for bit.
    """
    safe = before.clamp_min(torch.finfo(before.dtype).tiny)
    if noise is None or eta == 0:
        moved = (x - clean).div_(broadcast(safe, x)).mul_(broadcast(after - before, x)).add_(x)  # the same in both coordinates
        moved = _put(moved, after == 0, clean)  # what rounding leaves of the noise is not part of a finished frame
    else:
        signal = SIGNAL[coordinates]
        a, b = signal(before), signal(after)
        ratio = after * a / (safe * b.clamp_min(torch.finfo(b.dtype).tiny))  # of the noise-to-signal ratios
        fresh = eta * after * (1 - ratio**2).clamp_min(0).sqrt()
        kept = (after**2 - fresh**2).clamp_min(0).sqrt() / safe
        moved = (broadcast(kept, x) * x).addcmul_(broadcast(b - a * kept, x), clean).addcmul_(broadcast(fresh, x), noise)
    return _put(moved, before == after, x)


def _put(frames: Tensor, chosen: Tensor, source: Tensor) -> Tensor:
    """Take some frames, often none, from elsewhere; in place: ``frames``, ``source``: ``n ...``, ``chosen``: ``n``. Returns ``n ...``."""
    rows = chosen.nonzero().flatten()
    return frames.index_copy_(0, rows, source[rows]) if len(rows) else frames


def level_noise(like: Tensor, seed: int, ids: Sequence[int], levels: Sequence[float]) -> Tensor:
    """Fresh noise for steps that leave ``levels``, ``n``: a frame's depends on its number and level, not on when that is.

    Args:
        like: ``m ...``, of which frames' size, kind and device it is.
        seed: the user's.
        ids: absolute frame numbers.
        levels: of each of these frames.

    Returns:
        noise: ``n ...``.
    """
    names = {level: f"level {level:g}" for level in set(levels)}
    return frame_noise(like.shape[1:], seed, ids, [names[level] for level in levels]).to(like)


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

    A frame's step is its own whatever the others do, and it is the same wherever a clip is interrupted: what a multistep method remembers
    from one row to the next it remembers of each frame.

    Attributes:
        job: the model with its conditions, its sigmas, coordinates and guide, and the seed of fresh noise.
        eta: see ``move``.
        order: ``euler``, or ``heun``: a second call at the next levels, whose slope is averaged with the first (Karras et al.,
            arXiv:2206.00364, Algorithm 1); a frame that becomes clean takes Euler's step. ``unipc``: one call, and what a frame's earlier
            ones gave, see ``multistep.unipc``. ``renoise``: the guess under fresh noise of
            the next level, for models that were distilled to few steps (multistep consistency sampling, arXiv:2303.01469, Algorithm 1).
        context_noise: how finished frames are shown.
        noises: where noise for showing frames comes from.
        pasts: what ``unipc`` remembers.
    """

    job: Job
    eta: float = 0.0
    order: str = "euler"
    context_noise: ContextNoise = NO_NOISE
    noises: KeptNoise = field(default_factory=KeptNoise)
    pasts: Multistep = field(default_factory=Multistep)

    def __post_init__(self) -> None:
        check_order(self.order, self.eta)

    def step(self, x: Tensor, row: Row, number: int) -> tuple[Tensor, Tensor]:
        """Do one row.

        Args:
            x: ``n ...``, the window's frames.
            row: which frames they are and how they move.
            number: of the row, from 0.

        Returns:
            x: ``n ...``, frames that do not move bit for bit.
            clean: ``n ...``, the model's guess.
        """
        before, after = (sigma_of(levels, self.job.sigmas).to(x) for levels in (row.before, row.after))
        view = self._view(x, row, before, number * ORDERS[self.order].calls)
        clean = self._guess(view)
        if self.order == "heun" and bool(((after < before) & (after > 0)).any()):
            return self._corrected(x, clean, view, after), clean
        if self.order == "unipc":
            levels = before.tolist(), after.tolist()
            return self.pasts.step(x, clean, row.ids.tolist(), *levels, self.job.coordinates), clean
        if self.order == "renoise":
            return self._renoised(x, clean, row, after), clean
        fresh = self._fresh(x, row, after) if self.eta > 0 else None
        return move(x, clean, before, after, fresh, self.eta, self.job.coordinates), clean

    def _guess(self, view: View) -> Tensor:
        return self.job.guide(self.job.denoise, view)

    def _view(self, x: Tensor, row: Row, sigma: Tensor, number: int) -> View:
        return View(
            x,
            sigma,
            row.ids.to(x.device),
            finished=(row.before == 0).to(x.device),
            given=None if row.given is None else row.given.to(x.device),
            times=None if row.times is None else row.times.to(x.device),
            call=number,
            top=float(self.job.sigmas[-1]),
            coordinates=self.job.coordinates,
            context_noise=self.context_noise,
            seed=self.job.seed,
            noises=self.noises,
            shot=row.shot,
        )

    def _fresh(self, x: Tensor, row: Row, after: Tensor) -> Tensor:
        """Fresh noise for those frames that get any, zeros for the others; ``after``: ``n``, sigmas. Returns ``n ...``."""
        ids, before = row.ids.tolist(), row.before.tolist()  # every frame is a draw of its own
        places = ((row.after < row.before) & (after > 0).cpu()).nonzero().flatten().tolist()
        if len(places) == len(x):
            return level_noise(x, self.job.seed, ids, before)
        drawn = level_noise(x, self.job.seed, [ids[place] for place in places], [before[place] for place in places])
        return torch.zeros_like(x).index_copy_(0, torch.tensor(places, dtype=torch.int64, device=x.device), drawn)

    def _renoised(self, x: Tensor, clean: Tensor, row: Row, after: Tensor) -> Tensor:
        moved = mixed(clean, self._fresh(x, row, after), after, self.job.coordinates)
        moved = _put(moved, after == 0, clean)
        return _put(moved, (row.before == row.after).to(x.device), x)

    def _corrected(self, x: Tensor, clean: Tensor, view: View, after: Tensor) -> Tensor:
        before = view.sigma
        guessed = move(x, clean, before, after)
        shown = replace(view, x=guessed, sigma=after, finished=after == 0, call=view.call + 1)  # as the next row shows them
        second = self._guess(shown)
        first_slope = (x - clean) / broadcast(before.clamp_min(torch.finfo(before.dtype).tiny), x)
        second_slope = (guessed - second) / broadcast(after.clamp_min(torch.finfo(after.dtype).tiny), x)
        better = x + broadcast(after - before, x) * (first_slope + second_slope) / 2
        return torch.where(_frames((after < before) & (after > 0), x), better, guessed)


def _frames(chosen: Tensor, like: Tensor) -> Tensor:
    """Ready to choose frames: ``chosen``: ``n``, bool, ``like``: ``n ...``. Returns ``n ...``."""
    return chosen.reshape(-1, *(1,) * (like.ndim - 1))


def corrects(row: Row) -> bool:
    """Whether Heun's method makes its second model call in a row: some frame moves to a level above 0."""
    return bool(((row.after < row.before) & (row.after > 0)).any())


def check_order(order: str, eta: float) -> None:
    """Refuse what cannot be stepped with.

    Raises:
        ValueError: one sentence.
    """
    if order not in ORDERS:
        raise ValueError(
            f"the order {order!r} is not offered: choose {' or '.join(ORDERS)}; ComfyUI's own multistep methods such as dpmpp_2m remember"
            " one earlier level for all frames, and here every frame has its own, as in unipc"
        )
    if not 0 <= eta <= 1:
        raise ValueError(f"eta is {eta}: it must lie between 0 (deterministic) and 1 (ancestral)")
    if order != "euler" and eta > 0:
        why = "whose noise is all fresh in any case" if order == "renoise" else "which is for deterministic sampling"
        raise ValueError(f"eta is {eta} with {order}, {why}: set eta to 0, or the order to euler")
