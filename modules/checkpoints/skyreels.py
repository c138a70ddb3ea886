"""The frame-rate embedding in SkyReels-V2's 1.3B files, which ComfyUI's loader leaves out.

It is a table of two rows (16 frames per second, and any other rate) behind a small network, and what comes out is added to the time
modulation of every block. There are only two possible values for a model, so the network is computed once, when the file is read.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from torch.nn import functional as F

from ..temporal.skyreels import SLOW
from .files import read_state
from .sound import check_weights, shape_of

FPS = re.compile(r"(?:^|\.)(fps_(?:embedding|projection)\..+)$")
DIFFUSERS = (("net.0.proj.", "0."), ("net.2.", "2."))


def read_fps(path: Path) -> dict[str, Tensor]:
    """The five tensors of the frame-rate embedding by the authors' names; nothing else of the file is read.

    Raises:
        ValueError: the file cannot be read, or has no such tensors, or not the right ones. One sentence.
    """
    found = {}
    for key, value in read_state(path, lambda key: FPS.search(key) is not None)[0].items():
        found[_name(key)] = value
    if "fps_embedding.weight" not in found:
        raise ValueError(
            f"{path.name} has no frame-rate embedding: only the 1.3B models of SkyReels-V2 have one; choose none as fps_file"
        )
    check_weights(found, _shapes(shape_of(found, "fps_embedding.weight", 2, path.name)[1]), path.name)
    return found


def _name(key: str) -> str:
    match = FPS.search(key)
    assert match is not None, key
    name = match.group(1)
    for theirs, ours in DIFFUSERS:
        name = name.replace(theirs, ours)
    return name


def _shapes(width: int) -> dict[str, tuple[int, ...]]:
    return {
        "fps_embedding.weight": (2, width),
        "fps_projection.0.weight": (width, width),
        "fps_projection.0.bias": (width,),
        "fps_projection.2.weight": (6 * width, width),
        "fps_projection.2.bias": (6 * width,),
    }


def fps_modulation(weights: Mapping[str, Tensor], fps: int) -> Tensor:
    """What is added to the time modulation of every block at a frame rate.

    Args:
        weights: from ``read_fps``.
        fps: frames per second; 16 is told apart from all others.

    Returns:
        modulation: ``6 d``, float32.
    """
    table, into, into_bias, out, out_bias = (weights[name].float() for name in _shapes(0))
    hidden = F.silu(F.linear(table[0 if fps == SLOW else 1], into, into_bias))
    return F.linear(hidden, out, out_bias).unflatten(0, (6, -1))
