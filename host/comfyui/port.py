"""What ``host`` offers when nodes run on ComfyUI."""

from comfy.model_management import InterruptProcessingException as Interrupted
from comfy_api.latest import ComfyExtension, io, ui

from .camera import apply_camera
from .context import context_windows
from .folders import file, files, input_directory, model_directory, output_directory, temp_directory
from .held import unet_of
from .memory import memory_text
from .motion import apply_motion, window_plan
from .motion_lora import apply_motion_lora
from .noise import add_clip_noise, add_freeinit
from .progress import Progress, check_interrupt
from .sampling import coordinates_of, forcing_sampler, guider, level_sigmas, noise_schedule, sample
from .video import vae, video_info, video_model

name = "comfyui"

__all__ = [
    "ComfyExtension",
    "Interrupted",
    "Progress",
    "add_clip_noise",
    "add_freeinit",
    "apply_camera",
    "apply_motion",
    "apply_motion_lora",
    "check_interrupt",
    "context_windows",
    "coordinates_of",
    "file",
    "files",
    "forcing_sampler",
    "guider",
    "input_directory",
    "io",
    "level_sigmas",
    "memory_text",
    "model_directory",
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
