"""Checkpoints of causal Wan models as their authors save them, made into files that ComfyUI loads.

Self-Forcing and its like save ``{"generator": ..., "generator_ema": ...}`` with pickle, under names that trainers put words before;
LongLive adds a LoRA in PEFT's layout. ComfyUI wants Wan's own names in a safetensors file.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .files import PICKLED, kind, read_state
from .pickled import read_pickled
from .sound import check_weights, count_of, shape_of, sound_weights

WRAPPERS = re.compile(
    r"(_fsdp_wrapped_module|_orig_mod|_checkpoint_wrapped_module)\."
)  # words that trainers put into names, anywhere
ANCHOR = "patch_embedding.weight"  # what stands before this name stands before all
EMA, GENERATOR = "generator_ema", "generator"
USUAL = ("model", "state_dict", "")  # where else the weights may lie; the last is the file itself
WEIGHTS: dict[str, str] = {
    "ema or generator": "It takes the averaged weights where there are some, else the plain ones.",
    EMA: "It takes the averaged weights, which most authors run.",
    GENERATOR: "It takes the plain weights.",
}
PLACES = {"ema or generator": (EMA, GENERATOR, *USUAL), EMA: (EMA,), GENERATOR: (GENERATOR, *USUAL)}
LORA_PLACES = ("generator_lora", "lora", "state_dict", "")
LORA = re.compile(r"^(?:base_model\.model\.)?(?:model\.|diffusion_model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight$")
METADATA = "longtake_causal"
CORES_MARK = {
    "config": json.dumps({"transformer": {"causal_ar": True}})
}  # with it ComfyUI makes a network for its own sampler of these
BLOCK = re.compile(r"^blocks\.(\d+)\.")


def read_causal(path: Path, weights: str = "ema or generator") -> dict[str, Tensor]:
    """The weights of a causal Wan model under Wan's own names.

    Args:
        path: of a safetensors file, or of PyTorch's own; nothing in it is run.
        weights: a name in ``WEIGHTS``.

    Raises:
        ValueError: the file cannot be read, has no such weights, or is no Wan model for text to video. One sentence.
    """
    parts = _parts(path)
    place = next((place for place in PLACES[weights] if place in parts), None)
    if place is None:
        raise ValueError(
            f"{path.name} has no {weights}: it has {', '.join(name or 'weights' for name in parts)}; choose one of these"
        )
    state = {WRAPPERS.sub("", key): value.detach() for key, value in parts[place].items()}
    before = next((key.removesuffix(ANCHOR) for key in state if key.endswith(ANCHOR)), None)
    if before is None:
        what = kind(state, {})
        raise ValueError(f"{path.name} is {what or 'no Wan model'}: choose the checkpoint of a causal Wan model")
    others = next((key for key in state if not key.startswith(before)), None)
    if others is not None:
        raise ValueError(f"{path.name} holds {others} beside a network under {before!r}: choose a file of the generator alone")
    state = {key.removeprefix(before): value for key, value in state.items()}
    if any(key.startswith("img_emb.") for key in state):
        raise ValueError(
            f"{path.name} is a Wan model for image to video, and causal ones are for text to video: choose another file"
        )
    check_weights(state, _shapes(state, path.name), path.name)
    return state


def read_lora(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """The two matrices of each layer of a LoRA in PEFT's layout, as LongLive's: down ``r i`` and up ``o r``, by Wan's name of the layer.

    Raises:
        ValueError: the file cannot be read, or is no such LoRA. One sentence.
    """
    parts = _parts(path)
    state = next((parts[place] for place in LORA_PLACES if place in parts), {})
    halves: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        match = LORA.match(WRAPPERS.sub("", key))
        if match is None:
            raise ValueError(
                f"{path.name} is no LoRA in PEFT's layout, it has {key[:80]!r}: convert without it, and load it with ComfyUI's"
                " LoraLoaderModelOnly"
            )
        halves.setdefault(match[1], {})[match[2]] = value.detach()
    if not halves:
        raise ValueError(f"{path.name} has no LoRA: it has {', '.join(name or 'weights' for name in parts)}; choose another file")
    for layer, half in halves.items():
        fits = len(half) == 2 and all(value.ndim == 2 for value in half.values()) and len(half["A"]) == half["B"].shape[1]
        if not fits:
            raise ValueError(f"{path.name} is damaged: the two matrices of {layer} do not fit together; download it again")
        sound_weights(half, path.name)
    return {layer: (half["A"], half["B"]) for layer, half in halves.items()}


def merge_lora(
    state: Mapping[str, Tensor],
    lora: Mapping[str, tuple[Tensor, Tensor]],
    strength: float = 1.0,
    dtype: torch.dtype | None = None,
    each: Callable[[int], None] = lambda done: None,
) -> dict[str, Tensor]:
    """Weights with a LoRA in them: ``W + strength B A``, summed in float32. The published ones have an alpha that is their rank.

    Args:
        state: from ``read_causal``.
        lora: from ``read_lora``.
        strength: of the LoRA.
        dtype: of what is changed; None for each weight's own.
        each: is told after every layer how many are done.

    Raises:
        ValueError: the LoRA is for another network. One sentence.
    """
    merged = dict(state)
    for done, (layer, (down, up)) in enumerate(lora.items(), 1):
        key = f"{layer}.weight"
        if key not in state or state[key].shape != (len(up), down.shape[1]):
            there = list(state[key].shape) if key in state else "none"
            raise ValueError(
                f"the LoRA changes {key} of shape {[len(up), down.shape[1]]}, and this model has {there}: it is for another network"
            )
        weight = state[key]
        merged[key] = (weight.float() + strength * (up.float() @ down.float())).to(dtype or weight.dtype)
        each(done)
    return merged


def _parts(path: Path) -> dict[str, dict[str, Tensor]]:
    """The state dicts in a file by name; under the empty name what lies in no dictionary."""
    if path.suffix.lower() not in PICKLED:
        return {"": read_state(path)[0]}
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    content = read_pickled(path)
    whole = dict(dict.items(content)) if isinstance(content, dict) else {}
    parts = {key: _tensors(value) for key, value in whole.items() if isinstance(key, str) and isinstance(value, dict)}
    found = {key: part for key, part in {**parts, "": _tensors(whole)}.items() if part}
    if not found:
        raise ValueError(f"{path.name} holds no weights: choose the checkpoint of a causal Wan model")
    return found


def _tensors(content: dict[Any, Any]) -> dict[str, Tensor]:
    return {key: value for key, value in dict.items(content) if isinstance(key, str) and isinstance(value, Tensor)}


def _shapes(state: Mapping[str, Tensor], name: str) -> dict[str, tuple[int, ...]]:
    """What Wan's network for text to video has, of the size that a few weights tell."""
    d, channels, *patch = shape_of(state, ANCHOR, 5, name)
    text = shape_of(state, "text_embedding.0.weight", 2, name)[1]
    frequencies = shape_of(state, "time_embedding.0.weight", 2, name)[1]
    inner = shape_of(state, "blocks.0.ffn.0.weight", 2, name)[0]
    out = shape_of(state, "head.head.weight", 2, name)[0]
    layers = count_of((int(match[1]) for key in state if (match := BLOCK.match(key))), "block", name)
    linear = {
        "text_embedding.0": (d, text),
        "text_embedding.2": (d, d),
        "time_embedding.0": (d, frequencies),
        "time_embedding.2": (d, d),
        "time_projection.1": (6 * d, d),
        "head.head": (out, d),
    }
    shapes: dict[str, tuple[int, ...]] = {
        ANCHOR: (d, channels, *patch),
        "patch_embedding.bias": (d,),
        "head.modulation": (1, 2, d),
    }
    for block in (f"blocks.{number}" for number in range(layers)):
        for attention in ("self_attn", "cross_attn"):
            linear |= {f"{block}.{attention}.{part}": (d, d) for part in "qkvo"}
            shapes |= {f"{block}.{attention}.norm_{part}.weight": (d,) for part in "qk"}
        linear |= {f"{block}.ffn.0": (inner, d), f"{block}.ffn.2": (d, inner)}
        shapes |= {f"{block}.norm3.weight": (d,), f"{block}.norm3.bias": (d,), f"{block}.modulation": (1, 6, d)}
    for layer, shape in linear.items():
        shapes |= {f"{layer}.weight": shape, f"{layer}.bias": shape[:1]}
    return shapes
