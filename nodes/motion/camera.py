"""A camera for a motion module (CameraCtrl): the module that understands it, its path, and both on a model."""

from pathlib import Path
from typing import Any

from ... import host
from ...modules.checkpoints.camera import load_camera
from ...modules.checkpoints.motion import MotionModule, graft_camera
from ...modules.control.camera import MOVES, CameraPath, moved, parse_moves, read_path
from ...modules.draw.camera_picture import draw_path
from ..node import LongTakeNode
from .motion import CATEGORY, MotionModuleType

io = host.io
PosesType = io.Custom("LONGTAKE_CAMERA_POSES")
FILE, NONE = "from file", "none"


def pose_files() -> list[str]:
    """Names of the text files in the input folder."""
    return sorted(path.name for path in host.input_directory().glob("*.txt"))


def pose_file(name: str) -> Path:
    """The text file of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in pose_files():
        there = ", ".join(pose_files()) or "none yet"
        raise ValueError(f"there is no camera file {name!r} in {host.input_directory()}: put it there, or choose one of: {there}")
    return host.input_directory() / name


class LongTakeGraftCamera(LongTakeNode):
    """Put a CameraCtrl module onto a motion module."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongTakeGraftCamera",
            display_name="Graft Camera",
            category=CATEGORY,
            description=(
                "Puts a CameraCtrl module onto a motion module, which can follow a camera then: connect it to Apply Motion Module, and put"
                " Apply Camera behind that."
            ),
            inputs=[
                MotionModuleType.Input(
                    "motion_module", tooltip="From Load Motion Module: the one that the camera was trained with, v3_sd15_mm."
                ),
                io.Combo.Input(
                    "camera",
                    options=host.files("motion_modules"),
                    tooltip="A file in models/animatediff_models, such as CameraCtrl_pruned.safetensors.",
                ),
            ],
            outputs=[
                MotionModuleType.Output(display_name="motion_module", tooltip="The same module, which can follow a camera.")
            ],
        )

    @classmethod
    def execute(cls, motion_module: MotionModule, camera: str) -> io.NodeOutput:
        return io.NodeOutput(graft_camera(motion_module, load_camera(host.file("motion_modules", camera))))


class LongTakeCameraPoses(LongTakeNode):
    """A camera's path through a clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongTakeCameraPoses",
            display_name="Camera Poses",
            category=CATEGORY,
            description=(
                "A camera's path through a clip: a simple move, several at the same time, or a RealEstate10K text file. The picture shows"
                " it from above and from the side. Chain several for one move after another."
            ),
            inputs=[
                io.Combo.Input(
                    "move",
                    options=[*MOVES, FILE],
                    default="move forward",
                    tooltip="pan and tilt turn the camera, move shifts it, zoom changes its lens. from file: what the text file says.",
                ),
                io.Float.Input(
                    "speed",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.01,
                    tooltip="1 turns by 60 degrees, moves a few steps or doubles the focal length in 16 frames. Negative: the other way.",
                ),
                io.Int.Input(
                    "frames",
                    default=16,
                    min=1,
                    max=4096,
                    tooltip="As many as the clip has; with a path before it, as many as it adds.",
                ),
                io.String.Input(
                    "more_moves",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Moves at the same time, one per line, each with a factor on the speed if you like: pan left 0.5. Not with a"
                    " file.",
                ),
                io.Combo.Input(
                    "file",
                    options=[NONE, *pose_files()],
                    default=NONE,
                    optional=True,
                    tooltip="A text file in the input folder, for the move from file. Its path is spread over the frames.",
                ),
                io.Int.Input(
                    "file_width",
                    default=1280,
                    min=1,
                    max=16384,
                    optional=True,
                    tooltip="Width of the video the file was made from.",
                ),
                io.Int.Input(
                    "file_height",
                    default=720,
                    min=1,
                    max=16384,
                    optional=True,
                    tooltip="Height of the video the file was made from.",
                ),
                PosesType.Input(
                    "before", optional=True, tooltip="A path from another Camera Poses: this one goes on where it ends."
                ),
            ],
            outputs=[
                PosesType.Output(display_name="poses", tooltip="For Apply Camera, or as the path before another one."),
                io.Image.Output(display_name="picture", tooltip="The path, from above and from the side."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, move: str, file: str = NONE, **_: Any) -> str:
        if move != FILE or file not in pose_files():
            return ""
        stat = pose_file(file).stat()
        return f"{stat.st_mtime_ns}/{stat.st_size}"

    @classmethod
    def execute(
        cls,
        move: str,
        speed: float,
        frames: int,
        more_moves: str,
        file: str,
        file_width: int,
        file_height: int,
        before: CameraPath | None,
    ) -> io.NodeOutput:
        count = frames if before is None else frames + 1  # the first frame of what follows is the last that was
        if move == FILE:
            if more_moves.strip():
                raise ValueError("a file says all moves: leave more_moves empty, or choose a move instead of the file")
            path = read_path(pose_file(file).read_text(encoding="utf-8", errors="replace"), file, file_width / file_height)
            path = path.resampled(count)
        else:
            path = moved(((move, 1.0), *parse_moves(more_moves)), count, speed)
        path = path if before is None else before.then(path)
        return io.NodeOutput(path, draw_path(path))


class LongTakeApplyCamera(LongTakeNode):
    """Let a model's motion module follow a camera."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongTakeApplyCamera",
            display_name="Apply Camera",
            category=CATEGORY,
            description=(
                "Lets a model's motion module follow a camera (CameraCtrl). The motion module must come from Graft Camera. Works with"
                " Context Windows, in all modes."
            ),
            inputs=[
                io.Model.Input(
                    "model", tooltip="From Apply Motion Module. The module applied last that has a camera grafted on follows."
                ),
                PosesType.Input("poses", tooltip="From Camera Poses: one for each frame of the clip."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="How strongly it follows. 1: as trained. 0: not at all, as if nothing was grafted on.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The same model, led by the camera.")],
        )

    @classmethod
    def execute(cls, model: Any, poses: CameraPath, strength: float) -> io.NodeOutput:
        return io.NodeOutput(host.apply_camera(model, poses, strength))
