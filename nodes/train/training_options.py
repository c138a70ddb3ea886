"""Everything about a training that has a usual value."""

from typing import Any

from ... import host
from ...modules.train.options import Options
from ..fields import inputs_of, settings_of
from ..node import LongTakeNode, checked
from .train_inputs import CATEGORY, OptionsType

io = host.io


class LongTakeTrainingOptions(LongTakeNode):
    """Everything about a training that has a usual value."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeTrainingOptions",
            display_name="Training Options",
            category=CATEGORY,
            description="Sets everything about a training that has a usual value: how clips go through the model, what an error costs,"
            " what is watched, what the file is like. Training nodes do without this node.",
            inputs=inputs_of(Options),
            outputs=[
                OptionsType.Output(
                    display_name="options",
                    tooltip="The options go to Train Motion, Train Sparse Control, Train Image Prompt or Train Video Model.",
                )
            ],
        )

    validate_inputs = checked(Options)

    @classmethod
    def execute(cls, **given: Any) -> "io.NodeOutput":
        return io.NodeOutput(settings_of(Options, given))
