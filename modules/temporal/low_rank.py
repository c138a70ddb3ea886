"""Low-rank changes beside a motion model's weights instead of in them, so that their strength may change from call to call.

``(W + g u d) x`` is ``W x + g u (d x)``: the second term is added to what a linear layer gives. The layer's ``forward`` is shadowed as
the U-Net's are (``slots.py``), and the strength is told for one call at a time, for each frame if need be.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..nets.unfilled import unfilled
from .slots import empty, swap


class Branch(nn.Module):
    """The change of one layer.

    Args:
        up: ``d r``.
        down: ``r c``, any factor included.
        ops: where the layers come from.
    """

    def __init__(self, up: Tensor, down: Tensor, ops: Any = nn):
        super().__init__()
        with unfilled():
            self.down = ops.Linear(down.shape[1], down.shape[0], bias=False)
            self.up = ops.Linear(up.shape[1], up.shape[0], bias=False)
        self.load_state_dict({"down.weight": down, "up.weight": up}, assign=True)

    def forward(self, x: Tensor, gain: Tensor) -> Tensor:
        """What is added to the layer's output.

        Args:
            x: ``... c``, the layer's input.
            gain: ``...``, one number, or one per frame where ``x`` is ``n f c``.

        Returns:
            x: ``... d``.

        Raises:
            ValueError: frames have gains of their own and ``x`` is not those frames in order.
        """
        if gain.ndim and x.shape[-2] != len(gain):
            raise ValueError(
                f"a MotionLoRA that is scheduled over sampling got {x.shape[-2]} frames where {len(gain)} have noise levels of their own:"
                " use it without context windows, or for all of sampling"
            )
        return self.up(self.down(x) * gain[..., None].to(x))


class Branches(nn.Module):
    """Changes of one motion model, silent until ``during`` says how strong they are.

    Args:
        deltas: by the motion model's weight keys: (``d r``, ``r c``, factor).
        ops: where the layers come from.
    """

    def __init__(self, deltas: Mapping[str, tuple[Tensor, Tensor, float]], ops: Any = nn):
        super().__init__()
        self.layers = tuple(key.removesuffix(".weight") for key in deltas)
        self.parts = nn.ModuleList([Branch(up.float(), factor * down.float(), ops) for up, down, factor in deltas.values()])
        self.gain: Tensor | None = None

    def by_layer(self) -> Iterator[tuple[str, Branch]]:
        """Every branch, by the name of the layer that it belongs to."""
        yield from zip(self.layers, self.parts, strict=True)  # type: ignore[misc]

    @contextmanager
    def during(self, gain: Tensor) -> Iterator[None]:
        """While open, the branches act; afterwards they are as before, whatever happened.

        Args:
            gain: ``...``, one number, or one per frame of the call.
        """
        before, self.gain = self.gain, gain
        try:
            yield
        finally:
            self.gain = before


def install(motion: nn.Module, several: Sequence[Branches]) -> None:
    """Let a motion model's layers add these branches; any that were installed before are removed first, and all if one has no layer.

    Raises:
        AttributeError: a branch names a layer that ``motion`` does not have.
    """
    remove(motion)
    layers: dict[str, list[tuple[Branches, Branch]]] = {}
    for branches in several:
        for name, branch in branches.by_layer():
            layers.setdefault(name, []).append((branches, branch))
    found = {name: motion.get_submodule(name) for name in layers}
    for name, beside in layers.items():
        swap(found[name], _with_branches(beside))


def remove(motion: nn.Module) -> None:
    """Leave no branch on a motion model; whether there was one does not matter."""
    empty(motion)


def _with_branches(beside: list[tuple[Branches, Branch]]) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    def around(inner: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def forward(x: Tensor) -> Tensor:
            out = inner(x)
            for branches, branch in beside:
                if branches.gain is not None:
                    out = out + branch(x, branches.gain).to(out)
            return out

        return forward

    return around
