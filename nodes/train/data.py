"""Clips to train on, from a folder, from the graph, or from nothing."""

import math
import os
import statistics
from pathlib import Path
from typing import Any

import torch

from ... import host
from ...host.port.run import ProgressBar
from ...modules.data.captions import NOT_NEEDED
from ...modules.data.clips import ClipDataset
from ...modules.data.find import Search, Tick, find_clips, stamp
from ...modules.data.places import STRICT
from ...modules.data.procedural import ShapesSettings
from ...modules.data.settings import ClipSettings
from ...modules.data.sheet import clip_sheet, sample_clips
from ...modules.data.source import from_images
from ...modules.data.table import TABLE_ENDINGS
from ...modules.fields.setting import Setting
from ..fields import inputs_of, settings_of, widget
from ..node import LongTakeNode
from .train_inputs import CATEGORY, ClipsType

io = host.io
ELSEWHERE = "the path below"
CUT = ("frames", "stride", "clip_fps", "width", "height", "sizes", "crop", "flip", "short", "variants", "seed")  # settings of all
SAMPLES = 6


def clip_folders() -> list[str]:
    """Names of the folders and tables in the input folder."""
    there = host.input_directory()
    items = there.iterdir() if there.is_dir() else ()
    fitting = (item for item in items if item.is_dir() or item.suffix.lower() in TABLE_ENDINGS)
    return sorted(item.name for item in fitting if not item.name.startswith("."))


def allowed() -> tuple[Path, ...]:
    """The folders that clips may lie in; empty for all of the machine, unless the server's environment says otherwise."""
    if os.environ.get(STRICT, "0") == "0":
        return ()
    return host.input_directory(), host.output_directory(), host.model_directory("video_models")


def clip_place(folder: str, path: str) -> Path:
    """Where the clips are.

    Raises:
        ValueError: nothing is chosen.
    """
    if folder != ELSEWHERE:
        return host.input_directory() / folder
    if not path.strip():
        raise ValueError(
            f"no folder is chosen: put one with clips into {host.input_directory()} and choose it, or write its path"
        )
    return host.input_directory() / Path(path.strip().strip('"')).expanduser()


def outputs() -> list[Any]:
    """What each of the nodes gives."""
    return [
        ClipsType.Output(display_name="clips", tooltip="The clips go to a training node."),
        io.Image.Output(
            display_name="sheet", tooltip="The sheet shows some of the clips as they are trained on, a clip in each row."
        ),
        io.String.Output(
            display_name="report", tooltip="The report says what was found and used, and what was left out and why it was."
        ),
    ]


def given(dataset: ClipDataset, *further: str) -> "io.NodeOutput":
    """The outputs of each of the nodes."""
    sheet = clip_sheet(sample_clips(dataset, SAMPLES))
    report = "\n".join([dataset.report.text(), *further])
    return io.NodeOutput(dataset, sheet, report, ui=host.ui.PreviewText(report))


def ticker() -> Tick:
    """A progress bar that learns how long it is when it begins."""
    bars: dict[int, ProgressBar] = {}

    def tick(done: int, total: int) -> None:
        if total not in bars:
            bars[total] = host.Progress(total)
        bars[total].update(done)

    return tick


def motion_text(dataset: ClipDataset) -> str:
    """How much moves in the clips."""
    values = [value for value in dataset.measure_motion(ticker()) if not math.isnan(value)]
    if not values:
        return "Motion: none of the clips can be read any more."
    return f"Motion: {min(values):.2f} to {max(values):.2f} pixels per frame, half of the clips above {statistics.median(values):.2f}."


class LongTakeClipFolder(LongTakeNode):
    """Clips from files."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeClipFolder",
            display_name="Clip Folder",
            category=CATEGORY,
            description="Finds clips to train on in a folder of videos, GIFs and picture sequences and all folders below it, or in a CSV."
            " Captions are text files beside the videos, or a column. Files that cannot be read are named in the report and left out.",
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=[ELSEWHERE, *clip_folders()],
                    default=ELSEWHERE,
                    tooltip="The clips are in this folder or CSV of the input folder.",
                ),
                widget(
                    "path",
                    "",
                    Setting(
                        "If none is chosen above, the clips are in this folder, CSV or video anywhere; with LONGTAKE_STRICT_PATHS=1 in the"
                        " server's environment it lies in its input folder, its output folder or models/longtake."
                    ),
                ),
                *inputs_of(ClipSettings, *CUT),
                *inputs_of(ClipSettings, "missing_captions", "caption", "caption_before"),
                widget(
                    "picture_fps",
                    24.0,
                    Setting(
                        "Picture sequences, which do not tell, have so many frames per second.", least=0.01, most=1000.0, step=0.5
                    ),
                ),
                widget(
                    "check_every_frame",
                    False,
                    Setting(
                        "All videos are decoded now, to find damage in their middle. Else it is found when training comes to it, and"
                        " passed over."
                    ),
                ),
                widget("measure_motion", False, Setting("The report says how much moves in the videos, which takes a while.")),
            ],
            outputs=outputs(),
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str = ELSEWHERE, path: str = "", **_: Any) -> str:
        return stamp(clip_place(folder, path), allowed()) if folder != ELSEWHERE or path.strip() else ""

    @classmethod
    def execute(
        cls, folder: str, path: str, picture_fps: float, check_every_frame: bool, measure_motion: bool, **chosen: Any
    ) -> "io.NodeOutput":
        settings = settings_of(ClipSettings, chosen)
        search = Search(picture_fps=picture_fps, stills=settings.frames == 1, every_frame=check_every_frame, within=allowed())
        dataset = ClipDataset(find_clips(clip_place(folder, path), search, ticker()), settings)
        return given(dataset, *([motion_text(dataset)] if measure_motion else []))


class LongTakeClipsFromImages(LongTakeNode):
    """Clips from frames in the graph."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeClipsFromImages",
            display_name="Clips From Images",
            category=CATEGORY,
            description="Makes a clip to train on from the frames of another node. Chain several for several clips, each with its caption.",
            inputs=[
                io.Image.Input("images", tooltip="The images are the frames, in their order."),
                widget(
                    "caption",
                    "",
                    Setting("The caption says what is to be seen; an empty one trains without.", multiline=True),
                ),
                widget(
                    "image_fps",
                    8.0,
                    Setting("The images are so many frames per second.", least=0.01, most=1000.0, step=0.5),
                ),
                *inputs_of(ClipSettings, *CUT),
                *inputs_of(ClipSettings, "caption_before"),
                ClipsType.Input(
                    "clips",
                    optional=True,
                    tooltip="These clips are added to those that are connected here. How those are cut then holds for these too, and"
                    " nothing that is set here from frames to caption_before.",
                ),
            ],
            outputs=outputs(),
        )

    @classmethod
    def execute(
        cls, images: torch.Tensor, caption: str, image_fps: float, clips: ClipDataset | None, **chosen: Any
    ) -> "io.NodeOutput":
        if clips is not None:
            name = f"images {len(clips.found.sources) + 1}"
            return given(clips.with_more(from_images(images, caption, image_fps, name)))
        settings = settings_of(ClipSettings, chosen, missing_captions=NOT_NEEDED)
        return given(ClipDataset(from_images(images, caption, image_fps, "images 1"), settings))


class LongTakeShapesClips(LongTakeNode):
    """Clips that need no files."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeShapesClips",
            display_name="Shapes Clips",
            category=CATEGORY,
            description="Makes clips to try training with on the spot: a coloured shape that bounces, turns or grows over a soft grey"
            " background, with a caption such as 'a red disk, bouncing'.",
            inputs=inputs_of(ShapesSettings),
            outputs=outputs(),
        )

    @classmethod
    def execute(cls, **chosen: Any) -> "io.NodeOutput":
        return given(settings_of(ShapesSettings, chosen).clips())
