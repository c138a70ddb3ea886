"""MotionLoRA files, however their keys are spelt (``lora_names.py``): low-rank changes by ``MotionModel``'s own weight keys.

A change is ``factor * up @ down``. The factor is 1 where a file names no alpha (AnimateDiff, MotionDirector) and else alpha / rank
(Hu et al., arXiv:2106.09685, Section 4.1), or alpha / sqrt(rank) where PEFT's metadata says so (arXiv:2312.03732). A DoRA (Liu et al.,
arXiv:2402.09353, Equation 5) gives the rows or columns of the changed weight lengths of their own.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..temporal.block_rules import block_factor, parse_blocks
from .files import kind, read_state
from .lora_names import LORA, MOTION, PART, canonical, dotted
from .peft import MOST_ALPHA, Peft, read_peft
from .sound import sound_weights

ADAPTER = re.compile(r"^(.+)\.processor\.(to_q|to_k|to_v|to_out)_lora\.(up|down)\.weight$")
SLOT = re.compile(r"^(.+?\.motion_modules\.\d+)\.")


class LowRank(NamedTuple):
    """The change of one weight: ``factor * up @ down``.

    Attributes:
        up: ``d r``.
        down: ``r c``.
        factor: what the file scales it with, times any strength.
    """

    up: Tensor
    down: Tensor
    factor: float


def change(weight: Tensor, delta: LowRank, lengths: Tensor | None = None) -> Tensor:
    """What is added to a weight, in float32.

    Args:
        weight: ``d c``.
        delta: of it; its factor is a DoRA's strength.
        lengths: ``...``, of a DoRA, of each row of the changed weight (d 1) or of each column (1 c); None for others.

    Returns:
        change: ``d c``.
    """
    added = (delta.up.float() @ delta.down.float()).to(weight.device)
    if lengths is None:
        return delta.factor * added
    whole, lengths = weight.float() + added, lengths.float().to(weight.device)
    present = whole.norm(dim=1 if lengths.shape[1] == 1 else 0, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return delta.factor * (lengths / present * whole - weight)


@dataclass(frozen=True, eq=False)
class MotionLora:
    """A LoRA file's contents.

    Attributes:
        name: of the file.
        deltas: changes of a motion module, by ``MotionModel``'s weight keys, in the precision of the file.
        spatial: what the same file holds for the image model, under the file's own keys: all of it for a domain adapter.
        lengths: of a DoRA, by ``MotionModel``'s weight keys: see ``change``.
    """

    name: str
    deltas: Mapping[str, LowRank]
    spatial: Mapping[str, Tensor] = field(default_factory=dict)
    lengths: Mapping[str, Tensor] = field(default_factory=dict)

    def at(self, strength: float, block_strength: Callable[[str], float] = lambda slot: 1.0) -> "MotionLora":
        """The same at another strength, which may be negative.

        Args:
            strength: of everything; 1 as it was trained.
            block_strength: a further one for each slot, such as ``down_blocks.0.motion_modules.0``.

        Raises:
            ValueError: the strength is no number, or infinite.
        """
        if not math.isfinite(strength):
            raise ValueError(f"the strength of {self.name} is {strength}: give a number; 1 is as it was trained, 0 is nothing")
        scaled = {
            key: delta._replace(factor=delta.factor * strength * block_strength(slot_of(key)))
            for key, delta in self.deltas.items()
        }
        return replace(self, deltas=scaled)


def slot_of(key: str) -> str:
    """Which slot a weight of a motion model belongs to.

    >>> slot_of("mid_block.motion_modules.0.temporal_transformer.proj_in.weight")
    'mid_block.motion_modules.0'
    """
    match = SLOT.match(key)
    assert match is not None, key
    return match[1]


def block_strength(text: str) -> Callable[[str], float] | None:
    """Strength by slot from rules such as ``up 0.5; mid 0``, in the words of a motion module's blocks; None where there are no rules.

    Raises:
        ValueError: a rule does not read so, or sets a scale, which a LoRA does not have.

    >>> strength = block_strength("up 0.5; up.1.0 -1")
    >>> strength("up_blocks.1.motion_modules.0"), strength("up_blocks.1.motion_modules.1"), strength("mid_block.motion_modules.0")
    (-1.0, 0.5, 1.0)
    """
    rules = parse_blocks(text)
    scaled = next((rule.place for rule in rules if rule.scales), None)
    if scaled is not None:
        raise ValueError(
            f"the rule for {scaled} sets a scale, which only motion modules have: a LoRA takes one number, as in {scaled} 0.5"
        )
    return (lambda slot: block_factor(rules, slot)) if rules else None


def load_motion_lora(path: Path) -> MotionLora:
    """Read a MotionLoRA, or a LoRA that was trained beside a motion module for the image model (a domain adapter).

    Raises:
        ValueError: it cannot be read, is something else, or is not complete. One sentence each.
    """
    state, metadata = read_state(path)
    motion = {key: value for key, value in state.items() if MOTION.search(dotted(key))}
    spatial = {key: value for key, value in state.items() if key not in motion and LORA.search(key)}
    if not any(LORA.search(key) for key in motion) and not spatial:
        raise ValueError(f"{path.name} is no LoRA: {_other(state, motion, metadata)}")
    sound_weights({key: value for key, value in spatial.items() if not key.endswith(".alpha")}, path.name)
    deltas, lengths = _deltas(motion, read_peft(metadata, path.name), path.name)
    return MotionLora(path.name, deltas, spatial, lengths)


def adapter_deltas(lora: MotionLora) -> dict[str, LowRank]:
    """What a domain adapter as AnimateDiff released its own changes, by diffusers' names of the image model's layers.

    Raises:
        ValueError: the file is spelt otherwise, or not complete.
    """
    layers: dict[str, dict[str, Tensor]] = {}
    for key, value in lora.spatial.items():
        match = ADAPTER.match(key)
        if match is None:
            raise ValueError(
                f"{lora.name} holds {key}, which is no part of a domain adapter such as v3_sd15_adapter.ckpt: use it in ComfyUI, whose"
                " loader reads other LoRAs of image models as well"
            )
        layers.setdefault(f"{match[1]}.{match[2]}{'.0' if match[2] == 'to_out' else ''}", {})[match[3]] = value
    return {layer: _low_rank(layer, parts, Peft(), layer, lora.name) for layer, parts in layers.items()}


def _other(state: Mapping[str, Tensor], motion: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    what = kind(state, metadata)
    if what is None and motion:
        what = "a motion module, for Load Motion Module"
    found = f"it is {what}" if what else f"its first keys are {', '.join(list(state)[:3]) or 'none'}"
    return f"{found}; use a MotionLoRA such as v2_lora_ZoomIn.ckpt, or the domain adapter v3_sd15_adapter.ckpt"


def _deltas(state: Mapping[str, Tensor], peft: Peft, name: str) -> tuple[dict[str, LowRank], dict[str, Tensor]]:
    """The changes, and the lengths of those that are DoRA's."""
    layers: dict[str, dict[str, Tensor]] = {}
    modules: dict[str, str] = {}
    for key, value in state.items():
        match = PART.match(canonical(key))
        if match is None:
            raise ValueError(
                f"{name} holds {key}, which is no part of a plain LoRA: only those with an up, a down, an alpha and"
                " the lengths of a DoRA are read"
            )
        parts = layers.setdefault(match[1], {})
        if match[3] in parts:
            raise ValueError(
                f"{name} holds {match[1]} twice, in two spellings: it was put together from two files; use one of them"
            )
        parts[match[3]] = value
        modules[match[1]] = key
    deltas = {f"{layer}.weight": _low_rank(layer, parts, peft, modules[layer], name) for layer, parts in layers.items()}
    measured = {layer: parts["magnitude"] for layer, parts in layers.items() if "magnitude" in parts}
    return deltas, {
        f"{layer}.weight": _lengths(deltas[f"{layer}.weight"], given, layer, name) for layer, given in measured.items()
    }


def _low_rank(layer: str, parts: Mapping[str, Tensor], peft: Peft, key: str, name: str) -> LowRank:
    absent = [part for part in ("up", "down") if part not in parts]
    if absent:
        raise ValueError(f"{name} is not complete: {layer} has no {absent[0]} matrix; download it again")
    up, down = _matrix(parts["up"]), _matrix(parts["down"])
    if up.ndim != 2 or down.ndim != 2 or up.shape[1] != down.shape[0]:
        raise ValueError(
            f"the two matrices of {layer} in {name} do not fit each other: {list(parts['up'].shape)} and {list(parts['down'].shape)};"
            " download it again"
        )
    sound_weights({f"{layer}.up": up, f"{layer}.down": down}, name)
    alpha = _alpha(parts["alpha"], layer, name) if "alpha" in parts else peft.alpha(key)
    factor = 1.0 if alpha is None else alpha / peft.divisor(len(down))
    return LowRank(factor * up.float(), down, 1.0) if "magnitude" in parts else LowRank(up, down, factor)


def _lengths(delta: LowRank, given: Tensor, layer: str, name: str) -> Tensor:
    """A DoRA's, as ``d 1`` or ``1 c``."""
    lengths = given[:, None] if given.ndim == 1 else _matrix(given)
    rows, columns = len(delta.up), delta.down.shape[1]
    if tuple(lengths.shape) not in ((rows, 1), (1, columns)):
        raise ValueError(
            f"{layer} in {name} is a DoRA with lengths of the shape {list(given.shape)}: one for each of its {rows} rows or {columns}"
            " columns is known; download it again"
        )
    sound_weights({f"{layer}.magnitude": lengths}, name)
    return lengths


def _alpha(alpha: Tensor, layer: str, name: str) -> float:
    """One number, which some trainers keep as a whole one."""
    found = float(alpha) if alpha.numel() == 1 and not alpha.is_complex() else math.nan
    if not abs(found) < MOST_ALPHA:
        raise ValueError(f"{name} is broken: the alpha of {layer} is {found}, and such files have one number; download it again")
    return found


def _matrix(weight: Tensor) -> Tensor:
    """A linear layer kept as a 1x1 convolution is a matrix, and anything else stays as it is."""
    return weight.flatten(1) if weight.ndim > 2 and weight.shape[2:].numel() == 1 else weight


def fitting(lora: MotionLora, shapes: Mapping[str, tuple[int, ...]], name: str) -> MotionLora:
    """What of a LoRA has a place in a motion module: camera LoRAs of v2 bring a middle block that v3 modules do not have.

    Args:
        lora: any.
        shapes: of the module's weights, by key.
        name: of the module, for the sentence.

    Raises:
        ValueError: nothing has, or a weight is of another size: the LoRA is for another base model.
    """
    fits = {key: delta for key, delta in lora.deltas.items() if key in shapes}
    for key, delta in fits.items():
        shape = (len(delta.up), delta.down.shape[1])
        if shape != tuple(shapes[key]):
            raise ValueError(
                f"{lora.name} is a MotionLoRA for another base model than {name}: {key} is {list(shapes[key])} there and"
                f" {list(shape)} in the LoRA; use one that was trained on such a module"
            )
    if not fits:
        raise ValueError(
            f"none of the {len(lora.deltas)} weights of {lora.name} are in {name} (first: {next(iter(lora.deltas), 'none')}):"
            " use a LoRA that was trained on such a module"
        )
    return replace(lora, deltas=fits)


def merged(state: Mapping[str, Tensor], loras: Iterable[MotionLora]) -> dict[str, Tensor]:
    """A motion model's weights with LoRAs added; summed in float32, given back in each weight's own precision.

    Weights that no LoRA changes are the same tensors as before.

    Raises:
        KeyError: a LoRA changes a weight that is not in ``state``; ``fitting`` leaves such out.
    """
    changed: dict[str, Tensor] = {}
    for lora in loras:
        for key, delta in lora.deltas.items():
            weight = changed.get(key, state[key].float())
            changed[key] = weight + change(weight, delta, lora.lengths.get(key))
    return dict(state) | {key: weight.to(state[key].dtype) for key, weight in changed.items()}
