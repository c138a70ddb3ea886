"""Small motion modules as files, and a small SD1.5-shaped model of ComfyUI's, for tests."""

import re
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import torch
from pack.modules.nets.unet_config import UNetConfig
from pack.modules.temporal.motion import MotionModel
from pack.modules.temporal.positions import sinusoid
from pack.modules.temporal.transformer import TemporalConfig
from safetensors.torch import save_file
from torch import nn

UNET = UNetConfig(
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=(2, 2),
    transformer_depth=(1, 1, 0, 0),
    transformer_depth_output=(1, 1, 1, 0, 0, 0),
    num_heads=4,
    context_dim=16,
)
SDXL_UNET = replace(
    UNET,
    channel_mult=(1, 2, 4),
    num_res_blocks=(2, 2, 2),
    transformer_depth=(0, 0, 1, 1, 1, 1),
    transformer_depth_output=(0, 0, 0, 1, 1, 1, 1, 1, 1),
)


def randomized(module, seed=0):
    """Every parameter drawn from ``seed``, at sizes that keep activations near 1; ComfyUI's layers come uninitialised."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise / max(1, parameter[0].numel()) ** 0.5)
            else:
                parameter.copy_(0.1 * noise + (1 if name.endswith("weight") else 0))
    return module


def slot_widths(levels=(32, 64), *, middle=False, per_level=2):
    """Channels by slot of a U-Net with these levels."""
    down = {
        f"down_blocks.{level}.motion_modules.{index}": width for level, width in enumerate(levels) for index in range(per_level)
    }
    middles = {"mid_block.motion_modules.0": levels[-1]} if middle else {}
    up = {
        f"up_blocks.{level}.motion_modules.{index}": width
        for level, width in enumerate(reversed(levels))
        for index in range(per_level + 1)
    }
    return down | middles | up


def motion_state(levels=(32, 64), *, frames=32, middle=False, seed=0, zero=False):
    """The state dict of a motion module file in AnimateDiff's layout, position tables included."""
    return {key: value.clone() for key, value in _motion_state(tuple(levels), frames, middle, seed, zero).items()}


@cache
def _motion_state(levels, frames, middle, seed, zero):
    model = randomized(MotionModel(slot_widths(levels, middle=middle), TemporalConfig()), seed)
    if zero:
        model.zero()
    state = {key: value.detach().clone() for key, value in model.state_dict().items()}
    for name, width in slot_widths(levels, middle=middle).items():
        for block in range(2):
            key = f"{name}.temporal_transformer.transformer_blocks.0.attention_blocks.{block}.pos_encoder.pe"
            state[key] = sinusoid(torch.arange(frames), width)[None]
    return state


FAMILY_SHAPES = {"v1": {"frames": 24}, "v2": {"frames": 32, "middle": True}, "v3": {"frames": 32}}
SDXL_LEVELS = (32, 64, 128)


def without_tables(state):
    """As AnimateLCM's files are."""
    return {key: value for key, value in state.items() if not key.endswith(".pe")}


def in_hotshot_layout(state):
    """The same in HotshotXL's spelling."""
    return {
        re.sub(r"motion_modules\.(\d+)\.temporal_transformer", r"temporal_attentions.\1", key).replace(
            "pos_encoder.pe", "pos_encoder.positional_encoding"
        ): value
        for key, value in state.items()
    }


DIFFUSERS_NAMES = (
    (".temporal_transformer", ""),
    (".attention_blocks.0.pos_encoder.pe", ".pos_embed.pe"),
    (".norms.0", ".norm1"),
    (".norms.1", ".norm2"),
    (".ff_norm", ".norm3"),
    (".attention_blocks.0", ".attn1"),
    (".attention_blocks.1", ".attn2"),
)


def in_diffusers_layout(state):
    """The same as diffusers' MotionAdapter saves it: one table for both attentions."""
    renamed = {}
    for key, value in state.items():
        if not key.endswith("attention_blocks.1.pos_encoder.pe"):
            for old, new in DIFFUSERS_NAMES:
                key = key.replace(old, new)
            renamed[key] = value
    return renamed


LAYOUTS = {"AnimateDiff": dict, "HotshotXL": in_hotshot_layout, "diffusers": in_diffusers_layout}


class Residual(nn.Module):
    """A block of T2I-Adapter's, as AnimateLCM-I2V and CameraCtrl use it; it has no forward, since only its names matter here."""

    def __init__(self, given, made):
        super().__init__()
        if given != made:
            self.in_conv = nn.Conv2d(given, made, 1)
        self.block1 = nn.Conv2d(made, made, 3, padding=1)
        self.block2 = nn.Conv2d(made, made, 1)


def _pairs(levels):
    """(channels in, channels out) of two residual blocks per level, by level."""
    return [[(levels[max(0, level - 1)], made), (made, made)] for level, made in enumerate(levels)]


def _state(module, seed):
    return {key: value.detach().clone() for key, value in randomized(module, seed).state_dict().items()}


def image_encoder_state(levels=(32, 64), *, seed=11):
    """AnimateLCM-I2V's encoder of the reference picture, without the prefix its file gives it."""
    encoder = nn.Module()
    encoder.conv_in = nn.Conv2d(4, levels[0], 3, padding=1)
    encoder.body = nn.ModuleList([Residual(*pair) for level in _pairs(levels) for pair in level])
    return _state(encoder, seed)


def camera_state(levels=(32, 64), *, seed=13):
    """A pruned CameraCtrl file."""
    encoder = nn.Module()
    encoder.encoder_conv_in = nn.Conv2d(384, levels[0], 3, padding=1)
    encoder.encoder_down_conv_blocks = nn.ModuleList(
        [nn.ModuleList([Residual(*pair) for pair in level]) for level in _pairs(levels)]
    )
    state = _state(encoder, seed)
    one = TemporalConfig(attentions=1)
    for level, made in enumerate(levels):
        for block in range(2):
            prefix = f"encoder_down_attention_blocks.{level}.{block}."
            inner = randomized(MotionModel({"mid_block.motion_modules.0": made}, one), seed + level).state_dict()
            start = "mid_block.motion_modules.0.temporal_transformer.transformer_blocks.0."
            state |= {prefix + key.removeprefix(start): value.clone() for key, value in inner.items() if key.startswith(start)}
            state[f"{prefix}attention_blocks.0.pos_encoder.pe"] = sinusoid(torch.arange(16), made)[None]
    for slot, width in slot_widths(levels).items():
        prefix = f"{slot}.temporal_transformer.transformer_blocks.0.attention_blocks.0.processor."
        merge = nn.Module()
        merge.qkv_merge = nn.Linear(width, width)
        state |= {prefix + key: value for key, value in _state(merge, seed).items()}
    return state


def pia_conv_in(levels=(32, 64), *, seed=17):
    """PIA's input layer."""
    holder = nn.Module()
    holder.conv_in = nn.Conv2d(9, levels[0], 3, padding=1)
    return _state(holder, seed)


def _prefixed(prefix, state):
    return {prefix + key: value for key, value in state.items()}


# the state dict of each family's file, as its authors released it; options are those of ``motion_state``
PUBLISHED = {
    **{name: partial(motion_state, **shape) for name, shape in FAMILY_SHAPES.items()},
    "AnimateLCM": lambda **options: without_tables(motion_state(middle=True, **options)),
    "AnimateLCM-I2V": lambda **options: (
        without_tables(motion_state(middle=True, **options))
        | _prefixed("img_encoder.", image_encoder_state(options.get("levels", (32, 64))))
    ),
    "PIA": lambda **options: motion_state(**options) | pia_conv_in(options.get("levels", (32, 64))),
    "SDXL-beta": lambda **options: motion_state(**{"levels": SDXL_LEVELS, **options}),
    "HotshotXL": lambda **options: in_hotshot_layout(motion_state(**{"levels": SDXL_LEVELS, "frames": 24, **options})),
}


def motion_file(folder: Path, family="v3", *, name="module.safetensors", **options) -> Path:
    """A safetensors file of a family."""
    path = folder / name
    save_file(PUBLISHED[family](**options), path)
    return path


def camera_file(folder: Path, *, name="camera.safetensors", **options) -> Path:
    """A pruned CameraCtrl file."""
    path = folder / name
    save_file(camera_state(**options), path)
    return path


def image_model(seed=0, config=UNET, **kwargs):
    """ComfyUI's MODEL around its own ``UNetModel`` with random weights: SD1.5 in small."""
    import comfy.latent_formats
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models_base

    class Small(comfy.supported_models_base.BASE):
        unet_extra_config = {}
        latent_format = comfy.latent_formats.SD15
        memory_usage_factor = 1.0

    settings = Small(config.comfyui() | kwargs)
    settings.set_inference_dtype(torch.float32, None)
    cpu = torch.device("cpu")
    model = comfy.model_base.BaseModel(settings, comfy.model_base.ModelType.EPS, device=cpu)
    randomized(model.diffusion_model, seed)
    return comfy.model_patcher.ModelPatcher(model.requires_grad_(False).eval(), load_device=cpu, offload_device=cpu)


def text(seed=3, width=16):
    """A CONDITIONING of four tokens."""
    return [[torch.randn(1, 4, width, generator=torch.Generator().manual_seed(seed)), {}]]


def ksample(model, *, frames=6, steps=3, cfg=2.0, seed=1, latent=None, positive=None, negative=None, size=8, scheduler="normal"):
    """The latents that ComfyUI's own KSampler node makes."""
    import nodes

    if latent is None:
        latent = torch.zeros(frames, model.model.latent_format.latent_channels, size, size)
    conditions = positive or text(3), negative or text(4)
    with torch.inference_mode():
        return nodes.KSampler().sample(model, seed, steps, cfg, "euler", scheduler, *conditions, {"samples": latent})[0][
            "samples"
        ]
