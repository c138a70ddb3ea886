"""How clips move, and how two clips differ."""

from typing import Any

import torch

from ... import host
from ...modules.draw.clip_report import difference_line, motion_lines, spectrum_picture, video_report
from ...modules.fields.setting import Setting
from ...modules.measure.compare import CompareSettings, compared
from ...modules.measure.metrics import difference
from ..fields import inputs_of, settings_of, widget
from ..node import LongTakeNode
from .networks import network_inputs, network_of
from .training import CATEGORY

io = host.io


class LongTakeMotionSpectrum(LongTakeNode):
    """How a clip moves, by frequency."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongTakeMotionSpectrum",
            display_name="Motion Spectrum",
            category=CATEGORY,
            description="Shows how much of a clip's change over time is slow motion and how much flicker; the same with motion taken"
            " away.",
            inputs=[
                io.Image.Input("images", tooltip="The images are the frames of the clip."),
                widget(
                    "hann",
                    False,
                    Setting(
                        "The clip is faded in and out first, so that a motion which does not come back to its start counts as slow.",
                        advanced=True,
                    ),
                ),
                io.Image.Input(
                    "other", optional=True, tooltip="A second clip becomes a second curve; equal lengths compare best."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="plot", tooltip="The plot shows how much changes at each frequency."),
                io.String.Output(display_name="numbers", tooltip="The numbers say the same in a line per clip."),
            ],
        )

    @classmethod
    def execute(cls, images: torch.Tensor, hann: bool, other: torch.Tensor | None = None) -> io.NodeOutput:
        videos = {"images": images} if other is None else {"images": images, "other": other}
        text = "\n".join(motion_lines(videos, hann=hann))
        return io.NodeOutput(spectrum_picture(videos, hann=hann), text, ui=host.ui.PreviewText(text))


class LongTakeVideoMetrics(LongTakeNode):
    """All measures of two clips."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongTakeVideoMetrics",
            display_name="Video Metrics",
            category=CATEGORY,
            description="Measures two clips beside each other: Frechet distance (FVD, FID with your own networks, else a proxy),"
            " motion and"
            " flicker, warp error, and drift over the clip.",
            inputs=[
                io.Image.Input("images_a", tooltip="This is the first clip, such as the real one."),
                io.Image.Input("images_b", tooltip="This is the second clip, such as the generated one."),
                *network_inputs(),
                widget("sample_frames", 16, Setting("A sample cut from the clip has so many frames.", least=1, most=4096)),
                widget(
                    "stride",
                    4,
                    Setting("So many frames lie from one sample's start to the next one's.", least=1, most=4096, advanced=True),
                ),
                widget(
                    "parts",
                    4,
                    Setting(
                        "Each clip is divided into so many parts, which are compared with its first, for drift.",
                        least=1,
                        most=64,
                        advanced=True,
                    ),
                ),
            ],
            outputs=[io.String.Output(display_name="report", tooltip="The report has a line per measure.")],
        )

    @classmethod
    def execute(
        cls,
        images_a: torch.Tensor,
        images_b: torch.Tensor,
        features: str,
        looks_at: str,
        size: int,
        pixels: str,
        sample_frames: int,
        stride: int,
        parts: int,
    ) -> io.NodeOutput:
        network, scores = network_of(features, looks_at, size, pixels)
        text = video_report(images_a, images_b, network, sample_frames, stride, parts, scores=scores)
        return io.NodeOutput(text, ui=host.ui.PreviewText(text))


class LongTakeCompareVideos(LongTakeNode):
    """Two clips in one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongTakeCompareVideos",
            display_name="Compare Videos",
            category=CATEGORY,
            description="Shows two versions of a clip in one: side by side, above each other, left and right of a line, or their"
            " difference.",
            inputs=[
                io.Image.Input("images_a", tooltip="This is the first clip."),
                io.Image.Input("images_b", tooltip="This is the second clip, of the same length and size."),
                *inputs_of(CompareSettings),
            ],
            outputs=[
                io.Image.Output(tooltip="It is the clip that shows both."),
                io.String.Output(display_name="report", tooltip="The report says how much they differ."),
            ],
        )

    @classmethod
    def execute(cls, images_a: torch.Tensor, images_b: torch.Tensor, **given: Any) -> io.NodeOutput:
        picture = compared(images_a, images_b, settings_of(CompareSettings, given))
        text = difference_line(difference(images_a, images_b))
        return io.NodeOutput(picture, text, ui=host.ui.PreviewText(text))
