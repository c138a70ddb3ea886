"""ComfyUI's own frame interpolation, RIFE and FILM, where this ComfyUI has it."""

from typing import Any

from torch import Tensor

NODE, LOADER = "FrameInterpolate", "Load Frame Interpolation Model"


def interpolated(interp_model: Any, images: Tensor, multiplier: int) -> Tensor:
    """Frames put in between by ComfyUI's node.

    Args:
        interp_model: from its loader; None where nothing is connected.
        images: ``f h w c`` in 0..1, at least 2.
        multiplier: 2 to 16.

    Returns:
        images: ``n h w c``, as many as the node gives.

    Raises:
        ValueError: this ComfyUI has no such node, or no model is connected. Says what to do.
    """
    import nodes  # ComfyUI's registry, complete only when all nodes are loaded

    node = nodes.NODE_CLASS_MAPPINGS.get(NODE)
    if node is None:
        raise ValueError(
            f"this ComfyUI has no {NODE} node, which does the work: update ComfyUI, or install"
            " ComfyUI-Frame-Interpolation and use its nodes, or choose method blend"
        )
    if interp_model is None:
        raise ValueError(
            f"no interpolation model is connected: put a RIFE or FILM file (huggingface.co/Comfy-Org/frame_interpolation) into"
            f" models/frame_interpolation and connect {LOADER}, or choose method blend"
        )
    made = node.execute(interp_model, images, multiplier)
    return getattr(made, "args", made)[0]
