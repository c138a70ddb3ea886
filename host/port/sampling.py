"""Noise levels, and samplers that run a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .kinds import Conditioning, Model

if TYPE_CHECKING:
    from torch import Tensor

    from ...modules.disk.recording import Recording
    from ...modules.guidance.cost import SamplingCost
    from ...modules.noise.levels import NoiseSchedule
    from ...modules.sampling.job import Algorithm
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

    def identity(self, value: object) -> str:
        """What tells a model, a VAE, conditions and anything else from others: a short text, the same in another process."""
        ...

    def sampling_cost(
        self, model: Model, algorithm: Algorithm, latent: Tensor, *, steps: int, cfg: float, guide: Guide = ...
    ) -> SamplingCost:
        """What a sampling would cost, before anything is computed.

        Args:
            model: what predicts.
            algorithm: the sampler.
            latent: ``r ...``, as ``sample`` takes it.
            steps: of each frame.
            cfg: guidance scale.
            guide: what is done around the model.
        """
        ...

    def suits_gradients(self, model: Model) -> bool:
        """Whether gradients through the model are a thing to do unasked: not for large networks with a time axis of their own (Wan)."""
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
        recording: Recording | None = None,
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
            recording: where finished frames go as they come; None for nowhere.

        Returns:
            clip: as ``latent``, on the CPU or where the host keeps results; its last frames where it is recorded.

        Raises:
            ValueError: the conditions do not fit the model.
            Interrupted: the user cancelled.
        """
        ...
