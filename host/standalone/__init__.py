"""The port without ComfyUI: this pack's nodes and a few core ones, on this pack's own U-Net."""

from ..mp4 import mp4
from . import schema as io
from . import ui
from .elsewhere import (
    add_clip_noise,
    add_freeinit,
    apply_camera,
    apply_first_frame,
    apply_image_prompt,
    apply_keyed_control,
    apply_skyreels,
    apply_sparse_control,
    context_windows,
    forcing_sampler,
    guider,
    image_encoder,
    interpolated,
    memory_text,
    pseudo3d_model,
    sparse_control,
    window_plan,
)
from .folders import file, files, model_directory
from .models import (
    Model,
    Vae,
    apply_motion,
    coordinates_of,
    device,
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
from .training import clip_encoder, text_encoder, trainable

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
    "apply_first_frame",
    "apply_image_prompt",
    "apply_keyed_control",
    "apply_motion",
    "apply_motion_lora",
    "apply_skyreels",
    "apply_sparse_control",
    "check_interrupt",
    "clip_encoder",
    "context_windows",
    "coordinates_of",
    "device",
    "file",
    "files",
    "forcing_sampler",
    "guider",
    "image_encoder",
    "in_model_numbers",
    "input_directory",
    "interpolated",
    "io",
    "level_sigmas",
    "memory_text",
    "model_directory",
    "motion_models",
    "mp4",
    "name",
    "noise_schedule",
    "output_directory",
    "pseudo3d_model",
    "sample",
    "sparse_control",
    "temp_directory",
    "text_encoder",
    "trainable",
    "ui",
    "unet_of",
    "vae",
    "video_info",
    "video_model",
    "window_plan",
]
