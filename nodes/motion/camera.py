"""A camera for a motion module (CameraCtrl): the module that understands it, its path, and both on a model."""

from pathlib import Path
from typing import Any

from ... import host
from ...modules.checkpoints.camera import load_camera
from ...modules.checkpoints.motion import MotionModule, graft_camera
from ...modules.control.camera import MOVES, CameraPath, moved, parse_moves, read_path
from ...modules.draw.camera_picture import draw_path
from ...modules.fields.setting import Setting
from ..fields import widget
from ..node import LongTakeNode, checked
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
                "Puts a CameraCtrl module onto a motion module, which can follow a camera then: connect it to Apply Motion Module,"
                " and put"
                " Apply Camera behind that."
            ),
            inputs=[
                MotionModuleType.Input(
                    "motion_module",
                    tooltip="The motion module comes from Load Motion Module: it is the one that the camera was trained with,"
                    " v3_sd15_mm.",
                ),
                io.Combo.Input(
                    "camera",
                    options=host.files("motion_modules"),
                    tooltip="The file lies in models/animatediff_models, such as CameraCtrl_pruned.safetensors.",
                ),
            ],
            outputs=[
                MotionModuleType.Output(display_name="motion_module", tooltip="It is the same module, which can follow a camera.")
            ],
        )

    @classmethod
    def execute(cls, motion_module: MotionModule, camera: str) -> io.NodeOutput:
        return io.NodeOutput(graft_camera(motion_module, load_camera(host.file("motion_modules", camera))))


def moves_of(move: str, more_moves: str = "") -> tuple[tuple[str, float], ...]:
    """The moves that are done together, and how much of each; none where a file says them.

    Raises:
        ValueError: a text cannot be read, or a file has other moves beside it.
    """
    if move != FILE:
        return ((move, 1.0), *parse_moves(more_moves))
    if more_moves.strip():
        raise ValueError("a file says all moves: leave more_moves empty, or choose a move instead of the file")
    return ()


class LongTakeCameraPoses(LongTakeNode):
    """A camera's path through a clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        side: dict[str, Any] = {"least": 1, "most": 16384, "advanced": True}
        return io.Schema(
            node_id="LongTakeCameraPoses",
            display_name="Camera Poses",
            category=CATEGORY,
            description=(
                "Makes a camera's path through a clip: a simple move, several at the same time, or a RealEstate10K text file. The picture"
                " shows it from above and from the side. Chain several for one move after another."
            ),
            inputs=[
                widget(
                    "move",
                    "move forward",
                    Setting(
                        "The move says what the camera does: pan and tilt turn it, move shifts it, zoom changes its lens, and from"
                        " file does"
                        " what the text file says.",
                        menu=[*MOVES, FILE],
                    ),
                ),
                widget(
                    "speed",
                    1.0,
                    Setting(
                        "In 16 frames a speed of 1 turns by 60 degrees, moves a few steps or doubles the focal length; a negative one"
                        " goes"
                        " the other way.",
                        least=-10.0,
                        most=10.0,
                        step=0.01,
                    ),
                ),
                widget(
                    "frames",
                    16,
                    Setting(
                        "The path has so many frames: those of the clip, or with a path before it those that it adds.",
                        least=1,
                        most=4096,
                    ),
                ),
                widget(
                    "more_moves",
                    "",
                    Setting(
                        "These moves happen at the same time, one per line, each with a factor on the speed if you like, such as pan left"
                        " 0.5. A file has all its moves already.",
                        multiline=True,
                        advanced=True,
                    ),
                ),
                io.Combo.Input(
                    "file",
                    options=[NONE, *pose_files()],
                    default=NONE,
                    tooltip="The text file lies in the input folder and is for the move from file; its path is spread over the frames.",
                ),
                widget("file_width", 1280, Setting("The video that the file was made from is so wide.", **side)),
                widget("file_height", 720, Setting("The video that the file was made from is so high.", **side)),
                PosesType.Input(
                    "before",
                    optional=True,
                    tooltip="The path goes on where this one ends, which comes from another Camera Poses.",
                ),
            ],
            outputs=[
                PosesType.Output(display_name="poses", tooltip="The path goes to Apply Camera, or before another one."),
                io.Image.Output(display_name="picture", tooltip="The picture shows the path from above and from the side."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, move: str, file: str = NONE, **_: Any) -> str:
        if move != FILE or file not in pose_files():
            return ""
        stat = pose_file(file).stat()
        return f"{stat.st_mtime_ns}/{stat.st_size}"

    validate_inputs = checked(moves_of)

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
        moves = moves_of(move, more_moves)
        if move == FILE:
            path = read_path(pose_file(file).read_text(encoding="utf-8", errors="replace"), file, file_width / file_height)
            path = path.resampled(count)
        else:
            path = moved(moves, count, speed)
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
                    "model",
                    tooltip="The model comes from Apply Motion Module. Of its modules the last one with a camera grafted on follows.",
                ),
                PosesType.Input("poses", tooltip="The path comes from Camera Poses: it has a pose for each frame of the clip."),
                widget(
                    "strength",
                    1.0,
                    Setting(
                        "The strength says how firmly the camera is followed: 1 is as trained, and 0 is as if nothing was grafted on.",
                        least=0.0,
                        most=10.0,
                        step=0.01,
                    ),
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="It is the same model, led by the camera.")],
        )

    @classmethod
    def execute(cls, model: Any, poses: CameraPath, strength: float) -> io.NodeOutput:
        return io.NodeOutput(host.apply_camera(model, poses, strength))
