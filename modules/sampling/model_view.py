"""What the model is shown in one call, by a sampler and the guides around it.

Three things meet here: samplers (which frames, at which noise levels), guides (what is done around the model: ``guidance/``), and hosts
(which run the network). A sampler makes a ``View``, a guide may make several of it, and each goes through ``shown`` before a network
sees it. Frames stand first, whatever else a frame has follows: ``f c h w`` for image models, ``f b c h w`` for video models.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..noise.seeded import KeptNoise
from .context_noise import NO_NOISE, ContextNoise
from .coordinates import begun, mixed

CONTEXT = "stabilise"  # what context noise is drawn for; another word would be other noise


@dataclass(frozen=True)
class View:
    """One model call as a sampler means it.

    Attributes:
        x: ``n ...``, the frames now; finished ones as they are. Several variants of the same frames may stand one after the other.
        sigma: ``n``, noise level of each.
        ids: ``f``, absolute frame numbers; ``n`` is a multiple of ``f``.
        finished: ``f``, bool: known from the beginning, or done.
        given: ``f``, bool: those of the finished ones that are known from the beginning; None for none.
        times: ``f``, when the temporal modules are told each frame is; None for ``ids``.
        call: number of the model call, from 0.
        top: the sigma of pure noise.
        coordinates: a name in ``coordinates.SIGNAL``.
        context_noise: how finished frames are shown.
        seed: of the noise that they are shown with.
        names: one for each variant, for modules that remember what they saw of it in earlier calls.
        noises: where noise for showing frames comes from; a sampler's keeps what it drew for the next call.
        shot: number of the prompt that the call reads, where a take has several.
    """

    x: Tensor
    sigma: Tensor
    ids: Tensor
    finished: Tensor
    given: Tensor | None = None
    times: Tensor | None = None
    call: int = 0
    top: float = 1.0
    coordinates: str = "diffusion"
    context_noise: ContextNoise = NO_NOISE
    seed: int = 0
    names: tuple[int, ...] = (0,)
    noises: KeptNoise = field(default_factory=KeptNoise, compare=False, repr=False)
    shot: int = 0

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
        how, done = self.context_noise, replace(self, context_noise=NO_NOISE)
        if how == NO_NOISE or not (how.hidden or bool(self.finished.any())):
            return done
        x, sigma, raised = self.x, self.sigma, dict(how.raised)
        if how.sigma > 0:
            noisy = self._noisy(how) & ~self._among(raised)
            sigma = torch.where(noisy, torch.full_like(sigma, how.sigma), sigma)
            if how.kind != "label":
                x = self._noised(x, noisy, CONTEXT if how.kind == "noise" else f"addnoise {self.call}", sigma)
        if raised:
            numbers = [raised.get(number, 0.0) for number in self.ids.tolist()]
            sigma = torch.maximum(sigma, torch.tensor(numbers, dtype=sigma.dtype, device=sigma.device))
            x = self._noised(x, self._among(raised), CONTEXT, sigma)
        if how.hidden:
            hidden = self._among(how.hidden)
            sigma = torch.where(hidden, torch.full_like(sigma, self.top), sigma)
            x = self._changed(x, hidden, "dropped", lambda _, noise, at: begun(noise, at, self.coordinates), sigma)
        return replace(done, x=x, sigma=sigma)

    def _noisy(self, how: ContextNoise) -> Tensor:
        """The finished frames that context noise is about, bool. Returns ``n``."""
        given = torch.zeros_like(self.finished) if self.given is None else self.given
        return self.finished & (how.which == "all" or (given if how.which == "known" else ~given))

    def _among(self, numbers: Container[int]) -> Tensor:
        """Which frames have one of these numbers, bool. Returns ``n``."""
        return torch.tensor([i in numbers for i in self.ids.tolist()], device=self.x.device)

    def _noised(self, x: Tensor, chosen: Tensor, purpose: str, sigma: Tensor) -> Tensor:
        return self._changed(x, chosen, purpose, lambda x, noise, at: mixed(x, noise, at, self.coordinates), sigma)

    def _changed(self, x: Tensor, chosen: Tensor, purpose: str, change: Callable[..., Tensor], sigma: Tensor) -> Tensor:
        """``x``: ``n ...``, where some frames are ``change(frames, noise, sigma)``. Returns ``n ...``."""
        rows = chosen.nonzero().flatten()
        if len(rows) == 0:
            return x
        noise = self.noises(x, self.seed, self.ids[rows].tolist(), purpose)
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
