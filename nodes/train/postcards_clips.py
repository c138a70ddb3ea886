"""Clips of the postcards world, which need no files."""

from typing import Any

from ... import host
from ...modules.data.postcard_clips import PostcardSettings
from ..fields import inputs_of, settings_of
from ..node import LongTakeNode
from .data import given, outputs
from .train_inputs import CATEGORY

io = host.io


class LongTakePostcardsClips(LongTakeNode):
    """Landscapes that scroll by, with a traveller."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakePostcardsClips",
            display_name="Postcards Clips",
            category=CATEGORY,
            description="Makes clips to train with on the spot, 64x64 pixels: a landscape of hills, sea, city or desert that scrolls by, by"
            " day, at sunset or at night, and a car, boat, balloon, bird or rocket in a colour, with a caption such as 'red car, hills,"
            " sunset'.",
            inputs=inputs_of(PostcardSettings),
            outputs=outputs(),
        )

    @classmethod
    def execute(cls, **chosen: Any) -> "io.NodeOutput":
        return given(settings_of(PostcardSettings, chosen).clips())
