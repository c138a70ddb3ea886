"""How finished frames are shown to the model: as if slightly noisy, so that it does not trust its own small errors."""

from dataclasses import dataclass, replace
from math import inf

from ..fields.setting import check, documented, setting

KINDS = {
    "noise": "They really get that noise, the same at every call.",
    "addnoise": "They get other noise at every call.",
    "label": "The model is only told so.",
}
WHICH = {
    "all": "It is for known ones and those made here.",
    "known": "It is for those that are given only, as in SkyReels-V2.",
    "generated": "It is for those made here only, as in DFoT.",
}


OWN = -1.0  # a sigma: the model's own


@dataclass(frozen=True)
class OwnNoise:
    """The context noise that suits a model.

    Attributes:
        sigma: as its authors have it.
        most: what they warn of more than.
        whose: who they are, for the warning.
    """

    sigma: float = 0.0
    most: float = inf
    whose: str = "its authors"


NONE_KNOWN = OwnNoise()


@dataclass(frozen=True)
class ContextNoise:
    """Noise of finished frames, in the model's eyes only (Diffusion Forcing, arXiv:2407.01392, Section 3.3).

    ``label`` only tells the model so and leaves the frame as it is, which is right when the frame's own error is noise of that size;
    ``noise`` adds noise of that size, the same at every call; ``addnoise`` adds other noise at every call, as SkyReels-V2 does
    (arXiv:2504.13074). The clip itself is never changed.

    Attributes:
        sigma: the noise level, in the model's coordinates; 0 shows frames as they are, and ``OWN`` is for ``on`` to say.
        kind: a name in ``KINDS``.
        which: the frames that it is about, a name in ``WHICH``. ``known``: those that are given, as SkyReels-V2 has it. ``generated``:
            those that the sampler has finished, as DFoT has it (arXiv:2502.06764).
        raised: numbers of finished frames that are shown with more real noise than that, each with its sigma.
        hidden: numbers of frames that are shown as pure noise, which a model trained with a noise level per frame takes as "not there"
            (DFoT, Section 3).
    """

    sigma: float = 0.0
    kind: str = "noise"
    which: str = "all"
    raised: tuple[tuple[int, float], ...] = ()
    hidden: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"the context noise {self.kind!r} is not known: choose one of {', '.join(KINDS)}")
        if self.which not in WHICH:
            raise ValueError(f"context noise is for the frames {self.which!r}: choose one of {', '.join(WHICH)}")
        if self.sigma != OWN and not 0 <= self.sigma < inf:
            raise ValueError(
                f"the context noise has sigma {self.sigma}: it must be at least 0, and finite, or {OWN:g} for the model's own"
            )

    def on(self, own: OwnNoise) -> "ContextNoise":
        """The same for a model: its ``own`` noise, where none was chosen."""
        return replace(self, sigma=own.sigma) if self.sigma == OWN else self

    def remark(self, own: OwnNoise) -> str:
        """What a user should know who chose more than a model bears; empty for nothing."""
        if self.sigma <= own.most:
            return ""
        return (
            f"context_noise is {self.sigma:g}, and {own.whose} warn of more than {own.most:g}, where clips become inconsistent: set"
            f" {own.sigma:g}, or {OWN:g} for the model's own"
        )

    def sigma_of(self, given: bool) -> float:
        """The sigma that a finished frame is shown with, which was given or was not."""
        if self.sigma == OWN:
            raise RuntimeError("the context noise was not told which is the model's own: call on() first")
        about = self.which == "all" or (self.which == "known") == given
        return self.sigma if about else 0.0


NO_NOISE = ContextNoise()  # finished frames are shown as they are


@documented
@dataclass(frozen=True)
class ContextNoiseSettings:
    """Context noise as a user sets it."""

    context_noise: float = setting(
        OWN,
        "Finished frames are shown to the model with noise of this sigma, so that small errors do not add up. 0 is off, and -1 is the"
        " model's own: what the file of a LongTake video model says (0.2 the bundled one), 0.02 for Wan and SkyReels-V2, whose authors warn"
        " of more than 0.05, and none for others.",
        least=OWN,
        most=10.0,
        step=0.01,
        aliases=("stabilization level (Diffusion Forcing, DFoT)",),
    )
    context_noise_kind: str = setting(
        "noise",
        "The kind says how the noise of finished frames is shown; the frames themselves never change.",
        menu=KINDS,
        advanced=True,
    )
    context_noise_frames: str = setting("all", "This says which finished frames context_noise is for.", menu=WHICH, advanced=True)

    def __post_init__(self) -> None:
        check(self)
        self.made()  # refuses what lies between -1 and 0

    def made(self) -> ContextNoise:
        """How frames are shown."""
        return ContextNoise(self.context_noise, self.context_noise_kind, self.context_noise_frames)
