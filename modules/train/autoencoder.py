"""Training an autoencoder on pictures of which it is known where it matters most."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nets.autoencoder import Autoencoder
from ..noise.seeded import frame_noise, frame_seed

Pictures = Callable[
    [int, range, int], tuple[Tensor, Tensor]
]  # (step, places, batch) -> pictures n 3 h w in -1..1, weights n 1 h w

SQUARED, EDGES, DIVERGENCE = 1.0, 0.5, 1e-4  # what each error counts beside the mean absolute one
PATCH = 8  # pixels to a side of the patches whose contrast is compared
LEVEL = 1e-4  # variance below which two patches are as good as flat alike


class AutoencoderTask:
    """An autoencoder as a task of the engine: absolute and squared error, that of the edges, and a little KL divergence.

    Args:
        network: what is trained.
        pictures: what a step trains on: ``(step, places, batch)`` gives pictures ``n 3 h w`` in -1..1 and how much each pixel counts,
            ``n 1 h w``.
        batch: pictures per step.
        seed: of the noise that latents are drawn with.
        about: what the pictures are; JSON-able.
        contrast: what ``contrast_losses`` count.
        decoder_only: whether the encoder stays as it is, and with it the latents of all pictures.
    """

    def __init__(
        self,
        network: Autoencoder,
        pictures: Pictures,
        batch: int,
        seed: int,
        about: Mapping[str, Any],
        *,
        contrast: float = 0.0,
        decoder_only: bool = False,
    ):
        self.network, self.pictures, self.batch, self.seed, self.about = network, pictures, batch, seed, dict(about)
        self.contrast, self.decoder_only = contrast, decoder_only

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The weights that are trained."""
        named = self.network.named_parameters()
        return {name: value for name, value in named if not self.decoder_only or name.startswith("decoder.")}

    def losses(self, step: int, places: range) -> Tensor:
        """The loss of each picture. Returns ``n``."""
        device = next(self.network.parameters()).device
        pictures, weights = (part.to(device) for part in self.pictures(step, places, self.batch))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.decoder_only):
            mean, logvar = self.network.moments(pictures)
        noise = frame_noise(mean.shape[1:], frame_seed(self.seed, step, "latents"), places, "autoencoder").to(mean)
        made = self.network.unscaled(mean + noise * (logvar / 2).exp())
        plain = picture_losses(made, pictures, weights) + DIVERGENCE * divergence(mean, logvar)
        return plain + self.contrast * contrast_losses(made, pictures) if self.contrast else plain

    def description(self) -> dict[str, Any]:
        """What a checkpoint must agree with."""
        config = asdict(self.network.config) | {"widths": list(self.network.config.widths)}
        asked = {"contrast": self.contrast, "decoder_only": self.decoder_only}
        return {"autoencoder": config, "pictures": self.about} | {name: value for name, value in asked.items() if value}

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


def contrast_losses(made: Tensor, true: Tensor) -> Tensor:
    """How far patches differ in how strongly neighbouring pixels differ, wherever in the patch they do.

    What is mean in absolute or squared error is soft where it cannot be known which pixel an edge lies on; this asks for edges as strong
    as the true ones (gradient variance, arXiv:2202.00997, Section 2; here its root, which weighs faint patches as well).

    Args:
        made: ``n c h w``, sides of at least ``PATCH``.
        true: ``n c h w``.

    Returns:
        losses: ``n``.
    """

    def strengths(pictures: Tensor) -> Tensor:
        steps = [
            torch.diff(pictures, dim=axis)[:, :, : -1 if axis == 3 else None, : -1 if axis == 2 else None] for axis in (2, 3)
        ]
        both = torch.cat(steps, dim=1)
        mean, square = (F.avg_pool2d(each, PATCH, PATCH // 2) for each in (both, both.square()))
        return (square - mean.square() + LEVEL).sqrt()

    return (strengths(made) - strengths(true)).abs().mean(dim=(1, 2, 3))


def divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """From a standard normal distribution (arXiv:1312.6114, Appendix B), mean per number.

    Args:
        mean: ``n l p q``.
        logvar: ``n l p q``.

    Returns:
        divergence: ``n``.
    """
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean(dim=(1, 2, 3))
