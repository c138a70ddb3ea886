"""CameraCtrl (He et al., arXiv:2404.02101): what makes a motion module follow a camera, as a file of its own.

It holds an encoder of camera poses and, for the first attention of every motion module on the way down and up, a linear layer that adds
the encoder's features to that attention's tokens. Both the authors' training file and the pruned one are read.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..control.camera_model import CameraModel
from ..control.encoders import pose_encoder_shapes
from ..nets.unfilled import unfilled
from ..temporal.slot_names import in_order, levels
from .files import kind, read_state
from .formats import POSITIONS
from .positions import table_length, trained
from .sound import check_weights, shape_of

MERGE = re.compile(
    r"^((?:down|up)_blocks\.\d+\.motion_modules\.\d+)\.temporal_transformer\.transformer_blocks\.0\.attention_blocks\.0"
    r"\.processor\.qkv_merge\.(weight|bias)$"
)


@dataclass(frozen=True)
class Camera:
    """A CameraCtrl file's contents.

    Attributes:
        name: of the file.
        encoder: the pose encoder's weights by its authors' keys.
        merges: the linear layer of each slot's first attention, as its ``weight`` and ``bias``.
        max_frames: the most frames the encoder knows times for.
    """

    name: str
    encoder: Mapping[str, Tensor]
    merges: Mapping[str, Mapping[str, Tensor]]
    max_frames: int

    @property
    def widths(self) -> dict[str, int]:
        """Channels by slot."""
        return {slot: len(merge["bias"]) for slot, merge in self.merges.items()}

    def build(self, ops: Any = nn, attention: Callable[..., Tensor] = F.scaled_dot_product_attention) -> CameraModel:
        """The network with these weights; it shares their memory."""
        with unfilled():
            model = CameraModel(self.widths, self.max_frames, ops, attention)
        model.load(self.encoder, self.merges)
        return model


def load_camera(path: Path) -> Camera:
    """Read a CameraCtrl file; ``motion.graft_camera`` puts it onto a motion module.

    Raises:
        ValueError: it cannot be read, is something else, or is not complete. One sentence each.
    """
    state, metadata = read_state(path)
    what = kind(state, metadata)
    if what is None or "CameraCtrl" not in what:
        said = f"it is {what}" if what else f"its first keys are {', '.join(list(state)[:3]) or 'none'}"
        raise ValueError(f"{path.name} is no CameraCtrl camera module: {said}; use one such as CameraCtrl_pruned.safetensors")
    merges = _merges(state, path.name)
    encoder = {key: value for key, value in state.items() if key.startswith("encoder_")}
    tables = {key: value for key, value in encoder.items() if POSITIONS.search(key)}
    weights = {key: value for key, value in encoder.items() if key not in tables}
    length, own = table_length(tables, path.name), trained(tables)
    if own is not None:
        raise ValueError(f"{own} in {path.name} is not CameraCtrl's sinusoid: use the file as its authors released it")
    camera = Camera(path.name, weights, merges, length or 16)
    in_order(merges, path.name)
    check_weights(weights, pose_encoder_shapes(levels(camera.widths)), path.name)
    return camera


def _merges(state: Mapping[str, Tensor], name: str) -> dict[str, dict[str, Tensor]]:
    found: dict[str, dict[str, Tensor]] = {}
    for match in filter(None, map(MERGE.match, state)):
        found.setdefault(match[1], {})[match[2]] = state[match[0]]
    for slot, merge in found.items():
        prefix = f"{slot}.temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.qkv_merge."
        given = {prefix + part: value for part, value in merge.items()}
        width, _ = shape_of(given, f"{prefix}weight", 2, name)
        check_weights(given, {f"{prefix}weight": (width, width), f"{prefix}bias": (width,)}, name)
    return found
