"""The port without ComfyUI: this pack's nodes and a few core ones, on this pack's own U-Net."""

from ..mp4 import mp4
from . import schema as io
from . import ui
from .elsewhere import (
    add_clip_noise,
    add_freeinit,
    apply_camera,
    apply_skyreels,
    context_windows,
    forcing_sampler,
    guider,
    memory_text,
    window_plan,
)
from .folders import file, files, model_directory
from .models import (
    Model,
    Vae,
    apply_motion,
    coordinates_of,
    in_model_numbers,
    level_sigmas,
    motion_models,
    noise_schedule,
    unet_of,
    vae,
    video_info,
    video_model,
)
from .motion_lora import apply_motion_lora
from .sampling import sample
from .schema import ComfyExtension
from .session import Interrupted, Progress, check_interrupt, input_directory, output_directory, temp_directory

name = "standalone"

__all__ = [
    "ComfyExtension",
    "Interrupted",
    "Model",
    "Progress",
    "Vae",
    "add_clip_noise",
    "add_freeinit",
    "apply_camera",
    "apply_motion",
    "apply_motion_lora",
    "apply_skyreels",
    "check_interrupt",
    "context_windows",
    "coordinates_of",
    "file",
    "files",
    "forcing_sampler",
    "guider",
    "in_model_numbers",
    "input_directory",
    "io",
    "level_sigmas",
    "memory_text",
    "model_directory",
    "motion_models",
    "mp4",
    "name",
    "noise_schedule",
    "output_directory",
    "sample",
    "temp_directory",
    "ui",
    "unet_of",
    "vae",
    "video_info",
    "video_model",
    "window_plan",
]
