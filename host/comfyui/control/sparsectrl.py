"""SparseCtrl in ComfyUI's conditioning: a control whose network is in ComfyUI's hands, and that leads a clip by a few of its frames.

What it gives does not depend on the noisy frames. So where this pack's windows of the whole model divide a clip, it is computed once for
the whole clip and each window gets its share: the same as without windows, and no dearer. Where a sampler shows the model some frames of
a take, or ComfyUI's own windows do, the others' noise levels and prompts are not known: the encoder then sees what the model sees.
"""

import copy
from dataclasses import dataclass
from typing import Any

import comfy.controlnet
import comfy.model_management
import comfy.ops
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....modules.checkpoints.sparsectrl import RGB, SparseControlFile
from ....modules.control.sparse_pictures import SparseSettings, at_size
from ....modules.control.sparsectrl import SparseControl, down_widths
from ....modules.nets.unfilled import unfilled
from ....modules.temporal.frames import Frames
from ....modules.temporal.slot_names import described
from ....modules.temporal.windows import WindowPlan
from ..attach.call_info import CallInfo
from ..attach.motion import dtype_of_parts
from ..attached import leads, motion_sampling
from ..options import CONTEXT_WINDOW, IDS, WHOLE, step_of
from ..parts.controls import Conditioning, Features, chained, check_length
from ..parts.windows import Whole
from .sparse_call import CachedResiduals, ControlCall


@dataclass(frozen=True, eq=False)
class Encoder:
    """A SparseCtrl file on this host.

    Attributes:
        file: what it says.
        patcher: its network, which ComfyUI loads and moves.
        dtype: what it computes in.
    """

    file: SparseControlFile
    patcher: ModelPatcher
    dtype: torch.dtype

    def on(self, device: torch.device) -> "Encoder":
        """A copy of the network for another device."""
        return Encoder(self.file, _patcher(copy.deepcopy(self.patcher.model), device), self.dtype)


def sparse_control(file: SparseControlFile) -> Encoder:
    """A SparseCtrl file made ready for this host."""
    dtype = dtype_of_parts()
    network = file.build(comfy.ops.manual_cast).to(dtype)
    return Encoder(file, _patcher(network, comfy.model_management.get_torch_device()), dtype)


def _patcher(network: SparseControl, device: torch.device) -> ModelPatcher:
    return ModelPatcher(network, load_device=device, offload_device=comfy.model_management.unet_offload_device())


def apply_sparse_control(
    positive: Conditioning, negative: Conditioning, encoder: Encoder, settings: SparseSettings, vae: Any = None
) -> tuple[Conditioning, Conditioning]:
    """Both conditionings, led by keyframes; a control that a condition had goes on beside it.

    Args:
        positive: ComfyUI's conditioning.
        negative: the same for guidance.
        encoder: from ``sparse_control``.
        settings: with keyframes for the clip.
        vae: of the model, for files that take latents.

    Raises:
        ValueError: the file takes latents and there is no VAE.
    """
    if not isinstance(encoder, Encoder):
        raise ValueError(f"{encoder!r} was given for a SparseCtrl encoder: connect Load Sparse Control")
    if encoder.file.pictures == RGB and vae is None:
        raise ValueError(f"{encoder.file.name} takes latents of its keyframes: connect the checkpoint's VAE")
    return chained(positive, negative, lambda: SparseCtrl(encoder, settings, vae))


class SparseCtrl(comfy.controlnet.ControlBase):
    """The control that a conditioning carries; what ComfyUI calls is its base class's."""

    def __init__(self, encoder: Encoder, settings: SparseSettings, vae: Any = None):
        super().__init__()
        self.encoder, self.settings, self.vae = encoder, settings, vae
        self.strength, self.timestep_percent_range = settings.strength, (settings.start_percent, settings.end_percent)
        self.base: Any = None  # while a sampling is under way
        self.known: CachedResiduals | None = None
        self.made_frames: dict[tuple[Any, ...], Frames] = {}
        self.made_hints: dict[tuple[int, int], Tensor] = {}  # by size: conditions for an area have one of their own

    def pre_run(self, model: Any, percent_to_timestep_function: Any) -> None:
        """Before each sampling: refuse another base model, and forget one that was interrupted."""
        self.cleanup_own()
        super().pre_run(model, percent_to_timestep_function)
        check_base(self.encoder.file, model.diffusion_model, getattr(model, "adm_channels", 0) or 0)
        if self.settings.motion and model.current_patcher is not None:
            check_windows(
                self.encoder.file, model.current_patcher.model_options.get("context_handler"), self.settings.keyframes.clip
            )
        self.base = model

    def cleanup(self) -> None:
        """After each sampling."""
        super().cleanup()
        self.cleanup_own()

    def cleanup_own(self) -> None:
        """Forget what holds for one sampling."""
        self.base, self.known, self.made_frames, self.made_hints = None, None, {}, {}

    def get_models(self) -> list[ModelPatcher]:
        """What ComfyUI must load."""
        return [*super().get_models(), self.encoder.patcher]

    def copy(self) -> "SparseCtrl":
        """The same control, of which settings can be changed."""
        made = SparseCtrl(self.encoder, self.settings, self.vae)
        self.copy_to(made)
        return made

    def deepclone_multigpu(self, load_device: torch.device, autoregister: bool = False) -> "SparseCtrl":
        """A copy with a network of its own on another device."""
        made = self.copy()
        made.encoder = self.encoder.on(load_device)
        if autoregister:
            self.multigpu_clones[load_device] = made
        return made

    def get_control(
        self, x_noisy: Tensor, t: Tensor, cond: dict[str, Any], batched_number: int, transformer_options: dict[str, Any]
    ) -> Features | None:
        """ComfyUI's signature: what is added to the U-Net's features; ``x_noisy``: ``(conds n) c h w``, ``t``: ``(conds n)``."""
        before = self.previous_controlnet
        before = before and before.get_control(x_noisy, t, cond, batched_number, transformer_options)
        start, end = self.timestep_range or (float("inf"), float("-inf"))
        acting = (t <= start) & (t >= end)
        if not bool(acting.any()) or self.strength == 0:
            return before
        info = CallInfo.of(x_noisy, t, transformer_options)
        check_length(info.ids, self.settings.keyframes.clip, transformer_options, "Apply Sparse Control")
        call = ControlCall(self, x_noisy, cond, info)
        residuals = call.cut_out() if WHOLE in transformer_options and IDS not in transformer_options else call.computed()
        gains = info.each(self.settings.gains(info.ids.cpu())).to(t) * acting
        *skips, middle = [made * gains.to(made)[:, None, None, None] for made in residuals]
        return self.control_merge({"middle": [middle], "output": skips}, before, output_dtype=None)

    def hints(self, height: int, width: int) -> Tensor:
        """Keyframes as the encoder takes them, for latents of this size: ``k c p q``."""
        if (height, width) not in self.made_hints:
            file = self.encoder.file
            latents = file.pictures == RGB
            shrink = self.vae.spacial_compression_encode() if latents else file.config.shrink
            pictures = at_size(self.settings.keyframes.images, height * shrink, width * shrink, file.pictures)
            self.made_hints[height, width] = self._encoded(pictures, height, width) if latents else pictures
        return self.made_hints[height, width]

    def _encoded(self, pictures: Tensor, height: int, width: int) -> Tensor:
        """Latents of ``pictures``: ``k c h w``, by the VAE; ComfyUI then gets back what was loaded."""
        # None stands where a model was dropped meanwhile
        loaded = [model for model in comfy.model_management.loaded_models(only_currently_used=True) if model is not None]
        latents = self.vae.encode(pictures.movedim(1, -1))
        comfy.model_management.load_models_gpu(loaded)
        wanted = (len(pictures), self.encoder.file.config.condition, height, width)
        if tuple(latents.shape) != wanted:
            raise ValueError(
                f"the VAE makes latents of shape {list(latents.shape)} and {self.encoder.file.name} takes {list(wanted)}: connect the VAE"
                " of the checkpoint"
            )
        return self.base.latent_format.process_in(latents)

    def frames_for(self, ids: Tensor, options: dict[str, Any], sigma: Tensor, device: torch.device) -> Frames | None:
        """What frames are to the temporal modules: one clip if they know that many times, else in the windows of the model's own."""
        if not self.settings.motion:
            return None
        file, motion = self.encoder.file, self.encoder.patcher.model.motion
        plan, windows = None, None
        step = step_of(options, sigma, self.base.model_sampling)
        if len(ids) > file.max_frames:
            plan = _plan(options)
            if plan is None:
                raise ValueError(
                    f"{file.name} knows times for clips of at most {file.max_frames} frames and got {len(ids)}: put Context Windows"
                    f" before"
                    " the sampler, or make the clip shorter"
                )
            windows = plan.resolved(file.trained_frames, file.max_frames).windows(len(ids), step)
        key = tuple(ids.tolist()), device, step if plan and plan.schedule.endswith("uniform") else 0
        if key not in self.made_frames:
            self.made_frames = {key: motion.frames_for(ids.to(device), None, windows, "trained", file.max_frames)}
        return self.made_frames[key]


def _plan(options: dict[str, Any]) -> WindowPlan | None:
    """The windows of the model that is led."""
    known = motion_sampling(options)
    whole: Whole | None = options.get(WHOLE)
    if known is not None and known.plan is not None:
        return known.plan
    if whole is not None:
        return whole.plan
    if CONTEXT_WINDOW in options and IDS not in options:
        return WindowPlan(length=0)  # ComfyUI's own windows: it does not say which
    return None


def check_windows(file: SparseControlFile, handler: Any, clip: int) -> None:
    """Refuse windows of ComfyUI's that show a frame more than a file knows times for: only the second window would.

    Args:
        file: whose temporal modules know so many.
        handler: what slides windows over the model, or None.
        clip: frames that keyframes were laid out for.
    """
    if leads(handler) and clip > handler.context_length == file.max_frames:
        raise ValueError(
            f"{file.name} knows times for clips of at most {file.max_frames} frames, and ComfyUI's Context Windows with causal_window_fix"
            f" show {file.max_frames + 1}, a window and the frame before it: switch causal_window_fix off there, or set its context_length"
            f" to {file.max_frames - 1}"
        )


def check_base(file: SparseControlFile, unet: Any, labels: int = 0) -> None:
    """Refuse a U-Net that a file was not made for; ``labels`` is how many values its label vector has."""
    with unfilled():
        ours = SparseControl(file.config).slot_widths
    there = down_widths(unet)
    if ours != there:
        raise ValueError(
            f"{file.name} is for {described(ours)} and the model is {described(there)}: load a checkpoint of its base model"
        )
    knows = file.config.unet.label_channels or 0
    if labels != knows:
        raise ValueError(
            f"{file.name} knows {knows} labels and the model has {labels}: an encoder leads the model that it was trained for"
        )
