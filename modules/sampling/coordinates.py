"""How a noisy frame is made of a clean one and noise: in the coordinates of diffusion models, or of flow models."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..noise.seeded import broadcast

SIGNAL: dict[str, Callable[[Tensor], Tensor]] = {
    "diffusion": torch.ones_like,  # x = clean + sigma * noise, ComfyUI's coordinates of eps, v and x0 models
    "flow": lambda sigma: 1 - sigma,  # x = (1 - sigma) * clean + sigma * noise, of flow models such as Wan
}


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
