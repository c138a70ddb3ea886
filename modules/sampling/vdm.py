"""Samplers of Video Diffusion Models (Ho et al., arXiv:2204.03458): ancestral steps of any variance, a Langevin corrector, known frames.

All frames have one noise level. Theirs is written for variance-preserving models; here a noisy frame is ``a * clean + sigma * noise``
with ``a`` a name's function in ``coordinates.SIGNAL``, and what their formulas need of their own scale follows from it:

    x_s = r' x_t + (1 - r) a_s clean + sqrt((1 - r) lower^(1 - gamma) upper^gamma) noise,   r = (a_t sigma_s)^2 / (a_s sigma_t)^2

(Equations 3 and 4), where ``r' = r a_s / a_t``, and ``lower`` and ``upper`` are the variances at the next and at the present level, both
on the next level's scale. At gamma 0 this is what ComfyUI calls ``euler_ancestral`` with eta 1.

To add a way to treat known frames, add a row to ``REPLACEMENTS``.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..fields.setting import check, documented, setting
from ..noise.seeded import broadcast, frame_noise
from .coordinates import SIGNAL, mixed
from .job import Job, Step, check_finite, check_sigmas, started
from .model_view import View


class Replacement(NamedTuple):
    """How known frames are shown: a sentence, and what their noise is drawn for in a call, by its number; None for no noise."""

    text: str
    purpose: Callable[[int], str] | None = None


REPLACEMENTS = {
    "none": Replacement("They are clean, for models trained with a noise level per frame, such as the bundled one."),
    "fresh": Replacement("They have noise of the level of the others, new in each call.", lambda call: f"replace {call}"),
    "fixed": Replacement("They have noise of the level of the others, the same in each call.", lambda call: "replace"),
}


def ancestral(x: Tensor, clean: Tensor, before: Tensor, after: Tensor, noise: Tensor, gamma: float, coordinates: str) -> Tensor:
    """Take frames from one noise level to the next (Equations 3 and 4).

    Args:
        x: ``n ...``, the frames now.
        clean: ``n ...``, the model's guess of the clean frames.
        before: ``()``, sigma now.
        after: ``()``, sigma afterwards, lower.
        noise: ``n ...``, standard normal.
        gamma: 0 for the smallest variance that a step may have, 1 for the largest.
        coordinates: a name in ``coordinates.SIGNAL``.

    Returns:
        x: ``n ...``; at ``after`` 0 it is ``clean`` itself.
    """
    if after == 0:
        return clean
    a, b = SIGNAL[coordinates](before), SIGNAL[coordinates](after)
    ratio = (a * after / (b * before)) ** 2
    scale = (b**2 + after**2) / (a**2 + before**2)  # of the two levels, as variance-preserving models have them
    variance = (1 - ratio) * (after**2) ** (1 - gamma) * (scale * before**2) ** gamma
    return (a * after**2 / (b * before**2)) * x + (1 - ratio) * b * clean + variance.sqrt() * noise


def langevin(x: Tensor, clean: Tensor, sigma: Tensor, noise: Tensor, delta: float, coordinates: str) -> Tensor:
    """One step of Langevin's dynamics at a noise level, which mends the errors of the steps that led there (Equation 5).

    Args:
        x: ``n ...``, the frames.
        clean: ``n ...``, the model's guess of the clean frames.
        sigma: ``()``.
        noise: ``n ...``, standard normal.
        delta: size of the step; the paper's is 0.1.
        coordinates: a name in ``coordinates.SIGNAL``.

    Returns:
        x: ``n ...``.
    """
    return x - delta / 2 * (x - SIGNAL[coordinates](sigma) * clean) + delta**0.5 * sigma * noise


@documented
@dataclass(frozen=True)
class VdmSampler:
    """Settings of the sampler; called with a host's ``Job`` it is an ``Algorithm``.

    Attributes:
        uniform: whether all new frames are at one noise level.
        noises: where noise comes from: of (shape of a frame, seed, frame numbers, purpose).
    """

    uniform: ClassVar[bool] = True
    gamma: float = setting(
        0.0,
        "Gamma says how much noise a step takes out and puts in again: 0 is the least (as euler_ancestral), 1 the most, and the paper has"
        " 0, 0.1 and 0.3.",
        least=0.0,
        most=1.0,
        step=0.05,
    )
    corrector_steps: int = setting(
        0,
        "So many Langevin steps follow each step but the last: they mend what the step got wrong, above all where frames are known. Each is"
        " one more model call.",
        least=0,
        most=16,
    )
    delta: float = setting(  # one of 4 or more makes any error larger
        0.1, "Delta is the size of a Langevin step; the paper's is 0.1.", least=0.001, most=3.9, step=0.01
    )
    replacement: str = setting(
        "fresh",
        "The replacement says how the model sees known frames.",
        menu={name: row.text for name, row in REPLACEMENTS.items()},
    )
    noises: Callable[[Sequence[int], int, Sequence[int], str], Tensor] = field(default=frame_noise, repr=False)

    def __post_init__(self) -> None:
        check(self)

    def one_level(self, *, masked: bool) -> bool:
        """As ``job.OneLevel``: known frames have the level of the others, or are clean."""
        return not masked or self.replacement != "none"

    def __call__(self, job: Job) -> Generator[Step, None, Tensor]:
        """Sample the clip of a job. Returns ``f ...``."""
        check_finite(job.latent)
        known = torch.zeros(len(job.latent), dtype=torch.bool) if job.known is None else job.known
        if bool(known.all()):
            raise ValueError(
                f"all {len(known)} frames are known: nothing is left to generate, leave some frames of the mask at 1"
            )
        return self.sampled(job, torch.arange(len(job.latent)), known.cpu())

    def sampled(self, job: Job, ids: Tensor, known: Tensor) -> Generator[Step, None, Tensor]:
        """Sample some frames of a take together.

        Args:
            job: its latent, and its noise if it has any, are of these frames only.
            ids: ``f``, their absolute numbers.
            known: ``f``, bool, which of them are given.

        Returns:
            clip: ``f ...``.
        """
        check_sigmas(job.sigmas, len(job.sigmas) - 1, together=not bool(known.any()))
        return _Run(self, job, ids, known).steps()

    def calls(self, frames: int, steps: int, trained: int) -> int:  # noqa: ARG002  all frames go together
        """As ``job.Counted``, exactly."""
        return steps + self.corrector_steps * (steps - 1)


class _Run:
    """One sampling of one window."""

    def __init__(self, settings: VdmSampler, job: Job, ids: Tensor, known: Tensor):
        self.settings, self.job, self.ids = settings, job, ids
        self.known = known.to(job.latent.device)
        self.given = broadcast(self.known, job.latent).bool()
        self.shown = REPLACEMENTS[settings.replacement].purpose
        self.call = 0  # of the model

    def steps(self) -> Generator[Step, None, Tensor]:
        """Returns ``f ...``."""
        job, settings = self.job, self.settings
        sigmas = job.sigmas.to(job.latent).flip(0)
        noise = self._noise("start") if job.noise is None else job.noise.to(job.latent)
        x = started(torch.where(self.given, 0, job.latent), noise, sigmas[0], job.coordinates, full=job.full)
        for row, (before, after) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
            x, clean = self._guess(x, before)
            x = ancestral(x, clean, before, after, self._noise(f"ancestral {row}"), settings.gamma, job.coordinates)
            for repeat in range(settings.corrector_steps if after > 0 else 0):
                x, guess = self._guess(x, after)
                x = langevin(x, guess, after, self._noise(f"langevin {row} {repeat}"), settings.delta, job.coordinates)
            yield Step(row + 1, len(sigmas) - 1, clean)
        if not torch.isfinite(x).all():
            raise ValueError("the sampler's result is not finite: the model or its precision is broken, nothing was kept")
        return torch.where(self.given, job.latent, x)

    def _guess(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """One model call.

        Args:
            x: ``f ...``, the frames now; known ones are ignored.
            sigma: ``()``, the level of the others.

        Returns:
            x: ``f ...``, as the model is shown them.
            clean: ``f ...``, what it takes them to be; known frames are what they are known to be.
        """
        job, levels = self.job, sigma.expand(len(x))
        shown = job.latent
        if self.shown is None:
            levels = torch.where(self.known, 0, levels)
        elif bool(self.known.any()):
            shown = mixed(job.latent, self._noise(self.shown(self.call)), levels, job.coordinates)
        x = torch.where(self.given, shown, x)
        top = float(job.sigmas[-1])
        about = {"call": self.call, "top": top, "coordinates": job.coordinates, "seed": job.seed}
        view = View(x, levels, self.ids.to(x.device), levels == 0, self.known, **about)
        self.call += 1
        return x, torch.where(self.given, job.latent, job.guide(job.denoise, view))

    def _noise(self, purpose: str) -> Tensor:
        latent = self.job.latent
        return self.settings.noises(latent.shape[1:], self.job.seed, self.ids.tolist(), purpose).to(latent)
