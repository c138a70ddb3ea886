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
from inspect import signature
from typing import Any

import torch
from comfy.conds import CONDList, CONDNoiseShape, CONDRegular
from comfy.context_windows import ContextHandlerABC, IndexListContextWindow, create_prepare_sampling_wrapper
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....modules.temporal.windows import WindowPlan
from ..control.controls import FrameControl, cycled
from ..options import CLIPS, IDS, NAMES, WHOLE, frame_numbers, step_of
from ..progress import check_interrupt

Cond = dict[str, Any]
BY_ROW = (CONDRegular.process_cond, CONDNoiseShape.process_cond)  # these repeat rows until there is one per frame


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
    return patched


@dataclass(frozen=True)
class FrameHandler(ContextHandlerABC):
    """Model calls with what belongs to each frame, in windows or all frames in one.

    Attributes:
        plan: windows of the whole model; None for all frames in one call.
        control_chunk: frames that go through a control at once; None for all of the call.
    """

    plan: WindowPlan | None = None
    control_chunk: int | None = None
    dim = 0  # this and the next two are what ComfyUI's own wrappers ask a handler for
    freenoise = False

    @property
    def context_length(self) -> float:
        """Most frames in a call."""
        return math.inf if self.plan is None else self.plan.length

    def should_use_context(
        self, model: Any, conds: list[list[Cond] | None], x_in: Tensor, timestep: Tensor, model_options: dict[str, Any]
    ) -> bool:
        """Whether ComfyUI's own call would not do: ``x_in``: ``f c h w``, ``timestep``: ``f``."""
        special = self.control_chunk is not None or IDS in model_options.get("transformer_options", {})
        return special or len(x_in) > self.context_length or bool((timestep != timestep[0]).any())

    def get_resized_cond(
        self, cond_in: list[Cond] | None, x_in: Tensor, window: Any, device: torch.device | None = None
    ) -> list[Cond] | None:
        """ComfyUI's signature: the conditions of one window's frames; ``device`` is where they are already."""
        return frame_conds([cond_in], torch.tensor(list(window.index_list)), self.control_chunk)[0]

    def execute(
        self,
        calc_cond_batch: Any,
        model: Any,
        conds: list[list[Cond] | None],
        x_in: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any],
    ) -> list[Tensor]:
        """ComfyUI's signature: one clean guess per entry of ``conds``, each as ``x_in``: ``f c h w``; ``timestep``: ``f``."""
        options = model_options.get("transformer_options", {})
        clips = options.get(CLIPS, 1)
        windows = None if self.plan is None else self.plan.windows(len(x_in) // clips, step_of(options, timestep))
        if windows is None:
            ids = frame_numbers(options, len(x_in))
            return calc_cond_batch(model, self._conds(conds, ids, timestep), x_in, timestep, model_options)
        if clips > 1:
            return self._one_by_one(calc_cond_batch, model, conds, x_in, timestep, model_options)
        fused = [torch.zeros_like(x_in) for _ in conds]
        for frames, weights in (pair for index, weight in windows.groups for pair in zip(index, weight, strict=True)):
            check_interrupt()
            shown = {**options, "context_window": published(frames.tolist(), len(x_in)), WHOLE: Whole(self.plan, timestep, conds)}
            mine, sigma = frames.to(x_in.device), timestep[frames.to(timestep.device)]
            needed = self._conds(conds, frame_numbers(shown, len(frames)), sigma)
            guesses = calc_cond_batch(model, needed, x_in[mine], sigma, {**model_options, "transformer_options": shown})
            share = weights.to(x_in).view(-1, *(1,) * (x_in.ndim - 1))
            for total in fused:
                total.index_add_(0, mine, guesses.pop(0) * share)
        return fused

    def _one_by_one(
        self,
        calc_cond_batch: Any,
        model: Any,
        conds: list[list[Cond] | None],
        x_in: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any],
    ) -> list[Tensor]:
        """``execute`` for each of several variants of the same frames: a window is of one of them."""
        options = model_options["transformer_options"]
        clips, parts = options[CLIPS], []
        names, numbers = options.get(NAMES, range(clips)), frame_numbers(options, len(x_in))
        for name, x, sigma, ids in zip(names, *(rows.chunk(clips) for rows in (x_in, timestep, numbers)), strict=True):
            alone = {**options, IDS: ids, CLIPS: 1, NAMES: (name,)}
            parts.append(self.execute(calc_cond_batch, model, conds, x, sigma, {**model_options, "transformer_options": alone}))
        return [torch.cat(guesses) for guesses in zip(*parts, strict=True)]

    def _conds(self, conds: list[list[Cond] | None], ids: Tensor, sigma: Tensor) -> list[list[Cond] | None]:
        return frame_conds([_started(cond, sigma) for cond in conds], ids.cpu(), self.control_chunk)


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
    conds: list[list[Cond] | None]

    def told(self, name: str, uuid: Any) -> Tensor | None:
        """What the model is told under a name by the condition that ComfyUI calls ``uuid``: ``r ...``; None for nothing."""
        entry = next((entry for cond in self.conds for entry in cond or () if entry.get("uuid") == uuid), {})
        found = entry.get("model_conds", {}).get(name)
        return None if found is None else found.cond


def published(frames: list[int], total: int) -> IndexListContextWindow:
    """The window as others find it in ``transformer_options["context_window"]``; newer versions want to know the clip's length."""
    knows_total = "total_frames" in signature(IndexListContextWindow).parameters
    return IndexListContextWindow(frames, dim=0, **({"total_frames": total} if knows_total else {}))


def frame_conds(conds: list[list[Cond] | None], ids: Tensor, control_chunk: int | None = None) -> list[list[Cond] | None]:
    """The conditions of some frames; what there is only one of stays as it is.

    Args:
        conds: as ComfyUI's ``calc_cond_batch`` takes them.
        ids: ``n``, int64, frame numbers; where fewer rows than frames were given they start over, as ComfyUI lets them.
        control_chunk: frames that go through a control at once, or None for all.
    """
    controls: dict[int, FrameControl] = {}  # the same control of two conds must stay the same: they share a call then

    def control(given: Any) -> FrameControl:
        return controls.setdefault(id(given), FrameControl(given, ids, control_chunk))

    def item(name: str, value: Any) -> Any:
        if name == "model_conds":
            return {key: _frame_cond(key, cond, ids) for key, cond in value.items()}
        if name == "mask":
            return _rows(value, ids)
        return control(value) if name == "control" and value is not None else value

    return [cond and [{name: item(name, value) for name, value in entry.items()} for entry in cond] for cond in conds]


def _frame_cond(name: str, cond: Any, ids: Tensor) -> Any:
    """One input of the model, if it has a row per frame; those that find their rows themselves have a ``process_cond`` of their own."""
    if name == "num_video_frames":  # Stable Video Diffusion
        return cond._copy_with(len(ids))
    how = type(cond).process_cond
    if how is CONDList.process_cond:
        return cond._copy_with([_rows(rows, ids) for rows in cond.cond])
    return cond._copy_with(_rows(cond.cond, ids)) if how in BY_ROW else cond


def _rows(rows: Tensor, ids: Tensor) -> Tensor:
    return rows if len(rows) == 1 else cycled(rows, ids)


def _started(conds: list[Cond] | None, sigma: Tensor) -> list[Cond] | None:
    """Conditions that start or end between the noise levels of these frames count for those frames only that are inside."""
    return conds and [_gated(cond, sigma) for cond in conds]


def _gated(cond: Cond, sigma: Tensor) -> Cond:
    start, end = cond.get("timestep_start", math.inf), cond.get("timestep_end", -math.inf)
    inside = (sigma <= start) & (sigma >= end)
    if bool(inside.all()) or not bool(inside.any()):
        return cond  # ComfyUI asks the first frame, and the others agree
    rest = {name: value for name, value in cond.items() if name not in ("timestep_start", "timestep_end")}
    return {**rest, "strength": cond.get("strength", 1.0) * inside.to(sigma).view(-1, 1, 1, 1)}
