"""A camera's path for the motion module of a MODEL: CameraCtrl's features, computed when a sampling first needs them.

Poses lie on the motion module's own ModelPatcher. What is computed from them lives as long as a sampling; a call is told of the frames
that it is about, seen from the first of them, so windows of the whole model are clips of their own.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from comfy.model_patcher import ModelPatcher

from ....modules.control.camera import CameraPath
from ....modules.temporal.frames import Hint
from ....modules.temporal.motion import MotionModel
from ..attached import KEY
from .attachment import Attachment, hang
from .call_info import CallInfo, Sampling

CAMERA = "longtake_camera"  # the attachment, and that of a motion module's patcher
MOST = 10.0  # a strength beyond this is a slip of the hand
KEPT = 128  # frames whose features are kept for the next call; each takes 5 to 10 MB at 512x512


@dataclass(frozen=True, eq=False)
class CameraLead:
    """How a motion module follows a camera; an attachment of its patcher."""

    path: CameraPath
    strength: float


@dataclass
class Follower:
    """A motion model and its camera in one sampling, with what each clip's slots are told."""

    motion: MotionModel
    lead: CameraLead
    known: dict[tuple[Any, ...], dict[str, Hint]] = field(default_factory=dict)

    def hints(self, info: CallInfo) -> dict[str, Hint]:
        """What each slot is told in a call."""
        part = info.part("the camera")
        key = tuple(info.ids.tolist()), info.area, part, info.ids.device
        if key not in self.known:
            while self.known and sum(len(frames) for frames, *_ in self.known) + len(info.ids) > KEPT:
                del self.known[next(iter(self.known))]
            camera = self.motion.camera
            assert camera is not None, "apply_camera has looked"
            path = self.lead.path.at(info.ids.cpu())
            size, strength = info.area if part is None else part.whole, self.lead.strength
            self.known[key] = camera.hints(path, *size, strength=strength, device=info.ids.device, part=part)
        return self.known[key]


def apply_camera(model: ModelPatcher, path: CameraPath, strength: float = 1.0) -> ModelPatcher:
    """A clone of ``model`` whose last motion module with a CameraCtrl module on it follows a camera.

    Args:
        model: with a motion module that a camera was grafted onto.
        path: a pose for every frame of the clips that will be sampled.
        strength: 1 as trained, 0 for nothing.

    Raises:
        ValueError: there is no such motion module, or the strength is out of range.
    """
    if not 0 <= strength <= MOST:
        raise ValueError(
            f"strength is {strength}: it must lie between 0, no camera, and {MOST:g}; 1 is the camera as it was trained"
        )
    patched = model.clone()
    motions = patched.get_additional_models_with_key(KEY)
    able = [motion for motion in motions if motion.model.camera is not None]
    if not able:
        what = "has no motion module" if not motions else "has a motion module that follows no camera"
        raise ValueError(
            f"the model {what}: put Graft Camera between Load Motion Module and Apply Motion Module, and Apply Camera behind them"
        )
    able[-1].set_attachments(CAMERA, CameraLead(path, strength))
    hang(patched, FOLLOWING)
    return patched


def check_length(path: CameraPath, frames: int) -> None:
    """Refuse a clip that has more frames than poses, or fewer."""
    if len(path) != frames:
        raise ValueError(
            f"the camera's path has {len(path)} poses and the clip has {frames} frames: set frames of Camera Poses to {frames}"
        )


class Following(Attachment):
    """The attachment."""

    key = CAMERA

    @contextmanager
    def begin(self, sampling: Sampling) -> Iterator[None]:
        """See ``Attachment``."""
        motions = sampling.model.get_additional_models_with_key(KEY)
        followers = [Follower(motion.model, lead) for motion in motions if (lead := motion.get_attachment(CAMERA)) is not None]
        for follower in followers:
            check_length(follower.lead.path, sampling.clip.frames)
        sampling.kept[self.key] = followers
        yield

    @contextmanager
    def call(self, info: CallInfo) -> Iterator[None]:
        """See ``Attachment``."""
        followers = [] if info.sampling is None else info.sampling.kept[self.key]
        with ExitStack() as stack:
            for follower in followers:
                stack.enter_context(follower.motion.hinted(follower.hints(info)))
            yield


FOLLOWING = Following()
