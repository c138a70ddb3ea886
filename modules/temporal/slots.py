"""Slots: the places of a spatial U-Net where temporal modules sit, found by structure, and filled by swapping ``forward``.

A slot is the layer that a temporal module follows: the last attention of a numbered block, else its residual block. The same code
serves ``modules/nets/unet.py`` and ComfyUI's ``UNetModel``: both number their blocks alike, and neither class is imported here.

Nothing is inserted into the U-Net. The anchor layer's ``forward`` is shadowed on the instance, so its state dict, its module names
and other packs' references to it stay as they are.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from torch import Tensor, nn

MARK = "_longtake_swapped"


class BlockedUNet(Protocol):
    """Both U-Nets, as far as this file cares."""

    input_blocks: Any
    middle_block: Any
    output_blocks: Any


def is_residual(layer: nn.Module) -> bool:
    return hasattr(layer, "in_layers") and hasattr(layer, "emb_layers")


def is_attention(layer: nn.Module) -> bool:
    return hasattr(layer, "transformer_blocks")


def anchor(block: nn.Module) -> nn.Module | None:
    """The layer of ``block`` that a temporal module follows; None where a block has no residual layer."""
    layers = list(block.children())
    attentions = [layer for layer in layers if is_attention(layer)]
    residuals = [layer for layer in layers if is_residual(layer)]
    return attentions[-1] if attentions else residuals[0] if residuals else None


def _resizes(block: nn.Module) -> bool:
    """Whether a block of the way up ends its level: something in it is neither residual nor attention."""
    return any(not is_residual(layer) and not is_attention(layer) for layer in block.children())


def _slots(unet: BlockedUNet) -> Iterator[tuple[str, nn.Module, int]]:
    level, index = 0, 0
    for block in list(unet.input_blocks)[1:]:
        layer = anchor(block)
        if layer is None:
            level, index = level + 1, 0
            continue
        yield f"down_blocks.{level}.motion_modules.{index}", layer, _width(block)
        index += 1
    yield "mid_block.motion_modules.0", _anchor_of(unet.middle_block), _width(unet.middle_block)
    level, index = 0, 0
    for block in unet.output_blocks:
        yield f"up_blocks.{level}.motion_modules.{index}", _anchor_of(block), _width(block)
        index += 1
        if _resizes(block):
            level, index = level + 1, 0


def _anchor_of(block: nn.Module) -> nn.Module:
    layer = anchor(block)
    if layer is None:
        raise ValueError("this U-Net has a block without a residual layer on its way up: it is not of Stable Diffusion's family")
    return layer


def _width(block: nn.Module) -> int:
    residual: Any = next(layer for layer in block.children() if is_residual(layer))
    return residual.out_channels


def slots(unet: BlockedUNet) -> dict[str, nn.Module]:
    """Every slot by AnimateDiff's name for it, and the layer that anchors it.

    Raises:
        ValueError: the model is no U-Net of Stable Diffusion's family.
    """
    if not all(hasattr(unet, name) for name in ("input_blocks", "middle_block", "output_blocks")):
        raise ValueError(
            f"motion modules need a U-Net of Stable Diffusion's family (SD1.5, SDXL); {type(unet).__name__} is built differently"
        )
    return {name: layer for name, layer, _ in _slots(unet)}


def widths(unet: BlockedUNet) -> dict[str, int]:
    """Channels at every slot."""
    slots(unet)
    return {name: width for name, _, width in _slots(unet)}


def fill(
    unet: BlockedUNet,
    modules: Mapping[str, Callable[[Tensor], Tensor]],
    around: Callable[[Callable[..., Tensor]], Callable[..., Tensor]] | None = None,
    layers: Iterable[nn.Module] = (),
) -> None:
    """Let each slot's output pass through the module of its name; emptied first, and emptied again if anything goes wrong.

    Args:
        unet: whose slots.
        modules: by slot.
        around: what ``layers`` are wrapped in besides, below the modules.
        layers: of the U-Net.

    Raises:
        ValueError: a module names a slot that this U-Net does not have.
    """
    empty(unet)
    places = slots(unet)
    missing = sorted(set(modules) - set(places))
    if missing:
        raise ValueError(
            f"this U-Net has no slot for {missing[0]} ({len(missing)} of {len(modules)} modules fit nowhere): wrong base model?"
        )
    try:
        for layer in layers if around is not None else ():
            swap(layer, around)  # type: ignore[arg-type]
        for name, module in modules.items():
            swap(places[name], _followed_by(module))
    except BaseException:
        empty(unet)
        raise


def swap(layer: nn.Module, around: Callable[[Callable[..., Tensor]], Callable[..., Tensor]]) -> None:
    """Shadow ``layer.forward`` with ``around(layer.forward)`` until ``empty``; nothing else about the layer changes."""
    inner = layer.forward
    layer.__dict__["forward"] = around(inner)
    layer.__dict__.setdefault(MARK, inner)  # of several swaps the first knows what was there before


def _followed_by(module: Callable[[Tensor], Tensor]) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    def around(inner: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def forward(*args: Any, **kwargs: Any) -> Tensor:
            return module(inner(*args, **kwargs))

        return forward

    return around


def norms(unet: BlockedUNet) -> list[nn.Module]:
    """The norms that AnimateDiff v1 takes over a whole clip: two in every residual block, and the last before the output.

    The norms of attention layers are not among them: the original folds frames into the batch before those.
    """
    residuals = [layer for layer in unet.modules() if is_residual(layer)]  # type: ignore[attr-defined]
    inside = [norm for layer in residuals for norm in (layer.in_layers[0], layer.out_layers[0])]
    return [*inside, unet.out[0]]  # type: ignore[attr-defined]


def empty(unet: nn.Module | BlockedUNet) -> None:
    """Give every layer its own ``forward`` back. Doing it twice, or without having filled, is fine."""
    for layer in unet.modules():  # type: ignore[union-attr]
        inner = layer.__dict__.pop(MARK, None)
        if inner is not None:
            layer.__dict__.pop("forward", None)
            if getattr(inner, "__func__", None) is not type(layer).forward:  # another pack had swapped it before us
                layer.__dict__["forward"] = inner
