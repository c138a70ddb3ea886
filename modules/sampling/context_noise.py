"""How finished frames are shown to the model: as if slightly noisy, so that it does not trust its own small errors."""

from dataclasses import dataclass

KINDS = ("label", "noise", "addnoise")


@dataclass(frozen=True)
class ContextNoise:
    """Noise of finished frames, in the model's eyes only; Diffusion Forcing calls it stabilisation (arXiv:2407.01392, Section 3.3).

    ``label`` only tells the model so and leaves the frame as it is, which is right when the frame's own error is noise of that size;
    ``noise`` adds noise of that size, the same at every call; ``addnoise`` adds other noise at every call, as SkyReels-V2 does
    (arXiv:2504.13074). The clip itself is never changed.

    Attributes:
        sigma: the noise level, in the model's coordinates; 0 shows frames as they are.
        kind: a name in ``KINDS``.
        kept: absolute numbers of the finished frames that are shown; None for all. The others are shown as pure noise, which a model
            trained with a noise level per frame takes as "not there" (History Guidance, arXiv:2502.06764, Section 3).
        only: absolute numbers of the finished frames that are shown as noisy; None for all. SkyReels-V2 does so with the frames that a
            clip begins with, and shows those that it has finished itself as they are.
    """

    sigma: float = 0.0
    kind: str = "noise"
    kept: frozenset[int] | None = None
    only: frozenset[int] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"the context noise {self.kind!r} is not known: choose one of {', '.join(KINDS)}")
        if not 0 <= self.sigma < float("inf"):
            raise ValueError(f"the context noise has sigma {self.sigma}: it must be at least 0, and finite")


NO_NOISE = ContextNoise()  # finished frames are shown as they are
