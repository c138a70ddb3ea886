"""The memory plan of a clip on a MODEL."""

from typing import Any

from comfy.model_patcher import ModelPatcher


def memory_text(model: ModelPatcher, latent: dict[str, Any]) -> str:
    """What a clip takes of the memory."""
    raise NotImplementedError  # being written
