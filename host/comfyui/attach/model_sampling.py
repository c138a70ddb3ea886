"""Noise schedules on a MODEL: the same prediction over other sigmas, and AnimateLCM's distilled sampling."""

import copy
from typing import Any

from comfy.model_sampling import EPS, ModelSamplingDiscrete
from comfy_extras.nodes_model_advanced import LCM, ModelSamplingDiscreteDistilled
from torch import Tensor, nn

from ....modules.noise.levels import NoiseSchedule


def with_schedule(sampling: nn.Module, named: str, distilled_steps: int | None = None) -> nn.Module:
    """A sampling object (prediction type and all) over other sigmas.

    Args:
        sampling: the model's.
        named: in ``noise.NOISE_SCHEDULES``.
        distilled_steps: for consistency models the steps of the schedule they were distilled from; None for others.

    Raises:
        ValueError: the model has no discrete timesteps.
    """
    if not isinstance(sampling, ModelSamplingDiscrete):
        raise ValueError(
            f"the model samples with {type(sampling).__mro__[1].__name__}, and AnimateDiff's motion modules need the discrete timesteps of"
            " Stable Diffusion: use an SD1.5 or SDXL checkpoint without such a patch"
        )
    schedule = NoiseSchedule.named(named)
    if distilled_steps is not None:
        return distilled(sampling, schedule, distilled_steps)
    changed: Any = copy.deepcopy(sampling)
    changed.set_sigmas(schedule.sigmas)
    return changed


def distilled(predicting: Any, schedule: NoiseSchedule, steps: int) -> nn.Module:
    """Sampling of a latent consistency model (Luo et al., arXiv:2310.04378): only every so many-th timestep was distilled.

    Args:
        predicting: the model's sampling object, which knows what its output means.
        schedule: all timesteps.
        steps: how many of them were used.
    """

    class DistilledSampling(ModelSamplingDiscreteDistilled, LCM):
        """ComfyUI's own, over another schedule."""

        original_timesteps = steps

        def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
            """Equation 9 there, with the clean frames that the model means, whatever it predicts."""
            if isinstance(predicting, LCM) or type(predicting).calculate_denoised is EPS.calculate_denoised:
                return super().calculate_denoised(sigma, model_output, model_input)
            clean = predicting.calculate_denoised(sigma, model_output, model_input)
            scaled = 10.0 * self.timestep(sigma).view(-1, *[1] * (clean.ndim - 1))  # the authors' timestep_scaling
            data = 0.5  # and their sigma_data
            return scaled / (scaled**2 + data**2) ** 0.5 * clean + data**2 / (scaled**2 + data**2) * model_input

    sampling = DistilledSampling()
    count = len(schedule.sigmas) // steps
    sampling.set_sigmas(schedule.sigmas[count - 1 :: count])
    return sampling
