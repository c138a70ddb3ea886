"""Reconstruction guidance: new frames that fit to known ones, because the model's guess of the known ones depends on them.

Ho et al., arXiv:2204.03458, Section 3.1, Equations 7 and 8. Let ``x`` be the noisy frames, ``clean`` the model's guess, and ``known`` what
some of the frames, or all of them made small, should be. The guess of the others is corrected by

    - weight / 2 * sigma^2 / a * gradient of sum((a / sigma)^2 (known - clean)^2) with respect to x

where ``a`` and ``sigma`` are each frame's. At one level for all, this is the paper's ``weight a / 2``, and in ComfyUI's coordinates of
diffusion models, where ``a`` is 1, it is ``weight / 2``. Sums, not means: the same weight does for any size.

A model whose frames do not hang on each other has no such gradient, nor does one that sees the past only for frames after the known
ones; both are refused.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..fields.setting import check, documented, setting
from ..noise.seeded import broadcast
from ..sampling.model_view import Denoise, View
from ..temporal.gradients import Gradients, normal
from .steering import ALWAYS, Notes, Space, When, clamp, differentiated, limited, signal

ACROSS = Gradients(across=True)
NO_MIXING = "what the model makes of the known frames does not change with the others, so there is nothing to guide them by: "
NO_MODULES = NO_MIXING + "it sees each frame by itself; put a motion module on the model, or use a video model"
PAST_ONLY = NO_MIXING + (
    "it sees the past only and the known frames come first; know frames that come later, or show it the known frames clean"
)
UNSEEN = NO_MIXING + "it has no temporal modules that act here, or sees the past only and the known frames come first"

# how a picture is made small: (frames, height, width) -> frames, all ``n c h w``
SHRINKS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "area": lambda x, height, width: F.adaptive_avg_pool2d(x, (height, width)),
    "bilinear": lambda x, height, width: F.interpolate(x, size=(height, width), mode="bilinear", antialias=True),
}


@dataclass(frozen=True)
class Known:
    """Frames that are known.

    Attributes:
        ids: their absolute numbers; until they are ``fitted`` negative ones count from the clip's end.
        frames: ``k ...``, clean; until they are ``fitted``, ``r ...``, the samples of a LATENT.
    """

    ids: tuple[int, ...]
    frames: Tensor

    def fitted(self, space: Space) -> "Known":
        """The same as a host's model has them.

        Raises:
            ValueError: there are more or fewer numbers than frames, or they are no frames of the clip.
        """
        ids, frames, length = self.ids, space.encode(self.frames), space.frames
        if len(ids) != len(frames):
            raise ValueError(f"{len(ids)} frame numbers were given for {len(frames)} known frames: they must agree")
        if length is not None:
            outside = [number for number in ids if not -length <= number < length]
            if outside:
                raise ValueError(
                    f"frame {outside[0]} is known and the clip has frames 0 to {length - 1}: choose frames of the clip"
                )
            ids = tuple(number % length for number in ids)
        if len(set(ids)) < len(ids) or min(ids, default=0) < 0:
            raise ValueError(f"the known frames' numbers are {list(ids)}: each counts from 0 and stands there once")
        return Known(ids, frames)

    def of(self, view: View) -> tuple[Tensor, Tensor]:
        """Which rows of a call are known frames, and what they are: ``n``, bool, and ``k ...``."""
        numbers = view.ids.repeat(view.clips).tolist()
        rows = torch.tensor([number in self.ids for number in numbers], device=view.x.device)
        places = [self.ids.index(number) for number in numbers if number in self.ids]
        return rows, self.frames[places].to(view.x)


@documented
@dataclass(frozen=True)
class Small:
    """The whole clip, but smaller.

    Attributes:
        frames: ``f ...``, its frames from the clip's first on.
    """

    frames: Tensor
    shrink: str = setting("area", "Shrink says how a large clip is made as small as the small one.", menu=SHRINKS.keys())

    def __post_init__(self) -> None:
        check(self)

    def of(self, view: View, clean: Tensor) -> tuple[Tensor, Tensor]:
        """A call's frames made small and what they should be: ``clean``: ``n ...``, its guess. Returns ``n ...``, twice."""
        height, width = self.frames.shape[-2:]
        small = SHRINKS[self.shrink](clean.flatten(0, -4), height, width).unflatten(0, clean.shape[:-3])
        return small, self.frames[view.ids.repeat(view.clips).to(self.frames.device)].to(clean)

    def check(self, view: View) -> None:
        """Refuse a clip of another length or kind."""
        given, wanted = self.frames.shape, view.x.shape
        last = int(view.ids.max())
        if last >= given[0]:
            raise ValueError(f"the small clip has {given[0]} frames and frame {last} is sampled: give one for every frame")
        if given[1:-2] != wanted[1:-2] or given[-1] > wanted[-1] or given[-2] > wanted[-2]:
            raise ValueError(
                f"the small clip's frames are {list(given[1:])} and the sampled ones {list(wanted[1:])}: it must be a smaller latent of the"
                " same kind"
            )


@documented
@dataclass(frozen=True)
class ReconstructionGuidance:
    """The guide; ``weight`` is the paper's ``w_r`` (Section 3.1).

    Attributes:
        known: frames that are known, or None.
        small: the clip made small, or None.
        when: in which calls it acts.
        gradients: what it asks the host for.
        space: of the host; set by ``fit``.
    """

    weight: float = setting(
        2.0,
        "The weight says how firmly new frames are held to known ones: 1 is what the formula says, 2 and more holds better, too much makes"
        " frames alike. 0 is off and three times faster.",
        least=0.0,
        most=1000.0,
        step=0.1,
    )
    known: Known | None = None
    small: Small | None = None
    when: When = ALWAYS
    clamp: float = clamp()
    gradients: Gradients = ACROSS
    space: Space = field(default=Space(), compare=False, repr=False)
    notes: Notes = field(default_factory=Notes, compare=False, repr=False)

    def __post_init__(self) -> None:
        check(self)
        across = self.small is None  # a small clip tells every frame of itself
        object.__setattr__(self, "gradients", replace(self.gradients, across=across))

    @property
    def open(self) -> bool:
        """Whether it still has to be told what is known, as a sampler does that slides over a take."""
        return self.known is None and self.small is None

    def about(self, ids: tuple[int, ...], frames: Tensor, others: Collection[int]) -> "ReconstructionGuidance":
        """The same with other known frames.

        Args:
            ids: their numbers.
            frames: ``k ...``, as the model has them.
            others: numbers of the frames that are made with them.
        """
        self.check(ids, others)
        return replace(self, known=Known(ids, frames))

    def fit(self, space: Space) -> "ReconstructionGuidance":
        """The same for one sampling of a host.

        Raises:
            ValueError: the model has no gradient to offer.
        """
        known = self.known and self.known.fitted(space)
        small = self.small and Small(space.encode(self.small.frames), self.small.shrink)
        guide = replace(self, known=known, small=small, space=space, notes=Notes())
        ids, frames = () if known is None else known.ids, space.frames
        guide.check(ids, () if frames is None else set(range(frames)) - set(ids))
        return guide

    def check(self, ids: Collection[int], others: Collection[int]) -> None:
        """Refuse known frames, ``ids``, that the ``others`` cannot be guided by on the host's model."""
        if not self.gradients.across or self.weight == 0:
            return
        if self.space.mixing == "none":
            raise ValueError(NO_MODULES)
        if self.space.mixing == "past" and ids and others and min(others) > max(ids):
            raise ValueError(PAST_ONLY)

    def __call__(self, denoise: Denoise, view: View) -> Tensor:
        """The guess of a call, corrected; known frames are what they are known to be. Returns ``n ...``."""
        rows = self.when.rows(view, self.space) & (signal(view) > 0)  # of pure noise nothing can be compared
        given, frames = (torch.zeros_like(rows), view.x[:0]) if self.known is None else self.known.of(view)
        compared = given & rows
        guided = rows & ~given
        if self.small is not None:
            self.small.check(view)
        if self.weight == 0 or not bool(guided.any()) or (self.small is None and not bool(compared.any())):
            clean = denoise(view)
        else:
            clean, gradient = differentiated(denoise, view, lambda guess: self._error(guess, view, given, frames, rows))
            self._check_moved(gradient[guided])
            factor = -self.weight / 2 * view.sigma**2 / signal(view).clamp_min(torch.finfo(view.sigma.dtype).tiny)
            correction = broadcast(torch.where(guided, factor, 0), clean) * gradient
            clean = clean + limited(correction, clean, self.clamp, self.notes)
        return clean.index_copy(0, given.nonzero().flatten(), frames.to(clean)) if len(frames) else clean

    def _error(self, clean: Tensor, view: View, given: Tensor, frames: Tensor, rows: Tensor) -> Tensor:
        """The sum of squares, weighted by each frame's signal-to-noise ratio."""
        given, frames, rows = normal((given, frames, rows))
        worth = torch.where(rows, (signal(view) / view.sigma.clamp_min(torch.finfo(view.sigma.dtype).tiny)) ** 2, 0)
        clean, total = clean.float() if clean.dtype.itemsize < 4 else clean, clean.new_zeros(())
        if len(frames):
            total = total + (broadcast(worth[given], frames) * (frames - clean[given]) ** 2).sum()
        if self.small is not None:
            small, wanted = self.small.of(view, clean)
            total = total + (broadcast(worth, small) * (wanted - small) ** 2).sum()
        return total

    def _check_moved(self, gradient: Tensor) -> None:
        if self.notes.moved or not self.gradients.across:
            return
        if not bool((gradient != 0).any()):
            raise ValueError(UNSEEN)
        self.notes.moved = True
