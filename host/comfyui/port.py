"""What ``host`` offers when nodes run on ComfyUI."""

from comfy.model_management import InterruptProcessingException as Interrupted
from comfy_api.latest import ComfyExtension, io, ui

from .folders import file, files, input_directory, model_directory, output_directory, temp_directory
from .motion import apply_motion, unet_of
from .progress import Progress, check_interrupt
from .sampling import noise_schedule, sample
from .video import vae, video_info, video_model

name = "comfyui"

__all__ = [
    "ComfyExtension",
    "Interrupted",
    "Progress",
    "apply_motion",
    "check_interrupt",
    "file",
    "files",
    "input_directory",
    "io",
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
]
