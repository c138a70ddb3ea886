"""Drive a sampler of this pack through ComfyUI's guider, with its memory management, conditioning hooks and Cancel button.

Three forms of the same thing: a node that samples (``sample``), a SAMPLER for SamplerCustomAdvanced (``forcing_sampler``), and a
GUIDER that does what a guide of this pack does around the model (``guider``), for our samplers and for ComfyUI's.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import comfy.model_management
import comfy.model_sampling
import comfy.samplers
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher
from einops import rearrange
from torch import Tensor

from ...modules.noise import NoiseSchedule
from ...modules.samplers import Algorithm, Job
from ...modules.video_model import unfold
from ...modules.view import Denoise, Guide, View, plain
from .options import CLIPS, IDS, TIMES
from .progress import Progress
from .video import video_info
from .windows import FrameHandler

Conditioning = list[list[Any]]


def coordinates_of(model: ModelPatcher) -> str:
    """How a model's noisy frames are mixed: a name in ``view.SIGNAL``.

    Raises:
        ValueError: in neither way.
    """
    sampling = model.get_model_object("model_sampling")
    if isinstance(sampling, comfy.model_sampling.CONST):
        return "flow"
    if isinstance(sampling, comfy.model_sampling.EPS):
        return "diffusion"
    raise ValueError(
        f"{type(model.model).__name__} mixes noise in as neither diffusion models (SD1.5, SDXL, LongTake video models) nor flow models"
        " (Wan) do: this sampler has no noise levels for it"
    )


def noise_schedule(model: ModelPatcher) -> NoiseSchedule:
    """The sigmas that a model was trained with, as any node before this one has changed them.

    Raises:
        ValueError: the model's noisy frames are not ``clean + sigma * noise`` (flow models, for example).
    """
    if coordinates_of(model) == "flow":
        raise ValueError(
            f"{type(model.model).__name__} mixes noise in as flow models do: this node is for diffusion models such as SD1.5, or a"
            " LongTake video model"
        )
    return NoiseSchedule(model.get_model_object("model_sampling").sigmas.detach().float().cpu())


def level_sigmas(model: ModelPatcher, steps: int) -> Tensor:
    """The sigma of every noise level of so many steps, 0 first, rising. Returns ``l``."""
    if coordinates_of(model) == "diffusion":
        return noise_schedule(model).levels(steps)
    sampling = model.get_model_object("model_sampling")
    percents = torch.linspace(1, 0, steps + 1)
    return torch.tensor([0.0, *(float(sampling.percent_to_sigma(float(percent))) for percent in percents[1:])])


def sample(
    model: ModelPatcher,
    positive: Conditioning,
    negative: Conditioning | None,
    *,
    cfg: float,
    latent: Tensor,
    algorithm: Algorithm,
    seed: int,
    sigmas: Tensor,
    guide: Guide = plain,
) -> Tensor:
    """Run a sampler.

    Args:
        model: MODEL.
        positive: CONDITIONING.
        negative: CONDITIONING.
        cfg: guidance scale; at 1 the negative prompt is not computed.
        latent: ``f c h w``, or ``b c f h w`` for video models; known frames, zeros elsewhere.
        algorithm: the sampler.
        seed: the user's.
        sigmas: ``l``, sigma of each level, 0 first.
        guide: what is done around the model.

    Returns:
        clip: as ``latent``, on the CPU or wherever this ComfyUI keeps results.
    """
    sampler = GeneratorSampler(algorithm, levels=sigmas)
    ends = torch.tensor([float(sigmas[-1]), 0.0])  # for others' bookkeeping only: our levels are the algorithm's
    clip = guider(model, positive, negative, cfg, guide).sample(torch.zeros_like(latent), latent, sampler, ends, seed=seed)
    return clip.to(comfy.model_management.intermediate_device())


def forcing_sampler(algorithm: Algorithm) -> "GeneratorSampler":
    """The SAMPLER of an algorithm: its sigmas, noise and latent come from SamplerCustomAdvanced."""
    return GeneratorSampler(algorithm)


def guider(
    model: ModelPatcher, positive: Conditioning, negative: Conditioning | None, cfg: float, guide: Guide = plain
) -> "Guider":
    """The GUIDER that does what ``guide`` does around the model."""
    made = Guider(model)
    made.set_conds(positive, positive if negative is None else negative)  # unread at cfg 1
    made.set_cfg(cfg)
    made.guide = guide
    return made


class Guider(comfy.samplers.CFGGuider):
    """ComfyUI's guider with a guide around it.

    Samplers of this pack take the guide and work with it themselves, as they know which frames are finished. For ComfyUI's samplers,
    which show the whole clip at one noise level, it is applied here.
    """

    guide: Guide = staticmethod(plain)
    guided = False  # by the sampler

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: dict[str, Any] | None = None, seed: int | None = None
    ) -> Tensor:
        """ComfyUI's signature: ``x``: ``f c h w`` or ``b c f h w``, ``timestep``: ``n``; the clean guess, as ``x``."""
        options = model_options or {}
        if self.guided or self.guide is plain:
            return super().predict_noise(x, timestep, options, seed)
        layout = Layout.of(x)
        view = View.plain(layout.frames_first(x), timestep.reshape(-1)[:1].expand(layout.frames).to(x))
        sampling = self.model_patcher.get_model_object("model_sampling")
        view = replace(view, coordinates=coordinates_of(self.model_patcher), top=float(sampling.sigma_max))
        call = denoiser(super().predict_noise, layout, options, seed)
        return layout.hosts(self.guide(call, view))


class Layout:
    """Where frames lie in this host's latents: in the batch axis, or in an axis of their own."""

    def __init__(self, shape: torch.Size):
        self.video = len(shape) == 5
        self.batch, self.frames = (shape[0], shape[2]) if self.video else (1, shape[0])

    @classmethod
    def of(cls, latent: Tensor) -> "Layout":
        """The layout of ``latent``: ``f c h w`` or ``b c f h w``."""
        return cls(latent.shape)

    def frames_first(self, x: Tensor) -> Tensor:
        """``x``: ``f c h w`` or ``b c f h w``. Returns ``f ...``."""
        return rearrange(x, "b c f h w -> f b c h w") if self.video else x

    def hosts(self, x: Tensor, clips: int = 1) -> Tensor:
        """The way back, for several variants of a clip at once: ``x``: ``n ...``."""
        return rearrange(x, "(k f) b c h w -> (k b) c f h w", k=clips) if self.video else x

    def variants(self, x: Tensor, clips: int) -> Tensor:
        """Variants in the host's layout, frames first: ``x``: as ``hosts`` gave it. Returns ``n ...``."""
        return rearrange(x, "(k b) c f h w -> (k f) b c h w", k=clips) if self.video else x

    def sigmas(self, sigma: Tensor, clips: int) -> Tensor:
        """A noise level per frame as models of this host take it: ``sigma``: ``n``. Returns ``...``, ``n`` or one row per clip."""
        return sigma.view(clips, -1).repeat_interleave(self.batch, dim=0) if self.video else sigma


def denoiser(predict: Callable[..., Tensor], layout: Layout, options: dict[str, Any], seed: int | None) -> Denoise:
    """ComfyUI's prediction as samplers of this pack call it.

    Args:
        predict: ``(x, sigma, model_options, seed) -> clean``.
        layout: of the latent.
        options: ComfyUI's, of this sampling.
        seed: for those conditionings that draw noise themselves.
    """

    def denoise(view: View) -> Tensor:
        ids = view.ids.repeat(view.clips)
        told = {IDS: ids, CLIPS: view.clips} | ({} if view.times is None else {TIMES: view.times})
        transformer = {**options.get("transformer_options", {}), **told}
        x, sigma = layout.hosts(view.x, view.clips), layout.sigmas(view.sigma.to(view.x), view.clips)
        return layout.variants(predict(x, sigma, {**options, "transformer_options": transformer}, seed), view.clips)

    return denoise


class GeneratorSampler(comfy.samplers.Sampler):
    """A SAMPLER made of a generator of ``Step``s.

    Args:
        algorithm: the sampler.
        levels: ``l``, sigma of each level, 0 first; None to take what ComfyUI gives.
    """

    slides_windows = True

    def __init__(self, algorithm: Algorithm, levels: Tensor | None = None):
        self.algorithm, self.levels = algorithm, levels

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
        """ComfyUI's signature; ``noise``: ``f c h w`` or ``b c f h w``, ``latent_image``: the same. Returns the same."""
        layout = Layout.of(noise)
        options = {
            "context_handler": FrameHandler(),
            **extra_args["model_options"],
        }  # which gives each frame its own conditioning
        if layout.video:
            options.pop("context_handler")
        call = denoiser(
            lambda x, sigma, opts, seed: model_wrap(x, sigma, model_options=opts, seed=seed),
            layout,
            options,
            extra_args.get("seed"),
        )
        own = isinstance(model_wrap, Guider)
        latent = layout.frames_first(torch.zeros_like(noise) if latent_image is None else latent_image)
        job = Job(
            call,
            latent,
            (sigmas.flip(0) if self.levels is None else self.levels).to(latent),
            noise=None if self.levels is not None else layout.frames_first(noise),
            known=None if denoise_mask is None else whole_frames(layout.frames_first(denoise_mask)),
            seed=extra_args.get("seed") or 0,
            coordinates=coordinates_of(model_wrap.model_patcher),
            guide=model_wrap.guide if own else plain,
        )
        if own:
            model_wrap.guided = True
        try:
            return layout.hosts(driven(self.algorithm(job), _previewer(model_wrap.model_patcher)))
        finally:
            if own:
                model_wrap.guided = False


def driven(steps: Any, preview: Callable[[Tensor], Tensor | None]) -> Tensor:
    """Run a generator of ``Step``s to its end, with progress, previews and Cancel. Returns ``f ...``."""
    progress: Progress | None = None
    try:
        while True:
            try:
                step = next(steps)
            except StopIteration as finished:
                return finished.value
            progress = progress or Progress(step.total)
            progress.update(step.row, None if step.clean is None else preview(step.clean))
    finally:
        steps.close()
        if progress is not None:
            progress.terminal.close()


def whole_frames(mask: Tensor) -> Tensor:
    """Which frames a denoise mask leaves alone: ``mask``: ``f ...``, 1 where noise goes. Returns ``f``, bool.

    Raises:
        ValueError: it masks parts of a frame.
    """
    flat = mask.flatten(1)
    known, made = (flat == 0).all(dim=1), (flat == 1).all(dim=1)
    partly = (~(known | made)).nonzero().flatten().tolist()
    if partly:
        raise ValueError(
            f"the latent's mask covers part of frame {partly[0]}: this sampler keeps or makes whole frames; give each frame a mask of all"
            " 0 (kept) or all 1 (made)"
        )
    return known


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
    return lambda clean: _pixels(previewer.decode_latent_to_preview(_last(clean)))


def _last(clean: Tensor) -> Tensor:
    """The newest frame as previewers take it: ``clean``: ``f c h w`` or ``f b c h w``."""
    return clean[-1:] if clean.ndim == 4 else rearrange(clean[-1:, :1], "f b c h w -> b c f h w")


def _pixels(image: Any) -> Tensor:
    """A PIL image as ``h w c`` in 0..1."""
    return torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8).view(image.height, image.width, 3) / 255
