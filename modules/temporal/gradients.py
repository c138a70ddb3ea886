"""Gradients through a frozen network while it samples: what a guide asks a host for, and what makes them fit the memory.

A guide that needs them says so (``steering.Steering``), and the host makes its networks ready before sampling begins. The guide calls
the model inside ``gradients()``; what the model gives can then be differentiated with respect to ``View.x``.

Layers keep nothing but their input and compute again when the gradient comes back (Chen et al., arXiv:1604.06174). Two sizes of that
are nested: a layer together with the temporal module behind it, and inside it a few frames, or a few pixels, at a time. So what is held
at once is one input per layer and the inside of one small part. A layer that computes again must find everything as it was, while the
call that it belonged to is long over: ``as_now`` remembers that.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..fields.setting import check, documented, setting
from ..nets.gradient_checkpointing import Forward, as_now, parts_of, portion, recomputed, shadowed
from .chunks import spatial_layers
from .motion import MotionModel
from .slots import slots
from .transformer import TemporalBlock

BOTH, POSITIVE = "both", "positive"


@documented
@dataclass(frozen=True)
class Gradients:
    """What a guide asks for.

    Attributes:
        across: whether the guide relies on frames that hang on each other, so that a model without temporal modules is of no use.
    """

    branch: str = setting(
        BOTH,
        "With CFG, the branch says which conditions the gradient goes through; the guess itself is always the full one.",
        menu={
            BOTH: "It goes through the positive and the negative one, as in the formula.",
            POSITIVE: "It goes through that one only, which takes less memory and half the work.",
        },
    )
    gradient_checkpointing: bool = setting(
        True,
        "With gradient checkpointing layers compute again for the gradient instead of keeping what they computed: it is a third slower"
        " and takes about the memory of sampling without guidance. Without it sampling takes 15 times as much.",
    )
    across: bool = False

    def __post_init__(self) -> None:
        check(self)

    @property
    def conditional(self) -> bool:
        """Whether the gradient goes through the positive condition only."""
        return self.branch == POSITIVE


PLAIN = Gradients()


@contextmanager
def gradients() -> Iterator[None]:
    """While open, operations can be differentiated, whatever the host has switched off around."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def normal(value: Any) -> Any:
    """Tensors, and what holds them, out of inference mode: those made in it cannot be part of a graph, so they are copied."""
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    if isinstance(value, dict):
        return {key: normal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(normal, value))
    if is_dataclass(value) and not isinstance(value, type):
        changed = {name: normal(item) for name, item in vars(value).items() if _holds_inference(item)}
        return replace(value, **changed) if changed else value
    return value


def _holds_inference(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_inference()


@contextmanager
def checkpointed(
    network: nn.Module, motions: Sequence[MotionModel] = (), holders: Sequence[Any] = (), parted: Iterable[nn.Module] = ()
) -> Iterator[None]:
    """While open, the layers of a network, and the temporal modules in its slots, compute again when gradients come back through them.

    Args:
        network: a U-Net of Stable Diffusion's family, or any network whose blocks stand in lists.
        motions: the motion models in its slots.
        holders: what is told things for one call: the motion models, and all others whose attributes a layer reads.
        parted: layers that see to it themselves, a few frames at a time (``Chunks.gradient_checkpointing``).
    """
    temporal = [block for motion in motions for block in motion.modules() if isinstance(block, TemporalBlock)]
    parted_blocks = partial(_in_parts, holders=holders)

    def present() -> Callable[[], AbstractContextManager[None]]:
        now = as_now(holders)

        @contextmanager
        def again() -> Iterator[None]:
            with now(), shadowed(temporal, parted_blocks):
                yield

        return again

    def whole(inner: Forward) -> Forward:
        return lambda *args, **kwargs: recomputed(inner, *args, again=present(), **kwargs)

    by_themselves = set(parted)
    filled = {name for motion in motions for name in motion.names}
    anchors = {layer for name, layer in slots(network).items() if name in filled} if filled else set()  # type: ignore[arg-type]
    with ExitStack() as stack:
        stack.enter_context(
            shadowed([layer for layer in blocks_of(network) if layer in anchors or layer not in by_themselves], whole)
        )
        stack.enter_context(shadowed(temporal, parted_blocks))
        yield


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The layers of a U-Net, or the members of the lists that a network is made of."""
    if all(hasattr(network, name) for name in ("input_blocks", "middle_block", "output_blocks")):
        return spatial_layers(network)  # type: ignore[arg-type]
    return [block for child in network.children() if isinstance(child, nn.ModuleList) for block in child]


def _in_parts(inner: Forward, holders: Sequence[Any]) -> Forward:
    """A temporal block, whose rows are pixels that do not see each other; it may be computed again when its layer's call is over, too."""

    def forward(x: Tensor, frames: Any, scales: tuple[Tensor | None, ...] = (), hint: Any = None) -> Tensor:
        if not torch.is_grad_enabled():
            return inner(x, frames, scales, hint)
        again = as_now(holders)
        return torch.cat(
            [
                recomputed(inner, x[part], frames, _rows(scales, part, len(x)), _told_of(hint, part), again=again)
                for part in parts_of(len(x), portion(len(x), x))
            ]
        )

    return forward


def _rows(scales: tuple[Tensor | None, ...], part: slice, rows: int) -> tuple[Tensor | None, ...]:
    return tuple(scale[part] if scale is not None and scale.ndim > 1 and len(scale) == rows else scale for scale in scales)


def _told_of(hint: Any, part: slice) -> Any:
    return None if hint is None else replace(hint, features=hint.features[part])
