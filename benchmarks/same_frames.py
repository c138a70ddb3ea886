"""Whether a change left every picture as it was: ``python benchmarks/same_frames.py COMMIT [WORKFLOW ...]``.

Clones this repository, checks COMMIT out in the clone, and runs each workflow there and here: those that run without ComfyUI and without
files of the user, on the standalone host, each from its own tree's API file. Pictures and animations that both save are compared pixel
by pixel. Stored results (``benchmarks/*.json``, ``tests/data``) are compared as files. Prints a line each, and ends with status 1 if
anything differs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = ("long_take", "image_to_video", "inbetween", "history_guided", "extend_video", "interpolate_hints")
STORED = ("benchmarks/*.json", "tests/data/*.safetensors")
PICTURES = (".png", ".webp")


def clone(commit: str, folder: Path) -> None:
    """A clean clone at one commit."""
    subprocess.run(["git", "clone", "--quiet", "--no-checkout", ROOT, folder], check=True)
    subprocess.run(["git", "-C", folder, "checkout", "--quiet", commit], check=True)


def made(tree: Path, workflow: str, output: Path) -> list[Path]:
    """The pictures that a workflow saves when a tree runs it."""
    command = [sys.executable, "run.py", workflow, "--host", "standalone", "--output", output]
    subprocess.run(command, cwd=tree, env=os.environ | {"COMFYUI_PATH": ""}, check=True, capture_output=True)
    return sorted(path for path in output.rglob("*") if path.suffix in PICTURES)


def frames(path: Path) -> Iterator[np.ndarray]:
    """The pixels of a file, frame by frame."""
    with Image.open(path) as picture:
        for frame in ImageSequence.Iterator(picture):
            yield np.asarray(frame.convert("RGBA"))


def difference(one: Path, other: Path) -> str:
    """What differs between two files, in words; empty where nothing does."""
    first, second = list(frames(one)), list(frames(other))
    if len(first) != len(second):
        return f"{len(first)} frames against {len(second)}"
    unlike = [
        number for number, (a, b) in enumerate(zip(first, second, strict=True)) if a.shape != b.shape or not np.array_equal(a, b)
    ]
    return f"{len(unlike)} of {len(first)} frames, from number {unlike[0]} on" if unlike else ""


def compared(before: Path, workflow: str, folder: Path) -> Iterator[tuple[str, str]]:
    """For each file that a workflow saves: its name, and what differs."""
    one, other = (made(tree, workflow, folder / name / workflow) for name, tree in (("before", before), ("now", ROOT)))
    names = sorted({path.name for path in (*one, *other)})
    for name in names:
        pair = [next((path for path in side if path.name == name), None) for side in (one, other)]
        yield f"{workflow}: {name}", difference(*pair) if all(pair) else "saved by one of the two only"  # type: ignore[arg-type]


def stored(before: Path) -> Iterator[tuple[str, str]]:
    """For each stored result that both have: its name, and whether its bytes differ."""
    for pattern in STORED:
        for path in sorted(before.glob(pattern)):
            here = ROOT / path.relative_to(before)
            if here.is_file():
                yield str(path.relative_to(before)), "" if here.read_bytes() == path.read_bytes() else "other bytes"


def main() -> int:
    """Compare, print, and say whether all is the same."""
    parser = argparse.ArgumentParser(description="Compare this checkout's pictures with those of a commit.")
    parser.add_argument("commit")
    parser.add_argument("workflows", nargs="*", default=WORKFLOWS)
    given = parser.parse_args()
    differs = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clone(given.commit, folder / "tree")
        rows = [stored(folder / "tree"), *(compared(folder / "tree", workflow, folder) for workflow in given.workflows)]
        for lines in rows:
            for what, wrong in lines:
                differs += bool(wrong)
                print(f"{what}: {wrong or 'the same'}", flush=True)
    return int(differs > 0)


if __name__ == "__main__":
    sys.exit(main())
