"""The Gaussian world: clips of one pixel whose exact model is a matrix, so that what a sampler gets wrong is the sampler's own.

``python benchmarks/gauss.py [conditional | schedules | fifo | extension ...]`` prints this pack's figures beside those of the reports that
this pack was planned by, and by how many percent they differ.

A clip is ``frames`` numbers of variance 1, neighbours correlated by ``rho`` (an autoregressive process of first order). The best guess of
the clean frames from noisy ones, each at its own level, is linear, and so is everything that a sampler does with it: run on unit vectors
instead of noise, it gives the matrix that makes clips of noise, and from that their mean and covariance without drawing any. The reports'
figures of "conditional" come from 20,000 drawn clips and have two digits. Where nothing is given they are the largest of 256 such errors,
most of which is chance, so there the same clips are drawn here, and how far others would stray stands beside it.

* conditional: frames 8 to 15 given frames 0 to 7 (rho 0.95, 128 steps): replacement and reconstruction guidance.
* schedules: noise-level matrices on 12 frames (rho 0.9); the squared Wasserstein distance per frame to the true covariance.
* fifo: a queue of frames at rising levels, one partition or several, with and without lookahead, windows of 16.
* extension: 64 frames by windows of 16, ``extension.py``: does a clip jump more where windows meet than elsewhere?
"""

import argparse
import math
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    import conftest  # noqa: F401, makes the pack importable under the name ``pack``

import torch
from pack.modules.guidance.extension import Extension
from pack.modules.guidance.reconstruction import Known, ReconstructionGuidance
from pack.modules.sampling.fifo import Queue
from pack.modules.sampling.forcing import Forcing
from pack.modules.sampling.job import Job, State
from pack.modules.sampling.model_view import Denoise, View, plain
from pack.modules.sampling.noise_levels import NoiseLevels
from pack.modules.sampling.rollout import Rollout, rollout
from pack.modules.sampling.vdm import VdmSampler
from torch import Tensor

ENDLESS = 1e6  # a sigma as good as infinite


def covariance(frames: int, rho: float) -> Tensor:
    """Of the true clips: ``f f``."""
    numbers = torch.arange(frames, dtype=torch.float64)
    return rho ** (numbers[:, None] - numbers).abs()


def exact(rho: float) -> Denoise:
    """The best guess of clean frames at any noise levels: ``View.x`` is ``n m``, frames of ``m`` clips."""

    def denoise(view: View) -> Tensor:
        apart = (view.ids[:, None] - view.ids).abs().to(view.x)
        true, noise = rho**apart, view.sigma.to(view.x) ** 2
        # the same on the scale of variance-preserving models, whose numbers stay near 1 at any level
        scale = 1 / (1 + noise).sqrt()
        mixed = scale[:, None] * true * scale + torch.diag(noise * scale**2)
        return true @ (scale[:, None] * torch.linalg.solve(mixed, scale[:, None] * view.x))

    return denoise


def finish(steps: Generator) -> Tensor:
    """What a sampler returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def distance(made: Tensor, true: Tensor) -> float:
    """Squared Wasserstein distance per frame between Gaussians of two covariances: ``f f`` each."""
    root = _root(true)
    return float(made.trace() + true.trace() - 2 * _root(root @ made @ root).trace()) / len(true)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T


def correlation(made: Tensor, apart: int) -> float:
    """Mean correlation of frames so far apart: ``made``: ``f f``."""
    spread = made.diagonal().sqrt()
    return float((made / spread[:, None] / spread).diagonal(apart).mean())


# frames given others

RHO, FRAMES, GIVEN = 0.95, 16, 8


def cosine(steps: int, least: float = -20.0) -> Tensor:
    """Sigmas of the paper's schedule, 0 first: log SNR ``-2 log tan`` of even angles between -20 and 20. Returns ``l``."""
    low = math.atan(math.exp(least / 2))
    angles = torch.linspace(low, math.pi / 2 - low, steps + 1, dtype=torch.float64)
    return torch.cat([torch.zeros(1, dtype=torch.float64), angles[1:].tan()])


@dataclass(frozen=True)
class Conditional:
    """How far clips are from the true ones given their first half.

    Attributes:
        mean: distance of their mean from the true one.
        spread: relative error of their covariance.
        jump: mean square of the first new frame less the last given one.
    """

    mean: float
    spread: float
    jump: float


def given_frames() -> Tensor:
    """A clip's first half, the same one always: ``k``."""
    noise = torch.randn(FRAMES, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return (torch.linalg.cholesky(covariance(FRAMES, RHO)) @ noise)[:GIVEN]


class Units:
    """Noise of which every number is a unit vector of its own: frames are then sums of independent numbers, with a constant in front.

    Args:
        columns: how many vectors there are room for, the constant and what a clip holds from the start included.
        taken: how many of them are in use.
    """

    def __init__(self, columns: int, taken: int):
        self.columns, self.taken = columns, taken

    def __call__(self, shape: Sequence[int], seed: int, ids: Sequence[int], purpose: str) -> Tensor:  # noqa: ARG002  as frame_noise
        """Noise that nobody had yet: ``f m``."""
        noise = torch.zeros(len(ids), self.columns, dtype=torch.float64)
        places = torch.arange(self.taken, self.taken + len(ids))
        noise[torch.arange(len(ids)), places] = 1
        self.taken += len(ids)
        return noise


def columns(frames: int, steps: int, corrector: int) -> int:
    """Numbers that one window draws: at the start, for each step and each corrector step, and for known frames in each call."""
    calls = steps * (1 + corrector)
    return frames * (1 + 2 * calls)


def conditional(weight: float, corrector: int, *, steps: int = 128, gamma: float = 0.0) -> Conditional:
    """Frames 8 to 15 given frames 0 to 7, by replacement with fresh noise, and guidance where ``weight`` is above 0; exactly."""
    given = given_frames()
    noises = Units(1 + columns(FRAMES, steps, corrector), 1)
    latent = torch.zeros(FRAMES, noises.columns, dtype=torch.float64)
    latent[:GIVEN, 0] = given
    guide = ReconstructionGuidance(weight, Known(tuple(range(GIVEN)), latent[:GIVEN])) if weight else plain
    known = torch.arange(FRAMES) < GIVEN
    job = Job(exact(RHO), latent, cosine(steps), known=known, guide=guide)
    made = finish(VdmSampler(gamma, corrector, noises=noises)(job))[GIVEN:]
    mean, spread = made[:, 0], made[:, 1:] @ made[:, 1:].T
    true_mean, true = truth(given)
    jump = (mean[0] - given[-1]) ** 2 + spread[0, 0]
    return Conditional(float((mean - true_mean).norm()), float((spread - true).norm() / true.norm()), float(jump))


def truth(given: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the second half given the first: ``k``. Returns ``n`` and ``n n``."""
    whole = covariance(FRAMES, RHO)
    weights = torch.linalg.solve(whole[:GIVEN, :GIVEN], whole[:GIVEN, GIVEN:]).T
    return weights @ given, whole[GIVEN:, GIVEN:] - weights @ whole[:GIVEN, GIVEN:]


CLIPS = 20_000  # that the report drew and took the covariance of


def covariances_of(made: Tensor, clips: int, repeats: int = 2000) -> Tensor:
    """What the covariance of so many clips comes out as, if it is ``made`` in truth: ``f f``. Returns ``r f f``.

    Wishart's distribution, drawn by Bartlett's decomposition.
    """
    freedom = clips - 1.0 - torch.arange(len(made), dtype=made.dtype)
    diagonal = torch.distributions.Chi2(freedom).sample((repeats,)).sqrt()
    factor = torch.linalg.cholesky(made) @ (
        torch.randn(repeats, *made.shape, dtype=made.dtype).tril(-1) + torch.diag_embed(diagonal)
    )
    return factor @ factor.mT / (clips - 1)


@dataclass(frozen=True)
class Unconditional:
    """Largest error of any entry of the covariance when nothing is given.

    Attributes:
        exact: of the sampler itself.
        drawn: of as many clips as the report drew, from the same numbers.
        low: of so many clips drawn from others, in one case of twenty it is below this.
        high: and in one of twenty above this.
    """

    exact: float
    drawn: float
    low: float
    high: float


def unconditional(*, steps: int = 128) -> dict[tuple[float, int], Unconditional]:
    """Each (gamma, corrector steps) of ``UNCONDITIONAL``; the report's program draws for one after the other from one seed."""
    generator, true = torch.Generator().manual_seed(0), covariance(FRAMES, RHO)

    def drawn(shape: Sequence[int], seed: int, ids: Sequence[int], purpose: str) -> Tensor:  # noqa: ARG001  as frame_noise
        return torch.randn(CLIPS, len(ids), dtype=torch.float64, generator=generator).T

    def sampled(gamma: float, corrector: int, width: int, noises: Callable[..., Tensor]) -> Tensor:
        job = Job(exact(RHO), torch.zeros(FRAMES, width, dtype=torch.float64), cosine(steps))
        return finish(VdmSampler(gamma, corrector, noises=noises)(job))

    def worst(made: Tensor) -> Tensor:
        return (made - true).abs().flatten(-2).amax(dim=-1)

    found = {}
    for gamma, corrector in UNCONDITIONAL:
        clips = torch.cov(sampled(gamma, corrector, CLIPS, drawn))
        noises = Units(columns(FRAMES, steps, corrector), 0)
        units = sampled(gamma, corrector, noises.columns, noises)
        made = units @ units.T
        low, high = torch.quantile(worst(covariances_of(made, CLIPS)), torch.tensor([0.05, 0.95], dtype=torch.float64)).tolist()
        found[gamma, corrector] = Unconditional(float(worst(made)), float(worst(clips)), low, high)
    return found


# schedules


def levels_of(steps: int) -> Tensor:
    """Sigmas whose angles are even, 0 first, pure noise last. Returns ``l``."""
    angles = torch.linspace(0, math.pi / 2, steps + 1, dtype=torch.float64)
    return torch.cat([angles[:-1].tan(), torch.tensor([ENDLESS], dtype=torch.float64)])


def made_by(levels: NoiseLevels, rho: float) -> Tensor:
    """The covariance of the clips that a schedule makes, exactly. Returns ``f f``."""
    unit = torch.eye(levels.frames, dtype=torch.float64)
    matrix = finish(Forcing(levels, levels.frames)(Job(exact(rho), torch.zeros_like(unit), levels_of(levels.steps), unit)))
    return matrix @ matrix.T


# FIFO


def queue(partitions: int, *, lookahead: bool, rho: float, window: int = 16, passes: int = 140, kept: int = 24) -> Tensor:
    """The covariance of the last ``kept`` frames that leave a diagonal queue in so many passes, exactly. Returns ``f f``.

    The queue (``fifo.py``) starts with a true clip in it, each frame under noise of its level; in the end it is as it is always.
    """
    plan = Queue(passes + window - partitions * window, partitions, window, lookahead, full=True)
    first = plan.passes[0]
    levels, sigmas = plan.levels(torch.tensor(plan.shown(first)), first), levels_of(plan.steps)
    # every frame as a sum of independent unit numbers: those of the clip in the first queue, its noise, and that of each frame to come
    length = len(levels)
    warm = torch.zeros(length, 2 * length + passes, dtype=torch.float64)
    warm[:, :length] = torch.linalg.cholesky(covariance(length, rho))
    warm[:, length : 2 * length] = torch.diag(sigmas[levels])

    entered = plan.shown(first).stop  # later frames enter, some of them behind the clip
    noise = torch.zeros(entered + passes, warm.shape[1], dtype=torch.float64)
    noise[entered:, 2 * length :] = torch.eye(passes, dtype=torch.float64)
    job = Job(exact(rho), torch.zeros_like(noise), sigmas, noise)
    state = State(0, torch.tensor(plan.shown(first)), warm)
    clip = torch.cat([step.finished for step in rollout(job, Rollout(plan, window), state) if step.finished is not None][-kept:])
    return clip @ clip.T


# extension


def extended(
    weight: float, corrector: int, *, delta: float = 0.1, overlap: int = 8, steps: int = 128, gamma: float = 0.0, frames: int = 64
) -> tuple[float, float]:
    """Mean squares of the steps between neighbouring frames where windows meet, and elsewhere, relative to the true clips'; exactly."""
    sampler = VdmSampler(gamma, corrector, delta)
    windows = len(list(Extension(FRAMES, FRAMES, overlap).windows(frames)))
    noises = Units(FRAMES + windows * columns(FRAMES, steps, corrector), FRAMES)
    extension = Extension(FRAMES, FRAMES, overlap, sampler=replace(sampler, noises=noises))
    latent = torch.zeros(frames, noises.columns, dtype=torch.float64)
    latent[:FRAMES, :FRAMES] = torch.linalg.cholesky(covariance(FRAMES, RHO))
    guide = ReconstructionGuidance(weight) if weight else plain
    made = finish(extension(Job(exact(RHO), latent, cosine(steps), guide=guide)))
    squares = made.diff(dim=0).square().sum(dim=1) / (2 - 2 * RHO)
    meet = torch.tensor([low + known - 1 for low, _, known in extension.windows(frames)])
    inside = torch.ones(len(squares), dtype=torch.bool)
    inside[: FRAMES - 1] = False
    inside[meet] = False
    return float(squares[meet].mean()), float(squares[inside].mean())


# (weight, corrector steps) -> distance of the mean, relative error of the covariance, squared jump
CONDITIONAL = {
    (0, 0): (2.71, 0.60, 0.757),
    (0, 1): (1.85, 0.40, 0.429),
    (1, 0): (1.79, 0.31, 0.369),
    (1, 1): (1.06, 0.22, 0.222),
    (2, 0): (1.07, 0.13, 0.188),
    (2, 1): (0.51, 0.06, 0.133),
    (5, 0): (0.34, 0.20, 0.055),
    (5, 1): (0.47, 0.16, 0.060),
    (10, 0): (1.38, 0.38, 0.048),
    (10, 1): (1.08, 0.30, 0.047),
}
UNCONDITIONAL = {(0.0, 0): 0.057, (0.3, 0): 0.051, (0.0, 1): 0.018}  # (gamma, corrector steps) -> largest error of the covariance
STEPS = (8, 32, 128)
# (schedule, lag as a share of the steps or a number) -> distance at each of STEPS, correlation of neighbours at 32
SCHEDULES = {
    ("full_sequence", "0"): ((0.0443, 0.0032, 0.00021), 0.9015),
    ("pyramid", "0.5"): ((0.0285, 0.0027, 0.00020), 0.9025),
    ("pyramid", "1"): ((0.0239, 0.0024, 0.00019), 0.9032),
    ("pyramid", "quarter"): ((0.0224, 0.0016, 0.00010), 0.9040),
    ("autoregressive", "all"): ((0.0301, 0.0021, 0.00014), 0.9010),
    ("trapezoid", "1"): ((0.0257, 0.0026, 0.00020), 0.9018),
}
# (partitions, lookahead, rho) -> distance, variance, correlation of frames 8 apart
FIFO = {
    (1, False, 0.9): (0.0074, 0.836, 0.428),
    (1, True, 0.9): (0.0131, 0.789, 0.409),
    (2, False, 0.9): (0.0086, 0.855, 0.361),
    (2, True, 0.9): (0.0113, 0.822, 0.374),
    (4, False, 0.9): (0.0187, 0.833, 0.290),
    (4, True, 0.9): (0.0138, 0.836, 0.332),
    (1, False, 0.99): (0.0048, 0.867, 0.918),
    (1, True, 0.99): (0.0197, 0.741, 0.920),
    (2, False, 0.99): (0.0351, 0.792, 0.832),
    (2, True, 0.99): (0.0330, 0.703, 0.876),
    (4, False, 0.99): (0.1012, 0.636, 0.737),
    (4, True, 0.99): (0.0684, 0.645, 0.809),
}


def beside(made: float, reported: float) -> str:
    """Ours, the report's, and by how many percent ours differs."""
    return f"{made:9.5f} {reported:9.5f} {100 * (made / reported - 1):+6.1f} %"


def print_conditional() -> None:
    """Ten ways to make a clip's second half, and three to make all of it."""
    print("frames 8..15 given 0..7       mean: ours, reported           covariance                     jump squared")
    for (weight, corrector), reported in CONDITIONAL.items():
        got = conditional(weight, corrector)
        name = f"{'guidance ' + str(weight) if weight else 'replacement'}{' + Langevin' if corrector else ''}"
        print(f"{name:24}", *map(beside, (got.mean, got.spread, got.jump), reported), flush=True)
    print(
        f"nothing given                 largest error of the covariance of {CLIPS:,} clips, as drawn there; nine in ten others; exactly"
    )
    for (gamma, corrector), got in unconditional().items():
        name, reported = f"gamma {gamma:g}{' + Langevin' if corrector else ''}", UNCONDITIONAL[gamma, corrector]
        print(f"{name:24}", beside(got.drawn, reported), f"  {got.low:.3f} to {got.high:.3f}  {got.exact:.4f}", flush=True)


def print_schedules() -> None:
    """Six schedules at three numbers of steps."""
    print("12 frames, rho 0.9            distance: ours, reported")
    for (schedule, lag), (reported, correlated) in SCHEDULES.items():
        for steps, value in zip(STEPS, reported, strict=True):
            made = made_by(levels_at(schedule, lag, steps), 0.9)
            cells = [beside(distance(made, covariance(12, 0.9)), value)]
            cells += [f"neighbours {beside(correlation(made, 1), correlated)}"] if steps == 32 else []
            print(f"{schedule:15} {lag:7} {steps:4}", *cells, flush=True)


def levels_at(schedule: str, lag: str, steps: int) -> NoiseLevels:
    """A row of ``SCHEDULES`` for so many steps."""
    lags = {"quarter": steps / 4, "all": steps}
    return NoiseLevels.named(schedule, 12, steps, lag=lags[lag] if lag in lags else float(lag))


def print_fifo() -> None:
    """Partitions and lookahead."""
    print("a queue, windows of 16        distance: ours, reported       variance                       8 frames apart")
    for (partitions, lookahead, rho), reported in FIFO.items():
        made = queue(partitions, lookahead=lookahead, rho=rho)
        got = distance(made, covariance(len(made), rho)), float(made.diagonal().mean()), correlation(made, 8)
        name = f"n {partitions}, rho {rho:g}{', lookahead' if lookahead else ''}"
        print(f"{name:24}", *map(beside, got, reported), flush=True)


def print_extension() -> None:
    """Steps between neighbouring frames, as multiples of the true clips'."""
    print("64 frames by windows of 16    where windows meet, elsewhere, ratio (1 is right)")
    for weight, corrector, delta in ((0, 0, 0.1), (2, 0, 0.1), (2, 1, 0.1), (2, 2, 0.3)):
        meet, inside = extended(weight, corrector, delta=delta)
        name = f"weight {weight}, {corrector} x Langevin {delta:g}"
        print(f"{name:28} {meet:.3f} {inside:.3f} {meet / inside:.3f}", flush=True)


TABLES: dict[str, Callable[[], None]] = {
    "conditional": print_conditional,
    "schedules": print_schedules,
    "fifo": print_fifo,
    "extension": print_extension,
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", help=f"which: {', '.join(TABLES)}; all if none is named")
    wanted = parser.parse_args().tables or list(TABLES)
    for name in wanted:
        TABLES[name]()


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    main()
