"""An edit of a few frames, carried to all others of a clip by what lies where in the unedited frames.

The difference between an edited frame and its original is what moves. Each place of another frame looks at the places of the original of
the edited frame: queries and keys are the unedited pictures around each place, values are the difference. So a place gets the edit of what
it shows, wherever that has moved; a place that finds nothing like itself gets none. This is the correspondence of TokenFlow (Geyer et al.,
arXiv:2307.10373, Section 4.2) with attention in the place of its nearest neighbour, and with pictures in the place of a network's features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..fields.setting import check, documented, setting

AROUND = 3  # cells of a side that a place is known by
LOGITS = 2**24  # pairs of places that are compared at once: 64 MiB, whatever the settings
SEEN = 0.02  # from black to white: what changes by less looks the same


@documented
@dataclass(frozen=True)
class EditPropagation:
    """How an edit is carried from frame to frame."""

    cells: int = setting(
        64,
        "So many cells on the longer side are compared: more finds smaller things and takes time with its fourth power.",
        least=8,
        most=128,
        step=8,
    )
    sharpness: float = setting(
        0.03,
        "The sharpness is how much two places may differ and still share an edit, as a part of the way from black to white.",
        least=0.005,
        most=0.5,
        step=0.005,
        exact=True,
    )
    tolerance: float = setting(
        0.2,
        "A place that differs by more than this from all of the edited frame stays as it is.",
        least=0.01,
        most=2.0,
        step=0.01,
    )
    nearness: float = setting(
        0.1,
        "The nearness is how much the way across the picture counts as a difference: 0 finds a thing wherever it has gone, and more keeps"
        " look-alikes apart.",
        least=0.0,
        most=2.0,
        step=0.05,
        advanced=True,
    )

    def __post_init__(self) -> None:
        check(self)

    def carried(
        self, clip: Tensor, edited: Tensor, frames: Sequence[int], watch: Callable[[int], None] = lambda done: None
    ) -> tuple[Tensor, Tensor]:
        """The clip with the edit in every frame.

        Args:
            clip: ``f h w c``, unedited, in 0..1.
            edited: ``k ...``, some of its frames, edited, of its size.
            frames: their numbers.
            watch: is told how many frames are done, after each.

        Returns:
            clip: ``f h w c`` in 0..1; the edited frames are in it as they are.
            changed: ``f``, which part of each frame the edit changes, in 0..1.

        Raises:
            ValueError: the pictures do not fit the clip, or all frames are edited. One sentence.
        """
        check_pictures(clip, edited, frames)
        keys = self._places(clip[list(frames)]).flatten(0, 1)
        difference = edited - clip[list(frames)]
        values = rearrange(self._small(difference), "k c y x -> (k y x) c")
        result, changed = clip.clone(), torch.zeros(len(clip))
        for number, frame in enumerate(clip):
            if number in frames:
                result[number] = edited[list(frames).index(number)]
            else:
                moved = self._attended(self._places(frame[None])[0], keys, values)
                grid = self._small(frame[None]).shape[-2:]
                large = F.interpolate(
                    rearrange(moved, "(y x) c -> 1 c y x", y=grid[0]), size=frame.shape[:2], mode="bilinear", align_corners=False
                )
                result[number] = (frame + rearrange(large, "1 c h w -> h w c")).clamp(0, 1)
            changed[number] = ((result[number] - frame).abs().amax(-1) > SEEN).float().mean()
            watch(number + 1)
        return result, changed

    def _small(self, pictures: Tensor) -> Tensor:
        """Pictures of so many cells: ``pictures``: ``f h w c``. Returns ``f c y x``."""
        height, width = pictures.shape[1:3]
        share = min(1.0, self.cells / max(height, width))
        size = max(1, round(height * share)), max(1, round(width * share))
        return F.interpolate(rearrange(pictures, "f h w c -> f c h w"), size=size, mode="area")

    def _places(self, pictures: Tensor) -> Tensor:
        """What each cell is known by, such that mean squared differences are sums: ``pictures``: ``f h w c``. Returns ``f p d``."""
        small = self._small(pictures[..., :3])
        around = F.unfold(F.pad(small, (AROUND // 2,) * 4, mode="replicate"), AROUND)
        seen = rearrange(around, "f d p -> f p d") / around.shape[1] ** 0.5
        rows, columns = (torch.arange(size, device=small.device) / max(small.shape[-2:]) for size in small.shape[-2:])
        at = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1) * self.nearness
        return torch.cat([seen, at.to(seen).expand(len(seen), -1, -1)], dim=-1)

    def _attended(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """What the places of a frame get: ``queries``: ``p d``, ``keys``: ``n d``, ``values``: ``n c``. Returns ``p c``."""
        parts = []
        for some in queries.split(max(1, LOGITS // len(keys))):
            apart = torch.cdist(some, keys).square()
            nothing = apart.new_full((len(some), 1), self.tolerance**2)
            weights = (-torch.cat([apart, nothing], dim=1) / self.sharpness**2).softmax(dim=1)
            parts.append(weights[:, :-1] @ values)
        return torch.cat(parts)


def check_pictures(clip: Tensor, edited: Tensor, frames: Sequence[int]) -> None:
    """Refuse edited frames that do not fit a clip: ``clip``: ``f h w c``, ``edited``: ``k ...``.

    Raises:
        ValueError: one sentence.
    """
    if edited.shape[1:] != clip.shape[1:]:
        size = lambda pictures: f"{pictures.shape[2]}x{pictures.shape[1]} with {pictures.shape[3]} channels"  # noqa: E731
        raise ValueError(
            f"the edited frames are {size(edited)} and the clip's {size(clip)}: scale both to one size, with as many channels"
        )
    if len(set(frames)) >= len(clip):
        raise ValueError(f"all {len(clip)} frames are edited: nothing is left to carry the edit to, give a longer clip")
