"""The command line: what it runs, and what it says when something is wrong."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pack import run
from pack.host.run import workflows
from pack.host.standalone import core_nodes
from PIL import Image
from pretended_server import serving
from small_graphs import NODES, take, written

ROOT = Path(run.__file__).parent


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "input").mkdir()
    Image.new("RGB", (6, 4), "red").save(tmp_path / "input" / "cat.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_was_saved_is_given_back(folder):
    items = run.run_standalone(NODES, ["2.filename_prefix=c"], folder / "out")
    assert [item["path"].name for item in items] == ["c_00001_.png", "b_00001_.png"]
    assert all(item["path"].is_file() for item in items)


def test_without_pyav_only_the_video_is_left_out(folder, monkeypatch, capsys):
    monkeypatch.setattr(core_nodes, "VIDEO_NODES", core_nodes.VIDEO_NODES)
    monkeypatch.setattr(core_nodes, "core_nodes", lambda: {node.__name__: node for node in core_nodes.NODES})
    film = {"class_type": "CreateVideo", "inputs": {"images": ["1", 0], "fps": 8.0}}
    saved = {"class_type": "SaveVideo", "inputs": {"video": ["4", 0], "filename_prefix": "v", "format": "auto", "codec": "auto"}}
    items = run.run_standalone(NODES | {"4": film, "5": saved}, [], folder / "out")
    assert len(items) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "4 (CreateVideo), 5 (SaveVideo)" in said
    assert "pip install av" in said


def command(*arguments, folder, **more):
    environment = os.environ | {"COMFYUI_PATH": "", "OMP_NUM_THREADS": "1"} | more
    line = [sys.executable, str(ROOT / "run.py"), *arguments]
    return subprocess.Popen(line, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_take_from_the_command_line(folder, tiny_video_file):
    name = written(folder / "w.json", take(tiny_video_file.name, 6))
    process = command(
        name,
        "--set",
        "SaveImage.filename_prefix=mine",
        "--output",
        "res",
        folder=folder,
        LONGTAKE_MODELS=str(tiny_video_file.parent),
    )
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    lines = out.splitlines()
    assert [Path(line).relative_to(folder).as_posix() for line in lines[:6]] == [f"res/mine_0000{i}_.png" for i in range(1, 7)]
    assert lines[6].startswith("seed 5, 6 frames")
    assert lines[7:] == ["cost: 9 model calls of up to 6 frames, 1.5 per frame", "gradients: none"]
    assert err.splitlines() == ["running standalone"]


def test_errors_are_sentences(folder):
    broken = NODES | {"1": {"class_type": "LongTakeContactSheet", "inputs": {"columns": 0, "count": 4}}}
    broken["2"] = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}}
    process = command(written(folder / "w.json", broken), folder=folder)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, "")
    assert "Traceback" not in err
    assert "node 1 (LongTakeContactSheet): input 'columns' is 0: the least is 1" in err
    assert not (folder / "output").exists()


@pytest.mark.skipif(os.name == "nt", reason="signals of a console")
def test_ctrl_c_leaves_nothing_half_written(folder, tiny_video_file):
    name = written(folder / "w.json", take(tiny_video_file.name, 50000))
    process = command(name, folder=folder, LONGTAKE_MODELS=str(tiny_video_file.parent))
    assert process.stderr.readline() == "running standalone\n"
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert len(err.splitlines()) == 1
    assert "cancelled" in err
    assert not list(folder.glob("output/*"))


# What the command line says before anything runs


def said(*arguments, folder, **more):
    process = command(*arguments, folder=folder, **more)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_every_workflow_is_listed(folder):
    code, out, _ = said("--list", folder=folder)
    lines = out.splitlines()
    assert code == 0
    assert len(lines) == 2 * len(workflows.names())
    at = next(number for number, line in enumerate(lines) if line.startswith("long_take: One long take"))
    assert lines[at + 1] == "    runs without ComfyUI too; nothing to download"
    at = next(number for number, line in enumerate(lines) if line.startswith("animatediff_lcm: A clip in 6 steps"))
    assert lines[at + 1].startswith("    needs ComfyUI; models/checkpoints/")
    assert "models/loras/AnimateLCM_sd15_t2v_lora.safetensors" in lines[at + 1]


def test_a_workflow_for_comfyui_alone_is_refused_in_one_sentence(folder):
    code, out, err = said("animatediff_text_to_video", folder=folder)
    assert (code, out) == (1, "")
    running, error = err.splitlines()
    assert running == "running standalone"
    assert error.startswith("error: this workflow needs ComfyUI, for its nodes CheckpointLoaderSimple, ")
    assert error.endswith("set COMFYUI_PATH to ComfyUI's folder, or give --server the address of one that runs")


def test_a_setting_without_effect_is_warned_of(folder, tiny_video_file):
    workflow = take(tiny_video_file.name, 3)
    levels = {"frames": 3, "schedule": "pyramid", "steps": 2, "lag": 1.0, "block": 1, "known": 0}
    levels |= {"known_at": "", "custom": "", "window": 0}
    workflow["6"] = {"class_type": "LongTakeNoiseLevels", "_meta": {"title": "Levels"}, "inputs": levels}
    workflow["3"]["inputs"]["noise_levels"] = ["6", 0]
    name, models = written(folder / "w.json", workflow), {"LONGTAKE_MODELS": str(tiny_video_file.parent)}
    code, out, err = said(name, "--set", "Rollout (Long Take).frames=8", folder=folder, **models)
    assert code == 0, err
    assert "--set Rollout (Long Take).frames=8 has no effect: noise_levels of node 3" in err
    assert "set it in node 6 (Levels)" in err
    assert "3 frames" in out
    code, out, err = said(name, "--set", "Levels.frames=4", folder=folder, **models)
    assert "no effect" not in err
    assert "4 frames" in out


def test_previews_are_counted_and_not_kept(folder):
    workflow = NODES | {"2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    (folder / "tmp").mkdir()
    code, out, err = said(written(folder / "w.json", workflow), folder=folder, TMPDIR=str(folder / "tmp"))
    assert code == 0, err
    assert [Path(line).name for line in out.splitlines()] == ["b_00001_.png"]
    assert "1 preview was not kept: Save Image" in err
    assert not list((folder / "tmp").iterdir())


def test_pictures_are_read_from_another_folder(folder):
    (folder / "input").rename(folder / "elsewhere")
    code, out, err = said(written(folder / "w.json", NODES), "--input", "elsewhere", folder=folder)
    assert code == 0, err
    assert len(out.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--server", "http://x", "--host", "comfyui"], "exclude each other"),
        (["--header", "A: b"], "--header is for --server"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments, words, capsys):
    with pytest.raises(SystemExit):
        run.arguments(arguments)
    assert words in capsys.readouterr().err


def test_a_server_is_asked_and_sent_to(folder, capsys, monkeypatch):
    monkeypatch.setenv(run.TOKEN, "secret")
    with serving() as server:
        menu = {"required": {"image": [["old.png"], {"image_upload": True}]}}
        server.token = "Bearer secret"
        server.information = {
            "LoadImage": {"display_name": "Load Image", "input": menu},
            "SaveImage": {"output_node": True, "input": {"required": {"images": ["IMAGE"], "filename_prefix": ["STRING", {}]}}},
        }
        assert run.main([written(folder / "w.json", NODES), "--server", server.url, "--set", "Load Image.image=cat.png"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [str(folder / "output" / "deep" / "a_00001_.png"), "seed 5"]
    assert f"sent {folder / 'input' / 'cat.png'} to {server.url}" in captured.err
    assert server.asked[0][1]["prompt"]["1"]["inputs"] == {"image": "mine/sent1.png"}
