"""A video model of this pack as a MODEL like any other, and the picture side of a pixel-space model as a VAE."""

from collections.abc import Callable
from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_sampling
import comfy.ops
import comfy.supported_models_base
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ....modules.checkpoints.video_model import VideoModel, VideoModelInfo, fold, unfold
from ....modules.control.hints import beside
from ....modules.control.prompt_mixing import row_ids
from ....modules.noise.levels import NoiseSchedule
from ....modules.temporal.motion import MotionModel
from ....modules.temporal.slots import widths
from ..attached import MotionInfo
from ..options import call_options
from .call_info import CallInfo
from .motion import attach

INFO = "longtake_video_info"
SAMPLING = {
    "eps": comfy.model_sampling.EPS,
    "v": comfy.model_sampling.V_PREDICTION,
    "x0": comfy.model_sampling.X0,
}


class Format(comfy.latent_formats.LatentFormat):
    """Latents as the model takes them: folded pixels as they are, those of a VAE scaled as in training."""

    def __init__(self, info: VideoModelInfo):
        self.scale_factor = info.latent_scale
        self.latent_channels = info.latent_channels
        self.spacial_downscale_ratio = info.side


class Config(comfy.supported_models_base.BASE):
    """What ComfyUI's base class wants to know of a model."""

    unet_extra_config: dict[str, Any] = {}
    memory_usage_factor = 1.0


def _config(info: VideoModelInfo) -> Config:
    config = Config(info.unet.comfyui())
    config.latent_format = Format(info)
    config.custom_operations = _operations(info.unet.groups)
    config.set_inference_dtype(torch.float32, None)
    return config


def _operations(groups: int) -> Any:
    """ComfyUI's layers, but with ``groups`` wherever its U-Net asks for 32."""

    class GroupNorm(comfy.ops.manual_cast.GroupNorm):
        def __init__(self, num_groups: int, num_channels: int, **kwargs: Any):
            super().__init__(groups, num_channels, **kwargs)

    return type("Operations", (comfy.ops.manual_cast,), {"GroupNorm": GroupNorm})


class VideoBase(comfy.model_base.BaseModel):
    """ComfyUI's wrapper of a U-Net, with the label vector as ``pooled_output`` and no text for models that know none."""

    def __init__(self, info: VideoModelInfo, device: torch.device):
        types = comfy.model_base.ModelType
        super().__init__(_config(info), types.V_PREDICTION if info.prediction == "v" else types.EPS, device=device)
        self.model_sampling = _sampling(info)
        self.takes_context = info.unet.context_dim is not None
        self.takes_hints = info.hints

    def encode_adm(self, **kwargs: Any) -> Tensor | None:
        if not self.adm_channels:
            return None
        label = kwargs.get("pooled_output")
        if label is None:
            return torch.zeros(1, self.adm_channels)
        if label.shape[-1] != self.adm_channels:
            raise ValueError(
                f"the conditioning carries {label.shape[-1]} label values and the video model has {self.adm_channels} labels: make it"
                " with Label Prompt from the same model"
            )
        return label.reshape(-1, self.adm_channels)

    def concat_cond(self, **kwargs: Any) -> Tensor | None:
        if not self.takes_hints:
            return None
        given = kwargs.get("concat_latent_image"), kwargs.get("concat_mask")
        return beside(*given, kwargs["noise"].shape).to(kwargs["device"])

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        conds = super().extra_conds(**kwargs)
        if "y" in conds:
            conds["y"] = FrameLabels(conds["y"].cond.to(kwargs["device"])[None])
        if not self.takes_context:
            conds.pop("c_crossattn", None)
        return conds

    def _apply_model(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As ComfyUI's, with the label rows of the frames in this call."""
        if "y" in kwargs:
            kwargs["y"] = label_rows(kwargs["y"], CallInfo.of(x, args[0], call_options(args, kwargs)))
        return super()._apply_model(x, *args, **kwargs)


class FrameLabels(comfy.conds.CONDRegular):
    """Label vectors that stay as they are, one row or one per frame of the whole clip, until it is known which frames a call is about.

    They are ``1 r l``: ComfyUI's own context windows cut whatever has as many rows as the clip has frames, and leave these alone.
    """

    def process_cond(self, batch_size: int, **kwargs: Any) -> Any:
        return self._copy_with(self.cond)


def label_rows(labels: Tensor, info: CallInfo) -> Tensor:
    """Label vectors of the rows of a call: ``labels``: ``... l``, of each condition one row, or one per frame of the whole clip, the last
    of which holds behind it.

    Returns:
        labels: ``n l``.
    """
    labels = labels.reshape(len(info.kinds), -1, labels.shape[-1])
    rows = labels[:, row_ids(info.ids.to(labels.device), labels.shape[1], held=True)]
    return rows.repeat(1, len(info.variants), 1).flatten(0, 1).repeat(info.copies, 1)


def _sampling(info: VideoModelInfo) -> nn.Module:
    class VideoSampling(comfy.model_sampling.ModelSamplingDiscrete, SAMPLING[info.prediction]):
        """Timesteps of a table, and this model's prediction type."""

    sampling = VideoSampling()
    sampling.set_sigmas(NoiseSchedule.named(info.noise_schedule).sigmas)
    return sampling


def video_model(video: VideoModel) -> ModelPatcher:
    """The MODEL of a video model file; samplers of ComfyUI take it too."""
    device = comfy.model_management.unet_offload_device()
    base = VideoBase(video.info, device)
    base.diffusion_model.load_state_dict(video.unet)
    base.requires_grad_(False).eval()
    available = widths(base.diffusion_model)
    motion = MotionModel({name: available[name] for name in video.info.slots}, video.info.temporal, comfy.ops.manual_cast)
    motion.load_state_dict(video.temporal)
    plain = ModelPatcher(base, load_device=comfy.model_management.get_torch_device(), offload_device=device)
    patched = attach(plain, motion, MotionInfo("the video model"))
    patched.set_attachments(INFO, video.info)
    if video.info.unet.skip_scale != 1:
        patched.set_model_output_block_patch(_skip_scaling(video.info.unet.skip_scales()))
    return patched


def _skip_scaling(scales: tuple[float, ...]) -> Callable[[Tensor, Tensor, dict[str, Any]], tuple[Tensor, Tensor]]:
    """What ComfyUI's U-Net does with each skip before it joins the block that it names."""

    def patch(h: Tensor, skip: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
        return h, skip * scales[options["block"][1]]

    return patch


def video_info(model: ModelPatcher) -> VideoModelInfo | None:
    """What the file said, if the MODEL came from ``video_model``."""
    return model.get_attachment(INFO)


class PixelVAE:
    """Pictures to latents and back for a model that works on pixels; no file and no network."""

    def __init__(self, info: VideoModelInfo):
        self.patch = info.patch

    def spacial_compression_encode(self) -> int:
        """Pixels of a latent in a row, by ComfyUI's name for it."""
        return self._patch()

    def encode(self, pixels: Tensor) -> Tensor:
        """Fold ``pixels``: ``f h w c`` in 0..1. Returns ``f l p q``."""
        return fold(pixels[..., :3], self._patch())

    def decode(self, latents: Tensor) -> Tensor:
        """Unfold ``latents``: ``f l p q``. Returns ``f h w c`` in 0..1."""
        return unfold(latents.float(), self._patch())

    def _patch(self) -> int:
        if not self.patch:
            raise ValueError(
                "this video model works on the latents of a VAE: connect that VAE (Load VAE) instead of the one from Load Video Model"
            )
        return self.patch


def vae(info: VideoModelInfo) -> PixelVAE:
    """The VAE that goes with a model."""
    return PixelVAE(info)
