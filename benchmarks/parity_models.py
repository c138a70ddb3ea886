"""Random models for comparisons with another pack: image models of real block structure, and motion module files as released.

Every weight is drawn from a generator seeded by its key, so that frames made once can be made again in another process, on another
version of ComfyUI and by another pack. Files are written from the layouts of the releases, not by this pack's own modules.

Needs ComfyUI and this pack under the name ``pack`` (``peers.start_comfyui``, or the tests' ``conftest``).
"""

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

TRANSFORMER = "temporal_transformer.transformer_blocks.0"
TOKENS, CONTEXT, POOLED = 4, 16, 8
SDXL_SIZES = 6 * 256  # what ComfyUI appends to SDXL's pooled text: six sizes, embedded


@dataclass(frozen=True)
class Base:
    """An image model's block structure. Numbers of transformers run as in ``UNetConfig``."""

    mults: tuple[int, ...]
    depth: tuple[int, ...]
    depth_output: tuple[int, ...]
    depth_middle: int = 1
    labels: int | None = None


BASES = {
    "SD1.5": Base((1, 2, 4, 4), (1, 1, 1, 1, 1, 1, 0, 0), (1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0)),
    "SDXL": Base((1, 2, 4), (0, 0, 1, 1, 2, 2), (0, 0, 0, 1, 1, 1, 2, 2, 2), 2, POOLED + SDXL_SIZES),
}


@dataclass(frozen=True)
class Family:
    """A kind of motion module.

    Attributes:
        base: its image model.
        table: length of its position tables, 0 for none.
        middle: whether there is a module in the middle block.
        norms: which norms saw the whole clip in training: those of the "residual" blocks and the last one, those in the "module"s, or none.
        lcm_steps: steps of the linear schedule it was distilled from, 0 where it was not.
    """

    base: str
    table: int
    middle: bool = False
    norms: str = ""
    lcm_steps: int = 0


# As the authors' code has it: guoyww/AnimateDiff (main, sdxl), hotshotco/Hotshot-XL, G-U-N/AnimateLCM.
FAMILIES = {
    "v1": Family("SD1.5", 24, norms="residual"),
    "v2": Family("SD1.5", 32, middle=True),
    "v3": Family("SD1.5", 32),
    "AnimateLCM": Family("SD1.5", 0, middle=True, lcm_steps=100),
    "SDXL-beta": Family("SDXL", 32, norms="module"),
    "HotshotXL": Family("SDXL", 24, norms="residual"),
}


def drawn(key: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """A weight of this name: matrices keep activations near 1, gains are near 1, biases near 0."""
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(f"{seed} {key}".encode())))
    if len(shape) > 1:
        return noise / math.sqrt(math.prod(shape[1:]))
    return 0.1 * noise + (1.0 if key.endswith("weight") else 0.0)


def slots(family: Family, width: int) -> dict[str, int]:
    """Channels of each motion module by its place."""
    levels = [width * mult for mult in BASES[family.base].mults]
    down = {f"down_blocks.{i}.motion_modules.{j}": level for i, level in enumerate(levels) for j in range(2)}
    up = {f"up_blocks.{i}.motion_modules.{j}": level for i, level in enumerate(reversed(levels)) for j in range(3)}
    return down | ({"mid_block.motion_modules.0": levels[-1]} if family.middle else {}) | up


def transformer_shapes(channels: int) -> dict[str, tuple[int, ...]]:
    """The weights of one motion module in AnimateDiff's release, without its position tables."""
    square, vector = (channels, channels), (channels,)
    attention = {f"to_{name}.weight": square for name in "qkv"} | {"to_out.0.weight": square, "to_out.0.bias": vector}
    shapes: dict[str, tuple[int, ...]] = {
        f"{TRANSFORMER}.attention_blocks.{block}.{key}": shape for block in (0, 1) for key, shape in attention.items()
    }
    norms = ["norm", f"{TRANSFORMER}.norms.0", f"{TRANSFORMER}.norms.1", f"{TRANSFORMER}.ff_norm"]
    norms[0] = "temporal_transformer.norm"
    shapes |= {f"{norm}.{key}": vector for norm in norms for key in ("weight", "bias")}
    for name in ("proj_in", "proj_out"):
        shapes |= {f"temporal_transformer.{name}.weight": square, f"temporal_transformer.{name}.bias": vector}
    shapes |= {
        f"{TRANSFORMER}.ff.net.0.proj.weight": (8 * channels, channels),
        f"{TRANSFORMER}.ff.net.0.proj.bias": (8 * channels,),
    }
    return shapes | {f"{TRANSFORMER}.ff.net.2.weight": (channels, 4 * channels), f"{TRANSFORMER}.ff.net.2.bias": vector}


def table(length: int, channels: int) -> Tensor:
    """The sinusoid in a file's position tables: ``1 length channels``."""
    angles = torch.arange(length)[:, None] * torch.exp(torch.arange(0, channels, 2) * (-math.log(10000.0) / channels))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None]


def module_state(name: str, slot: str, channels: int, seed: int = 0) -> dict[str, Tensor]:
    """The weights of one motion module of a family, by their keys below ``slot``, without position tables."""
    return {key: drawn(f"{name} {slot}.{key}", shape, seed) for key, shape in transformer_shapes(channels).items()}


def motion_file(folder: Path, name: str, width: int, seed: int = 0) -> str:
    """Write a module of family ``name`` in its release's own layout, float32. Gives the file's name."""
    family = FAMILIES[name]
    state: dict[str, Tensor] = {}
    for slot, channels in slots(family, width).items():
        state |= {f"{slot}.{key}": value for key, value in module_state(name, slot, channels, seed).items()}
        if family.table:
            encoder = f"{slot}.{TRANSFORMER}.attention_blocks.%d.pos_encoder.pe"
            state |= {encoder % block: table(family.table, channels) for block in (0, 1)}
    if name == "HotshotXL":
        state = {hotshot_key(key): value for key, value in state.items()}
    file = folder / f"parity_{name}_{width}_{seed}.safetensors"
    save_file(state, file)
    return file.name


def hotshot_key(key: str) -> str:
    """AnimateDiff's spelling of a key in HotshotXL's."""
    return (
        key.replace(".motion_modules.", ".temporal_attentions.")
        .replace(".temporal_transformer.", ".")
        .replace(".pe", ".positional_encoding")
    )


def motion_lora_file(folder: Path, name: str, width: int, *, rank: int = 4, seed: int = 0) -> str:
    """Write a MotionLoRA for a module of family ``name`` in AnimateDiff's own layout. Gives the file's name."""
    state: dict[str, Tensor] = {}
    for slot, channels in slots(FAMILIES[name], width).items():
        for block in (0, 1):
            for part in ("q", "k", "v", "out"):
                key = f"{slot}.{TRANSFORMER}.attention_blocks.{block}.processor.to_{part}_lora"
                state[f"{key}.down.weight"] = drawn(f"{key}.down", (rank, channels), seed)
                state[f"{key}.up.weight"] = 0.2 * drawn(f"{key}.up", (channels, rank), seed)
    file = folder / f"parity_lora_{name}_{width}_{seed}.safetensors"
    save_file(state, file)
    return file.name


def core_lora(model: Any, *, rank: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """A LoRA over the image model's attention layers, in the usual spelling."""
    import comfy.lora

    weights = model.model.diffusion_model.state_dict()
    state: dict[str, Tensor] = {}
    done: set[str] = set()
    for key, target in comfy.lora.model_lora_keys_unet(model.model, {}).items():
        name = str(target).removeprefix("diffusion_model.")
        if key.startswith("lora_unet_") and "attn" in name and name in weights and name not in done:
            done.add(name)  # some weights have several spellings
            channels, features = weights[name].shape
            state[f"{key}.lora_up.weight"] = 0.2 * drawn(f"{name}.up", (channels, rank), seed)
            state[f"{key}.lora_down.weight"] = drawn(f"{name}.down", (rank, features), seed)
    return state


def image_model(base: str, width: int, seed: int = 0) -> Any:
    """ComfyUI's MODEL around its own U-Net: SD1.5's or SDXL's blocks, ``width`` channels at the finest level (theirs have 320)."""
    import comfy.latent_formats
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models_base
    from pack.modules.nets.unet_config import UNetConfig

    class Settings(comfy.supported_models_base.BASE):
        unet_extra_config: dict[str, Any] = {}
        latent_format = comfy.latent_formats.SDXL if base == "SDXL" else comfy.latent_formats.SD15
        memory_usage_factor = 1.0

    shape = BASES[base]
    config = UNetConfig(
        model_channels=width,
        channel_mult=shape.mults,
        num_res_blocks=(2,) * len(shape.mults),
        transformer_depth=shape.depth,
        transformer_depth_output=shape.depth_output,
        transformer_depth_middle=shape.depth_middle,
        context_dim=CONTEXT,
        label_channels=shape.labels,
    )
    settings = Settings(config.comfyui())
    settings.set_inference_dtype(torch.float32, None)
    kind = comfy.model_base.SDXL if base == "SDXL" else comfy.model_base.BaseModel
    cpu = torch.device("cpu")
    model = kind(settings, comfy.model_base.ModelType.EPS, device=cpu)
    with torch.no_grad():
        for key, parameter in model.diffusion_model.named_parameters():
            parameter.copy_(drawn(key, tuple(parameter.shape), seed))
    return comfy.model_patcher.ModelPatcher(model.requires_grad_(False).eval(), load_device=cpu, offload_device=cpu)


def text(seed: int, prompts: int = 1) -> list[Any]:
    """A CONDITIONING: one prompt for the whole clip, or one for each frame."""
    return [
        [
            drawn(f"text {seed}", (prompts, TOKENS, CONTEXT), 0) * math.sqrt(TOKENS * CONTEXT),
            {"pooled_output": drawn(f"pooled {seed}", (1, POOLED), 0)},
        ]
    ]
