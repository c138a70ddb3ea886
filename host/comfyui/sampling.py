"""Drive a sampler of this pack through ComfyUI's guider, with its memory management, conditioning hooks and Cancel button."""

from collections.abc import Callable, Generator
from typing import Any

import comfy.model_management
import comfy.model_sampling
import comfy.samplers
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...modules.noise import NoiseSchedule
from ...modules.samplers import Step
from ...modules.video_model import unfold
from .options import IDS
from .progress import Progress
from .video import video_info
from .windows import FrameHandler

Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]
Algorithm = Callable[[Denoise, Tensor], Generator[Step, None, Tensor]]
Conditioning = list[list[Any]]


def noise_schedule(model: ModelPatcher) -> NoiseSchedule:
    """The sigmas that a model was trained with, as any node before this one has changed them.

    Raises:
        ValueError: the model's noisy frames are not ``clean + sigma * noise`` (flow models, for example).
    """
    sampling = model.get_model_object("model_sampling")
    if not isinstance(sampling, comfy.model_sampling.EPS):
        raise ValueError(
            f"{type(model.model).__name__} mixes noise in as flow models do: this sampler is for diffusion models such as SD1.5, or a"
            " LongTake video model"
        )
    return NoiseSchedule(sampling.sigmas.detach().float().cpu())


def sample(
    model: ModelPatcher,
    positive: Conditioning,
    negative: Conditioning,
    *,
    cfg: float,
    latent: Tensor,
    algorithm: Algorithm,
    seed: int,
) -> Tensor:
    """Run a sampler.

    Args:
        model: MODEL.
        positive: CONDITIONING.
        negative: CONDITIONING.
        cfg: guidance scale; at 1 the negative prompt is not computed.
        latent: ``f c h w``, known frames, zeros elsewhere.
        algorithm: ``(denoise, latent) -> generator of Steps``, which returns the finished frames; ``denoise(x, sigma, ids)`` takes
            ``n c h w`` frames at ``n`` noise levels with ``n`` absolute frame numbers and gives their clean guess.
        seed: for those conditionings that draw noise themselves.

    Returns:
        clip: ``f c h w``, on the CPU or wherever this ComfyUI keeps results.
    """
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, positive if negative is None else negative)  # unread at cfg 1
    guider.set_cfg(cfg)
    top = model.get_model_object("model_sampling").sigma_max
    sigmas = torch.tensor([float(top), 0.0])  # for others' bookkeeping only: our levels are the algorithm's
    sampler = GeneratorSampler(algorithm, _previewer(model))
    clip = guider.sample(torch.zeros_like(latent), latent, sampler, sigmas, seed=seed)
    return clip.to(comfy.model_management.intermediate_device())


class GeneratorSampler(comfy.samplers.Sampler):
    """A SAMPLER made of a generator of ``Step``s."""

    slides_windows = True

    def __init__(self, algorithm: Algorithm, preview: Callable[[Tensor], Tensor | None]):
        self.algorithm, self.preview = algorithm, preview

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """ComfyUI's signature; ``noise``: ``f c h w`` is not used, ``latent_image``: ``f c h w``. Returns ``f c h w``."""
        options = {
            "context_handler": FrameHandler(),
            **extra_args["model_options"],
        }  # which gives each frame its own conditioning

        def denoise(x: Tensor, sigma: Tensor, ids: Tensor) -> Tensor:
            transformer = {**options.get("transformer_options", {}), IDS: ids}
            return model_wrap(
                x, sigma.to(x), model_options={**options, "transformer_options": transformer}, seed=extra_args.get("seed")
            )

        steps = self.algorithm(denoise, noise if latent_image is None else latent_image)
        progress: Progress | None = None
        try:
            while True:
                try:
                    step = next(steps)
                except StopIteration as finished:
                    return finished.value
                progress = progress or Progress(step.total)
                progress.update(step.row, None if step.clean is None else self.preview(step.clean))
        finally:
            steps.close()
            if progress is not None:
                progress.terminal.close()


def _previewer(model: ModelPatcher) -> Callable[[Tensor], Tensor | None]:
    """What to show of a guess: the newest frame, if the user wants previews and there is a quick way to a picture."""
    info = video_info(model)
    method = latent_preview.args.preview_method
    if method == latent_preview.LatentPreviewMethod.NoPreviews:
        return lambda clean: None
    if info is not None and info.patch:
        return lambda clean: unfold(clean[-1:], info.patch)[0]
    previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
    if previewer is None:
        return lambda clean: None
    return lambda clean: _pixels(previewer.decode_latent_to_preview(clean[-1:]))


def _pixels(image: Any) -> Tensor:
    """A PIL image as ``h w c`` in 0..1."""
    return torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8).view(image.height, image.width, 3) / 255
