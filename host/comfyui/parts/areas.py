"""Conditions for an area of the picture: each call of the model is about one area, and is told which.

ComfyUI puts conditions into one call whose latents are of one size, wherever they lie. A condition of the model that must be equal in
those that share a call keeps them apart, and comes to the call as one of the model's inputs.
"""

from typing import Any

from comfy.conds import CONDConstant

from .conds import Conds

AREA = "longtake_area"  # input of a model call: height, width, top, left in latents; None for all of the picture


class AreaCond(CONDConstant):
    """What a call is told of its condition's area."""

    def process_cond(self, batch_size: int, area: Any = None, **kwargs: Any) -> "AreaCond":
        """ComfyUI's signature: the area as ComfyUI has cut it to the picture."""
        return AreaCond(None if area is None else tuple(area))


def with_areas(conds: Conds) -> Conds:
    """Conditions whose calls are told of their area; as they were where none has one."""
    if not any("area" in entry for cond in conds for entry in cond or ()):
        return conds
    told = AreaCond(None)
    return [cond and [{**entry, "model_conds": {**entry.get("model_conds", {}), AREA: told}} for entry in cond] for cond in conds]
