"""Looking at clips."""

import torch

from ... import host
from ...modules.draw.pictures import contact_sheet
from ...modules.fields.setting import Setting
from ..fields import widget
from ..node import LongTakeNode

io = host.io


class LongTakeContactSheet(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeContactSheet",
            display_name="Contact Sheet",
            category="LongTake/view",
            description="Puts frames that are evenly spread over a clip, first and last included, side by side in one picture.",
            inputs=[
                io.Image.Input("images", tooltip="The images are the frames of the clip."),
                widget("columns", 8, Setting("A row has so many pictures.", least=1, most=64)),
                widget("count", 40, Setting("The sheet has so many pictures at most.", least=1, most=4096)),
            ],
            outputs=[io.Image.Output(tooltip="The sheet is one picture.")],
        )

    @classmethod
    def execute(cls, images: torch.Tensor, columns: int, count: int) -> "io.NodeOutput":
        return io.NodeOutput(contact_sheet(images, columns=columns, count=count))
