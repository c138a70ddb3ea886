"""Keyframes: pictures and when the clip should meet them, for every control of this pack."""

from typing import Any

from torch import Tensor

from ... import host
from ...modules.control.keyframes import Keyframes, read_frames, read_strengths
from ...modules.draw.keyframe_picture import draw_keyframes
from ...modules.draw.thumbnails import thumbnails
from ..node import LongTakeNode

io = host.io
CATEGORY = "LongTake/keyframes"
KeyframesType: Any = io.Custom("LONGTAKE_KEYFRAMES")
MOST_SHOWN = 64  # images that the editor's timeline is told of (web/keyframes_widget.js)


class LongTakeKeyframes(LongTakeNode):
    """Pictures with frame numbers."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeKeyframes",
            display_name="Keyframes",
            category=CATEGORY,
            description="Pictures that a clip should meet, and when. One object for all controls: SparseCtrl, ControlNets, image"
            " prompts, interpolation. The picture shows the timeline.",
            inputs=[
                io.Image.Input("images", tooltip="One image per keyframe. Load Image and Image Batch put several together."),
                io.String.Input(
                    "frames",
                    default="0",
                    tooltip="The frame of each image, such as 0, 8, -1; frames count from 0, and -1 is the last. even: spread over"
                    " the clip, first and last included.",
                ),
                io.String.Input(
                    "strength",
                    default="1",
                    tooltip="How strongly the images are followed, 0 to 10: one number for all, or one for each. 1 is as trained.",
                ),
                io.Int.Input(
                    "reach",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="Frames on either side that an image still touches, its strength falling linearly. 0: its own frame"
                    " only. Controls that fill in between by themselves, such as SparseCtrl, want 0.",
                ),
                io.Int.Input(
                    "clip_frames",
                    default=16,
                    min=0,
                    max=1_000_000,
                    tooltip="Length of the clip: frame numbers are checked against it, and the picture shows it. 0: any; not"
                    " with even.",
                ),
                KeyframesType.Input("previous", optional=True, tooltip="Keyframes that these are added to, of the same size."),
            ],
            outputs=[
                KeyframesType.Output(display_name="keyframes", tooltip="Images, frames and strengths together."),
                io.Image.Output(display_name="timeline", tooltip="Images over the frames that they are for, and strengths."),
            ],
        )

    @classmethod
    def execute(
        cls, images: Tensor, frames: str, strength: str, reach: int, clip_frames: int, previous: Keyframes | None
    ) -> "io.NodeOutput":
        count = len(images)
        keyframes = Keyframes(
            images, read_frames(frames, count, clip_frames), read_strengths(strength, count), (reach,) * count, clip_frames
        )
        keyframes = keyframes if previous is None else previous.and_then(keyframes)
        # where the length is not known, the shortest clip that they fit
        shown = keyframes.clip or max(frame + 1 if frame >= 0 else -frame for frame in keyframes.frames)
        small = host.ui.PreviewImage(thumbnails(images[:MOST_SHOWN, ..., :3]), cls=cls).as_dict()["images"]
        return io.NodeOutput(keyframes, draw_keyframes(keyframes, shown), ui={"longtake_keyframes": small})
