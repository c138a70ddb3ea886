"""Low-rank changes that are trained: MotionLoRA on a motion module's attentions, the domain adapter on an image model's.

The network stays as it is; beside each chosen linear layer stand two small matrices, the upper one zero at first, so training starts from
the network itself (Hu et al., arXiv:2106.09685). AnimateDiff (arXiv:2307.04725, Sections 4.1 and 4.3) adapts all four projections.
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints.motion_lora import LowRank
from ..nets.unet import UNet
from ..noise.seeded import frame_seed
from ..temporal.low_rank import Branch, Branches
from ..temporal.motion import MotionModel
from ..temporal.slots import slots, swap

PROJECTIONS = re.compile(r"(?:^|\.)(to_q|to_k|to_v|to_out\.0)$")


class TrainableBranches(Branches):
    """Branches that act at full strength, and train, unless ``told`` otherwise.

    Attributes:
        constant: whether no gradient reaches them.
    """

    gain: Tensor | None
    constant = False

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return next(self.parameters()).device

    @contextmanager
    def told(self, gain: Tensor | None, *, constant: bool = False) -> Iterator[None]:
        """While open, they act otherwise; afterwards they are as before, whatever happened.

        Args:
            gain: ``...``, how strongly they act, one number; None for not at all.
            constant: whether no gradient reaches them.
        """
        before = self.gain, self.constant
        self.gain, self.constant = gain, constant
        try:
            yield
        finally:
            self.gain, self.constant = before

    def added(self, branch: Branch, x: Tensor) -> Tensor | None:
        """What one of them adds to its layer's output for ``x``: ``... c``. Returns ``... d``, or None where they rest."""
        if self.gain is None:
            return None
        down, up = branch.down.weight, branch.up.weight
        down, up = (down.detach(), up.detach()) if self.constant else (down, up)
        return F.linear(F.linear(x.to(down), down) * self.gain.to(down), up)


def trainable_branches(
    layers: dict[str, nn.Module], rank: int, seed: int, device: torch.device | str = "cpu"
) -> TrainableBranches:
    """Branches for linear layers, acting at full strength, the upper matrices zero.

    Args:
        layers: by the name that the change is saved under, without ``.weight``.
        rank: of the changes.
        seed: of the lower matrices.
        device: where they go.

    Raises:
        ValueError: no layers, or a rank that a layer cannot have.
    """
    if not layers:
        raise ValueError(
            "there is no attention whose projections could be changed: give a model with a motion module, or with attention"
        )
    widest = min(min(layer.in_features, layer.out_features) for layer in layers.values())  # type: ignore[type-var]
    if not 1 <= rank <= widest:
        raise ValueError(f"rank is {rank}: it must be from 1 to {widest}, the narrowest layer of this model")
    g = torch.Generator().manual_seed(frame_seed(seed, 0, "low rank"))
    deltas: dict[str, tuple[Tensor, Tensor, float]] = {}
    for name, layer in layers.items():
        into, out = int(layer.in_features), int(layer.out_features)  # type: ignore[arg-type]
        bound = 1 / math.sqrt(into)
        down = torch.empty(rank, into).uniform_(-bound, bound, generator=g)
        deltas[f"{name}.weight"] = torch.zeros(out, rank), down, 1.0
    branches = TrainableBranches(deltas).to(device).requires_grad_(True)
    branches.gain = torch.ones((), device=device)
    return branches


def motion_projections(motion: MotionModel) -> dict[str, nn.Module]:
    """The attention projections of a motion model, by the names of its weights."""
    return {name: layer for name, layer in motion.named_modules() if PROJECTIONS.search(name)}


def image_projections(unet: UNet) -> dict[str, nn.Module]:
    """The attention projections of an image model by diffusers' names, such as ``down_blocks.0.attentions.0....attn1.to_q``."""
    found: dict[str, nn.Module] = {}
    for slot, anchor in slots(unet).items():
        if not hasattr(anchor, "transformer_blocks"):
            continue
        place = slot.replace("motion_modules", "attentions")
        found |= {f"{place}.{name}": layer for name, layer in anchor.named_modules() if PROJECTIONS.search(name)}
    return found


def beside(layers: dict[str, nn.Module], branches: TrainableBranches) -> None:
    """Let layers add what their branches give; other branches on them stay."""
    for name, branch in branches.by_layer():
        swap(layers[name], _added(branches, branch))


def _added(branches: TrainableBranches, branch: Branch):
    def around(inner):
        def forward(x: Tensor) -> Tensor:
            out, more = inner(x), branches.added(branch, x)
            return out if more is None else out + more.to(out)

        return forward

    return around


def deltas_of(branches: Branches, weights: dict[str, Tensor], prefix: str) -> dict[str, LowRank]:
    """The changes by weight key.

    Args:
        branches: whose layers are meant.
        weights: the run's, by parameter name.
        prefix: what parameter names begin with.
    """
    return {f"{layer}.weight": LowRank(up, down, 1.0) for layer, up, down in _matrices(branches, weights, prefix)}


def _matrices(branches: Branches, weights: dict[str, Tensor], prefix: str) -> Iterator[tuple[str, Tensor, Tensor]]:
    for place, layer in enumerate(branches.layers):
        yield layer, weights[f"{prefix}parts.{place}.up.weight"], weights[f"{prefix}parts.{place}.down.weight"]
