"""An edit of a few frames of a video, carried to all others."""

from typing import Any

from torch import Tensor

from ... import host
from ...modules.control.edit_propagation import EditPropagation
from ...modules.control.keyframes import Keyframes
from ..fields import inputs_of, settings_of
from ..node import LongTakeNode
from .keyframes import CATEGORY, KeyframesType

io = host.io


class LongTakePropagateEdit(LongTakeNode):
    """The difference between edited frames and their originals, in every frame."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakePropagateEdit",
            display_name="Propagate Edit",
            category=CATEGORY,
            description="Carries an edit of one or a few frames of a video to all others: each place of a frame gets the edit of what it"
            " shows, found in the unedited frames. No model is needed. The result can be sampled over, with VAE Encode and a low"
            " denoise such as 0.3.",
            inputs=[
                io.Image.Input("images", tooltip="The images are the frames of the video, unedited."),
                KeyframesType.Input(
                    "keyframes",
                    tooltip="The keyframes are edited frames of the video, of its size, with their numbers; strength and reach do nothing"
                    " here.",
                ),
                *inputs_of(EditPropagation),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The images are the video with the edit in every frame."),
                io.String.Output(display_name="report", tooltip="The report says how much of the frames is changed."),
            ],
        )

    @classmethod
    def execute(cls, images: Tensor, keyframes: Keyframes, **given: Any) -> "io.NodeOutput":
        settings, at = settings_of(EditPropagation, given), keyframes.at(len(images))
        edited, changed = settings.carried(images, at.images.to(images), at.frames, host.Progress(len(images)).update)
        others = [share for number, share in enumerate(changed.tolist()) if number not in at.frames]
        own = changed[list(at.frames)].mean()
        report = f"the edit changes {own:.0%} of the edited frames, and {min(others):.0%} to {max(others):.0%} of the {len(others)} others"
        return io.NodeOutput(edited, report, ui=host.ui.PreviewText(report))
