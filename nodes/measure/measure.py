"""Measuring: training logs, what attentions do, how clips move, how two clips differ."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from ... import host
from ...modules.disk.log import Record, parse, read
from ...modules.draw.attention_picture import attention_table, check_frames, chosen, entropy_picture, map_picture, named, one_call
from ...modules.draw.clip_report import difference_line, motion_lines, spectrum_picture, video_report
from ...modules.draw.log_picture import log_picture, log_text
from ...modules.measure.attention import watching
from ...modules.measure.compare import COMPARISONS, CompareSettings, compared
from ...modules.measure.features import random3d, torchscript
from ...modules.measure.metrics import difference
from ..forcing.forcing import anything
from ..node import LongTakeNode

io = host.io
CATEGORY = "LongTake/inspect"
PROXY = "random3d (proxy)"
# what a feature network looks at -> (clips and not frames, class scores and not features)
LOOKS_AT = {"clips": (True, False), "frames": (False, False), "frames, class scores": (False, True)}
RANGES = {"-1..1": (-1.0, 1.0), "0..1": (0.0, 1.0), "0..255": (0.0, 255.0)}


class LongTakeLossPlot(LongTakeNode):
    """A training log as curves."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongTakeLossPlot",
            display_name="Loss Plot",
            category=CATEGORY,
            description="Curves of one training log or several: loss, and gradient norm and learning rate where the log has them.",
            inputs=[
                io.String.Input(
                    "log",
                    default="",
                    multiline=True,
                    tooltip="Names of logs (.jsonl, .csv) or training checkpoints (.run.safetensors) in models/longtake or the output"
                    " folder, one per line; or the text of one log.",
                ),
                io.Float.Input(
                    "smoothing", default=0.9, min=0.0, max=0.999, step=0.01, tooltip="Memory of the moving average; 0 is none."
                ),
                io.Boolean.Input("logarithmic", default=True, tooltip="Whether equal distances upwards are equal factors."),
            ],
            outputs=[io.Image.Output(display_name="plot"), io.String.Output(display_name="numbers")],
        )

    @classmethod
    def execute(cls, log: str, smoothing: float, logarithmic: bool) -> io.NodeOutput:
        logs = logs_of(log)
        text = log_text(logs)
        return io.NodeOutput(log_picture(logs, smoothing, logarithmic=logarithmic), text, ui=host.ui.PreviewText(text))


def logs_of(text: str) -> dict[str, list[Record]]:
    """The records of each log that a text names, or is."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError("log is empty: write the name of a training log, or connect the text of one")
    if lines[0].startswith("{") or "step" in lines[0].split(","):
        return {"log": parse(text)}
    return {Path(name).name: read(log_file(name)) for name in lines}


def log_file(name: str) -> Path:
    """A log by its name below the folder of video models or the output folder, and nowhere else."""
    folders = [host.model_directory("video_models").resolve(), host.output_directory().resolve()]
    for folder in folders:
        path = (folder / name).resolve()
        if path.is_file() and folder in path.parents:
            return path
    raise ValueError(f"there is no log {name!r} in {' or '.join(map(str, folders))}: put it there, or check the name")


class LongTakeAttentionEntropy(LongTakeNode):
    """One look at a model's temporal attentions."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongTakeAttentionEntropy",
            display_name="Attention Entropy",
            category=CATEGORY,
            description="Calls a model once on a noised clip and shows what its temporal attentions do: how many frames each head looks"
            " at, how large logits are, and which frames look at which.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="A model with temporal modules: a LongTake video model, or after Apply Motion Module."
                ),
                io.Latent.Input("latent", tooltip="The clip, clean; an empty latent shows what pure noise does."),
                io.Conditioning.Input("positive", optional=True, tooltip="The prompt; only LongTake video models do without."),
                io.Float.Input(
                    "percent",
                    default=0.5,
                    min=0.01,
                    max=0.99,
                    step=0.01,
                    tooltip="How noisy the clip is made: near 0 as at the first sampling step, near 1 as at the last.",
                ),
                io.String.Input(
                    "attention",
                    default="",
                    tooltip="Whose map is drawn, by its name in the table, such as up.1.2/0; empty for the one with the lowest entropy.",
                ),
                io.Int.Input("seed", default=0, min=0, max=2**64 - 1, control_after_generate=False, tooltip="Of the noise."),
            ],
            outputs=[
                io.String.Output(display_name="table"),
                io.Image.Output(display_name="entropies"),
                io.Image.Output(display_name="attention_map"),
            ],
        )

    @classmethod
    def execute(
        cls, model: Any, latent: dict, percent: float, attention: str, seed: int, positive: list | None = None
    ) -> io.NodeOutput:
        motions = host.motion_models(model)
        if not motions:
            raise ValueError(
                "this MODEL has no temporal modules: connect a LongTake video model, or put Apply Motion Module before"
            )
        positive = anything(model) if positive is None else positive
        if not 0 < percent < 1:
            raise ValueError(f"percent is {percent}: it must lie between 0, where sampling begins, and 1, where nothing is noisy")
        info = host.video_info(model)
        check_frames(latent["samples"], None if info is None else info.latent_channels)
        sigma = host.noise_schedule(model).at_percent(percent)
        with ExitStack() as stack:
            watches = [stack.enter_context(watching(motion)) for motion in motions]
            host.sample(
                model,
                positive,
                None,
                cfg=1.0,
                latent=latent["samples"],
                algorithm=one_call,
                seed=seed,
                sigmas=torch.tensor([0.0, sigma]),
            )
            readings, maps = named(watches)
        block = chosen(readings, attention)
        text = f"sigma {sigma:.3f}, map of {block}\n\n{attention_table(readings)}"
        return io.NodeOutput(text, entropy_picture(readings), map_picture(maps[block]), ui=host.ui.PreviewText(text))


class LongTakeMotionSpectrum(LongTakeNode):
    """How a clip moves, by frequency."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongTakeMotionSpectrum",
            display_name="Motion Spectrum",
            category=CATEGORY,
            description="How much of a clip's change over time is slow motion and how much flicker; the same with motion taken away.",
            inputs=[
                io.Image.Input("images", tooltip="The clip."),
                io.Boolean.Input(
                    "hann",
                    default=False,
                    tooltip="Fade the clip in and out first, so that a motion which does not come back to its start counts as slow.",
                ),
                io.Image.Input("other", optional=True, tooltip="A second clip, as a second curve; equal lengths compare best."),
            ],
            outputs=[io.Image.Output(display_name="plot"), io.String.Output(display_name="numbers")],
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
            description="Measures two clips beside each other: Frechet distance (FVD, FID with your own networks, else a proxy), motion and"
            " flicker, warp error, and drift over the clip.",
            inputs=[
                io.Image.Input("images_a", tooltip="The first clip, such as the real one."),
                io.Image.Input("images_b", tooltip="The second clip, such as the generated one."),
                io.Combo.Input(
                    "features",
                    options=[PROXY, *host.files("feature_networks")],
                    default=PROXY,
                    tooltip="TorchScript network of models/longtake_metrics whose features are compared: I3D for FVD, Inception for FID."
                    " TorchScript is a program, and it runs here: take it from people you trust, as you would any program."
                    " The proxy is an untrained network: its distances compare with nothing published.",
                ),
                io.Combo.Input(
                    "looks_at",
                    options=list(LOOKS_AT),
                    default="clips",
                    tooltip="What the network takes: clips (b 3 f h w), single frames (b 3 h w), or frames of which it tells the class,"
                    " for inception scores. Not read for the proxy.",
                ),
                io.Int.Input(
                    "size", default=224, min=0, max=2048, tooltip="Side of the square that the network takes; 0 for any."
                ),
                io.Combo.Input(
                    "pixels", options=list(RANGES), default="-1..1", tooltip="What black and white are to the network."
                ),
                io.Int.Input("sample_frames", default=16, min=1, max=4096, tooltip="Frames of a sample cut from the clip."),
                io.Int.Input("stride", default=4, min=1, max=4096, tooltip="Frames from one sample's start to the next one's."),
                io.Int.Input(
                    "parts", default=4, min=1, max=64, tooltip="Parts of each clip that are compared with its first, for drift."
                ),
            ],
            outputs=[io.String.Output(display_name="report")],
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
        clips, scores = LOOKS_AT[looks_at]
        if features == PROXY:
            network, scores = random3d(), False
        else:
            low, high = RANGES[pixels]
            path = host.file("feature_networks", features)
            network = torchscript(path, clips=clips, size=size, low=low, high=high, scores=scores)
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
            description="Two versions of a clip in one: side by side, above each other, left and right of a line, or their difference.",
            inputs=[
                io.Image.Input("images_a", tooltip="The first clip."),
                io.Image.Input("images_b", tooltip="The second clip, of the same length and size."),
                io.Combo.Input(
                    "show",
                    options=list(COMPARISONS),
                    default="side_by_side",
                    tooltip="slider: a left of a line, b right of it. difference: black where both agree.",
                ),
                io.Float.Input(
                    "position", default=0.5, min=0.0, max=1.0, step=0.01, tooltip="slider: where the line is, 0 left to 1 right."
                ),
                io.Float.Input(
                    "gain", default=4.0, min=0.1, max=100.0, step=0.1, tooltip="difference: how much it is made brighter."
                ),
            ],
            outputs=[io.Image.Output(), io.String.Output(display_name="report")],
        )

    @classmethod
    def execute(cls, images_a: torch.Tensor, images_b: torch.Tensor, show: str, position: float, gain: float) -> io.NodeOutput:
        picture = compared(images_a, images_b, CompareSettings(show, position, gain))
        text = difference_line(difference(images_a, images_b))
        return io.NodeOutput(picture, text, ui=host.ui.PreviewText(text))
