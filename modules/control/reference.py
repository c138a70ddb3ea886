"""Reference attention: a frame's self-attention looks at the features of reference pictures beside its own, without any training.

The reference goes through the same U-Net at the same noise level, and what each self-attention got of it is kept; a frame's queries
then meet its own keys and values and those (the "reference-only" of lllyasviel's ControlNet extension, discussion 1236; the shared
attention of StyleAligned, arXiv:2312.02133, equation 3, whose AdaIN is a choice here).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..fields.setting import check, documented, setting
from ..fields.span import check_span, end_percent, start_percent
from ..temporal.block_rules import BlockRule, block_factor

PURPOSE = "reference"  # of the noise that references get


@documented
@dataclass(frozen=True)
class ReferenceSettings:
    """All that a user can set about references.

    Attributes:
        per_frame: factors on the strength, one for each frame, the last one holding to the end; empty for 1.
        blocks: factors on the strength by part of the U-Net.
    """

    strength: float = setting(
        1.0,
        "The strength says how much of each self-attention comes from looking at the reference too: at 1 all of it, at 0 none.",
        least=0.0,
        most=1.0,
        step=0.01,
    )
    negative_strength: float = setting(
        0.5,
        "The negative strength says the same for the negative prompt: less than 1 lets CFG lead towards the reference. It is 1 minus the"
        " style fidelity of other packs.",
        least=0.0,
        most=1.0,
        step=0.01,
    )
    adain: bool = setting(
        False,
        "AdaIN gives a frame's features the mean and the spread of the reference's before they meet, as StyleAligned does for one style in"
        " all pictures.",
    )
    seed: int = setting(0, "The seed is that of the noise that the reference gets.", least=0, most=2**64 - 1, control=True)
    start_percent: float = start_percent()
    end_percent: float = end_percent()
    per_frame: tuple[float, ...] = ()
    blocks: tuple[BlockRule, ...] = ()

    def __post_init__(self) -> None:
        check(self)
        check_span(self)
        wrong = next((factor for factor in self.per_frame if not 0 <= factor <= 1), None)
        if wrong is not None:
            raise ValueError(f"strength_per_frame has {wrong:g}: each must lie between 0 and 1, as the strength itself")

    def factor(self, slot: str) -> float:
        """What the strength in a block is multiplied with, by AnimateDiff's name for its slot, between 0 and 1."""
        return min(1.0, max(0.0, block_factor(self.blocks, slot)))

    def of_frames(self, ids: Tensor) -> Tensor:
        """Each frame's factor: ``ids``: ``f``. Returns ``f``."""
        if not self.per_frame:
            return torch.ones(len(ids))
        return torch.tensor(self.per_frame)[ids.cpu().clamp(0, len(self.per_frame) - 1)]


@dataclass(frozen=True, eq=False)
class ReferenceRows:
    """What each row of a call looks at.

    Attributes:
        places: ``n k``, the rows of the reference's pass that a row of the call looks at.
        strength: ``n``, how strongly.
    """

    places: Tensor
    strength: Tensor

    def rows(self, chosen: Tensor) -> "ReferenceRows":
        """The same for some rows: ``chosen``: ``m``, int64."""
        return ReferenceRows(self.places[chosen], self.strength[chosen])

    def tokens(self, features: Tensor) -> Tensor:
        """What rows look at beside themselves: ``features``: ``r t c``, of the reference's pass. Returns ``n s c``."""
        return features[self.places].flatten(1, 2)


def renormalised(x: Tensor, like: Tensor, share: Tensor) -> Tensor:
    """AdaIN (Huang and Belongie, arXiv:1703.06868, equation 8) over tokens, in part.

    Args:
        x: ``n t c``.
        like: ``n s c``, whose mean and spread it gets.
        share: ``n``, how much of it: 0 for ``x`` itself.

    Returns:
        x: ``n t c``.
    """
    mean, spread = x.mean(1, keepdim=True), x.std(1, keepdim=True)
    made = (x - mean) / (spread + 1e-6) * like.std(1, keepdim=True) + like.mean(1, keepdim=True)
    return torch.lerp(x, made, share.to(x)[:, None, None])
