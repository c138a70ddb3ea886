"""What only ComfyUI can do, by its name in the port: the one sentence that says so."""

from collections.abc import Callable
from typing import Any, NoReturn

IMAGE_MODELS = (
    "{} works on image models, which the standalone host cannot load: use it in ComfyUI; a LongTake video model makes long clips"
    " with Rollout"
)
SENTENCES = {
    "context_windows": IMAGE_MODELS.format("Context Windows"),
    "window_plan": IMAGE_MODELS.format("Show Plan"),
    "memory_text": IMAGE_MODELS.format("Show Plan"),
    "add_clip_noise": IMAGE_MODELS.format("Clip Noise"),
    "add_freeinit": IMAGE_MODELS.format("FreeInit"),
    "apply_causal": IMAGE_MODELS.format("Causal Take"),
    "ring_bytes": IMAGE_MODELS.format("Causal Take"),
    "piece_decoder": IMAGE_MODELS.format("VAE Decode in Pieces"),
    "apply_experts": IMAGE_MODELS.format("Two Experts"),
    "apply_skyreels": IMAGE_MODELS.format("SkyReels-V2"),
    "apply_keyed_control": IMAGE_MODELS.format("Keyframed ControlNet"),
    "apply_sparse_control": IMAGE_MODELS.format("Apply Sparse Control"),
    "apply_camera": IMAGE_MODELS.format("Apply Camera"),
    "apply_first_frame": IMAGE_MODELS.format("First Frame"),
    "apply_reference": IMAGE_MODELS.format("Reference Attention"),
    "apply_image_prompt": IMAGE_MODELS.format("Apply Image Prompt"),
    "image_encoder": IMAGE_MODELS.format("Train Image Prompt"),
    "interpolator": "RIFE and FILM are ComfyUI's: use Interpolate To there, or choose method blend",
    "pseudo3d_model": (
        "this file is a pseudo-3-D U-Net, which takes a prompt's tokens and a VAE's latents that only ComfyUI can make: use it there"
    ),
    "forcing_sampler": (
        "a SAMPLER is for ComfyUI's SamplerCustomAdvanced, which the standalone host has not: use Rollout, which samples itself"
    ),
    "guider": (
        "a GUIDER is for ComfyUI's SamplerCustomAdvanced, which the standalone host has not: connect the guidance to Rollout"
    ),
}


def refusal(name: str) -> Callable[..., NoReturn]:
    """The function of a name in ``SENTENCES``: whatever it is given, it refuses."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise ValueError(SENTENCES[name])

    return refuse
