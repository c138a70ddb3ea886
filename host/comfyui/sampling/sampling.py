"""Drive a sampler of this pack through ComfyUI's guider, with its memory management, conditioning hooks and Cancel button.

Two forms of the same thing: a node that samples (``sample``), and a SAMPLER for SamplerCustomAdvanced (``forcing_sampler``), which works
with any GUIDER; one with a guide of this pack around the model is in ``guiding.py``.
"""

from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.samplers
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from einops import rearrange
from torch import Tensor

from ....modules.checkpoints.video_model import unfold
from ....modules.disk.recording import Recording
from ....modules.guidance.steering import Space
from ....modules.sampling.job import Algorithm, Job, Step
from ....modules.sampling.model_view import Guide, plain
from ....modules.temporal.carried_state import Nothing, Remembering
from ..attach.causal import ring_frames
from ..attach.video import video_info
from ..attached import attached_to, motion_sampling
from ..layout import Layout, denoiser, whole_frames
from ..options import CACHES, WINDOW
from ..parts.frame_levels import one_level, with_frame_levels, with_parts
from ..parts.patches import check_patches
from ..progress import Progress, announce
from .costs import cost_of_run
from .gradients import mixing_of
from .guiding import Conditioning, Guider, coordinates_of, guider
from .model_facts import own_noise, trained_frames
from .per_frame import calls_of, check_conditions, least_level, with_frame_handler
from .recording import recorder

Watch = Callable[[Step], Tensor | None]  # takes every step, and may give a picture to show


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
    recording: Recording | None = None,
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
        recording: where finished frames go as they come; None for nowhere.

    Returns:
        clip: as ``latent``, on the CPU or wherever this ComfyUI keeps results; its last frames where it is recorded.
    """
    sampler = GeneratorSampler(algorithm, sigmas, recording)
    ends = torch.tensor([float(sigmas[-1]), 0.0])  # for others' bookkeeping only: our levels are the algorithm's
    made = guider(model, positive, negative, cfg, guide)
    beside = ring_frames(model, latent.shape, 1 if cfg == 1 else 2)
    made.model_options = for_window(made.model_options, sampler.shown(model, latent), latent, beside)
    clip = made.sample(torch.zeros_like(latent), latent, sampler, ends, seed=seed)
    return clip.to(comfy.model_management.intermediate_device())


def forcing_sampler(algorithm: Algorithm, recording: Recording | None = None) -> "GeneratorSampler":
    """The SAMPLER of an algorithm, with finished frames to disk if wanted: sigmas, noise and latent come from SamplerCustomAdvanced."""
    return GeneratorSampler(algorithm, recording=recording)


def for_window(options: dict[str, Any], frames: int, latent: Tensor, beside: int = 0) -> dict[str, Any]:
    """Model options with which ComfyUI makes room for so many frames at once, and not for all of a clip.

    Args:
        options: of the model so far.
        frames: of a call.
        latent: ``r ...``.
        beside: how many frames more what is kept between calls counts for.
    """
    axis = 2 if Layout.of(latent).video else 0

    def prepare(executor: Any, model: Any, shape: Any, *args: Any, **kwargs: Any) -> Any:
        fewer = [min(size, frames) + beside if place == axis else size for place, size in enumerate(shape)]
        return executor(model, fewer, *args, **kwargs)

    copied = comfy.model_patcher.create_model_options_clone(options)
    add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, WINDOW, prepare, copied, is_model_options=True)
    return copied


class GeneratorSampler(comfy.samplers.Sampler):
    """A SAMPLER made of a generator of ``Step``s.

    Args:
        algorithm: the sampler.
        levels: ``l``, sigma of each level, 0 first; None to take what ComfyUI gives.
        recording: see ``sample``; None to show the newest frame of each guess.
    """

    slides_windows = True

    def __init__(self, algorithm: Algorithm, levels: Tensor | None = None, recording: Recording | None = None):
        self.algorithm, self.levels, self.recording = algorithm, levels, recording

    def shown(self, model: ModelPatcher, latent: Tensor) -> int:
        """Most frames of a clip that the model will see in one call: ``latent``: ``r ...``."""
        frames, shown = Layout.of(latent).frames, getattr(self.algorithm, "shown", None)
        return frames if shown is None else shown(frames, trained_frames(model))

    def length(self, model: ModelPatcher, latent: Tensor) -> int:
        """Frames of the clip that is made: those of the latent, unless the algorithm says it: ``latent``: ``r ...``."""
        frames = getattr(self.algorithm, "frames", None)
        if frames is None:
            return Layout.of(latent).frames
        return frames or max(
            Layout.of(latent).frames, self.shown(model, latent) + 1
        )  # without an end: more than are seen at once

    def restored(self, clip: Tensor, latent: Tensor) -> Tensor:
        """A result whose known frames are what was given, bit for bit: the model's scaling and its inverse round.

        Args:
            clip: ``r ...``, as ComfyUI gives it back.
            latent: ``r ...``, as ComfyUI was given it.
        """
        restore = getattr(self.algorithm, "restored", None)
        if restore is None or self.recording is not None:
            return clip
        layout = Layout.of(clip)
        return layout.hosts(restore(layout.frames_first(clip), layout.frames_first(latent), layout.frames_first))

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
        layout, model = Layout.of(noise), model_wrap.model_patcher
        check_conditions(model_wrap.conds)
        given = extra_args["model_options"]
        calls = calls_of(self, model_wrap, given, noise, denoise_mask)
        check_patches(given, model_wrap, calls)
        least = least_level(model)
        together = layout.video and not calls.mixed  # as any sampler of ComfyUI's calls it
        if not layout.video:
            options = with_frame_handler(given)
        elif calls.mixed:
            options = with_frame_levels(model, given)
        else:
            options = with_parts(given) if calls.moving else given

        def predict(x: Tensor, sigma: Tensor, opts: dict[str, Any], seed: int | None) -> Tensor:
            levels = one_level(model, sigma) if together else sigma
            return model_wrap(x, levels.clamp_min(least), model_options=opts, seed=seed)

        call = denoiser(
            predict,
            layout,
            options,
            extra_args.get("seed"),
        )
        latent = layout.frames_first(torch.zeros_like(noise) if latent_image is None else latent_image)
        job = Job(
            call,
            latent,
            (sigmas.flip(0) if self.levels is None else self.levels).to(latent),
            noise=None if self.levels is not None else layout.frames_first(noise),
            known=None if denoise_mask is None else whole_frames(layout.frames_first(denoise_mask)),
            seed=extra_args.get("seed") or 0,
            coordinates=coordinates_of(model),
            guide=model_wrap.guide if isinstance(model_wrap, Guider) else plain,
            full=self.levels is not None or bool(self.max_denoise(model_wrap, sigmas)),
            own_noise=own_noise(model),
            trained=trained_frames(model),
            encode=lambda samples: layout.frames_first(model_wrap.inner_model.process_latent_in(samples.to(latent))),
            to_latent=lambda frames: model_wrap.inner_model.process_latent_out(layout.hosts(frames).float()).cpu(),
            memory=remembered(given.get("transformer_options", {})),
            recalls=any(motion.model.recalls for motion in attached_to(model)),
            sees_ahead=Space(mixing=mixing_of(model)).sees_ahead,
        )
        announce("\n".join(cost_of_run(self, model_wrap, noise, sigmas, job.guide).lines()))
        if self.recording is None:
            clip = layout.hosts(driven(self.algorithm(job), newest(_previewer(model))))
            scaled = model_wrap.inner_model.model_sampling.inverse_noise_scaling
            return (
                clip if self.levels is not None or sigmas[-1] == 0 else scaled(sigmas[-1], clip)
            )  # where another sampler goes on
        with recorder(self.recording, self.algorithm, job, model_wrap, noise.shape) as made:
            try:
                return layout.hosts(driven(made.steps(), made.watch))
            except comfy.model_management.InterruptProcessingException:
                # as a take's end: ComfyUI's pages list only what nodes have made that came to theirs
                last = made.ended()
                if last is None:
                    raise
                return layout.hosts(last)


def remembered(options: dict[str, Any]) -> Remembering:
    """What a model carries from call to call of the present sampling, from its transformer options."""
    return options.get(CACHES) or motion_sampling(options) or Nothing()


def newest(preview: Callable[[Tensor], Tensor | None]) -> Watch:
    """Show each step's guess."""
    return lambda step: None if step.clean is None else preview(step.clean)


def driven(steps: Any, show: Watch) -> Tensor:
    """Run a generator of ``Step``s to its end, with progress, previews and Cancel. Returns ``f ...``."""
    progress: Progress | None = None
    try:
        while True:
            try:
                step = next(steps)
            except StopIteration as finished:
                return finished.value
            progress = progress or Progress(step.total)
            progress.update(step.row, show(step))
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
    return lambda clean: _pixels(previewer.decode_latent_to_preview(_last(clean)))


def _last(clean: Tensor) -> Tensor:
    """The newest frame as previewers take it: ``clean``: ``f c h w`` or ``f b c h w``."""
    return clean[-1:] if clean.ndim == 4 else rearrange(clean[-1:, :1], "f b c h w -> b c f h w")


def _pixels(image: Any) -> Tensor:
    """A PIL image as ``h w c`` in 0..1."""
    return torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8).view(image.height, image.width, 3) / 255
