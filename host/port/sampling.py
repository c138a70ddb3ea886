"""Noise levels, and samplers that run a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from .kinds import Conditioning, Model

if TYPE_CHECKING:
    from torch import Tensor

    from ...modules.noise.levels import NoiseSchedule
    from ...modules.sampling.job import Algorithm, Step
    from ...modules.sampling.model_view import Guide


class Sampling(Protocol):
    """Noise levels, and samplers that run a model."""

    def noise_schedule(self, model: Model) -> NoiseSchedule:
        """The sigmas that a model was trained with, as any node before this one has changed them.

        Raises:
            ValueError: the model's noisy frames are not ``clean + sigma * noise`` (flow models, for example).
        """
        ...

    def coordinates_of(self, model: Model) -> str:
        """How a model's noisy frames are mixed: a name in ``view.SIGNAL``.

        Raises:
            ValueError: in neither way.
        """
        ...

    def level_sigmas(self, model: Model, steps: int) -> Tensor:
        """The sigma of every noise level of so many steps, 0 first, rising. Returns ``l``."""
        ...

    def sample(
        self,
        model: Model,
        positive: Conditioning,
        negative: Conditioning | None,
        *,
        cfg: float,
        latent: Tensor,
        algorithm: Algorithm,
        seed: int,
        sigmas: Tensor,
        guide: Guide = ...,
        watch: Callable[[Step], Tensor | None] | None = None,
    ) -> Tensor:
        """Run a sampler.

        Args:
            model: what predicts.
            positive: what to show.
            negative: what guidance moves away from; not looked at when ``cfg`` is 1.
            cfg: guidance scale.
            latent: ``f c h w``, or ``b c f h w`` for video models; known frames, zeros elsewhere.
            algorithm: the sampler.
            seed: the user's.
            sigmas: ``l``, sigma of each level, 0 first.
            guide: what is done around the model; nothing by default.
            watch: is told of every step, with the finished frames as a VAE takes them, and may give a picture to show,
                ``h w c`` in 0..1.

        Returns:
            clip: as ``latent``, on the CPU or where the host keeps results.

        Raises:
            ValueError: the conditions do not fit the model.
            Interrupted: the user cancelled.
        """
        ...
