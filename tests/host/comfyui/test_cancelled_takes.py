"""A take that is cancelled on a real server: what the editor reads afterwards, its history and its assets, lists what is on disk."""

import time
from copy import deepcopy
from pathlib import Path

import pack
import pytest
from live_server import asked, complete, ended, posted, running
from tiny import video_model

pytestmark = [pytest.mark.comfy, pytest.mark.slow]
FRAMES = 150
MODEL = {
    "1": {"class_type": "LongTakeLoadVideoModel", "inputs": {"model_name": "tiny.safetensors", "attention_window": 0}},
    "2": {"class_type": "LongTakeLabelPrompt", "inputs": {"model": ["1", 0], "prompt": "red disc"}},
    "3": {"class_type": "LongTakeEmptyClip", "inputs": {"model": ["1", 0], "frames": 8}},
}
PLACE = {"vae": ["1", 1], "decode_batch": 4, "save_every": 4}
TAKE = {"model": ["1", 0], "positive": ["2", 0], "seed": 5, "steps": 4, "lag": 1.0}
RECORDED = {"recording": ["4", 0]}


def record(folder):
    return {"4": {"class_type": "LongTakeRecord", "inputs": {**PLACE, "folder": folder}}}


def stream(folder, frames):
    return {"7": {"class_type": "LongTakeStream", "inputs": {**TAKE, **PLACE, "folder": folder, "frames": frames}}}


def rollout(folder, frames):
    return {**record(folder), "7": {"class_type": "LongTakeRollout", "inputs": {**TAKE, **RECORDED, "frames": frames}}, **shown()}


def extend(folder, frames):
    given = {name: value for name, value in TAKE.items() if name != "lag"} | {"clip": ["3", 0], "new_frames": frames - 8}
    given |= {"window": 8, "overlap": 4, "steps": 2, "corrector_steps": 0, "weight": 0.0}
    return {**record(folder), "7": {"class_type": "LongTakeExtend", "inputs": {**given, **RECORDED}}, **shown()}


def shown():
    return {
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["7", 0], "vae": ["1", 1]}},
        "9": {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}},
    }


def frames_in(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


def test_a_cancelled_take_is_listed_and_goes_on(comfyui, tmp_path):
    (tmp_path / "models" / "longtake").mkdir(parents=True)
    video_model().save(tmp_path / "models" / "longtake" / "tiny.safetensors")
    with running(comfyui, Path(pack.__file__).parent, tmp_path) as url:

        def queued(kind):
            return posted(url, "/prompt", prompt=complete(deepcopy(MODEL | kind(kind.__name__, FRAMES))))["prompt_id"]

        for kind in (stream, rollout, extend):
            folder, prompt = tmp_path / "output" / kind.__name__, queued(kind)
            deadline = time.monotonic() + 60
            while len(frames_in(folder)) < 12 and time.monotonic() < deadline:
                time.sleep(0.01)
            posted(url, "/interrupt")
            entry, there = ended(url, prompt), frames_in(folder)
            assert 12 <= len(there) < FRAMES
            assert entry["status"]["status_str"] == "success", "the take ended where the user ended it"
            told = entry["outputs"]["7"]
            assert [image["filename"] for image in told["images"]] == list(there)[-4:]
            assert {(image["subfolder"], image["type"]) for image in told["images"]} == {(kind.__name__, "output")}
            if (comfyui / "comfy_execution" / "jobs.py").exists():  # the page's Assets are the completed jobs with a picture
                (job,) = [job for job in asked(url, "/api/jobs?status=completed")["jobs"] if job["id"] == prompt]
                assert job["preview_output"]["subfolder"] == kind.__name__
            entry, after = ended(url, queued(kind)), frames_in(folder)
            assert len(after) == FRAMES and entry["status"]["status_str"] == "success", "queued again, it goes on"
            assert {name: after[name] for name in there} == there
            assert [image["filename"] for image in entry["outputs"]["7"]["images"]] == list(after)[-4:]
