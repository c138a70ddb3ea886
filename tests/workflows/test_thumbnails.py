"""The templates' pictures: one for each, small, and made of what a run left or of what goes in."""

from pathlib import Path

import numpy as np
import pack
import pytest
from conftest import load
from PIL import Image

ROOT = Path(pack.__file__ or "").parent
COMMAND = "python workflows/thumbnails.py --missing"
NAMES = sorted(path.stem for path in (ROOT / "workflows" / "api").glob("*.json"))
NEWER = 6  # workflows that may be newer than the last run of the command


@pytest.fixture(scope="module")
def thumbnails():
    return load("longtake_thumbnails", ROOT / "workflows" / "thumbnails.py")


def test_every_template_has_a_picture():
    lacking = [name for name in NAMES if not (ROOT / "workflows" / f"{name}.jpg").exists()]
    assert len(lacking) <= NEWER, f"no picture for {', '.join(lacking)}: {COMMAND}"


def test_every_picture_is_of_a_template_and_small(thumbnails):
    for path in (ROOT / "workflows").glob("*.jpg"):
        assert path.stem in NAMES, f"{path.name} is of no workflow: remove it"
        with Image.open(path) as picture:
            assert (picture.format, picture.size) == ("JPEG", (thumbnails.SIDE, thumbnails.SIDE)), path.name
        assert path.stat().st_size < 60_000, path.name


def frames(count, folder):
    """An animation whose frame i has the grey i."""
    made = [Image.new("RGB", (16, 16), (number, number, number)) for number in range(count)]
    made[0].save(folder / "clip_00001_.webp", save_all=True, append_images=made[1:], lossless=True)


def test_a_run_is_shown_from_its_first_frame_to_its_last(thumbnails, tmp_path):
    frames(17, tmp_path)
    sheet = np.asarray(thumbnails.grid(thumbnails.frames_of(tmp_path)))[..., 0]
    middles = [sheet[80 + 161 * (place // 3), 80 + 161 * (place % 3)] for place in range(9)]
    assert middles == [0, 2, 4, 6, 8, 10, 12, 14, 16]


def test_a_recording_is_read_in_order(thumbnails, tmp_path):
    (tmp_path / "take").mkdir()
    for number in (2, 0, 1):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "take" / f"frame_{number:05d}.png")
    assert [frame.getpixel((0, 0))[0] for frame in thumbnails.frames_of(tmp_path)] == [0, 1, 2]


def test_a_run_without_frames_is_refused(thumbnails, tmp_path):
    with pytest.raises(ValueError, match="left no frames"):
        thumbnails.frames_of(tmp_path)


def test_what_goes_in_is_files_and_texts_but_not_what_to_avoid(thumbnails):
    workflow = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a boat", "clip": ["1", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly", "clip": ["1", 1]}},
        "4": {"class_type": "KSampler", "inputs": {"positive": ["2", 0], "negative": ["3", 0]}},
    }
    files = ["models/checkpoints/a.safetensors", "input/b.png", "models/vae/c.safetensors"]
    assert thumbnails.goes_in(workflow, files) == [
        ("models", "checkpoint", "a.safetensors"),
        ("input", "your file", "b.png"),
        ("text", "prompt", "a boat"),
    ]
    assert thumbnails.comes_out(workflow) == "a clip"


def test_a_workflow_that_needs_files_is_drawn_and_not_run(thumbnails, monkeypatch):
    monkeypatch.setattr(thumbnails, "from_run", lambda name: pytest.fail(f"{name} was run"))
    workflows = thumbnails.run_file().part("host.run.workflows")
    for name in ("pia", "train_shapes", "interpolate_to_fps"):
        picture = thumbnails.picture(name, workflows, {"all"})
        assert picture.size == (thumbnails.SIDE, thumbnails.SIDE)
