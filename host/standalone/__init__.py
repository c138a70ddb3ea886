"""The port without ComfyUI: this pack's nodes and a few core ones, on this pack's own U-Net."""

from collections.abc import Callable
from typing import NoReturn

from . import schema as io
from . import ui
from .elsewhere import SENTENCES, refusal
from .folders import file, files, model_directory
from .models import (
    apply_motion,
    coordinates_of,
    device,
    in_model_numbers,
    level_sigmas,
    motion_models,
    noise_schedule,
    suits_gradients,
    unet_of,
    vae,
    video_info,
    video_model,
)
from .motion_lora import apply_motion_lora
from .sampling import identity, sample, sampling_cost
from .schema import ComfyExtension
from .session import Interrupted, Progress, check_interrupt, input_directory, output_directory, show_files, temp_directory
from .training import clip_encoder, sparse_control, text_encoder, trainable

name = "standalone"


def __getattr__(attribute: str) -> Callable[..., NoReturn]:
    if attribute not in SENTENCES:
        raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
    return refusal(attribute)
