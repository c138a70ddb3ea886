"""Clips of the postcards world (``postcards.py``) as training takes them: any number, with their words and where their travellers are."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor

from ..fields.setting import check, documented, setting
from ..noise.seeded import frame_seed
from .clips import ClipDataset
from .footage import Footage
from .postcard_scenes import SIDE, TIMES
from .postcard_travellers import COLOURS, TRAVELLERS
from .postcards import Postcard, drawn
from .report import Report
from .settings import ClipSettings
from .source import ClipSource, Found
from .timing import even

FPS = 8.0


@lru_cache(maxsize=64)  # the frames of a clip, which are asked for as pictures and as marks
def _picture(card: Postcard, frame: float) -> Tensor:
    return torch.tensor(card.draw(frame))


def with_traveller(card: Postcard, frame: float) -> tuple[Tensor, Tensor]:
    """A picture of a postcard, ``h w 3`` in 0..1, and which of its pixels show the traveller, ``h w``, 0 or 1."""
    whole, empty = _picture(card, frame), torch.tensor(card.draw(frame, traveller=False))
    return whole.float() / 255, (whole != empty).any(-1).float()


class PostcardFootage(Footage):
    """A postcard from its first frame on.

    Args:
        card: what is shown.
        count: frames.
    """

    kind = "postcards"

    def __init__(self, card: Postcard, count: int):
        self.card, self.timing, self.name = card, even(count, FPS), card.prompt
        self.height = self.width = SIDE

    def pictures(self, indices: Sequence[int]) -> Iterator[Tensor]:
        for index in indices:
            yield _picture(self.card, index).float() / 255

    def marked(self, indices: Sequence[int]) -> Iterator[Tensor]:
        for index in indices:
            yield with_traveller(self.card, index)[1]

    def otherwise(self) -> "PostcardFootage":
        """The same land with another traveller, or one in another colour; every second one at another time of day as well."""
        own = (self.card.traveller, self.card.colour)
        here = [name for name, row in TRAVELLERS.items() if self.card.scene in row.scenes]
        others = [pair for pair in product(here, COLOURS) if pair != own]
        traveller, colour = others[frame_seed(self.card.seed, 0, "otherwise") % len(others)]
        times = [name for name in TIMES if name != self.card.time]
        times += [self.card.time] * len(times)
        time = times[frame_seed(self.card.seed, 0, "other time") % len(times)]
        return PostcardFootage(replace(self.card, traveller=traveller, colour=colour, time=time), self.count)

    def digest(self) -> str:
        return hashlib.sha256(f"{self.card} {self.count}".encode()).hexdigest()


def moving_postcards(clips: int, count: int, seed: int = 0) -> Found:
    """Clips of postcards.

    Args:
        clips: how many.
        count: frames of each.
        seed: of the world; clip ``i`` of a seed is the same however many there are.

    Raises:
        ValueError: there are none.
    """
    if clips < 1 or count < 1:
        raise ValueError(f"{clips} postcards of {count} frames cannot be: ask for at least one, of one frame")
    cards = [drawn(seed, number) for number in range(clips)]
    sources = [
        ClipSource.of(PostcardFootage(card, count), f"postcard {n}: {card.prompt}", card.prompt) for n, card in enumerate(cards)
    ]
    return Found(sources, Report(found=clips))


@documented
@dataclass(frozen=True)
class PostcardSettings:
    """Which postcards are trained on."""

    count: int = setting(
        64, "The count is the number of clips. A model that is to know the world needs thousands.", least=1, most=1_000_000
    )
    frames: int = setting(16, "The frames are those of a clip.", least=1, most=4096)
    stride: int = setting(
        1, "The stride is the time from one frame to the next: with more, everything moves faster.", least=1, most=64
    )
    seed: int = setting(0, "The seed is that of the postcards and of their order.", least=0, most=2**64 - 1, control=False)
    caption_before: str = setting("", "These words begin every caption.")

    def __post_init__(self) -> None:
        check(self)

    def clips(self) -> ClipDataset:
        """The data set of these clips."""
        settings = ClipSettings(
            frames=self.frames,
            stride=self.stride,
            width=SIDE,
            height=SIDE,
            variants=1,
            caption_before=self.caption_before,
            seed=self.seed,
        )
        return ClipDataset(moving_postcards(self.count, settings.pace.needed(), self.seed), settings)
