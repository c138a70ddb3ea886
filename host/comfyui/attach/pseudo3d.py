"""A pseudo-3-D U-Net as a MODEL like any other: ComfyUI's inpainting U-Net with temporal layers inside."""

from typing import Any

import comfy.model_management
import comfy.ops
import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....modules.checkpoints.pseudo3d import Pseudo3DModel
from ..attached import MotionInfo
from .motion import attach, dtype_of_parts

TYPES = (torch.float16, torch.bfloat16, torch.float32)


def pseudo3d_model(video: Pseudo3DModel) -> ModelPatcher:
    """The MODEL of a file's contents; the latents of a batch are the frames of a clip."""
    management = comfy.model_management
    load, offload = management.get_torch_device(), management.unet_offload_device()
    size = sum(weight.numel() for weight in video.unet.values())
    dtype = management.unet_dtype(device=load, model_params=size, supported_dtypes=list(TYPES))
    config = comfy.supported_models.SD15({**video.config.comfyui(), "context_dim": video.config.context_dim})
    config.unet_config["num_heads"] = video.config.num_heads
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, load, list(TYPES)))
    base = config.get_model({}, device=offload)
    base.diffusion_model.load_state_dict(_in(dtype, video.unet))
    base.requires_grad_(False).eval()
    inside = video.build_temporal(comfy.ops.manual_cast).to(dtype_of_parts())
    return attach(ModelPatcher(base, load_device=load, offload_device=offload), inside, MotionInfo(video.name, clip_norms=True))


def _in(dtype: torch.dtype, weights: Any) -> dict[str, Tensor]:
    return {key: value.to(dtype) for key, value in weights.items()}
