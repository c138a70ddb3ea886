"""Sigma-reparametrisation: while a module trains, the length of each attention weight is a number of its own.

Zhai et al., arXiv:2303.06296, Equation 2: ``W' = gamma W / sigma(W)``, where ``sigma`` is the spectral norm, the most that ``W``
lengthens any vector. A step on ``W`` then only turns it, and attention logits grow as fast as the learned ``gamma`` does. Differs from
the paper in where it starts: ``gamma`` is ``sigma(W)`` and not 1, so a trained module computes what it did, and can be tuned further.

Weights are plain again after ``fold``; nothing of this is left in the file of a finished module. To be used so::

    wrapped = SigmaReparam(attention_layers(motion))
    optimizer = AdamW([..., {"params": wrapped.gains(), "weight_decay": 0.0}])
    for each step: wrapped.iterate(), forward, backward, optimizer.step()
    wrapped.fold()

The spectral norm is followed by one power iteration per step, called by the trainer and not in the forward pass: there, recomputed
activations (gradient checkpointing) would see other weights than the first time.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..temporal.transformer import TemporalAttention
from .engine import Task

_PARTS = ".parametrizations.weight."


class Lengthened(nn.Module):
    """``gamma / (u W v) W``, with ``u`` and ``v`` the directions that ``W`` lengthens most.

    Args:
        weight: ``o i``, whose function is kept.
        name: of the layer, for messages.

    Raises:
        ValueError: the weight has no length.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, name: str):
        super().__init__()
        if not weight.any() or not weight.isfinite().all():
            raise ValueError(
                f"{name} is all zero or not finite, so it has no length to start from: train it without sigma_reparam first"
            )
        # exact, since power iterations from anywhere end too low, and the weights would shrink while these catch up
        longest = torch.linalg.eigh(weight.T @ weight).eigenvectors[:, -1]
        self.register_buffer("v", longest.clone())
        self.register_buffer("u", F.normalize(weight @ longest, dim=0))
        self.gamma = nn.Parameter(self.u @ weight @ self.v)

    @torch.no_grad()
    def iterate(self, weight: Tensor) -> None:
        """Turn ``u`` and ``v`` towards the longest directions of ``weight``: ``o i``."""
        self.v.copy_(F.normalize(weight.T @ self.u, dim=0))
        self.u.copy_(F.normalize(weight @ self.v, dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        """Give ``weight``: ``o i`` its length. Returns ``o i``."""
        return self.gamma / (self.u @ weight @ self.v) * weight


def attention_layers(motion: nn.Module) -> dict[str, nn.Linear]:
    """Every linear layer of the temporal attentions in a network, by its name there."""
    found: dict[str, nn.Linear] = {}
    for prefix, module in motion.named_modules():
        if isinstance(module, TemporalAttention):
            layers = {"to_q": module.to_q, "to_k": module.to_k, "to_v": module.to_v, "to_out.0": module.to_out[0]}
            found |= {f"{prefix}.{name}" if prefix else name: layer for name, layer in layers.items()}  # type: ignore[dict-item]
    return found


def with_length(motion: nn.Module) -> dict[str, nn.Linear]:
    """Those of ``attention_layers`` that train and whose weights are not all zero, as some are at first."""
    layers = attention_layers(motion)
    return {name: layer for name, layer in layers.items() if layer.weight.requires_grad and bool(layer.weight.any())}


class SigmaReparam:
    """Layers whose weights have a length of their own, until ``fold``.

    Args:
        layers: linear layers by name, such as ``attention_layers`` gives.

    Raises:
        ValueError: there are none, one is wrapped already, or one has no length. Nothing is wrapped then.
    """

    def __init__(self, layers: Mapping[str, nn.Linear]):
        if not layers:
            raise ValueError(
                "there are no temporal attentions whose weights could be reparametrised: use a transformer motion module"
            )
        again = [name for name, layer in layers.items() if parametrize.is_parametrized(layer)]
        if again:
            raise ValueError(f"{again[0]} is reparametrised already: fold it first")
        self.layers = dict(layers)
        made = {name: Lengthened(layer.weight.detach(), name) for name, layer in layers.items()}
        for name, layer in layers.items():
            parametrize.register_parametrization(layer, "weight", made[name])
        self._made = made

    def gains(self) -> list[nn.Parameter]:
        """The learned lengths; they take no weight decay."""
        return [item.gamma for item in self._made.values()]

    def iterate(self) -> None:
        """Follow the spectral norms; once before each training step."""
        for name, layer in self.layers.items():
            self._made[name].iterate(layer.parametrizations.weight.original)  # type: ignore[union-attr]

    def state(self) -> dict[str, Tensor]:
        """The directions that are followed, by name; a run that resumes needs them beside its parameters."""
        return {f"{name}.{part}": getattr(item, part).clone() for name, item in self._made.items() for part in ("u", "v")}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state`` gave.

        Raises:
            ValueError: it is of other layers.
        """
        wanted = self.state()
        wrong = sorted(
            key for key in {*wanted, *state} if key not in state or key not in wanted or state[key].shape != wanted[key].shape
        )
        if wrong:
            raise ValueError(
                f"the saved directions are of other layers ({len(wrong)} differ, first {wrong[0]}): resume with the same model"
            )
        for name, item in self._made.items():
            item.u.copy_(state[f"{name}.u"])
            item.v.copy_(state[f"{name}.v"])

    def fold(self) -> None:
        """Make the weights plain, with the same function to the last bit."""
        for layer in self.layers.values():
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
        self.layers, self._made = {}, {}


class Reparametrised:
    """A task for the engine, ``Keeping``, of whose weights some may be reparametrised.

    Args:
        task: whose parameters they are.
        reparam: the layers; None for none.
    """

    def __init__(self, task: Task, reparam: SigmaReparam | None):
        self.task, self.reparam = task, reparam

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """As the engine wants them."""
        return self.task.parameters()

    def losses(self, step: int, places: range) -> Tensor:
        """The loss of each clip. Returns ``n``."""
        return self.task.losses(step, places)

    def description(self) -> dict[str, Any]:
        """Of the task."""
        return self.task.description()

    def after_step(self, step: int) -> None:
        """Follow the lengths of reparametrised weights."""
        self.task.after_step(step)
        if self.reparam is not None:
            self.reparam.iterate()

    def undecayed(self) -> Collection[str]:
        """The learned lengths."""
        gains = set() if self.reparam is None else set(map(id, self.reparam.gains()))
        return {name for name, parameter in self.parameters().items() if id(parameter) in gains}

    def tensors(self) -> dict[str, Tensor]:
        """The directions of reparametrised weights."""
        return {} if self.reparam is None else self.reparam.state()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what ``tensors`` gave."""
        if self.reparam is not None:
            self.reparam.restore(tensors)


def folded(state: Mapping[str, Tensor], buffers: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The plain state dict of a network that is still reparametrised, of averaged weights for example.

    Args:
        state: of the network, or of its parameters alone.
        buffers: where ``u`` and ``v`` are, if they are not in ``state``.

    Returns:
        state: without a trace of the reparametrisation.
    """
    known = {**(buffers or {}), **state}
    plain = {name: value for name, value in state.items() if _PARTS not in name}
    for name in _wrapped(state):
        weight, gamma, u, v = (known[f"{name}{_PARTS}{part}"] for part in ("original", "0.gamma", "0.u", "0.v"))
        plain[f"{name}.weight"] = gamma / (u @ weight @ v) * weight
    return plain


def _wrapped(state: Iterable[str]) -> list[str]:
    ending = f"{_PARTS}original"
    return [name.removesuffix(ending) for name in state if name.endswith(ending)]
