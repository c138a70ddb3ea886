"""Make the pictures of the templates, ``workflows/NAME.jpg``, which ComfyUI's template browser shows: ``python workflows/thumbnails.py``.

Names after the command make those alone; ``--missing`` makes what is not there yet. A workflow that this computer can run without
anything to download is run (standalone), and its picture is frames of what it made, from the first to the last in reading order. What
needs files that users bring, or trains for hours, was not run here: its picture is drawn, says what goes in and what comes out, and shows
no result.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageSequence

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
SIDE, ACROSS, GAP = 480, 3, 4
PAPER, BOX, INK, FAINT = (24, 26, 30), (44, 47, 54), (232, 232, 232), (150, 154, 162)
COLOURS = {"models": (63, 120, 158), "input": (138, 109, 59), "text": (91, 91, 158), "out": (79, 127, 79)}
FOLDERS = {
    "animatediff_models": "motion module",
    "animatediff_motion_lora": "MotionLoRA",
    "checkpoints": "checkpoint",
    "clip_vision": "image encoder",
    "controlnet": "ControlNet",
    "diffusion_models": "video model",
    "frame_interpolation": "interpolation model",
    "input": "your file",
    "ipadapter": "IP-Adapter",
    "loras": "LoRA",
    "text_encoders": "text encoder",
    "vae": "VAE",
}
UNREMARKABLE = {"text_encoders", "vae", "clip_vision"}  # what every such model needs beside it
TEXTS = {"CLIPTextEncode": "text", "LongTakePromptSchedule": "schedule"}
CLIPS = {
    "LongTakeClipFolder": "a folder of clips",
    "LongTakePostcardsClips": "procedural clips",
    "LongTakeShapesClips": "procedural clips",
}
TRAINED = {
    "LongTakeTrainImagePrompt": "an image prompt",
    "LongTakeTrainMotion": "a motion module",
    "LongTakeTrainSparseControl": "a SparseCtrl encoder",
    "LongTakeTrainVideoModel": "a video model",
    "LongTakeTrainAutoencoder": "an autoencoder",
}


def run_file() -> Any:
    """``run.py`` as a module: it knows how to import the pack."""
    spec = importlib.util.spec_from_file_location("longtake_run", ROOT / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def font(size: int) -> Any:
    """Pillow's own letters."""
    return ImageFont.load_default(size)


def frames_of(folder: Path) -> list[Image.Image]:
    """The frames that a run left: those of its animation, or the pictures of the folder that it filled.

    Raises:
        ValueError: there are none.
    """
    animations = sorted(folder.rglob("*.webp"))
    if animations:
        return [frame.convert("RGB") for frame in ImageSequence.Iterator(Image.open(animations[-1]))]
    pictures = sorted(folder.rglob("*_[0-9]*.png"))
    if not pictures:
        raise ValueError(f"the run left no frames in {folder}: it needs a SaveAnimatedWEBP or a recording")
    return [Image.open(path).convert("RGB") for path in pictures]


def grid(frames: Sequence[Image.Image]) -> Image.Image:
    """Frames evenly spread over a clip, first and last included, in rows."""
    sheet, count, side = Image.new("RGB", (SIDE, SIDE), PAPER), ACROSS * ACROSS, (SIDE + GAP) // ACROSS
    for place in range(count):
        frame = frames[round(place * (len(frames) - 1) / (count - 1))]
        small = frame.resize((side - GAP, side - GAP), Image.Resampling.BOX if frame.width > side else Image.Resampling.NEAREST)
        sheet.paste(small, (place % ACROSS * side, place // ACROSS * side))
    return sheet


def from_run(name: str) -> Image.Image:
    """Run a workflow and look at what it made."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "run.py"), name, "--host", "standalone", "--output", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        return grid(frames_of(Path(folder)))


def goes_in(workflow: Mapping[str, Any], files: Sequence[str]) -> list[tuple[str, str, str]]:
    """What a workflow is given: for each a colour's name, what it is, and which."""
    rows = []
    for file in files:
        folder, name = file.removeprefix("models/").split("/", 1)
        if folder not in UNREMARKABLE:
            rows.append(("input" if folder == "input" else "models", FOLDERS[folder], name))
    avoided = {node["inputs"]["negative"][0] for node in workflow.values() if isinstance(node["inputs"].get("negative"), list)}
    for id, node in workflow.items():
        kind, text = node["class_type"], node["inputs"].get(TEXTS.get(node["class_type"], ""))
        if kind in CLIPS:
            rows.append(("input", "clips", CLIPS[kind]))
        elif isinstance(text, str) and text and id not in avoided:
            rows.append(("text", "prompt", text.replace("\n", "; ")))
    return rows or [("input", "a procedural world", "nothing else")]


def comes_out(workflow: Mapping[str, Any]) -> str:
    """What a workflow makes, in a few words."""
    trained = [TRAINED[node["class_type"]] for node in workflow.values() if node["class_type"] in TRAINED]
    return trained[-1] if trained else "a clip"


def wrapped(text: str, width: int, lines: int) -> list[str]:
    """A text in lines, of which the last says that there is more."""
    return textwrap.wrap(text, width, max_lines=lines, placeholder=" ...")


def drawn(workflow: Mapping[str, Any], files: Sequence[str], about: str) -> Image.Image:
    """A picture of what goes in and what comes out, with no result in it."""
    sheet = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw, top = ImageDraw.Draw(sheet), 14
    for line in wrapped(about, 40, 3):
        draw.text((18, top), line, fill=INK, font=font(22))
        top += 28
    rows = goes_in(workflow, files)[:6]
    top, height = 116, 286 // max(len(rows), 1)
    for colour, kind, which in rows:
        high = min(height - 8, 64)
        draw.rounded_rectangle((18, top, 300, top + high), 8, fill=BOX)
        draw.rectangle((18, top + 6, 23, top + high - 6), fill=COLOURS[colour])
        draw.text((34, top + 5), kind, fill=FAINT, font=font(15))
        lines = 2 if high >= 60 else 1
        for number, line in enumerate(
            wrapped(which, 32, lines) if " " in which else [which if len(which) < 33 else f"{which[:30]}..."]
        ):
            draw.text((34, top + 22 + 18 * number), line, fill=INK, font=font(16))
        top += height
    draw.line((306, 258, 334, 258), fill=FAINT, width=4)
    draw.polygon([(334, 248), (350, 258), (334, 268)], fill=FAINT)
    film(draw, comes_out(workflow))
    draw.text(
        (18, SIDE - 34),
        "drawn, not a result: it needs the files above" if files else "drawn, not a result",
        fill=FAINT,
        font=font(16),
    )
    return sheet


def film(draw: ImageDraw.ImageDraw, what: str) -> None:
    """What comes out: a strip of empty frames, or a file."""
    for step in (20, 10, 0):
        draw.rounded_rectangle((360 + step, 214 - step, 442 + step, 296 - step), 8, fill=BOX, outline=COLOURS["out"], width=3)
    if what == "a clip":
        draw.polygon([(388, 236), (388, 274), (420, 255)], fill=COLOURS["out"])
    else:
        draw.text((374, 246), "weights", fill=INK, font=font(15))
    for number, line in enumerate(wrapped(what, 13, 2)):
        draw.text((360, 304 + 20 * number), line, fill=INK, font=font(17))


def picture(name: str, workflows: Any, here: set[str]) -> Image.Image:
    """The picture of a workflow."""
    workflow = workflows.read(name)
    wanted = [file for file in workflows.files(workflow) if not workflows.bundled(file)]
    trains = any(node["class_type"] in TRAINED for node in workflow.values())
    if not wanted and not trains and not workflows.of_comfyui(workflow, here):
        return from_run(name)
    return drawn(workflow, wanted, workflows.about(workflow))


def main() -> None:
    """Make the pictures that are asked for."""
    os.environ["COMFYUI_PATH"] = ""
    run = run_file()
    workflows = run.part("host.run.workflows")
    parser = argparse.ArgumentParser(description="Make the pictures of the templates.")
    parser.add_argument(
        "names", nargs="*", choices=[*workflows.names(), []], metavar="NAME", help="a workflow; all where none is named"
    )
    parser.add_argument("--missing", action="store_true", help="only those that have no picture yet")
    options = parser.parse_args()
    for name in options.names or workflows.names():
        path = FOLDER / f"{name}.jpg"
        if options.missing and path.exists():
            continue
        picture(name, workflows, run.without_comfyui()).save(path, quality=85, optimize=True)
        print(f"{path.name}: {path.stat().st_size // 1024} KiB", flush=True)


if __name__ == "__main__":
    main()
