"""What of ComfyUI looks at one noise level for all frames, before a sampler that has one per frame: done for each frame, or refused.

Conditions and ControlNets that start and end, masks, prompts and hints per frame are done by ``windows.FrameHandler``, for video models by
``frame_levels.VideoHandler``.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....modules.sampling.job import OneLevel
from ..attached import attached_to
from ..layout import Layout, whole_frames
from ..options import ALONE, CACHES
from ..parts.controls import chain, hints_are_ours
from ..parts.patches import Calls
from ..parts.telling import telling_options
from ..parts.windows import FrameHandler

PACK = __name__.partition(".host.")[0] + "."
Conds = Mapping[str, Sequence[Mapping[str, Any]] | None]


def with_frame_handler(options: dict[str, Any]) -> dict[str, Any]:
    """Model options with which each frame in a call gets its own conditions, at its own noise level.

    Raises:
        ValueError: there are context windows on the model that know one level for all frames.
    """
    handler = options.get("context_handler") or FrameHandler()
    if not isinstance(handler, FrameHandler):
        raise ValueError(
            "the model has context windows that look at one noise level for all frames, and this sampler has one per frame and slides a"
            " window of its own: remove them, or use LongTake's Context Windows"
        )
    return telling_options({**options, "context_handler": handler})


def check_conditions(conds: Conds) -> None:
    """Refuse conditions that would be wrong for all frames but the first.

    Raises:
        ValueError: one sentence.
    """
    for cond in _all(conds):
        for hook in getattr(cond.get("hooks"), "hooks", ()):
            keyframes = hook.hook_keyframe.keyframes
            if len(keyframes) > 1 or any(keyframe.start_percent > 0 for keyframe in keyframes):
                raise ValueError(
                    "the conditioning has hooks with keyframes, which change with the noise level of the first frame only: remove the"
                    " keyframes; for motion modules and motion LoRAs LongTake's Motion Keyframe does it for each frame"
                )
        for control in chain(cond.get("control")):
            if reads_frames(control):
                check_always(control)
            elif not hints_are_ours(control) and not type(control).__module__.startswith(PACK):
                raise ValueError(
                    f"{type(control).__name__} comes from {type(control).__module__} and cannot be told a noise level per frame: use"
                    " ComfyUI's own nodes for ControlNets and T2I adapters"
                )


def calls_of(sampler: Any, guider: Any, options: Mapping[str, Any], noise: Tensor, mask: Tensor | None) -> Calls:
    """How a sampler of this pack will call the model.

    Args:
        sampler: the SAMPLER.
        guider: ComfyUI's.
        options: model options of the sampling.
        noise: ``r ...``, as ComfyUI gives it.
        mask: ``r ...``, of what is made; None for everything.
    """
    layout, model, algorithm = Layout.of(noise), guider.model_patcher, sampler.algorithm
    transformer = options.get("transformer_options", {})
    windowed = getattr(options.get("context_handler"), "plan", None) is not None
    variants = getattr(guider, "variants", 1)
    masked = mask is not None and bool(whole_frames(layout.frames_first(mask)).any())
    return Calls(
        mixed=variants > 1 or not (isinstance(algorithm, OneLevel) and algorithm.one_level(masked=masked)),
        moving=sampler.shown(model, noise) < sampler.length(model, noise) or variants > 1,
        split=windowed or (variants > 1 and transformer.get(ALONE, False)),
        recalled=CACHES in transformer or any(motion.model.recalls for motion in attached_to(model)),
        video=layout.video,
        top=float(model.get_model_object("model_sampling").sigma_max),
    )


def least_level(model: ModelPatcher) -> float:
    """The sigma that clean frames are shown at: 0, or the least that the model's sampling has a timestep for."""
    sampling = model.get_model_object("model_sampling")
    return 0.0 if bool(sampling.timestep(torch.zeros(1)).isfinite().all()) else float(sampling.sigma_min)


def reads_frames(control: Any) -> bool:
    """Whether a control of another pack looks for the frames of a call where it is told them: Advanced-ControlNet's do."""
    return hasattr(control, "sub_idxs") and hasattr(control, "timestep_keyframes")


def check_always(control: Any) -> None:
    """Refuse such a control where it starts, ends or changes during sampling, which it does by the first frame's noise level.

    Raises:
        ValueError: it does. One sentence.
    """
    start, end = control.timestep_percent_range
    if start > 0 or end < 1 or any(keyframe.start_percent > 0 for keyframe in control.timestep_keyframes.keyframes):
        raise ValueError(
            f"{type(control).__name__} starts, ends or changes during sampling by the noise level of the first frame, and this sampler has"
            " one per frame: let it act from 0 to 1 with timestep keyframes at 0 only, or use ComfyUI's own nodes for ControlNets"
        )


def _all(conds: Conds) -> Iterator[Mapping[str, Any]]:
    return (cond for several in conds.values() for cond in several or ())
