"""ComfyUI's conditions for some frames of a clip: what there is one of per frame follows the frames, and each starts and ends at its level.

Frames lie in the batch axis, or, in models with a time axis of their own, in axis 2; rows of a condition lie where frames do.
"""

from collections.abc import Callable
from math import inf
from typing import Any

from comfy.conds import CONDList, CONDNoiseShape, CONDRegular
from torch import Tensor

from ....modules.control.prompt_mixing import HELD, row_ids
from ....modules.control.timed_prompts import SHOT

Cond = dict[str, Any]
Conds = list[list[Cond] | None]
Rows = Callable[[Tensor, int], Tensor]  # of a tensor and the axis in which it has a row per frame, the rows of some frames
BY_ROW = (CONDRegular.process_cond, CONDNoiseShape.process_cond)  # these repeat rows until there is one per frame
FRAMED = ("c_concat", "denoise_mask")  # inputs of video networks that have one entry per latent frame


def of_frames(conds: Conds, ids: Tensor, axis: int, control: Callable[[Any], Any]) -> Conds:
    """The conditions of some frames; what there is only one of stays as it is.

    Args:
        conds: as ComfyUI's ``calc_cond_batch`` takes them.
        ids: ``f``, int64, frame numbers; where fewer rows than frames were given they start over, as ComfyUI lets them, but of schedules
            the last one holds.
        axis: where frames lie, 0 or 2.
        control: what stands in for a control in calls about these frames.

    Raises:
        ValueError: a prompt per frame was given to a model that has one for all frames of a call.
    """
    mask_axis = 1 if axis else 0  # it has no channels

    def item(name: str, value: Any, pick: Rows) -> Any:
        if name == "model_conds":
            return {key: PER_FRAME[axis](key, cond, ids, pick) for key, cond in value.items()}
        if name == "mask" and value.ndim > mask_axis + 2:
            return pick(value, mask_axis)
        return control(value) if name == "control" and value is not None else value

    def of_entry(entry: Cond) -> Cond:
        held = bool(entry.get(HELD))
        text = entry.get("model_conds", {}).get("c_crossattn")
        if held and axis and text is not None and len(text.cond) > 1:
            raise ValueError(
                f"the prompts were mixed for {len(text.cond)} frames and this model has one text for all frames of a call: set blend of"
                " Prompt Schedule to predictions, or for Causal Take to shots"
            )

        def pick(rows: Tensor, place: int) -> Tensor:
            return rows_of(rows, ids, place, held)

        return {name: item(name, value, pick) for name, value in entry.items()}

    return [cond and [of_entry(entry) for entry in cond] for cond in conds]


def of_shot(conds: Conds, shot: int) -> Conds:
    """The conditions of one of several prompts, under the names of the first one's, since what is cached is the same take's.

    Args:
        conds: as ComfyUI's ``calc_cond_batch`` takes them; those of later prompts say ``SHOT``.
        shot: number of the prompt.
    """

    def chosen(entries: list[Cond]) -> list[Cond]:
        first, mine = ([entry for entry in entries if entry.get(SHOT, 0) == number] for number in (0, shot))
        if len(first) == len(entries):
            return entries
        return [{**entry, "uuid": name["uuid"]} for name, entry in zip(first, mine, strict=True)]

    return [entries and chosen(entries) for entries in conds]


def gated(conds: Conds, sigma: Tensor) -> Conds:
    """Conditions that start or end between the noise levels of some frames count for those frames only that are inside.

    Args:
        conds: as ComfyUI's ``calc_cond_batch`` takes them.
        sigma: ``...``, noise levels: ``f``, or ``b f`` in models with a time axis of their own.
    """
    return [conds_of and [entry for cond in conds_of if (entry := _gated(cond, sigma)) is not None] for conds_of in conds]


def _gated(cond: Cond, sigma: Tensor) -> Cond | None:
    inside = (sigma <= cond.get("timestep_start", inf)) & (sigma >= cond.get("timestep_end", -inf))
    if not bool(inside.any()):
        return None
    rest = {name: value for name, value in cond.items() if name not in ("timestep_start", "timestep_end")}
    if bool(inside.all()):
        return rest
    share = inside.to(sigma)
    share = share[:, None, None, None] if sigma.ndim == 1 else share[:, None, :, None, None]
    return {**rest, "strength": cond.get("strength", 1.0) * share}


def _in_batch(name: str, cond: Any, ids: Tensor, pick: Rows) -> Any:
    """An input of an image model, if it has a row per frame; those that find their rows themselves have a ``process_cond`` of their own."""
    if name == "num_video_frames":  # Stable Video Diffusion
        return cond._copy_with(len(ids))
    how = type(cond).process_cond
    if how is CONDList.process_cond:
        return cond._copy_with([pick(rows, 0) for rows in cond.cond])
    return cond._copy_with(pick(cond.cond, 0)) if how in BY_ROW else cond


def _along_time(name: str, cond: Any, ids: Tensor, pick: Rows) -> Any:  # noqa: ARG001  as ``_in_batch``
    rows = getattr(cond, "cond", None)
    if name not in FRAMED or not isinstance(rows, Tensor) or rows.ndim != 5:
        return cond
    return cond._copy_with(pick(rows, 2))


PER_FRAME: dict[int, Callable[[str, Any, Tensor, Rows], Any]] = {0: _in_batch, 2: _along_time}


def rows_of(rows: Tensor, ids: Tensor, axis: int, held: bool = False) -> Tensor:
    """The rows of some frames, unless there is one for all: ``rows``: ``...``. Returns ``...``."""
    count = rows.shape[axis]
    return rows if count == 1 else rows.index_select(axis, row_ids(ids, count, held).to(rows.device))
