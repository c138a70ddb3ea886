"""A small autoencoder of pictures: what a video model works on instead of pixels.

Pictures are folded two by two before the first layer and unfolded after the last, so no layer runs at their full size. Each further level
halves the picture. The encoder gives a mean and a log-variance for each number of the latent (Kingma and Welling, arXiv:1312.6114);
latents are scaled so that they spread by about one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

FOLD = 2  # pixels to a side that become one
LOGVAR = (-12.0, 4.0)


@dataclass(frozen=True)
class AutoencoderConfig:
    """An autoencoder's shape.

    Attributes:
        latent: channels of a latent.
        widths: channels of each level, the finest first; each further one is half as large as the one before.
        blocks: residual blocks per level.
        groups: of the norms.
        scale: what a latent is multiplied with to spread by about one.
    """

    latent: int = 16
    widths: tuple[int, ...] = (48, 96, 128)
    blocks: int = 1
    groups: int = 8
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.latent < 1 or self.blocks < 0 or not self.widths or self.groups < 1 or not self.scale > 0:
            raise ValueError(f"{self} is no autoencoder: latent, widths, groups and scale must be above 0")
        uneven = [width for width in self.widths if width < 1 or width % self.groups]
        if uneven:
            raise ValueError(f"a level has {uneven[0]} channels: each needs a multiple of {self.groups}, the groups of the norms")

    @property
    def ratio(self) -> int:
        """Pixels to a side for each number of a latent's side."""
        return FOLD * 2 ** (len(self.widths) - 1)


class Residual(nn.Module):
    """Two convolutions around a residual, after one norm."""

    def __init__(self, width: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: ``n c h w``. Returns ``n c h w``."""
        return x + self.second(F.silu(self.first(F.silu(self.norm(x)))))


class Autoencoder(nn.Module):
    """Pictures to latents and back; each picture on its own.

    Args:
        config: its shape.
    """

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = config
        self.encoder = self._encoder(config.widths)
        self.decoder = self._decoder(config.widths[::-1])

    def _blocks(self, width: int) -> list[nn.Module]:
        return [Residual(width, self.config.groups) for _ in range(self.config.blocks)]

    def _last(self, width: int, made: int, size: int) -> list[nn.Module]:
        return [nn.GroupNorm(self.config.groups, width), nn.SiLU(), nn.Conv2d(width, made, size, padding=size // 2)]

    def _encoder(self, widths: Sequence[int]) -> nn.Sequential:
        layers: list[nn.Module] = [nn.Conv2d(3 * FOLD**2, widths[0], 3, padding=1), *self._blocks(widths[0])]
        for given, made in pairwise(widths):
            layers += [nn.Conv2d(given, made, 3, stride=2, padding=1), *self._blocks(made)]
        return nn.Sequential(*layers, *self._last(widths[-1], 2 * self.config.latent, 1))

    def _decoder(self, widths: Sequence[int]) -> nn.Sequential:
        layers: list[nn.Module] = [nn.Conv2d(self.config.latent, widths[0], 3, padding=1), *self._blocks(widths[0])]
        for given, made in pairwise(widths):
            layers += [nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(given, made, 3, padding=1), *self._blocks(made)]
        return nn.Sequential(*layers, *self._last(widths[-1], 3 * FOLD**2, 3))

    def moments(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """What is known of a latent.

        Args:
            pictures: ``n 3 h w`` in -1..1, sides multiples of ``config.ratio``.

        Returns:
            mean: ``n l p q``, unscaled.
            logvar: ``n l p q``.
        """
        folded = rearrange(pictures, "n c (h a) (w b) -> n (c a b) h w", a=FOLD, b=FOLD)
        mean, logvar = self.encoder(folded).chunk(2, dim=1)
        return mean, logvar.clamp(*LOGVAR)

    def unscaled(self, latents: Tensor) -> Tensor:
        """Pictures of latents that are not scaled: ``latents``: ``n l p q``. Returns ``n 3 h w``."""
        return rearrange(self.decoder(latents), "n (c a b) h w -> n c (h a) (w b)", a=FOLD, b=FOLD)

    def encode(self, images: Tensor) -> Tensor:
        """Latents of images, the likeliest ones: ``images``: ``f h w 3`` in 0..1. Returns ``f l p q``, scaled."""
        return self.moments(rearrange(images, "f h w c -> f c h w") * 2 - 1)[0] * self.config.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents: ``latents``: ``f l p q``, scaled. Returns ``f h w 3`` in 0..1."""
        pictures = self.unscaled(latents / self.config.scale)
        return rearrange((pictures + 1) / 2, "f c h w -> f h w c").clamp(0, 1)


def new_autoencoder(config: AutoencoderConfig, seed: int) -> Autoencoder:
    """One with random weights, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Autoencoder(config)
