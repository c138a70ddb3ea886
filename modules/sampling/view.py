"""What a sampler shows the model in one call, and how frames that are finished are shown.

Three things meet here: samplers (which frames, at which noise levels), guides (what is done around the model: ``guidance.py``), and hosts
(which run the network). A sampler makes a ``View``, a guide may make several of it, and each goes through ``shown`` before a network
sees it. Frames stand first, whatever else a frame has follows: ``f c h w`` for image models, ``f b c h w`` for video models.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..noise.seeded import KeptNoise, broadcast

SIGNAL: dict[str, Callable[[Tensor], Tensor]] = {
    "diffusion": torch.ones_like,  # x = clean + sigma * noise, ComfyUI's coordinates of eps, v and x0 models
    "flow": lambda sigma: 1 - sigma,  # x = (1 - sigma) * clean + sigma * noise, of flow models such as Wan
}
KINDS = ("label", "noise", "addnoise")


@dataclass(frozen=True)
class History:
    """How finished frames are shown to the model: as if slightly noisy, so that it does not trust its own small errors.

    Diffusion Forcing, arXiv:2407.01392, Section 3.3. ``label`` only tells the model so and leaves the frame as it is, which is right
    when the frame's own error is noise of that size; ``noise`` adds noise of that size, the same at every call; ``addnoise`` adds
    other noise at every call, as SkyReels-V2 does (arXiv:2504.13074). The clip itself is never changed.

    Attributes:
        sigma: the noise level, in the model's coordinates.
        kind: a name in ``KINDS``.
        seed: of the noise.
        kept: absolute numbers of the finished frames that are shown; None for all. The others are shown as pure noise, which a model
            trained with a noise level per frame takes as "not there" (History Guidance, arXiv:2502.06764, Section 3).
        only: absolute numbers of the finished frames that are shown as noisy; None for all. SkyReels-V2 does so with the frames that a
            clip begins with, and shows those that it has finished itself as they are.
    """

    sigma: float = 0.0
    kind: str = "noise"
    seed: int = 0
    kept: frozenset[int] | None = None
    only: frozenset[int] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"the stabilisation {self.kind!r} is not known: choose one of {', '.join(KINDS)}")
        if not 0 <= self.sigma < float("inf"):
            raise ValueError(f"the stabilisation's sigma is {self.sigma}: it must be at least 0, and finite")


@dataclass(frozen=True)
class View:
    """One model call as a sampler means it.

    Attributes:
        x: ``n ...``, the frames now; finished ones as they are. Several variants of the same frames may stand one after the other.
        sigma: ``n``, noise level of each.
        ids: ``f``, absolute frame numbers; ``n`` is a multiple of ``f``.
        finished: ``f``, bool: known from the beginning, or done.
        times: ``f``, when the temporal modules are told each frame is; None for ``ids``.
        call: number of the model call, from 0.
        top: the sigma of pure noise.
        coordinates: a name in ``SIGNAL``.
        history: how finished frames are shown; None once that is done.
        names: one for each variant, for modules that remember what they saw of it in earlier calls.
        noises: where noise for showing frames comes from; a sampler's keeps what it drew for the next call.
    """

    x: Tensor
    sigma: Tensor
    ids: Tensor
    finished: Tensor
    times: Tensor | None = None
    call: int = 0
    top: float = 1.0
    coordinates: str = "diffusion"
    history: History | None = None
    names: tuple[int, ...] = (0,)
    noises: KeptNoise = field(default_factory=KeptNoise, compare=False, repr=False)

    @classmethod
    def plain(cls, x: Tensor, sigma: Tensor) -> "View":
        """Frames 0, 1, ... with nothing finished, as samplers of whole clips show them: ``x``: ``f ...``, ``sigma``: ``f``."""
        ids = torch.arange(len(x), device=x.device)
        return cls(x, sigma, ids, torch.zeros(len(x), dtype=torch.bool, device=x.device))

    @property
    def clips(self) -> int:
        """How many variants of the frames there are."""
        return len(self.x) // len(self.ids)

    def shown(self) -> "View":
        """The same call with finished frames as the model is to see them; their place in the clip is not touched."""
        history = self.history
        if history is None or (history.sigma == 0 and history.kept is None) or not bool(self.finished.any()):
            return replace(self, history=None)
        x, sigma = self.x, self.sigma
        if history.sigma > 0:
            noisy = self.finished if history.only is None else self._finished_in(history.only)
            sigma = torch.where(noisy, torch.full_like(sigma, history.sigma), sigma)
            if history.kind != "label":
                purpose = "stabilise" if history.kind == "noise" else f"addnoise {self.call}"
                x = self._changed(x, noisy, purpose, lambda x, noise, at: mixed(x, noise, at, self.coordinates), sigma)
        if history.kept is not None:
            dropped = self.finished & ~self._finished_in(history.kept)
            sigma = torch.where(dropped, torch.full_like(sigma, self.top), sigma)
            x = self._changed(x, dropped, "dropped", lambda _, noise, at: begun(noise, at, self.coordinates), sigma)
        return replace(self, x=x, sigma=sigma, history=None)

    def _finished_in(self, numbers: frozenset[int]) -> Tensor:
        """Which finished frames have one of these numbers, bool. Returns ``n``."""
        return self.finished & torch.tensor([i in numbers for i in self.ids.tolist()], device=self.x.device)

    def _changed(self, x: Tensor, chosen: Tensor, purpose: str, change: Callable[..., Tensor], sigma: Tensor) -> Tensor:
        """``x``: ``n ...``, where some frames are ``change(frames, noise, sigma)``. Returns ``n ...``."""
        rows = chosen.nonzero().flatten()
        if len(rows) == 0:
            return x
        assert self.history is not None
        noise = self.noises(x, self.history.seed, self.ids[rows].tolist(), purpose)
        return x.index_copy(0, rows, change(x[rows], noise, sigma[rows]))


Denoise = Callable[[View], Tensor]  # the model with its conditions: its guess of the clean frames, ``n ...`` as ``View.x``
Guide = Callable[[Denoise, View], Tensor]  # what is done around the model in a call: the clean guess, ``f ...``


def plain(denoise: Denoise, view: View) -> Tensor:
    """The guide that does nothing but show the frames. Returns ``n ...``."""
    return denoise(view.shown())


def stacked(views: Sequence[View]) -> View:
    """Variants of the same frames, with names of their own, as one call; they must be ``shown`` already."""
    names = tuple(name for view in views for name in view.names)
    return replace(
        views[0], x=torch.cat([view.x for view in views]), sigma=torch.cat([view.sigma for view in views]), names=names
    )


def mixed(clean: Tensor, noise: Tensor, sigma: Tensor, coordinates: str) -> Tensor:
    """Frames with noise of a level: ``clean``: ``n ...``, ``noise``: ``n ...``, ``sigma``: ``n``. Returns ``n ...``."""
    return broadcast(SIGNAL[coordinates](sigma), clean) * clean + broadcast(sigma, clean) * noise


def begun(noise: Tensor, sigma: Tensor, coordinates: str) -> Tensor:
    """Frames of which nothing is known yet: unit ``noise``: ``n ...``, ``sigma``: ``n``. Returns ``n ...``."""
    return noise * broadcast(start_scale(sigma, coordinates), noise)


def start_scale(sigma: Tensor, coordinates: str) -> Tensor:
    """What unit noise is multiplied with to be the beginning of a sampling, as ComfyUI does: ``sigma``: ``...``. Returns ``...``.

    A diffusion model's noisiest level still holds a trace of the clip, so its noise has the variance of both together.
    """
    return (1 + sigma**2).sqrt() if coordinates == "diffusion" else sigma
