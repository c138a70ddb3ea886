"""Small LoRA files in every layout that is in use, spelt out from the parts of a name, for tests."""

import json
import re

import torch
from safetensors.torch import save_file
from tiny_motion import slot_widths

RANK = 4
ATTENTION = ("to_q", "to_k", "to_v", "to_out")


def layers(levels=(32, 64), *, middle=False, everything=False):
    """(slot, attention or None, part, outputs, inputs) of each layer that a LoRA changes: the attentions', or all of them."""
    found = []
    for slot, width in slot_widths(levels, middle=middle).items():
        found += [(slot, index, part, width, width) for index in (0, 1) for part in ATTENTION]
        if everything:
            found += [(slot, None, "ff.net.0.proj", 8 * width, width), (slot, None, "ff.net.2", width, 4 * width)]
            found += [(slot, None, "proj_in", width, width)]
    return found


def weight_key(slot, attention, part):
    """What the layer's weight is called in a motion model."""
    inside = f"{slot}.temporal_transformer."
    if attention is None:
        return f"{inside}{part}.weight" if part == "proj_in" else f"{inside}transformer_blocks.0.{part}.weight"
    return f"{inside}transformer_blocks.0.attention_blocks.{attention}.{part}{'.0' if part == 'to_out' else ''}.weight"


def original(slot, attention, part, side):
    return f"{slot}.temporal_transformer.transformer_blocks.0.attention_blocks.{attention}.processor.{part}_lora.{side}.weight"


def motion_director(slot, attention, part, side):
    inside = f"{slot}.temporal_transformer."
    if part == "proj_in":
        return f"{inside}processor.proj_in_lora.{side}.weight"
    inside += "transformer_blocks.0."
    if attention is None:
        return (
            inside
            + {"ff.net.0.proj": "ff.net.0.processor.proj_lora", "ff.net.2": "ff.net.processor.2_lora"}[part]
            + f".{side}.weight"
        )
    if part == "to_out":
        return f"{inside}attention_blocks.{attention}.to_out.processor.0_lora.{side}.weight"
    return f"{inside}attention_blocks.{attention}.processor.{part}_lora.{side}.weight"


def motion_director_raw(slot, attention, part, side):
    return weight_key(slot, attention, part).removesuffix("weight") + f"lora_{side}.weight"


def diffusers_old(slot, attention, part, side):
    return f"unet.{slot}.transformer_blocks.0.attn{attention + 1}.processor.{part}_lora.{side}.weight"


def _diffusers_layer(slot, attention, part):
    if attention is None:
        return f"{slot}.{part}" if part == "proj_in" else f"{slot}.transformer_blocks.0.{part}"
    return f"{slot}.transformer_blocks.0.attn{attention + 1}.{part}{'.0' if part == 'to_out' else ''}"


def diffusers_new(slot, attention, part, side):
    return f"unet.{_diffusers_layer(slot, attention, part)}.lora.{side}.weight"


def peft(slot, attention, part, side):
    return f"unet.{_diffusers_layer(slot, attention, part)}.lora_{'A' if side == 'down' else 'B'}.weight"


def peft_named(slot, attention, part, side):
    return f"base_model.model.{_diffusers_layer(slot, attention, part)}.lora_{'A' if side == 'down' else 'B'}.default.weight"


def kohya(slot, attention, part, side):
    layer = weight_key(slot, attention, part).removesuffix(".weight")
    return f"lora_unet_{layer.replace('.', '_')}.lora_{side}.weight"


def kohya_diffusers(slot, attention, part, side):
    return f"lora_unet_{_diffusers_layer(slot, attention, part).replace('.', '_')}.lora_{side}.weight"


def _hotshot(key):
    return re.sub(r"motion_modules\.(\d+)\.temporal_transformer", r"temporal_attentions.\1", key)


def hotshot(slot, attention, part, side):
    return _hotshot(original(slot, attention, part, side))


def hotshot_kohya(slot, attention, part, side):
    layer = _hotshot(weight_key(slot, attention, part).removesuffix(".weight"))
    return f"lora_unet_{layer.replace('.', '_')}.lora_{side}.weight"


# name -> how a key is spelt, whether it reaches beyond attentions
LAYOUTS = {
    "original": (original, False),
    "MotionDirector": (motion_director, True),
    "MotionDirector, as trained": (motion_director_raw, True),
    "diffusers, old": (diffusers_old, False),
    "diffusers, new": (diffusers_new, True),
    "PEFT": (peft, True),
    "PEFT with adapter name": (peft_named, True),
    "kohya": (kohya, True),
    "kohya of diffusers' names": (kohya_diffusers, True),
    "HotshotXL": (hotshot, False),
    "HotshotXL, kohya": (hotshot_kohya, True),
}


def matrices(levels=(32, 64), *, middle=False, everything=False, seed=5, rank=RANK):
    """(layer, up, down) for every layer, the same ones each time."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            (slot, attention, part),
            torch.randn(out, rank, generator=generator) / out**0.5,
            torch.randn(rank, into, generator=generator) / rank**0.5,
        )
        for slot, attention, part, out, into in layers(levels, middle=middle, everything=everything)
    ]


def lora_state(layout="original", *, convolutions=False, **options):
    """The tensors of a file in a layout."""
    spell, everything = LAYOUTS[layout]
    state = {}
    for layer, up, down in matrices(everything=everything, **options):
        for side, value in (("up", up), ("down", down)):
            state[spell(*layer, side)] = value[..., None, None] if convolutions else value
    return state


def lora_file(folder, layout="original", *, name="lora.safetensors", metadata=None, **options):
    """A safetensors file in a layout."""
    path = folder / name
    save_file({key: value.contiguous() for key, value in lora_state(layout, **options).items()}, path, metadata)
    return path


def wanted(state, layout="original", strength=1.0, factor=1.0, **options):
    """``W + strength * factor * up @ down`` in float64, for every weight of a motion model."""
    sums = {key: value.double() for key, value in state.items()}
    for layer, up, down in matrices(everything=LAYOUTS[layout][1], **options):
        key = weight_key(*layer)
        if key in sums:
            sums[key] = sums[key] + strength * factor * torch.einsum("or,ri->oi", up.double(), down.double())
    return sums


def peft_metadata(alpha, *, pattern=None, root=False, **options):
    """What diffusers writes beside a PEFT adapter."""
    settings = {
        "r": RANK,
        "lora_alpha": alpha,
        "alpha_pattern": pattern or {},
        "use_rslora": root,
        "target_modules": [_diffusers_layer(*layer[:3]) for layer in layers(everything=True, **options)],
    }
    return {"format": "pt", "lora_adapter_metadata": json.dumps({f"unet.{key}": value for key, value in settings.items()})}


def adapter_state(widths=(32, 64), context=16, *, rank=RANK, seed=6):
    """AnimateDiff's domain adapter for the U-Net of ``tiny_motion``: attention of the image model, in its own spelling."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for side, levels, per_level in (("down", widths, 2), ("up", widths[::-1], 3)):
        for level, width in enumerate(levels):
            if width != widths[0]:
                continue  # that U-Net attends at its first level only
            for index in range(per_level):
                block = f"{side}_blocks.{level}.attentions.{index}.transformer_blocks.0."
                for attention, part in [(attention, part) for attention in (1, 2) for part in ATTENTION]:
                    into = context if attention == 2 and part in ("to_k", "to_v") else width
                    key = f"{block}attn{attention}.processor.{part}_lora"
                    state[f"{key}.up.weight"] = torch.randn(width, rank, generator=generator) / width**0.5
                    state[f"{key}.down.weight"] = torch.randn(rank, into, generator=generator) / rank**0.5
    return state
