"""The motion models of a MODEL, and what is known of them: on the patcher, in the U-Net while it is injected, during a sampling."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...modules.temporal.chunks import Chunks
from ...modules.temporal.frames import Frames
from ...modules.temporal.motion import MotionModel
from ...modules.temporal.past import Memories, Memory, Past
from ...modules.temporal.settings import PLAIN, MotionSettings
from ...modules.temporal.windows import WindowPlan, Windows
from .options import SAMPLING

KEY = "longtake_motion"
WINDOWS = "longtake_windows"  # an attachment of the MODEL: (mode, WindowPlan)


@dataclass(frozen=True)
class MotionInfo:
    """What is known of an attached motion model beside its weights."""

    name: str
    max_frames: int | None = None  # None: any number
    trained_frames: int | None = None  # None: any number
    clip_norms: bool = False  # some of the U-Net's norms take their statistics over the whole clip
    settings: MotionSettings = PLAIN
    one_level: bool = False  # it was trained with one noise level for all frames of a clip
    picture: Any = None  # what of a given picture it is told: a ``first_frame.PictureInput``

    @property
    def most(self) -> int | None:
        """The most frames that it may see at once; None for any number, as where its positions are stretched or extended."""
        return self.max_frames if self.settings.positions == "trained" else None


@dataclass(frozen=True)
class Attached:
    """A motion model of a MODEL."""

    model: MotionModel
    about: MotionInfo


@dataclass(frozen=True)
class InUNet:
    """What is in the slots of a U-Net."""

    motions: tuple[Attached, ...]
    chunks: Chunks


def unet_of(model: ModelPatcher) -> Any:
    """The U-Net of a MODEL, whatever kind it is."""
    return model.model.diffusion_model


def attached_to(model: ModelPatcher) -> tuple[Attached, ...]:
    """The motion models of a MODEL, in the order in which they were applied."""
    return tuple(Attached(motion.model, motion.get_attachment(KEY)) for motion in model.get_additional_models_with_key(KEY))


def motion_models(model: ModelPatcher) -> tuple[MotionModel, ...]:
    """The temporal networks of a MODEL, in the order in which they were applied."""
    return tuple(motion.model for motion in attached_to(model))


def windows_of(model: ModelPatcher) -> tuple[str, WindowPlan] | None:
    """(mode, plan) of the windows on a MODEL, or None."""
    return model.get_attachment(WINDOWS)


def frames_in_call(handler: Any, frames: int) -> int:
    """Most frames of a clip that a call holds behind a context handler, of this pack or of ComfyUI, or None.

    It is a window, and where ComfyUI's has ``causal_window_fix`` on, the frame before it.
    """
    return int(min(frames, getattr(handler, "context_length", frames) + leads(handler)))


def leads(handler: Any) -> bool:
    """Whether a context handler shows the frame before each window, too."""
    return bool(getattr(handler, "causal_window_fix", False))


class MotionSampling:
    """What motion models know for the length of a sampling: its windows, the frames that go through a layer at once, which ones have run,
    and what recurrent modules remember.

    Args:
        plan: windows of the motion modules, or None.
        chunk: frames that go through a spatial layer at once, or None for all.
        recall: how long recurrent modules remember frames, for models that see the clip in windows: over the whole ``take``, or for a
            ``step`` of the sampler, which goes through all windows; None where every call shows the whole clip.
    """

    def __init__(self, plan: WindowPlan | None = None, chunk: int | None = None, recall: str | None = None):
        self.plan, self.chunk, self.recall = plan, chunk, recall
        self.memories: dict[int, tuple[int, Memory]] = {}  # by place of the motion model: the step that it is of, 0 for a take
        self.conditions: dict[
            tuple[Hashable, Hashable], int
        ] = {}  # (kind, ComfyUI's name in this run) -> its number among its kind
        self.seen: set[int] = set()  # places of motion models
        self.known: dict[tuple[Any, ...], Frames] = {}

    def windows(self, motion: Attached, frames: int, step: int) -> Windows | None:
        """The windows of one motion model over a call's frames."""
        if self.plan is None:
            return None
        return self.plan.resolved(motion.about.trained_frames or 16, motion.about.most).windows(frames, step)

    def frames(self, place: int, motion: Attached, ids: Tensor, step: int) -> Frames:
        """What a call's frames are to one motion model; computed once for all steps that have the same windows."""
        plan = self.plan
        shifts = plan is not None and plan.schedule.endswith("uniform")
        moded = torch.is_inference_mode_enabled()  # what is made in it can be no part of a graph
        key = place, step if shifts else 0, ids.device, moded, tuple(ids.tolist())
        if key not in self.known:
            self.known = {other: known for other, known in self.known.items() if other[0] != place}
            about = motion.about
            self.known[key] = motion.model.frames_for(
                ids, None, self.windows(motion, len(ids), step), about.settings.positions, about.max_frames or 0
            )
        return self.known[key]

    def past(self, place: int, motion: Attached, ids: Tensor, rows: Sequence[Hashable], step: int) -> Past | None:
        """What one motion model may know in a call of frames before it: ``ids``: ``f``, for clips of ``rows``; None for nothing."""
        if self.recall is None or not motion.model.recalls:
            return None
        step = 0 if self.recall == "take" else step
        if self.memories.get(place, (None,))[0] != step:
            self.memories[place] = step, Memory()
        return self.memories[place][1].call(ids, [self._numbered(*row) if isinstance(row, tuple) else row for row in rows])

    def tensors(self) -> dict[str, Tensor]:
        """What recurrent modules remember, by name, for a take that is interrupted and goes on."""
        return Memories({place: memory for place, (_, memory) in self.memories.items()}).tensors()

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """None: states are small."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with what ``tensors`` gave, perhaps in another run of ComfyUI."""
        memories = Memories({})
        memories.restore(tensors)
        self.memories = {place: (0, memory) for place, memory in memories.each.items()}

    def _numbered(self, kind: Hashable, name: Hashable, *variant: Hashable) -> tuple[Hashable, ...]:
        """The name of a clip that is the same in every run of ComfyUI, which names conditions anew each time."""
        others = sum(kind == other for other, _ in self.conditions)
        return (kind, self.conditions.setdefault((kind, name), others), *variant)


def motion_sampling(options: Mapping[str, Any]) -> MotionSampling | None:
    """What the motion models know of the sampling that transformer options are of; None where there is none, or no motion model."""
    sampling = options.get(SAMPLING)
    return None if sampling is None else sampling.kept.get(KEY)
