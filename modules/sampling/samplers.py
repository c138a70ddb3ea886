"""Samplers as generators: a noise-level matrix, row by row, on a clip that is as long as one likes.

A sampler knows nothing of hosts: it gets a ``denoise`` function (``view.py``), yields a ``Step`` after every row (the host draws
progress, previews and may stop there) and returns the finished frames. How frames move in a row: ``stepping.py``.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..noise.seeded import frame_noise
from ..temporal.carried_state import Nothing, Remembering
from .calls import Levels, unseen
from .stepping import Stepper
from .view import Denoise, Guide, History, begun, mixed, plain


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
        full: whether the highest level is the model's noisiest; else the clip shows through it.
        trained: frames of the clips that the model was trained on; 0 where it does not say.
        encode: the samples of a LATENT as ``latent`` has them.
        memory: what the model remembers beside the frames of a window, for samplers that are interrupted and go on.
        recalls: whether it goes on from that, so that known frames which no window will show have to be shown to it first.
    """

    denoise: Denoise
    latent: Tensor
    sigmas: Tensor
    noise: Tensor | None = None
    known: Tensor | None = None
    seed: int = 0
    coordinates: str = "diffusion"
    guide: Guide = plain
    full: bool = True
    trained: int = 0
    encode: Callable[[Tensor], Tensor] = lambda samples: samples
    memory: Remembering = field(default_factory=Nothing)
    recalls: bool = False

    def window(self, asked: int) -> int:
        """Most frames in a call: what was ``asked`` for, or for 0 the model's own length.

        Raises:
            ValueError: the model has none.
        """
        if not asked and not self.trained:
            raise ValueError(
                "window is 0, which is the length that the model was trained with, and this model does not say it: set window"
            )
        return asked or self.trained


Algorithm = Callable[[Job], Generator[Step, None, Tensor]]  # returns the clip, ``f ...``


def started(latent: Tensor, noise: Tensor, sigma: Tensor, coordinates: str, *, full: bool = True) -> Tensor:
    """Frames at the level where sampling starts, as ComfyUI begins.

    Args:
        latent: ``f ...``, what they hold: zeros for nothing.
        noise: ``f ...``, unit noise.
        sigma: ``()``, of the level.
        coordinates: a name in ``view.SIGNAL``.
        full: whether it is the model's noisiest level.

    Returns:
        x: ``f ...``.
    """
    levels = sigma.expand(len(latent))
    if full and coordinates == "diffusion":
        return latent + begun(noise, levels, coordinates)
    return mixed(latent, noise, levels, coordinates)


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
    full: bool = True,
    recalls: bool = False,
) -> Generator[Step, None, Tensor]:
    """Generate a clip of any length through a sliding window, every frame at its own noise level.

    Args:
        denoise: the model with its conditions.
        latent: ``f ...``; frames that ``levels.known`` names are given and come back unchanged, the others begin from what is there,
            under noise: zeros for nothing.
        levels: when each frame moves.
        sigmas: ``l``, sigma of each level, 0 first, rising (``NoiseSchedule.levels``).
        window: most frames in one call; what is not in flight is context.
        seed: of all noise; frame ``i`` of the same seed starts from the same noise under any schedule, window or length.
        eta: see ``stepping.move``.
        order: see ``stepping.Stepper``.
        guide: what is done around the model.
        history: how finished frames are shown; None shows them as they are.
        coordinates: a name in ``view.SIGNAL``.
        anchors: first frames of the clip that stay in the window for good.
        start: ``f ...``, unit noise to start from instead of the seed's.
        full: whether the highest level is the model's noisiest; else what ``latent`` holds shows through it.
        recalls: see ``Job``.

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
    made = unknown.to(device)
    clip[made] = started(clip[made], noise.to(latent), stepper.sigmas[-1], coordinates, full=full)
    following, known = 0, levels.known.tolist()
    for number, call in enumerate(calls):
        for first in unseen(call, following, known.__getitem__, window) if recalls else ():
            stepper.step(clip[first.ids.to(device)], first, number)
        following = max(following, int(call.ids[-1]) + 1)
        ids = call.ids.to(device)
        clip[ids], clean = stepper.step(clip[ids], call, number)
        yield Step(number + 1, levels.calls_total, clean)
    if not torch.isfinite(clip).all():
        raise ValueError("the sampler's result is not finite: the model or its precision is broken, nothing was kept")
    return clip


def check_lengths(latent: Tensor, levels: Levels, sigmas: Tensor) -> None:
    """Refuse what does not fit together: ``latent``: ``f ...``, ``sigmas``: ``l``.

    Raises:
        ValueError: one sentence.
    """
    if len(latent) != levels.frames:
        raise ValueError(
            f"the latent has {len(latent)} frames and the noise levels are for {levels.frames}: set frames of Noise Levels to {len(latent)}"
            ", or the length of the latent"
        )
    check_sigmas(sigmas, levels.steps)
    check_finite(latent)


def check_sigmas(sigmas: Tensor, steps: int) -> None:
    """Refuse sigmas that are not one per level, from clean to noise: ``sigmas``: ``l``, rising.

    Raises:
        ValueError: one sentence.
    """
    if len(sigmas) != steps + 1:
        raise ValueError(
            f"the sigmas have {len(sigmas) - 1} steps and the noise levels {steps}: set steps of the scheduler to {steps}, or of Noise"
            f" Levels to {len(sigmas) - 1}"
        )
    if not torch.isfinite(sigmas).all() or (sigmas.diff() < 0).any() or sigmas[-1] <= 0:
        raise ValueError("the sigmas do not fall from noise to clean: use those of a scheduler such as BasicScheduler")
    if sigmas[0] != 0:
        raise ValueError(
            f"the sigmas end at {float(sigmas[0]):.4g}: finished frames are context for the others, so they must end at 0; use the whole"
            " schedule, or the end of it"
        )


def check_finite(latent: Tensor) -> None:
    """Refuse frames with numbers that would spoil all others: ``latent``: ``f ...``.

    Raises:
        ValueError: one sentence.
    """
    bad = ~torch.isfinite(latent).flatten(1).all(dim=1)
    if bad.any():
        frames = ", ".join(map(str, bad.nonzero().flatten().tolist()[:5]))
        raise ValueError(f"the latent is not finite (NaN or infinite) in frame {frames}: encode or load it again")
