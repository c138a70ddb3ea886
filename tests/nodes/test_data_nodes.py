"""The nodes that give clips, called from Python and run as graphs, on whichever host is there."""

import os
import shutil

import pytest
import torch
from clip_files import caption, grey_frames, write_animation, write_sequence, write_video
from pack import host
from pack.modules.data.captions import FLIPS, MISSING
from pack.modules.data.clips import ClipDataset
from pack.modules.data.lengths import SHORT
from pack.modules.data.places import STRICT
from pack.modules.data.settings import ClipSettings
from pack.modules.data.sizes import CROPS, SIZES
from pack.modules.fields.setting import rows_of
from pack.nodes.train.data import ELSEWHERE, LongTakeClipFolder, LongTakeClipsFromImages, LongTakeShapesClips, clip_place

SMALL = {"frames": 3, "stride": 1, "width": 32, "height": 24}


@pytest.fixture
def folder(tmp_path):
    caption(write_animation(tmp_path / "clips" / "käse.gif", grey_frames(6)), "a cheese")
    caption(write_sequence(tmp_path / "clips" / "walk", grey_frames(5, seed=1)), "a walk")
    (tmp_path / "clips" / "broken.mp4").write_text("no video", encoding="utf-8")
    return tmp_path / "clips"


def test_a_folder(folder):
    clips, sheet, report = LongTakeClipFolder.execute(path=str(folder), **SMALL, measure_motion=True, caption_before="slow,").args
    assert isinstance(clips, ClipDataset)
    assert clips.captions == ["slow, a cheese", "slow, a walk"]
    assert clips.batch(0, 2).pixels.shape == (2, 3, 3, 24, 32)
    assert sheet.shape[0] == 1 and sheet.shape[-1] == 3
    lines = report.splitlines()
    assert lines[0] == "3 clips found, 2 used."
    assert lines[1:3] == ["Cannot be read (1):", *[line for line in lines if line.startswith("  broken.mp4: ")]]
    assert lines[-1].startswith("Motion: ")


def test_a_video_in_a_table(tmp_path):
    write_video(tmp_path / "a.mp4", grey_frames(30, 48, 64))
    (tmp_path / "list.csv").write_text("file,caption,start\na.mp4,a cat,0.5\n", encoding="utf-8")
    clips = LongTakeClipFolder.execute(path=f'"{tmp_path / "list.csv"}"', **SMALL, variants=1, flip="always allowed").args[0]
    assert (clips.captions, clips.sources[0].count, clips.settings.variants) == (["a cat"], 18, 1)


def test_a_strict_server_reads_its_own_folders_alone(folder, monkeypatch):
    monkeypatch.setenv(STRICT, "1")
    with pytest.raises(ValueError, match="lies outside of the folders that this server reads") as error:
        LongTakeClipFolder.execute(path=str(folder), **SMALL)
    assert str(host.input_directory().resolve()) in str(error.value)
    assert LongTakeClipFolder.fingerprint_inputs(path=str(folder)) == ""
    for place in (host.input_directory(), host.output_directory(), host.model_directory("video_models")):
        mine = place / "strict clips"
        caption(write_animation(mine / "a.gif", grey_frames(6)), "a cat")
        try:
            assert LongTakeClipFolder.execute(path=str(mine), **SMALL).args[0].captions == ["a cat"]
            assert LongTakeClipFolder.fingerprint_inputs(path=str(mine))
        finally:
            shutil.rmtree(mine)
    monkeypatch.setenv(STRICT, "0")
    assert LongTakeClipFolder.execute(path=str(folder), **SMALL).args[0].captions == ["a cheese", "a walk"]


def test_every_setting_arrives():
    """One wrong place in a long call would go unnoticed otherwise."""
    images = torch.rand(40, 24, 32, 3)
    told = {
        "frames": 4,
        "stride": 2,
        "clip_fps": 4.0,
        "width": 24,
        "height": 16,
        "sizes": "crop",
        "crop": "random",
        "flip": "always allowed",
        "short": "squeeze",
        "variants": 5,
        "seed": 9,
        "caption_before": "slow,",
    }
    settings = LongTakeClipsFromImages.execute(images=images, image_fps=12.0, **told).args[0].settings
    for name, value in told.items():
        assert getattr(settings, name) == value, name


def test_menus_are_those_of_the_tables():
    tables = {"sizes": SIZES, "crop": CROPS, "flip": FLIPS, "short": SHORT, "missing_captions": MISSING}
    menus = {row.name: list(row.about.menu) for row in rows_of(ClipSettings) if row.about.menu}
    assert menus == {name: list(table) for name, table in tables.items()}


def test_a_folder_has_the_same_settings(folder):
    told = {
        **SMALL,
        "clip_fps": 2.0,
        "sizes": "refuse",
        "crop": "random",
        "flip": "always allowed",
        "short": "squeeze",
        "variants": 5,
    }
    told |= {"seed": 9, "caption_before": "slow,", "caption": "something", "missing_captions": "train without"}
    settings = LongTakeClipFolder.execute(path=str(folder), **told).args[0].settings
    for name, value in told.items():
        assert getattr(settings, name) == value, name


def test_pictures_alone_are_clips_of_one_frame(folder):
    clips = LongTakeClipFolder.execute(path=str(folder), **SMALL | {"frames": 1}, missing_captions="train without").args[0]
    assert len(clips) == 1 + 5, "the animation, and each picture"
    assert clips.batch(0, 2).pixels.shape == (2, 1, 3, 24, 32)


def test_a_folder_in_the_input_folder(folder, monkeypatch):
    monkeypatch.setattr(host, "input_directory", lambda: folder.parent)
    (folder.parent / "list.csv").write_text("file\nclips/käse.gif\n", encoding="utf-8")
    (folder.parent / ".hidden").mkdir()
    (menu,) = (item for item in LongTakeClipFolder.GET_SCHEMA().inputs if item.id == "folder")
    assert menu.options == [ELSEWHERE, "clips", "list.csv"]
    assert len(LongTakeClipFolder.execute(folder="clips", **SMALL).args[0]) == 2
    assert len(LongTakeClipFolder.execute(folder="list.csv", **SMALL).args[0]) == 1
    assert clip_place(ELSEWHERE, "clips") == folder, "a path may be relative to it"


def test_a_changed_folder_is_read_again(folder):
    def stamp():
        return LongTakeClipFolder.fingerprint_inputs(path=str(folder), frames=16)

    before = stamp()
    assert stamp() == before
    os.utime(folder / "käse.gif", (5, 5))
    assert stamp() != before
    assert LongTakeClipFolder.fingerprint_inputs(path="") == ""


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"path": ""}, "no folder is chosen: put one with clips into"),
        ({"path": "nowhere at all"}, "there is no folder or file .*nowhere at all"),
        ({"frames": 16}, r"2 clips of 2 are too short \(käse.gif: it has 6 frames, and 16 are needed\)"),
        ({"width": 30}, "width is 30: it must be a multiple of 8"),
    ],
)
def test_bad_input_is_one_sentence(given, sentence, folder):
    with pytest.raises(ValueError, match=sentence):
        LongTakeClipFolder.execute(**{"path": str(folder), **SMALL} | given)


def test_missing_captions_are_refused(folder):
    (folder / "walk.txt").unlink()
    with pytest.raises(ValueError, match=r"1 clip of 2 has no caption \(walk\)"):
        LongTakeClipFolder.execute(path=str(folder), **SMALL)
    assert LongTakeClipFolder.execute(path=str(folder), **SMALL, caption="a door").args[0].captions == ["a cheese", "a door"]


def test_images_one_after_the_other():
    one = LongTakeClipsFromImages.execute(images=torch.rand(9, 24, 32, 3), caption="a cat", **SMALL, seed=3).args[0]
    two = LongTakeClipsFromImages.execute(images=torch.rand(9, 48, 64, 3), caption="", clips=one, frames=7)
    assert two.args[0].captions == ["a cat", ""]
    assert two.args[0].settings == one.settings
    assert [source.name for source in two.args[0].sources] == ["images 1", "images 2"]
    assert two.args[2].splitlines()[0] == "2 clips found, 2 used."


def test_images_added_to_a_folder(folder):
    clips = LongTakeClipFolder.execute(path=str(folder), **SMALL).args[0]
    more = LongTakeClipsFromImages.execute(images=torch.rand(9, 24, 32, 3), caption="a cat", clips=clips).args
    assert len(more[0]) == 3
    assert "broken.mp4" in more[2]
    with pytest.raises(ValueError, match=r"1 clip of 3 has no caption \(images 4\)|1 clip of 3 has no caption \(images 3\)"):
        LongTakeClipsFromImages.execute(images=torch.rand(9, 24, 32, 3), caption="", clips=clips)


def test_shapes():
    clips, _, report = LongTakeShapesClips.execute(count=5, frames=4, size=32, stride=2, seed=1).args
    assert report.splitlines()[0] == "5 clips found, 5 used."
    assert {take.indices for step in range(5) for take in clips.takes(step, 1)} == {(0, 2, 4, 6)}
    again = LongTakeShapesClips.execute(count=5, frames=4, size=32, stride=2, seed=1).args[0]
    assert torch.equal(clips.batch(3, 2).pixels, again.batch(3, 2).pixels)


def test_a_user_can_cancel(folder, monkeypatch):
    class Stopping:
        def __init__(self, total):
            self.total = total

        def update(self, done, preview=None):
            raise host.Interrupted

    monkeypatch.setattr(host, "Progress", Stopping)
    with pytest.raises(host.Interrupted):
        LongTakeClipFolder.execute(path=str(folder), **SMALL)


SHAPES = {"count": 3, "frames": 3, "size": 32, "stride": 1, "seed": 0, "caption_before": ""}
GRAPH = {
    "1": {"class_type": "LongTakeShapesClips", "inputs": SHAPES},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 1], "filename_prefix": "sheet"}},
}


def test_a_graph_runs_without_comfyui(tmp_path):
    if host.name != "standalone":
        pytest.skip("nodes are ComfyUI's here")
    from pack.host.standalone.core_nodes import SaveImage
    from pack.host.standalone.executor import Executor

    nodes = {"LongTakeShapesClips": LongTakeShapesClips, "SaveImage": SaveImage}
    results = Executor(nodes, output=tmp_path).run(GRAPH)
    assert any("3 clips found, 3 used." in str(result) for result in results)
    assert [path.name for path in tmp_path.iterdir()] == ["sheet_00001_.png"]


@pytest.mark.comfy
def test_a_graph_runs_on_comfyui(tmp_path):
    from pack.host.comfyui.executor import run_workflow

    results = run_workflow(GRAPH, tmp_path)
    assert any(result["kind"] == "file" for result in results)
    assert any(result["kind"] == "text" and result["text"].startswith("3 clips found, 3 used.") for result in results)


@pytest.mark.comfy
def test_clips_made_in_a_graph_can_be_trained_on():
    """ComfyUI runs nodes in inference mode; a trainer leaves it."""
    with torch.inference_mode():
        shapes = LongTakeShapesClips.execute(count=2, frames=3, size=32).args[0]
        images = LongTakeClipsFromImages.execute(images=torch.rand(9, 24, 32, 3), caption="x", **SMALL).args[0]
    with torch.inference_mode(False), torch.enable_grad():
        layer = torch.nn.Conv2d(3, 1, 1)
        for clips in (shapes, images):
            layer(clips.batch(0, 2).pixels.flatten(0, 1)).sum().backward()
