"""Clips to train on, from a folder, from the graph, or from nothing."""

import math
import os
import statistics
from pathlib import Path
from typing import Any

import torch

from ... import host
from ...host.port.run import ProgressBar
from ...modules.data.captions import FLIPS, MISSING, NOT_NEEDED
from ...modules.data.clips import ClipDataset
from ...modules.data.find import Search, Tick, find_clips, stamp
from ...modules.data.lengths import SHORT
from ...modules.data.places import STRICT
from ...modules.data.procedural import moving_shapes
from ...modules.data.settings import ClipSettings
from ...modules.data.sheet import clip_sheet, sample_clips
from ...modules.data.sizes import CROPS, SIZES
from ...modules.data.source import from_images
from ...modules.data.table import TABLE_ENDINGS
from ..node import LongTakeNode
from .train_inputs import CATEGORY, ClipsType, shared

io = host.io
ELSEWHERE = "the path below"
DEFAULTS = ClipSettings()
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


def cut_inputs() -> list[Any]:
    """The inputs that say how clips are cut, which the nodes share."""
    return [
        shared("frames", DEFAULTS.frames, "Frames of a clip. 1 trains on single pictures."),
        shared(
            "stride",
            DEFAULTS.stride,
            "Frames of the video from one frame of a clip to the next. 4 as AnimateDiff; 1 for slow videos, such as GIFs of 8 frames per"
            " second.",
            max=1024,
        ),
        io.Float.Input(
            "clip_fps",
            default=DEFAULTS.fps,
            min=0.0,
            max=1000.0,
            step=0.5,
            tooltip="Frames per second of a clip, whatever those of its video; then stride does nothing. 0: stride decides.",
        ),
        io.Int.Input("width", default=DEFAULTS.width, min=8, max=8192, step=8, tooltip="Width of a clip in pixels."),
        io.Int.Input("height", default=DEFAULTS.height, min=8, max=8192, step=8, tooltip="Height of a clip in pixels."),
        io.Combo.Input(
            "sizes",
            options=list(SIZES),
            default=DEFAULTS.sizes,
            tooltip="Videos of several shapes. buckets: sizes of as many pixels as width times height, nearest in shape for each; a batch"
            " is of one. crop: all to width and height. refuse: stop if there are several.",
        ),
        io.Combo.Input(
            "crop",
            options=list(CROPS),
            default=DEFAULTS.crop,
            tooltip="Where a clip is cut out of a frame of another shape.",
        ),
        io.Combo.Input(
            "flip",
            options=list(FLIPS),
            default=DEFAULTS.flip,
            tooltip="Mirror every second clip: never, only those whose captions name no side and no writing, with left and right swapped in"
            " the captions, or all. Never for camera moves that have a side.",
        ),
        io.Combo.Input(
            "short",
            options=list(SHORT),
            default=DEFAULTS.short,
            tooltip="Videos with too few frames. refuse: stop and say so. leave out. squeeze: smaller steps, as AnimateDiff. back and"
            " forth: turn round at the ends.",
        ),
        io.Int.Input(
            "variants",
            default=DEFAULTS.variants,
            min=0,
            max=10**6,
            tooltip="Different cuts of each video. 0: another one every time it is seen. A cache of latents needs 1 or more.",
        ),
        shared("seed", DEFAULTS.seed, "Of the order, and of what is cut where."),
    ]


def outputs() -> list[Any]:
    """What each of the nodes gives."""
    return [
        ClipsType.Output(display_name="clips", tooltip="For a training node."),
        io.Image.Output(display_name="sheet", tooltip="Some of the clips as they are trained on, a clip in each row."),
        io.String.Output(display_name="report", tooltip="What was found and used, and what was left out and why."),
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
            description="Clips to train on, from a folder of videos, GIFs and picture sequences and all folders below it, or from a CSV."
            " Captions are text files beside the videos, or a column. Files that cannot be read are named in the report and left out.",
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=[ELSEWHERE, *clip_folders()],
                    default=ELSEWHERE,
                    tooltip="A folder or a CSV in the input folder.",
                ),
                io.String.Input(
                    "path",
                    default="",
                    tooltip="A folder, a CSV or a video anywhere, if none is chosen above; with LONGTAKE_STRICT_PATHS=1 in the server's"
                    " environment, in its input folder, its output folder or models/longtake only.",
                ),
                *cut_inputs(),
                io.Combo.Input(
                    "missing_captions",
                    options=list(MISSING),
                    default=DEFAULTS.missing,
                    tooltip="Videos without a caption, if there is none for all. refuse: stop and say so. train without: as empty ones.",
                ),
                io.String.Input(
                    "caption", default="", tooltip="The caption of all videos that have none of their own; empty for none."
                ),
                io.String.Input(
                    "caption_before", default="", tooltip="What every caption begins with, such as a word to call this motion by."
                ),
                io.Float.Input(
                    "picture_fps",
                    default=24.0,
                    min=0.01,
                    max=1000.0,
                    step=0.5,
                    tooltip="Frames per second of picture sequences, which do not tell.",
                ),
                io.Boolean.Input(
                    "check_every_frame",
                    default=False,
                    tooltip="Decode all videos now, to find damage in their middle. Else it is found when training comes to it, and passed"
                    " over.",
                ),
                io.Boolean.Input(
                    "measure_motion", default=False, tooltip="Measure how much moves in each video, for the report."
                ),
            ],
            outputs=outputs(),
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str = ELSEWHERE, path: str = "", **_: Any) -> str:
        return stamp(clip_place(folder, path), allowed()) if folder != ELSEWHERE or path.strip() else ""

    @classmethod
    def execute(
        cls,
        folder: str,
        path: str,
        frames: int,
        stride: int,
        clip_fps: float,
        width: int,
        height: int,
        sizes: str,
        crop: str,
        flip: str,
        short: str,
        variants: int,
        seed: int,
        missing_captions: str,
        caption: str,
        caption_before: str,
        picture_fps: float,
        check_every_frame: bool,
        measure_motion: bool,
    ) -> "io.NodeOutput":
        settings = ClipSettings(
            *(frames, stride, clip_fps, width, height, sizes, crop, flip, short, variants, seed),
            missing=missing_captions,
            caption=caption,
            before=caption_before,
        )
        search = Search(picture_fps=picture_fps, stills=frames == 1, every_frame=check_every_frame, within=allowed())
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
            description="A clip to train on, from the frames of another node. Chain several for several clips, each with its caption.",
            inputs=[
                io.Image.Input("images", tooltip="The frames, in their order."),
                io.String.Input("caption", default="", multiline=True, tooltip="The words for them; empty trains without."),
                io.Float.Input(
                    "image_fps", default=8.0, min=0.01, max=1000.0, step=0.5, tooltip="Frames per second of the images."
                ),
                *cut_inputs(),
                io.String.Input("caption_before", default="", tooltip="What the caption begins with."),
                ClipsType.Input(
                    "clips",
                    optional=True,
                    tooltip="Clips to add these to. How they are cut then holds for these too, and nothing that is set here from frames to"
                    " caption_before.",
                ),
            ],
            outputs=outputs(),
        )

    @classmethod
    def execute(
        cls,
        images: torch.Tensor,
        caption: str,
        image_fps: float,
        frames: int,
        stride: int,
        clip_fps: float,
        width: int,
        height: int,
        sizes: str,
        crop: str,
        flip: str,
        short: str,
        variants: int,
        seed: int,
        caption_before: str,
        clips: ClipDataset | None,
    ) -> "io.NodeOutput":
        if clips is not None:
            name = f"images {len(clips.found.sources) + 1}"
            return given(clips.with_more(from_images(images, caption, image_fps, name)))
        settings = ClipSettings(
            *(frames, stride, clip_fps, width, height, sizes, crop, flip, short, variants, seed),
            missing=NOT_NEEDED,
            before=caption_before,
        )
        return given(ClipDataset(from_images(images, caption, image_fps, "images 1"), settings))


class LongTakeShapesClips(LongTakeNode):
    """Clips that need no files."""

    @classmethod
    def define_schema(cls) -> "io.Schema":
        return io.Schema(
            node_id="LongTakeShapesClips",
            display_name="Shapes Clips",
            category=CATEGORY,
            description="Clips to try training with, made on the spot: a coloured shape that bounces, turns or grows over a soft grey"
            " background, with a caption such as 'a red disk, bouncing'.",
            inputs=[
                io.Int.Input("count", default=64, min=1, max=1_000_000, tooltip="How many clips."),
                shared("frames", DEFAULTS.frames, "Frames of a clip."),
                io.Int.Input("size", default=256, min=16, max=2048, step=8, tooltip="Width and height in pixels."),
                shared("stride", 1, "Moments from one frame to the next: more of them, faster motion.", max=64),
                shared("seed", 0, "Of the shapes and their order."),
                io.String.Input("caption_before", default="", tooltip="What every caption begins with."),
            ],
            outputs=outputs(),
        )

    @classmethod
    def execute(cls, count: int, frames: int, size: int, stride: int, seed: int, caption_before: str) -> "io.NodeOutput":
        settings = ClipSettings(
            frames=frames, stride=stride, width=size, height=size, variants=1, before=caption_before, seed=seed
        )
        found = moving_shapes(count, settings.pace.needed(), size, seed)
        return given(ClipDataset(found, settings))
