"""Where nodes run: inside ComfyUI, or standalone. Both offer the same names, listed in ``PORT``.

The host is chosen once, when the first of those names is asked for: ComfyUI when it is booted in this process, else standalone.
Nothing else in this pack ever looks for ComfyUI. A choice at first use, not at import, lets ``host.find`` and the booting code be
imported before there is anything to choose.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .standalone import (  # noqa: F401  what the type checker takes the port to be
        ComfyExtension,
        Interrupted,
        Progress,
        add_clip_noise,
        add_freeinit,
        apply_camera,
        apply_first_frame,
        apply_image_prompt,
        apply_keyed_control,
        apply_motion,
        apply_motion_lora,
        apply_skyreels,
        apply_sparse_control,
        check_interrupt,
        clip_encoder,
        context_windows,
        coordinates_of,
        device,
        file,
        files,
        forcing_sampler,
        guider,
        image_encoder,
        in_model_numbers,
        input_directory,
        interpolated,
        io,
        level_sigmas,
        memory_text,
        model_directory,
        motion_models,
        mp4,
        name,
        noise_schedule,
        output_directory,
        pseudo3d_model,
        sample,
        sparse_control,
        temp_directory,
        text_encoder,
        trainable,
        ui,
        unet_of,
        vae,
        video_info,
        video_model,
        window_plan,
    )

PORT = frozenset(
    {
        "ComfyExtension",
        "Interrupted",
        "Progress",
        "apply_camera",
        "apply_first_frame",
        "apply_image_prompt",
        "apply_keyed_control",
        "apply_motion",
        "window_plan",
        "memory_text",
        "context_windows",
        "coordinates_of",
        "device",
        "apply_motion_lora",
        "apply_skyreels",
        "apply_sparse_control",
        "add_freeinit",
        "add_clip_noise",
        "check_interrupt",
        "clip_encoder",
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
    }
)


def chosen() -> ModuleType:
    """The module that implements the port in this process."""
    return importlib.import_module(".comfyui" if "comfy" in sys.modules else ".standalone", __name__)


def __getattr__(attribute: str) -> Any:
    if attribute not in PORT:
        raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
    module = chosen()
    globals().update({name: getattr(module, name) for name in PORT if hasattr(module, name)})
    return getattr(module, attribute)
