"""Small motion modules as files, and a small SD1.5-shaped model of ComfyUI's, for tests."""

from pathlib import Path

import torch
from pack.modules.temporal.motion import MotionModel
from pack.modules.temporal.positions import sinusoid
from pack.modules.temporal.transformer import TemporalConfig
from pack.modules.unet import UNetConfig
from safetensors.torch import save_file

UNET = UNetConfig(
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=(2, 2),
    transformer_depth=(1, 1, 0, 0),
    transformer_depth_output=(1, 1, 1, 0, 0, 0),
    num_heads=4,
    context_dim=16,
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


def motion_file(folder: Path, family="v3", *, name="module.safetensors", **options) -> Path:
    """A safetensors file of a family."""
    path = folder / name
    save_file(motion_state(**FAMILY_SHAPES[family], **options), path)
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
