"""How two sets of clips differ, by what papers report."""

from typing import Any

from ... import host
from ...modules.data.clips import ClipDataset
from ...modules.fields.setting import Setting
from ...modules.measure.sets import set_features, set_report
from ..fields import widget
from ..node import LongTakeNode
from ..train.data import ticker
from ..train.train_inputs import ClipsType
from .networks import network_inputs, network_of
from .training import CATEGORY

io = host.io


class LongTakeSetMetrics(LongTakeNode):
    """FVD, FID and inception scores of two sets."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongTakeSetMetrics",
            display_name="Set Metrics",
            category=CATEGORY,
            description="Measures two sets of clips: FVD, FID or inception scores with your own networks, else a proxy. One clip of each"
            " video is read, a few at a time.",
            inputs=[
                ClipsType.Input("clips_a", tooltip="This is the first set, such as the real clips, from Clip Folder."),
                ClipsType.Input("clips_b", tooltip="This is the second set, such as a folder of saved takes, cut alike."),
                *network_inputs(),
                widget(
                    "videos_per_set",
                    0,
                    Setting("So many videos of each set are looked at, evenly spread; 0 is all.", least=0, most=10**6),
                ),
                widget(
                    "splits",
                    10,
                    Setting("An inception score is the mean over so many parts of a set.", least=1, most=1000, advanced=True),
                ),
            ],
            outputs=[io.String.Output(display_name="report", tooltip="The report has a line per measure.")],
        )

    @classmethod
    def execute(cls, clips_a: ClipDataset, clips_b: ClipDataset, videos_per_set: int, splits: int, **given: Any) -> io.NodeOutput:
        cut = [(each.settings.frames, each.settings.size) for each in (clips_a, clips_b)]
        if cut[0] != cut[1]:
            raise ValueError(
                f"clips_a are {cut[0][0]} frames of {cut[0][1]} and clips_b are {cut[1][0]} of {cut[1][1]}: set frames, width and height"
                " alike in both Clip Folders"
            )
        network, scores = network_of(**given)
        both = [set_features(each, network, videos_per_set, tick=ticker()) for each in (clips_a, clips_b)]
        text = set_report(both[0], both[1], network, scores=scores, splits=splits)
        return io.NodeOutput(text, ui=host.ui.PreviewText(text))
