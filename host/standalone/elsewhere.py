"""What only ComfyUI can do: each of these says so, in one sentence. They work on image models, which the standalone host cannot load."""

from typing import Any, NoReturn

from ...modules.temporal.windows import WindowPlan
from .models import Model


def _only_in_comfyui(node: str) -> NoReturn:
    raise ValueError(
        f"{node} works on image models, which the standalone host cannot load: use it in ComfyUI; a LongTake video model makes long clips"
        " with Rollout"
    )


def context_windows(model: Model, plan: WindowPlan, mode: str) -> Model:
    """Refuse."""
    _only_in_comfyui("Context Windows")


def window_plan(model: Model) -> tuple[WindowPlan | None, str, int, int | None]:
    """Refuse."""
    _only_in_comfyui("Show Plan")


def memory_text(model: Model, latent: dict[str, Any]) -> str:
    """Refuse."""
    _only_in_comfyui("Show Plan")


def add_clip_noise(model: Model, layer: Any, noise: Any = None) -> tuple[Model, Any]:
    """Refuse."""
    _only_in_comfyui("Clip Noise")


def add_freeinit(model: Model, settings: Any) -> Model:
    """Refuse."""
    _only_in_comfyui("FreeInit")


def apply_skyreels(model: Model, causal_block_size: int = 0, fps: Any = None) -> NoReturn:
    """Refuse."""
    _only_in_comfyui("SkyReels-V2")


def apply_keyed_control(
    positive: Any,
    negative: Any,
    control: Any,
    keyframes: Any,
    hints: Any = None,
    vae: Any = None,
    strength: float = 1.0,
    percents: tuple[float, float] = (0.0, 1.0),
) -> tuple[Any, Any]:
    """Refuse."""
    _only_in_comfyui("Keyframed ControlNet")


def sparse_control(file: Any) -> Any:
    """A SparseCtrl file as it is, such as one that was just trained; who applies it is told."""
    return file


def apply_sparse_control(positive: Any, negative: Any, encoder: Any, settings: Any, vae: Any = None) -> tuple[Any, Any]:
    """Refuse."""
    _only_in_comfyui("Apply Sparse Control")


def apply_camera(model: Model, path: Any, strength: float = 1.0) -> NoReturn:
    """Refuse."""
    _only_in_comfyui("Apply Camera")


def apply_first_frame(model: Model, vae: Any, latent: Any, keyframes: Any, settings: Any) -> NoReturn:
    """Refuse."""
    _only_in_comfyui("First Frame")


def apply_image_prompt(model: Model, prompt: Any, settings: Any, *pictures: Any) -> NoReturn:
    """Refuse."""
    _only_in_comfyui("Apply Image Prompt")


def image_encoder(clip_vision: Any, kind: str) -> tuple[Any, Any]:
    """Refuse."""
    _only_in_comfyui("Train Image Prompt")


def interpolated(interp_model: Any, images: Any, multiplier: int) -> NoReturn:
    """Refuse."""
    raise ValueError("RIFE and FILM are ComfyUI's: use Interpolate To there, or choose method blend")


def pseudo3d_model(video: Any) -> NoReturn:
    """Refuse."""
    raise ValueError(
        f"{video.name} is a pseudo-3-D U-Net, which takes a prompt's tokens and a VAE's latents that only ComfyUI can make: use it there"
    )


def forcing_sampler(algorithm: Any) -> NoReturn:
    """Refuse."""
    raise ValueError(
        "a SAMPLER is for ComfyUI's SamplerCustomAdvanced, which the standalone host has not: use Rollout, which samples itself"
    )


def guider(model: Model, positive: Any, negative: Any, cfg: float, guide: Any = None) -> NoReturn:
    """Refuse."""
    raise ValueError(
        "a GUIDER is for ComfyUI's SamplerCustomAdvanced, which the standalone host has not: connect the guidance to Rollout"
    )
