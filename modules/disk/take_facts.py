"""What the frames of a take hang on, by name and in short, so that it is never gone on with as another one."""

from dataclasses import fields
from typing import Any

from torch import Tensor

from ..sampling.extent import agree
from ..sampling.job import Job
from .fingerprint import fingerprint


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The names of the settings in which two runs differ."""
    return [name for name in {**now, **then} if not agree(now.get(name), then.get(name))]


def facts_of(sampler: Any) -> dict[str, Any]:
    """What is set about a sampler, besides its plan (``Extent``) and its frames."""
    given = {item.name: getattr(sampler, item.name) for item in fields(sampler)}  # type: ignore[arg-type]  a dataclass
    apart = ("plan", "frames", "known_frames")
    facts = {
        name: value if isinstance(value, str | int | float | bool | None) else fingerprint(value) for name, value in given.items()
    }
    return {"sampler": type(sampler).__name__} | {name: value for name, value in facts.items() if name not in apart}


def facts_of_job(job: Job, known: Tensor, frames: int) -> dict[str, Any]:
    """What frames hang on of what a sampler is given, the model aside.

    Args:
        job: what it is given.
        known: ``k``, numbers of frames that are told of elsewhere.
        frames: length of the take; 0 for no end.
    """
    latent = job.latent.detach().cpu().clone()
    latent[known[known < len(latent)]] = 0
    same = (latent == latent[-1:]).flatten(1).all(dim=1)  # frames behind the end begin as the last one does
    alone = int((~same).nonzero()[-1]) + 2 if not same.all() else 1
    facts = {"seed": job.seed, "full": job.full, "coordinates": job.coordinates, "noise": _noise(job.noise, frames)}
    given = {"sigmas": job.sigmas, "latent": latent[:alone], "guidance": job.guide}
    return facts | {name: fingerprint(value) for name, value in given.items()}


def _noise(noise: Tensor | None, frames: int) -> Any:
    """The user's: ``n ...``. Where it is for every frame, a text for each, so that a longer take is seen to begin with the same."""
    return (
        [fingerprint(item) for item in noise[:frames]] if noise is not None and len(noise) >= frames > 0 else fingerprint(noise)
    )
