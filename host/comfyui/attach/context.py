"""Context windows on a MODEL: of the motion modules only, or of the whole model."""

from comfy.model_patcher import ModelPatcher

from ....modules.temporal.windows import WindowPlan
from ..attached import WINDOWS, attached_to
from ..parts.windows import FrameHandler, handled, whole_windows
from .motion import temporal_windows


def context_windows(model: ModelPatcher, plan: WindowPlan, mode: str) -> ModelPatcher:
    """A clone of ``model`` for clips longer than a window.

    Args:
        model: with a motion module; in mode ``whole`` any whose frames lie in the batch axis.
        plan: of the windows; a length of 0 takes the motion module's.
        mode: a name in ``windows.MODES``.

    Raises:
        ValueError: the windows do not fit the model.
    """
    if mode != "whole":
        return handled(temporal_windows(model, plan, mode), FrameHandler())
    for motion in attached_to(model):
        plan = plan.resolved(motion.about.trained_frames or 16, motion.about.most)
    patched = whole_windows(model, plan)
    patched.set_attachments(WINDOWS, (mode, plan))
    return patched
