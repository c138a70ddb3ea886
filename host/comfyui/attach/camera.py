"""A camera's path for the motion module of a MODEL: CameraCtrl's features, computed when a sampling first needs them.

Poses hang on the motion module's own ModelPatcher. What is computed from them lives as long as a sampling, in its transformer options;
a call is told of the frames that it is about, seen from the first of them, so windows of the whole model are clips of their own.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....modules.control.camera import CameraPath
from ....modules.temporal.frames import Hint
from ....modules.temporal.motion import MotionModel
from ..held import KEY
from ..options import call_options, frame_numbers

CAMERA = "longtake_camera"  # attachment, wrappers and transformer option
MOST = 10.0  # a strength beyond this is a slip of the hand
KEPT = 128  # frames whose features are kept for the next call; each takes 5 to 10 MB at 512x512


@dataclass(frozen=True, eq=False)
class Led:
    """How a motion module follows a camera; an attachment of its patcher."""

    path: CameraPath
    strength: float


@dataclass
class Follower:
    """A motion model and its camera in one sampling, with what each clip's slots are told."""

    motion: MotionModel
    led: Led
    known: dict[tuple[Any, ...], dict[str, Hint]] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Follower":
        return self  # some versions copy model options deeply; this is one sampling's, whoever holds it

    def hints(self, ids: Tensor, x: Tensor) -> dict[str, Hint]:
        """For a call about the frames ``ids``: ``f``, on latents ``x``: ``n c h w``."""
        key = tuple(ids.tolist()), *x.shape[-2:], x.device
        if key not in self.known:
            while self.known and sum(len(frames) for frames, *_ in self.known) + len(ids) > KEPT:
                del self.known[next(iter(self.known))]
            camera = self.motion.camera
            assert camera is not None, "apply_camera has looked"
            path = self.led.path.at(ids)
            self.known[key] = camera.hints(path, *x.shape[-2:], strength=self.led.strength, device=x.device)
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
    held = patched.get_additional_models_with_key(KEY)
    able = [motion for motion in held if motion.model.camera is not None]
    if not able:
        what = "has no motion module" if not held else "has a motion module that follows no camera"
        raise ValueError(
            f"the model {what}: put Graft Camera between Load Motion Module and Apply Motion Module, and Apply Camera behind them"
        )
    able[-1].set_attachments(CAMERA, Led(path, strength))
    if not patched.get_wrappers(WrappersMP.OUTER_SAMPLE, CAMERA):
        patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, CAMERA, around_sampling)
        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, CAMERA, around_call)
    return patched


def around_sampling(executor: Any, noise: Tensor, *args: Any, **kwargs: Any) -> Any:
    """OUTER_SAMPLE: refuse a path of another length than the clip, and keep what holds for the whole sampling."""
    guider = executor.class_obj
    held = guider.model_patcher.get_additional_models_with_key(KEY)
    followers = [Follower(motion.model, led) for motion in held if (led := motion.get_attachment(CAMERA)) is not None]
    for follower in followers:
        check_length(follower.led.path, len(noise))
    options = guider.model_options.setdefault("transformer_options", {})
    options[CAMERA] = followers
    try:
        return executor(noise, *args, **kwargs)
    finally:
        options.pop(CAMERA, None)


def check_length(path: CameraPath, frames: int) -> None:
    """Refuse a clip that has more frames than poses, or fewer."""
    if len(path) != frames:
        raise ValueError(
            f"the camera's path has {len(path)} poses and the clip has {frames} frames: set frames of Camera Poses to {frames}"
        )


def around_call(executor: Any, x: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Any:
    """APPLY_MODEL: tell the motion models of the camera in the frames of this call, and forget it afterwards."""
    options = call_options((t, *args), kwargs)
    ids = frame_numbers(options, len(x) // max(1, len(options.get("cond_or_uncond", ()))))
    with ExitStack() as stack:
        for follower in options.get(CAMERA, ()):
            stack.enter_context(follower.motion.hinted(follower.hints(ids, x)))
        return executor(x, t, *args, **kwargs)
