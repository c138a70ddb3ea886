"""A motion model: the temporal modules of one checkpoint, and the call they are in.

The modules live outside the U-Net's tree, so a host can load and move them on their own. Each is reached by the slot's name
(``slots.py``), and each learns from ``during`` how the batch axis of the present call divides into frames.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..unet import Attention
from .masks import MASKS, anchored
from .positions import POSITIONS
from .transformer import Frames, TemporalConfig, TemporalTransformer


class MotionModel(nn.Module):
    """Temporal transformers by slot, with the state-dict layout of AnimateDiff's release.

    Args:
        widths: channels of each slot that is filled, such as ``{"down_blocks.0.motion_modules.0": 320, ...}``.
        config: what the modules have in common.
        ops: where the layers come from.
        attention: ``(q, k, v) -> out``, all ``b heads n d``.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        config: TemporalConfig,
        ops: Any = nn,
        attention: Attention = F.scaled_dot_product_attention,
    ):
        super().__init__()
        self.config = config
        self.names = tuple(widths)
        self.frames: Frames | None = None
        for name, channels in widths.items():
            module = TemporalTransformer(channels, config, ops, attention)
            _grow(self, f"{name}.temporal_transformer", module)

    def zero(self) -> "MotionModel":
        """Set every output projection to zero, as training starts: the model then changes nothing. Returns itself."""
        with torch.no_grad():
            for name in self.names:
                projection = self.at(name).proj_out
                projection.weight.zero_()
                projection.bias.zero_()
        return self

    def at(self, name: str) -> TemporalTransformer:
        """The module of one slot."""
        return self.get_submodule(f"{name}.temporal_transformer")  # type: ignore[return-value]

    def slot_functions(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """What ``slots.fill`` wants: for each slot a function of its features; the identity while no call is under way."""
        return {name: self._function(self.at(name)) for name in self.names}

    def _function(self, module: TemporalTransformer) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            return x if self.frames is None else module(x, self.frames)

        return run

    def frames_for(self, ids: Tensor, anchors: Tensor | None = None) -> Frames:
        """What these frames are to this model: their times and who sees whom.

        Absolute position tables count from the first frame of the window, since that is what they were trained on; relative
        encodings take the frame numbers themselves.

        Args:
            ids: ``f``, absolute frame numbers, in the order of the batch axis.
            anchors: ``k``, frame numbers that every frame may see whatever the mask says.
        """
        config = self.config
        mask = None if config.mask == "full" else MASKS[config.mask](ids, config.mask_frames)
        if anchors is not None and mask is not None:
            mask = anchored(mask, ids, anchors)
        absolute = POSITIONS[config.positions].absolute
        return Frames(len(ids), torch.arange(len(ids), device=ids.device) if absolute else ids, mask)

    @contextmanager
    def during(self, frames: Frames) -> Iterator[None]:
        """While open, the modules work on clips of these frames; afterwards they are as before, whatever happened."""
        before, self.frames = self.frames, frames
        try:
            yield
        finally:
            self.frames = before


def _grow(root: nn.Module, path: str, leaf: nn.Module) -> None:
    *parents, last = path.split(".")
    for name in parents:
        child = root._modules.get(name)
        if child is None:
            child = nn.Module()
            root.add_module(name, child)
        root = child
    root.add_module(last, leaf)
