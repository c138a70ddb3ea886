"""Spatial layers a few frames at a time: what they compute is the same, what they hold at once is a chunk's worth.

A layer of an image model sees each frame by itself, so frames in the batch axis may go through in any portions. What has to exist for
all frames is only what lies between the layers. When a portion does not fit the memory after all, it is halved and the layer starts again.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..nets.gradient_checkpointing import parts_of, portion, recomputed
from .slots import BlockedUNet, is_residual

AD_PARAMS = "ad_params"  # where packs that hook attention layers look for the frames of the present call
ROWS = "longtake_rows"  # in transformer options: ``n``, which rows of the call a layer is given; absent where nobody asked


class Chunks:
    """How many frames go through a spatial layer at once; the host sets it for each call.

    Attributes:
        size: frames, or None for all.
        conds: how many clips lie one after the other in the batch axis, each with all frames.
        variants: how many of them belong to one condition.
        ids: absolute frame numbers of the call, for hooks of other packs; empty if unknown.
        gradient_checkpointing: whether a portion is computed again when gradients come back through it, so that only its input is kept.
        halved: called with the new size when memory ran out.
    """

    def __init__(self, halved: Callable[[int], None] = lambda size: None):
        self.size: int | None = None
        self.conds = 1
        self.variants = 1
        self.ids: list[int] = []
        self.gradient_checkpointing = False
        self.halved = halved

    def around(self, inner: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """A layer's ``forward`` in chunks."""

        def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            while True:
                try:
                    return self._run(inner, x, args, kwargs)
                except torch.OutOfMemoryError:
                    frames = min(self.size or len(x), len(x) // self.conds)
                    if frames <= 1:
                        raise
                self.size = frames // 2  # outside the handler, so that the failed attempt's tensors are gone
                self.halved(self.size)

        return forward

    def _run(self, inner: Callable[..., Tensor], x: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        count, rest = divmod(len(x), self.conds)
        run = partial(recomputed, inner) if self.gradient_checkpointing else inner
        size = min(self.size or count, portion(count, x)) if self.gradient_checkpointing else self.size
        if rest or size is None or size >= count:
            return run(x, *args, **kwargs)
        if torch.is_grad_enabled():  # a graph keeps no buffer that is written to part by part
            cutters = [self._cutter(part, count) for part in parts_of(count, size)]
            pieces = [run(cut(x), *map(cut, args), **{key: cut(value) for key, value in kwargs.items()}) for cut in cutters]
            return torch.cat([piece.unflatten(0, (self.conds, -1)) for piece in pieces], dim=1).flatten(0, 1)
        whole: Tensor | None = None
        for part in parts_of(count, size):
            cut = self._cutter(part, count)
            piece = inner(cut(x), *map(cut, args), **{key: cut(value) for key, value in kwargs.items()})
            if whole is None:
                whole = piece.new_empty(len(x), *piece.shape[1:])
            shape = (self.conds, -1, *piece.shape[1:])
            whole.view(shape)[:, part] = piece.view(shape)
            del piece
        assert whole is not None, "a call has at least one frame"
        return whole

    def _cutter(self, part: slice, count: int) -> Callable[[Any], Any]:
        def cut(value: Any) -> Any:
            if isinstance(value, dict):
                return self._options(value, part, count)
            if not isinstance(value, Tensor) or not value.ndim or len(value) != self.conds * count:
                return value
            return value.unflatten(0, (self.conds, count))[:, part].flatten(0, 1)

        return cut

    def _options(self, options: dict[str, Any], part: slice, count: int) -> dict[str, Any]:
        """Transformer options that say which frames these are, for hooks inside attention layers."""
        sigmas = options.get("sigmas")
        changed: dict[str, Any] = {}
        if self.ids:
            ids = self.ids[part] * self.variants
            changed[AD_PARAMS] = {"full_length": count, **options.get(AD_PARAMS, {}), "sub_idxs": ids}
        if isinstance(sigmas, Tensor) and sigmas.ndim and len(sigmas) == count > 1:
            changed["sigmas"] = sigmas[part]
        if ROWS in options:
            changed[ROWS] = options[ROWS].unflatten(0, (self.conds, count))[:, part].flatten()
        return {**options, **changed}


def spatial_layers(unet: BlockedUNet, *, clip_norms: bool = False) -> list[nn.Module]:
    """The layers that see each frame by itself, in the order of the U-Net.

    Args:
        unet: of Stable Diffusion's family.
        clip_norms: residual blocks and the output take statistics over a whole clip, so they are left out.
    """
    blocks = [*unet.input_blocks, unet.middle_block, *unet.output_blocks]
    layers = [layer for block in blocks for layer in block.children()]
    return [layer for layer in layers if not (clip_norms and is_residual(layer))] + ([] if clip_norms else [unet.out])  # type: ignore[attr-defined]
