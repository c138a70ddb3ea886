"""Noise schedules on a MODEL: what its sampling is, over other sigmas, whichever node sets it; and AnimateLCM's distilled sampling."""

import copy
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.model_sampling import EPS, ModelSamplingDiscrete, rescale_zero_terminal_snr_sigmas
from comfy_extras.nodes_model_advanced import LCM, ModelSamplingDiscreteDistilled
from torch import Tensor, nn

from ....modules.noise.levels import NoiseSchedule

SAMPLING = "model_sampling"  # ComfyUI's name for the part of a MODEL that says what noise levels and outputs mean
BY_TABLE = (
    ModelSamplingDiscrete.timestep,
    ModelSamplingDiscreteDistilled.timestep,
)  # a timestep is a place in the table of sigmas


def schedule(model: ModelPatcher, named: str, distilled_steps: int | None = None) -> None:
    """Give a MODEL that is being put together a noise schedule, which stays when a later node sets what the model predicts.

    Args:
        model: a clone of one's own.
        named: in ``levels.NOISE_SCHEDULES``.
        distilled_steps: see ``with_schedule``.

    Raises:
        ValueError: the model's sampling, now or set by a later node, has no timesteps.
    """
    sampling = model.get_model_object(SAMPLING)
    model.object_patches = Scheduled(model.object_patches, named, distilled_steps)
    model.add_object_patch(SAMPLING, sampling)


class Scheduled(dict[str, Any]):
    """A MODEL's object patches, where each sampling that is set has one noise schedule.

    ComfyUI's ModelSampling nodes make theirs from the checkpoint alone, without a look at what is there.

    Args:
        patches: as they are.
        named: see ``with_schedule``.
        distilled_steps: likewise.
    """

    def __init__(self, patches: dict[str, Any], named: str, distilled_steps: int | None):
        super().__init__(patches)
        self.named, self.distilled_steps = named, distilled_steps

    def __setitem__(self, name: str, patch: Any) -> None:
        super().__setitem__(name, with_schedule(patch, self.named, self.distilled_steps) if name == SAMPLING else patch)

    def copy(self) -> "Scheduled":
        """The same for a clone of the MODEL."""
        return Scheduled(self, self.named, self.distilled_steps)


def with_schedule(sampling: nn.Module, named: str, distilled_steps: int | None = None) -> nn.Module:
    """A sampling object over other sigmas: what it predicts, its zero terminal SNR and the steps that it was distilled to are kept.

    Args:
        sampling: the model's.
        named: in ``levels.NOISE_SCHEDULES``.
        distilled_steps: for consistency models the steps of the schedule they were distilled from; None for others.

    Raises:
        ValueError: the model has no discrete timesteps.
    """
    if not has_timesteps(sampling):
        raise ValueError(
            f"the model samples with {_kind(sampling)}, and the noise schedule of AnimateDiff's motion modules needs the discrete"
            " timesteps of Stable Diffusion: use an SD1.5 or SDXL checkpoint without such a patch, or noise_schedule model on Apply"
            " Motion Module, which leaves the model's own"
        )
    sigmas = NoiseSchedule.named(named).sigmas
    if getattr(sampling, "zsnr", False):
        sigmas = rescale_zero_terminal_snr_sigmas(sigmas)
    changed: Any = copy.deepcopy(sampling)
    if distilled_steps is not None:
        changed.__class__ = _consistent(type(sampling))
        changed.original_timesteps = distilled_steps
    if isinstance(changed, ModelSamplingDiscreteDistilled):
        changed.skip_steps = len(sigmas) // changed.original_timesteps
        sigmas = sigmas[changed.skip_steps - 1 :: changed.skip_steps]
    changed.set_sigmas(sigmas)
    return changed


def has_timesteps(sampling: nn.Module) -> bool:
    """Whether what the network is told of a noise level is its place in the sampling's table of sigmas, as in Stable Diffusion."""
    return getattr(type(sampling), "timestep", None) in BY_TABLE


def _kind(sampling: nn.Module) -> str:
    """What ComfyUI calls a sampling: its nodes make classes of their own of two that have names."""
    kinds = type(sampling).__mro__
    return next((kind.__name__ for kind in kinds if kind.__module__ == ModelSamplingDiscrete.__module__), kinds[0].__name__)


def _consistent(kind: type) -> type:
    """The sampling of a latent consistency model (Luo et al., arXiv:2310.04378): only every so many-th timestep was distilled.

    Args:
        kind: of sampling that the model has, which knows what its output means.
    """
    kept = issubclass(kind, LCM) or kind.calculate_denoised is EPS.calculate_denoised

    class DistilledSampling(*(base for base in (ModelSamplingDiscreteDistilled, LCM) if not issubclass(kind, base)), kind):
        """ComfyUI's own, for whatever the model predicts."""

        def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
            """Equation 9 there, with the clean frames that the model means."""
            if kept:
                return super().calculate_denoised(sigma, model_output, model_input)
            clean = kind.calculate_denoised(self, sigma, model_output, model_input)
            scaled = 10.0 * self.timestep(sigma).view(-1, *[1] * (clean.ndim - 1))  # the authors' timestep_scaling
            data = 0.5  # and their sigma_data
            return scaled / (scaled**2 + data**2) ** 0.5 * clean + data**2 / (scaled**2 + data**2) * model_input

    return DistilledSampling
