"""Looking at clips."""

import torch

from ... import host
from ...modules.draw.pictures import contact_sheet
from ..node import LongTakeNode

io = host.io


class LongTakeContactSheet(LongTakeNode):
    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeContactSheet",
            display_name="Contact Sheet",
            category="LongTake/view",
            description="Frames evenly spread over a clip, first and last included, side by side in one picture.",
            inputs=[
                io.Image.Input("images", tooltip="The clip."),
                io.Int.Input("columns", default=8, min=1, max=64, tooltip="Pictures per row."),
                io.Int.Input("count", default=40, min=1, max=4096, tooltip="Most pictures on the sheet."),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, images: torch.Tensor, columns: int, count: int) -> "io.NodeOutput":
        return io.NodeOutput(contact_sheet(images, columns=columns, count=count))
