"""What samplers ask of a MODEL: its noise levels, the clips that it was trained on, the context noise that suits it."""

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....modules.noise.levels import NoiseSchedule
from ....modules.sampling.context_noise import NONE_KNOWN, OwnNoise
from ..attach.video import video_info
from ..attached import attached_to
from ..parts.frame_levels import takes_frame_levels
from .guiding import coordinates_of

WAN = OwnNoise(0.02, 0.05, "SkyReels-V2's authors")


def noise_schedule(model: ModelPatcher) -> NoiseSchedule:
    """The sigmas that a model was trained with, as any node before this one has changed them.

    Raises:
        ValueError: the model's noisy frames are not ``clean + sigma * noise`` (flow models, for example).
    """
    if coordinates_of(model) == "flow":
        raise ValueError(
            f"{type(model.model).__name__} mixes noise in as flow models do: this node is for diffusion models such as SD1.5, or a"
            " LongTake video model"
        )
    return NoiseSchedule(model.get_model_object("model_sampling").sigmas.detach().float().cpu())


def level_sigmas(model: ModelPatcher, steps: int) -> Tensor:
    """The sigma of every noise level of so many steps, 0 first, rising. Returns ``l``."""
    if coordinates_of(model) == "diffusion":
        return noise_schedule(model).levels(steps)
    sampling = model.get_model_object("model_sampling")
    percents = torch.linspace(1, 0, steps + 1)
    return torch.tensor([0.0, *(float(sampling.percent_to_sigma(float(percent))) for percent in percents[1:])])


def own_noise(model: ModelPatcher) -> OwnNoise:
    """The context noise that suits a MODEL."""
    info = video_info(model)
    if info is not None:
        return OwnNoise(info.context_noise)
    return WAN if takes_frame_levels(model) else NONE_KNOWN


def suits_gradients(model: ModelPatcher) -> bool:
    """Whether gradients through a MODEL are a thing to do unasked: of U-Nets with frames in the batch axis, LongTake's among them."""
    return model.model.latent_format.latent_dimensions == 2


def trained_frames(model: ModelPatcher) -> int:
    """Frames of the clips that a MODEL was trained on; 0 where it does not say."""
    info = video_info(model)
    return info.frames if info else max((motion.about.trained_frames or 0 for motion in attached_to(model)), default=0)
