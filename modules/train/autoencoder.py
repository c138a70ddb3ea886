"""Training an autoencoder on pictures of which it is known where it matters most."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from ..nets.autoencoder import Autoencoder
from ..noise.seeded import frame_noise, frame_seed

Pictures = Callable[
    [int, range, int], tuple[Tensor, Tensor]
]  # (step, places, batch) -> pictures n 3 h w in -1..1, weights n 1 h w

SQUARED, EDGES, DIVERGENCE = 1.0, 0.5, 1e-4  # what each error counts beside the mean absolute one


class AutoencoderTask:
    """An autoencoder as a task of the engine: absolute and squared error, that of the edges, and a little KL divergence.

    Args:
        network: what is trained.
        pictures: what a step trains on: ``(step, places, batch)`` gives pictures ``n 3 h w`` in -1..1 and how much each pixel counts,
            ``n 1 h w``.
        batch: pictures per step.
        seed: of the noise that latents are drawn with.
        about: what the pictures are; JSON-able.
    """

    def __init__(self, network: Autoencoder, pictures: Pictures, batch: int, seed: int, about: Mapping[str, Any]):
        self.network, self.pictures, self.batch, self.seed, self.about = network, pictures, batch, seed, dict(about)

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """All weights."""
        return dict(self.network.named_parameters())

    def losses(self, step: int, places: range) -> Tensor:
        """The loss of each picture. Returns ``n``."""
        device = next(self.network.parameters()).device
        pictures, weights = (part.to(device) for part in self.pictures(step, places, self.batch))
        mean, logvar = self.network.moments(pictures)
        noise = frame_noise(mean.shape[1:], frame_seed(self.seed, step, "latents"), places, "autoencoder").to(mean)
        made = self.network.unscaled(mean + noise * (logvar / 2).exp())
        return picture_losses(made, pictures, weights) + DIVERGENCE * divergence(mean, logvar)

    def description(self) -> dict[str, Any]:
        """What a checkpoint must agree with."""
        return {"autoencoder": asdict(self.network.config) | {"widths": list(self.network.config.widths)}, "pictures": self.about}

    def after_step(self, step: int) -> None:
        """Nothing is left to do."""


def picture_losses(made: Tensor, true: Tensor, weights: Tensor) -> Tensor:
    """How far pictures are from what they should be.

    Args:
        made: ``n c h w``.
        true: ``n c h w``.
        weights: ``n 1 h w``.

    Returns:
        losses: ``n``.
    """
    error = made - true
    spread = weights / weights.mean(dim=(1, 2, 3), keepdim=True)
    plain = ((error.abs() + SQUARED * error.square()) * spread).mean(dim=(1, 2, 3))
    edges = [torch.diff(error, dim=axis).abs() * spread.narrow(axis, 1, error.shape[axis] - 1) for axis in (2, 3)]
    return plain + EDGES * torch.stack([edge.mean(dim=(1, 2, 3)) for edge in edges]).sum(0)


def divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """From a standard normal distribution (arXiv:1312.6114, Appendix B), mean per number.

    Args:
        mean: ``n l p q``.
        logvar: ``n l p q``.

    Returns:
        divergence: ``n``.
    """
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean(dim=(1, 2, 3))
