"""Keyframes: pictures and when the clip should meet them, for every control of this pack."""

from typing import Any

from torch import Tensor

from ... import host
from ...modules.control.keyframes import Keyframes, check_text, read_frames, read_strengths
from ...modules.draw.keyframe_picture import draw_keyframes
from ...modules.draw.thumbnails import thumbnails
from ...modules.fields.setting import Setting
from ..fields import widget
from ..node import LongTakeNode, checked

io = host.io
CATEGORY = "LongTake/keyframes"
KeyframesType: Any = io.Custom("LONGTAKE_KEYFRAMES")
MOST_SHOWN = 64  # images that the editor's timeline is told of (web/keyframes_widget.js)
CLIP_FRAMES = Setting(
    "The clip has so many frames, which is the latent's batch size; 0 takes what Keyframes says.",
    least=0,
    most=1_000_000,
    advanced=True,
)
STRENGTH_PER_FRAME = Setting(
    "Each frame's strength is multiplied with its number in this list, such as 1, 0.8, 0.5, or in this schedule, such as 0: 1; 24: 0.5;"
    " the last one holds to the end, and an empty list changes nothing.",
    advanced=True,
)


class LongTakeKeyframes(LongTakeNode):
    """Pictures with frame numbers."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeKeyframes",
            display_name="Keyframes",
            category=CATEGORY,
            description="Says which pictures a clip should meet, and when. One object serves all controls: SparseCtrl, ControlNets, image"
            " prompts, interpolation. The picture shows the timeline.",
            inputs=[
                io.Image.Input("images", tooltip="Each image is a keyframe. Load Image and Image Batch put several together."),
                widget(
                    "frames",
                    "0",
                    Setting(
                        "These are the frames of the images, such as 0, 8, -1: frames count from 0, and -1 is the last. even"
                        " spreads them over the clip, first and last included."
                    ),
                ),
                widget(
                    "strength",
                    "1",
                    Setting(
                        "The strength says how firmly the images are followed, 0 to 10: one number for all, or one for each. 1 is"
                        " as trained."
                    ),
                ),
                widget(
                    "reach",
                    0,
                    Setting(
                        "An image still touches so many frames on either side, its strength falling linearly; 0 is its own frame"
                        " only. Controls that fill in between by themselves, such as SparseCtrl, want 0.",
                        least=0,
                        most=4096,
                        advanced=True,
                    ),
                ),
                widget(
                    "clip_frames",
                    16,
                    Setting(
                        "The clip has so many frames: frame numbers are checked against it, and the picture shows it. 0 is any"
                        " number, which even cannot use.",
                        least=0,
                        most=1_000_000,
                    ),
                ),
                KeyframesType.Input(
                    "previous",
                    optional=True,
                    tooltip="These keyframes are added to the ones connected here, whose images have the same size.",
                ),
            ],
            outputs=[
                KeyframesType.Output(display_name="keyframes", tooltip="They are images, frames and strengths together."),
                io.Image.Output(
                    display_name="timeline",
                    tooltip="The picture shows the images over the frames that they are for, and their strengths.",
                ),
            ],
        )

    validate_inputs = checked(check_text)

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
