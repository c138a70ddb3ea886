"""How finished latents become pictures as they come: each by itself, or in pieces with what lies between them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Decoder(Protocol):
    """Latents in, pictures out, in order."""

    @property
    def carries(self) -> bool:
        """Whether pictures hang on the latents before them, so that none can be decoded without those."""
        ...

    def __call__(self, latents: Tensor, *, last: bool = False) -> Tensor:
        """The pictures that follow, ``n h w 3`` in 0..1, of ``latents``, ``f c h w`` or ``1 c f h w``; ``last``: none come after these."""
        ...

    def pictures(self, frames: int, *, last: bool = False) -> int:
        """How many pictures the first so many latent frames have given."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """All that is kept between calls, by name; later calls leave these tensors alone."""
        ...

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Be as when ``tensors`` were given; with none, as at the beginning."""
        ...


@dataclass(frozen=True)
class EachFrame:
    """A VAE of image models, a ``Decoder``: every latent is a picture.

    Attributes:
        decode: latents ``f c h w`` -> pictures ``f h w c`` in 0..1.
    """

    decode: Callable[[Tensor], Tensor]
    carries: bool = False

    def __call__(self, latents: Tensor, *, last: bool = False) -> Tensor:  # noqa: ARG002  as of all decoders
        """The pictures of ``latents``, ``f c h w``. Returns ``f h w c``."""
        return self.decode(latents)

    def pictures(self, frames: int, *, last: bool = False) -> int:  # noqa: ARG002  as of all decoders
        """As many."""
        return frames

    def tensors(self) -> dict[str, Tensor]:
        """None."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing is kept."""
