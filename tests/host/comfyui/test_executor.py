"""Workflows on ComfyUI's own executor, from outside: its folders, its progress, and what is known of its nodes."""

import asyncio
import importlib
from pathlib import Path

import pytest
from PIL import Image
from small_graphs import NODES, take

pytestmark = pytest.mark.comfy
EMPTY = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 8, "batch_size": 2, "color": 255}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}},
}


@pytest.fixture
def executor(comfyui):
    return importlib.import_module("pack.host.comfyui.executor")


def test_previews_vanish_and_folders_are_put_back(executor, tmp_path, monkeypatch):
    import folder_paths

    before = [str(folder_paths.get_directory_by_type(kind)) for kind in ("output", "temp", "input")]
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(executor.tempfile, "tempdir", str(tmp_path / "tmp"))
    items = executor.run_workflow(EMPTY, tmp_path / "out")
    assert [item["kind"] for item in items] == ["preview"] * 2 + ["file"] * 2
    assert all(item["path"].is_file() for item in items[2:])
    assert not list((tmp_path / "tmp").iterdir())
    assert [str(folder_paths.get_directory_by_type(kind)) for kind in ("output", "temp", "input")] == before


def test_pictures_are_read_from_another_folder(executor, tmp_path):
    Image.new("RGB", (6, 4), "red").save(tmp_path / "cat.png")
    items = executor.run_workflow(NODES, tmp_path / "out", input=tmp_path)
    assert [item["path"].name for item in items] == ["a_00001_.png", "b_00001_.png"]


def test_progress_is_told_with_its_node(executor, tmp_path, tiny_video_file):
    import comfy.utils
    import folder_paths

    hook = comfy.utils.PROGRESS_BAR_HOOK
    file = Path(folder_paths.models_dir) / "longtake" / tiny_video_file.name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(tiny_video_file.read_bytes())
    reports = []
    executor.run_workflow(take(file.name, 6), tmp_path, report=reports.append)
    told = [report for report in reports if report.task == "node 3 (LongTakeRollout)"]
    assert told[-1].done == told[-1].total > 1
    assert comfy.utils.PROGRESS_BAR_HOOK is hook
    assert comfy.utils.PROGRESS_BAR_ENABLED


def test_what_is_known_of_comfyuis_nodes(executor):
    known = asyncio.run(executor.known({"LoadImage", "LongTakeRollout", "SaveVideo", "Nothing"}))
    assert set(known) == {"LoadImage", "LongTakeRollout", "SaveVideo"}
    assert known["LoadImage"].title == "Load Image"
    assert known["LoadImage"].uploads == {"image"}
    assert known["LongTakeRollout"].replaced["noise_levels"]
    assert known["SaveVideo"].saves
