"""What other packs are told of a call: which frames of the clip it is about.

Packs that have something for each frame look for it in three places, and all three are true in every call, whichever way a clip is shown:

- ``ad_params``, which AnimateDiff-Evolved made the custom and IPAdapter_plus, Advanced-ControlNet and KJNodes read: ``sub_idxs``, absolute
  frame numbers or None for all in order, ``full_length`` and ``context_length``;
- ``context_window``, ComfyUI's own;
- ``uuids``, ComfyUI's names of the conditions. What remembers something of a condition from call to call (EasyCache) would take one
  part of a clip for another, so a condition has another name in every part.
"""

from collections.abc import Callable
from inspect import signature
from typing import Any
from uuid import UUID, uuid5

from comfy.context_windows import IndexListContextWindow
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....modules.temporal.chunks import AD_PARAMS
from ..options import CLIP, CLIPS, CONTEXT_WINDOW, IDS, NAMES, OWN_UUIDS, SAMPLING, SHOWN, Clip, known_frames
from .areas import with_areas

KEY = "longtake_telling"
KIND = WrappersMP.CALC_COND_BATCH
Conds = list[list[dict[str, Any]] | None]


def tells(model: ModelPatcher) -> None:
    """Let a MODEL that is being put together tell others in every call."""
    if not model.get_wrappers(KIND, KEY):
        model.add_wrapper_with_key(KIND, KEY, telling)


def telling_options(options: dict[str, Any]) -> dict[str, Any]:
    """Model options of one sampling with which others are told in every call, whether the MODEL does or not."""
    transformer = options.get("transformer_options", {})
    wrappers = transformer.get("wrappers", {})
    wrappers = {**wrappers, KIND: {**wrappers.get(KIND, {}), KEY: [telling]}}
    return {**options, "transformer_options": {**transformer, "wrappers": wrappers}}


def telling(
    executor: Callable[..., list[Tensor]],
    model: Any,
    conds: Conds,
    x_in: Tensor,
    timestep: Tensor,
    model_options: dict[str, Any],
) -> list[Tensor]:
    """CALC_COND_BATCH: one call, or several about the same frames; ``x_in``: ``n c h w`` or ``b c f h w``, ``timestep``: ``...``."""
    options = model_options.get("transformer_options", {})
    axis = 2 if x_in.ndim == 5 else 0
    variants = 1 if axis else options.get(CLIPS, 1)
    ids = known_frames(options, axis)
    clip: Clip = options.get(CLIP) or Clip.of(x_in)
    whole = ids is None or ids.tolist() == list(range(clip.frames))
    told = dict(options)
    if axis == 0:
        told[AD_PARAMS] = ad_params(None if whole and variants == 1 else ids, clip.frames, variants)
    if ids is not None:
        told[SHOWN] = ids
    names = options.get(NAMES, (0,))
    if ids is not None and not (whole and tuple(names) == (0,)):
        if IDS in options or CONTEXT_WINDOW not in options:  # a window of what a sampler shows counts from there
            told[CONTEXT_WINDOW] = published(ids.tolist(), clip.frames, axis)
        conds, told[OWN_UUIDS] = renamed(conds, f"frames {ids.tolist()} of {list(names)}")
    if SAMPLING in options:
        conds = with_areas(conds)
    return executor(model, conds, x_in, timestep, {**model_options, "transformer_options": told})


class BehindTheEnd(int):
    """What a sampler shows behind the last frame and drops later: it gets what the last frame gets, and is not taken for it.

    As an index it is the last frame's number. Who looks up where in a call a frame is (Advanced-ControlNet's latent keyframes) finds the
    frame itself.
    """

    __eq__ = object.__eq__
    __hash__ = object.__hash__


def ad_params(ids: Tensor | None, frames: int, variants: int = 1) -> dict[str, Any]:
    """AnimateDiff-Evolved's account of a call.

    Args:
        ids: ``f``, absolute frame numbers; None for all in order.
        frames: of the clip; a sampler without an end shows frames beyond.
        variants: of the same frames in the call.
    """
    if ids is None:
        return {"sub_idxs": None, "full_length": frames, "context_length": frames}
    numbers, last = ids.tolist(), frames - 1
    behind = numbers.index(last) + 1 if last in numbers else len(numbers)
    numbers[behind:] = [BehindTheEnd(number) if number == last else number for number in numbers[behind:]]
    return {
        "sub_idxs": numbers * variants,
        "full_length": max(frames, int(ids.max()) + 1),
        "context_length": len(ids),
    }


def published(frames: list[int], total: int, axis: int = 0) -> IndexListContextWindow:
    """A window as ComfyUI has it; newer versions want to know the clip's length."""
    knows_total = "total_frames" in signature(IndexListContextWindow).parameters
    return IndexListContextWindow(frames, dim=axis, **({"total_frames": max(total, max(frames) + 1)} if knows_total else {}))


def renamed(conds: Conds, part: str) -> tuple[Conds, dict[UUID, UUID]]:
    """Conditions under names that nothing but this part of a clip has, the same in every step; and what each was called."""
    own: dict[UUID, UUID] = {}

    def one(entry: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(entry.get("uuid"), UUID):
            return entry
        name = uuid5(entry["uuid"], part)
        own[name] = entry["uuid"]
        return {**entry, "uuid": name}

    return [cond and [one(entry) for entry in cond] for cond in conds], own
