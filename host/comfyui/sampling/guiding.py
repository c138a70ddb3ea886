"""A GUIDER that does what a guide of this pack does around the model, for our samplers and for ComfyUI's."""

from dataclasses import replace
from functools import partial
from typing import Any

import comfy.model_sampling
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....modules.guidance.history import needs_history, on_model, variants_of
from ....modules.guidance.steering import asked_by, fitted
from ....modules.noise.levels import NoiseSchedule
from ....modules.sampling.model_view import Guide, View, plain
from ..layout import Layout, denoiser
from ..options import IDS
from ..parts.frame_levels import one_level, with_frame_levels
from .gradients import differentiable, predicted, space_of

Conditioning = list[list[Any]]
GUIDED_COPIES = 3  # measured at 2.5 of what a call takes in the smallest portions (benchmarks/guidance_memory.py)


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


def guider(
    model: ModelPatcher, positive: Conditioning, negative: Conditioning | None, cfg: float, guide: Guide = plain
) -> "Guider":
    """The GUIDER that does what ``guide`` does around the model."""
    made = Guider(model)
    made.set_conds(positive, positive if negative is None else negative)  # unread at cfg 1
    made.set_cfg(cfg)
    made.guide = on_model(guide, partial(sigma_at, model))
    return made


def sigma_at(model: ModelPatcher, level: float) -> float:
    """The sigma of a share of a model's noise, from 0, clean, to 1, its noisiest."""
    sampling = model.get_model_object("model_sampling")
    if coordinates_of(model) == "flow":
        return float(sampling.percent_to_sigma(1 - level))
    return NoiseSchedule(sampling.sigmas.detach().float().cpu()).at_level(level)


class Guider(comfy.samplers.CFGGuider):
    """ComfyUI's guider with a guide around it.

    Samplers of this pack take the guide and work with it themselves, as they know which frames are finished. For ComfyUI's samplers,
    which show the whole clip at one noise level, it is applied here.
    """

    guide: Guide = staticmethod(plain)

    calls = 0  # that were guided here in the present sampling

    @property
    def copies(self) -> int:
        """How many times what a call takes there is of it: gradients come back through the same layers."""
        return 1 if asked_by(self.guide) is None else GUIDED_COPIES

    @property
    def variants(self) -> int:
        """How many variants of its frames a call may hold."""
        return variants_of(self.guide)

    def sample(self, noise: Tensor, latent_image: Tensor, sampler: Any, *args: Any, **kwargs: Any) -> Tensor:
        """ComfyUI's signature.

        Raises:
            ValueError: the guide is about finished frames, and the sampler is one that finishes all frames together.
        """
        if needs_history(self.guide) and not getattr(sampler, "slides_windows", False):
            raise ValueError(
                "history guidance needs a sampler that finishes frames one after the other, and this one finishes all of them together:"
                " use Forcing Sampler or another sampler of LongTake, or take History Guidance out of the guidance"
            )
        given, self.calls = self.guide, 0
        if asked_by(given) is not None:
            levels = getattr(sampler, "slides_windows", False) and not getattr(sampler.algorithm, "uniform", False)
            self.guide = fitted(given, space_of(self.model_patcher, latent_image, levels=levels))
        try:
            return super().sample(noise, latent_image, sampler, *args, **kwargs)
        finally:
            self.guide = given

    def inner_sample(self, *args: Any, **kwargs: Any) -> Tensor:
        """ComfyUI's signature; the networks are loaded, and made such that gradients go through them where the guide asks for that."""
        if asked_by(self.guide) is None:
            return super().inner_sample(*args, **kwargs)
        with differentiable([self.inner_model, *(patcher.model for patcher in self.loaded_models)]):
            return super().inner_sample(*args, **kwargs)

    def outer_sample(self, noise: Tensor, latent_image: Tensor, sampler: Any, *args: Any, **kwargs: Any) -> Tensor:
        """ComfyUI's signature; frames that the sampler was given come back as they were."""
        clip = super().outer_sample(noise, latent_image, sampler, *args, **kwargs)
        return sampler.restored(clip, latent_image) if hasattr(sampler, "restored") else clip

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: dict[str, Any] | None = None, seed: int | None = None
    ) -> Tensor:
        """ComfyUI's signature: ``x``: ``f c h w`` or ``b c f h w``, ``timestep``: ``n``; the clean guess, as ``x``."""
        options = model_options or {}
        if self.guide is plain or IDS in options.get("transformer_options", {}):  # a sampler of ours has taken the guide
            return self._predicted(x, timestep, options, seed)
        layout = Layout.of(x)
        view = View.plain(layout.frames_first(x), layout.levels(timestep).to(x))
        sampling = self.model_patcher.get_model_object("model_sampling")
        view = replace(view, coordinates=coordinates_of(self.model_patcher), top=float(sampling.sigma_max), call=self.calls)
        self.calls += 1
        together = layout.video and bool((view.sigma == view.sigma[0]).all())  # as without a guide
        if layout.video and not together:
            options = with_frame_levels(self.model_patcher, options)

        def predict(x: Tensor, sigma: Tensor, opts: dict[str, Any], seed: int | None) -> Tensor:
            return self._predicted(x, one_level(self.model_patcher, sigma) if together else sigma, opts, seed)

        call = denoiser(predict, layout, options, seed)
        return layout.hosts(self.guide(call, view))

    def _predicted(self, x: Tensor, timestep: Tensor, options: dict[str, Any], seed: int | None) -> Tensor:
        wish = asked_by(self.guide) if torch.is_grad_enabled() else None
        if wish is None:
            return super().predict_noise(x, timestep, options, seed)
        return predicted(self, super().predict_noise, wish, x, timestep, options, seed)
