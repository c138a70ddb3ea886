"""Windows of the whole model: each window of frames is a model call of its own, and overlapping guesses are averaged.

It is a context handler as ComfyUI defines it, for U-Nets whose frames lie in the batch axis. Unlike ComfyUI's own, everything that
there is one of per frame follows the window: noise levels, prompts, masks, what is concatenated, labels, and the hints of any of ComfyUI's
controls; and what starts or ends during sampling does so for each frame at its own noise level. A frame gets exactly what it gets
without windows, so without a motion module windows change nothing.

The handler keeps nothing between calls. Samplers that show the model some frames of a clip (``IDS`` in the transformer options) get
rows by absolute frame number.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from comfy.context_windows import ContextHandlerABC, create_prepare_sampling_wrapper
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....modules.temporal.windows import WindowPlan
from ..attached import attached_to
from ..options import ALONE, CLIP, CLIPS, CONTEXT_WINDOW, IDS, NAMES, WHOLE, Clip, frame_numbers, step_of
from ..progress import check_interrupt
from .conds import Cond, Conds, gated, of_frames
from .controls import FrameControl
from .patches import Calls, check_patches
from .telling import published, tells

KEY = "longtake_windows"  # of what checks a sampling with windows of the whole model


def whole_windows(model: ModelPatcher, plan: WindowPlan) -> ModelPatcher:
    """A clone of ``model`` that sees clips longer than a window through windows; one that it had is replaced.

    Args:
        model: with frames in the batch axis.
        plan: with its length chosen.

    Raises:
        ValueError: the length is still automatic, or the model has frames in an axis of their own.
    """
    if plan.length == 0:
        raise ValueError("the window length is automatic and the model has no motion module to take it from: give a length")
    if model.model.latent_format.latent_dimensions != 2:
        raise ValueError(
            f"{type(model.model).__name__} is a video model with a time axis of its own: use ComfyUI's Context Windows (Manual) with"
            " dim 2; these windows are for models such as SD1.5 and SDXL"
        )
    return handled(model, FrameHandler(plan))


def handled(model: ModelPatcher, handler: "FrameHandler") -> ModelPatcher:
    """A clone with the handler in it, which asks ComfyUI for the memory of one window."""
    patched = model.clone()
    patched.model_options["context_handler"] = handler
    patched.remove_wrappers_with_key(WrappersMP.PREPARE_SAMPLING, "ContextWindows_prepare_sampling")  # not twice
    create_prepare_sampling_wrapper(patched)
    patched.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, around_sampling)
    tells(patched)
    return patched


def around_sampling(executor: Any, noise: Tensor, *args: Any, **kwargs: Any) -> Any:
    """OUTER_SAMPLE: refuse patches that windows of the whole model would spoil: ``noise``: ``n c h w``."""
    guider = executor.class_obj
    handler = guider.model_options.get("context_handler")
    if isinstance(handler, FrameHandler) and len(noise) > handler.context_length:
        recalled = any(motion.model.recalls for motion in attached_to(guider.model_patcher))
        check_patches(guider.model_options, guider, Calls(split=True, recalled=recalled))
    return executor(noise, *args, **kwargs)


class PartHandler(ContextHandlerABC):
    """What handlers of this pack have in common: a call gets the conditions of its frames, at their noise levels."""

    dim = 0  # where frames lie; this and the next are what ComfyUI's own wrappers ask a handler for
    freenoise = False

    def get_resized_cond(
        self, cond_in: list[Cond] | None, x_in: Tensor, window: Any, device: torch.device | None = None
    ) -> list[Cond] | None:
        """ComfyUI's signature: the conditions of one window's frames; ``device`` is where they are already."""
        return self.of_frames([cond_in], torch.tensor(list(window.index_list)))[0]

    def conds(self, conds: Conds, ids: Tensor, sigma: Tensor) -> Conds:
        """The conditions of some frames: ``ids``: ``f``, ``sigma``: ``...``, their noise levels."""
        return self.of_frames(gated(conds, sigma), ids)

    def of_frames(self, conds: Conds, ids: Tensor) -> Conds:
        """The same, whether they have started or not."""
        controls: dict[int, Any] = {}  # the same control of two conds must stay the same: they share a call then
        return of_frames(conds, ids, self.dim, lambda given: controls.setdefault(id(given), self.control(given, ids)))

    def control(self, given: Any, ids: Tensor) -> Any:
        """What stands in for a control in calls about some frames: ``ids``: ``f``."""
        raise NotImplementedError


@dataclass(frozen=True)
class FrameHandler(PartHandler):
    """Model calls with what belongs to each frame, in windows or all frames in one.

    Attributes:
        plan: windows of the whole model; None for all frames in one call.
        control_chunk: frames that go through a control at once; None for all of the call.
    """

    plan: WindowPlan | None = None
    control_chunk: int | None = None

    @property
    def context_length(self) -> float:
        """Most frames in a call."""
        return math.inf if self.plan is None else self.plan.length

    def should_use_context(self, model: Any, conds: Conds, x_in: Tensor, timestep: Tensor, model_options: dict[str, Any]) -> bool:
        """Whether ComfyUI's own call would not do: ``x_in``: ``n c h w``, ``timestep``: ``n``."""
        special = self.control_chunk is not None or IDS in model_options.get("transformer_options", {})
        return special or len(x_in) > self.context_length or bool((timestep != timestep[0]).any())

    def control(self, given: Any, ids: Tensor) -> FrameControl:
        """See ``PartHandler``."""
        return FrameControl(given, ids, self.control_chunk)

    def execute(
        self,
        calc_cond_batch: Any,
        model: Any,
        conds: Conds,
        x_in: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any],
    ) -> list[Tensor]:
        """ComfyUI's signature: one clean guess per entry of ``conds``, each as ``x_in``: ``n c h w``; ``timestep``: ``n``."""
        options = model_options.get("transformer_options", {})
        variants = options.get(CLIPS, 1)
        count = len(x_in) // variants
        windows = (
            None
            if self.plan is None
            else self.plan.windows(count, step_of(options, timestep, getattr(model, "model_sampling", None)))
        )
        if variants > 1 and (windows is not None or options.get(ALONE)):
            return self._one_by_one(calc_cond_batch, model, conds, x_in, timestep, model_options)
        if windows is None:
            ids = frame_numbers(options, count).repeat(variants)
            return calc_cond_batch(model, self.conds(conds, ids, timestep), x_in, timestep, model_options)
        options = {CLIP: Clip.of(x_in), **options, WHOLE: Whole(self.plan, timestep, conds)}
        fused = [torch.zeros_like(x_in) for _ in conds]
        for frames, weights in (pair for index, weight in windows.groups for pair in zip(index, weight, strict=True)):
            check_interrupt()
            shown = {**options, CONTEXT_WINDOW: published(frames.tolist(), len(x_in))}
            mine, sigma = frames.to(x_in.device), timestep[frames.to(timestep.device)]
            needed = self.conds(conds, frame_numbers(shown, len(frames)), sigma)
            guesses = calc_cond_batch(model, needed, x_in[mine], sigma, {**model_options, "transformer_options": shown})
            share = weights.to(x_in).view(-1, *(1,) * (x_in.ndim - 1))
            for total in fused:
                total.index_add_(0, mine, guesses.pop(0) * share)
        return fused

    def _one_by_one(
        self,
        calc_cond_batch: Any,
        model: Any,
        conds: Conds,
        x_in: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any],
    ) -> list[Tensor]:
        """``execute`` for each of several variants of the same frames."""
        options = model_options["transformer_options"]
        variants, parts = options[CLIPS], []
        names = options.get(NAMES, range(variants))
        for name, x, sigma in zip(names, x_in.chunk(variants), timestep.chunk(variants), strict=True):
            alone = {**options, CLIPS: 1, NAMES: (name,)}
            parts.append(self.execute(calc_cond_batch, model, conds, x, sigma, {**model_options, "transformer_options": alone}))
        return [torch.cat(guesses) for guesses in zip(*parts, strict=True)]


@dataclass(frozen=True, eq=False)
class Whole:
    """What a window is cut out of, for controls that do not depend on the noisy frames and so need not be cut.

    Attributes:
        plan: of the windows.
        sigma: ``f``, noise level of every frame.
        conds: as ``execute`` got them, with a row per frame where frames differ.
    """

    plan: WindowPlan | None
    sigma: Tensor
    conds: Conds

    def told(self, name: str, uuid: Any) -> Tensor | None:
        """What the model is told under a name by the condition that ComfyUI calls ``uuid``: ``r ...``; None for nothing."""
        entry = next((entry for cond in self.conds for entry in cond or () if entry.get("uuid") == uuid), {})
        found = entry.get("model_conds", {}).get(name)
        return None if found is None else found.cond
