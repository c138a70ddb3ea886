"""What a host hands to a sampler, and what it gets back.

A sampler knows nothing of hosts: it is a generator that gets a ``Job``, yields a ``Step`` after every row (the host draws progress,
previews and may stop there) and returns the clip.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..temporal.carried_state import Nothing, Remembering
from .context_noise import NONE_KNOWN, OwnNoise
from .coordinates import begun, mixed
from .extent import Extent
from .model_view import Denoise, Guide, plain


@dataclass(frozen=True)
class State:
    """Where a take is between two rows. From it the same frames are made as if nothing had happened.

    Attributes:
        row: number of the next one.
        ids: ``n``, int64, frames that are kept, rising.
        x: ``n ...``, what they are.
        memory: further tensors by name, of models that remember more than frames.
    """

    row: int
    ids: Tensor
    x: Tensor
    memory: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """What a sampler yields after each row.

    Attributes:
        row: rows done.
        total: rows in all; 0 if the take is endless.
        clean: ``n ...``, the model's present guess of the frames it worked on, for previews; or None.
        finished: ``f ...``, frames that this row finished, in order; None where the sampler returns the whole clip at its end.
        ids: ``f``, their absolute numbers.
        state: what a sampler that may be interrupted goes on from; None for others.
    """

    row: int
    total: int
    clean: Tensor | None = None
    finished: Tensor | None = None
    ids: Tensor | None = None
    state: State | None = None


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
        coordinates: a name in ``coordinates.SIGNAL``.
        guide: what is done around the model.
        full: whether the highest level is the model's noisiest; else the clip shows through it.
        own_noise: the context noise that suits the model.
        trained: frames of the clips that the model was trained on; 0 where it does not say.
        encode: the samples of a LATENT as ``latent`` has them.
        memory: what the model remembers beside the frames of a window, for samplers that are interrupted and go on.
        recalls: whether it goes on from that, so that known frames which no window will show have to be shown to it first.
        sees_ahead: whether some frame sees later ones; else showing it frames behind those that move is of no use.
        state: what to go on from; None to begin.
        collect: whether the whole clip is wanted in the end; else its last frames, as somebody takes finished ones as they come.
        to_latent: frames as ``latent`` has them, as the samples of a LATENT: the way back from ``encode``.
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
    own_noise: OwnNoise = NONE_KNOWN
    trained: int = 0
    encode: Callable[[Tensor], Tensor] = lambda samples: samples
    memory: Remembering = field(default_factory=Nothing)
    recalls: bool = False
    sees_ahead: bool = True
    state: State | None = None
    collect: bool = True
    to_latent: Callable[[Tensor], Tensor] = lambda frames: frames

    @property
    def ahead(self) -> bool:
        """Whether frames behind those that move are shown: not to a model that remembers, which would go on from them."""
        return self.sees_ahead and not self.recalls

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


@runtime_checkable
class Recordable(Protocol):
    """A sampler that finishes frames before its end, an ``Algorithm``: it begins where the job says, and its steps have states."""

    def __call__(self, job: Job) -> Generator[Step, None, Tensor]:
        """Run it. Returns ``f ...``, the clip or what the job wants of it."""
        ...

    def extent(self, job: Job) -> Extent:
        """How far the sampling of a job goes."""
        ...

    def given_frames(self, job: Job) -> tuple[Tensor, Tensor]:
        """The frames that are given. Returns their numbers, ``k``, and what they are, ``k ...``."""
        ...


@runtime_checkable
class Counted(Protocol):
    """A sampler that knows before it begins how often it calls the model."""

    def calls(self, frames: int, steps: int, trained: int) -> int:
        """Model calls at most, for a latent of so many frames, so many steps, a model trained on so many frames; 0 without an end."""
        ...


@runtime_checkable
class OneLevel(Protocol):
    """A sampler that may show all frames of each call at one noise level, as other samplers do."""

    def one_level(self, *, masked: bool) -> bool:
        """Whether it does, where the latent's mask leaves frames alone or does not."""
        ...


def started(latent: Tensor, noise: Tensor, sigma: Tensor, coordinates: str, *, full: bool = True) -> Tensor:
    """Frames at the level where sampling starts, as ComfyUI begins.

    Args:
        latent: ``f ...``, what they hold: zeros for nothing.
        noise: ``f ...``, unit noise.
        sigma: ``()``, of the level.
        coordinates: a name in ``coordinates.SIGNAL``.
        full: whether it is the model's noisiest level.

    Returns:
        x: ``f ...``.
    """
    levels = sigma.expand(len(latent))
    if full and coordinates == "diffusion":
        return latent + begun(noise, levels, coordinates)
    return mixed(latent, noise, levels, coordinates)


def check_sigmas(sigmas: Tensor, steps: int, *, together: bool = False) -> None:
    """Refuse sigmas that are not one per level, from clean to noise.

    Args:
        sigmas: ``l``, rising.
        steps: that each frame takes.
        together: whether all frames are at one level all along: then they may stop at any, for another sampler to go on.

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
    if sigmas[0] != 0 and not together:
        raise ValueError(
            f"the sigmas end at {float(sigmas[0]):.4g}, and here frames finish one after the other, or known ones are clean, so sigmas must"
            " end at 0: use the whole schedule, or the end of it; the high half of SplitSigmas is for full_sequence without known frames,"
            " and for VDM Sampler without them"
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
