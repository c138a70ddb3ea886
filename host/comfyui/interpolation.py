"""ComfyUI's own networks for frame interpolation, RIFE and FILM, where this ComfyUI has them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import torch
from comfy.ldm.common_dit import pad_to_patch_size
from torch import Tensor

from ...modules.control.retiming import Between
from .progress import Progress, check_interrupt

NODE, LOADER = "FrameInterpolate", "Load Frame Interpolation Model"


@contextmanager
def interpolator(interp_model: Any, images: Tensor, count: int) -> Iterator[Between]:
    """What makes frames between two neighbours: the networks of ComfyUI's node, asked for the shares that are wanted and no other.

    A frame's features are computed once for the pairs on both its sides, as in ComfyUI's node.

    Args:
        interp_model: from its loader; None where nothing is connected.
        images: ``f h w c`` in 0..1, at least 2.
        count: of the frames that will be asked for, for the bar.

    Raises:
        ValueError: this ComfyUI has no such networks, or no model is connected. Says what to do.
    """
    network = network_of(interp_model)
    device, dtype = interp_model.load_device, interp_model.model_dtype()
    comfy.model_management.load_models_gpu([interp_model], memory_required=network.memory_used_forward(images.shape, dtype))
    height, width = images.shape[1:3]
    kept: dict[int, tuple[Tensor, Any]] = {}  # of the pair asked for last: padded frames and their features
    bar = Progress(count)
    done = 0

    def read(number: int) -> tuple[Tensor, Any]:
        frame = images[number : number + 1].movedim(-1, 1).to(dtype=dtype, device=device)
        if (align := getattr(network, "pad_align", 1)) > 1:
            frame = pad_to_patch_size(frame, (align, align), padding_mode="reflect")
        return frame, network.extract_features(frame)

    def between(pair: int, late: Sequence[float]) -> Tensor:
        nonlocal kept, done
        check_interrupt()
        kept = {number: kept.get(number) or read(number) for number in (pair, pair + 1)}
        (before, first), (after, second) = kept.values()
        features = {"img0": first, "img1": second}
        if hasattr(network, "forward_multi_timestep"):  # the flow does not depend on the time
            made = network.forward_multi_timestep(before, after, list(late), cache=features)
        else:
            made = torch.cat([network(before, after, timestep=share, cache=features) for share in late])
        done += len(late)
        bar.update(done)
        return made[:, :, :height, :width].movedim(1, -1).clamp(0, 1).to(images)

    with torch.inference_mode():
        yield between


def network_of(interp_model: Any) -> Any:
    """The network in a model of ComfyUI's loader.

    Raises:
        ValueError: this ComfyUI has no such networks, no model is connected, or it is of another kind. Says what to do.
    """
    import nodes  # ComfyUI's registry, complete only when all nodes are loaded

    if NODE not in nodes.NODE_CLASS_MAPPINGS:
        raise ValueError(
            f"this ComfyUI has no {NODE} node, which does the work: update ComfyUI, or install"
            " ComfyUI-Frame-Interpolation and use its nodes, or choose method blend"
        )
    if interp_model is None:
        raise ValueError(
            f"no interpolation model is connected: put a RIFE or FILM file (huggingface.co/Comfy-Org/frame_interpolation) into"
            f" models/frame_interpolation and connect {LOADER}, or choose method blend"
        )
    network = getattr(interp_model, "model", None)
    if not hasattr(network, "extract_features"):
        raise ValueError(
            f"the interpolation model is a {type(network or interp_model).__name__}, which this node does not know: connect {LOADER},"
            " or choose method blend"
        )
    return network
