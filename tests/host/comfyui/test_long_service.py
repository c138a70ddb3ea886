"""A server that has run for long is as a new one: memory, threads, open files, and the model without anything from here."""

import random
import time
import urllib.parse
import urllib.request
from io import BytesIO
from pathlib import Path

import pack
import pytest
from live_server import complete, ended, posted, running
from pack import host
from PIL import Image
from tiny import video_model

pytestmark = [pytest.mark.comfy, pytest.mark.slow]
FRAMES = 80
PROMPTS, SETTLED = 60, 20  # after so many all that is loaded once is loaded
MIB = 2**20
GROWTH = 24 * MIB  # what an allocator keeps varies that much


def process_of(url):
    """The server's process, by its port."""
    port = url.rpartition(":")[2].encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and port in (folder / "cmdline").read_bytes().split(b"\0"):
            return folder
    raise AssertionError(f"no process has the port {port!r}")


def measured(process):
    """Resident bytes, threads and open files."""
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) * 1024, int(status["Threads"]), len(list((process / "fd").iterdir()))


MODEL = {
    "1": {"class_type": "LongTakeLoadVideoModel", "inputs": {"model_name": "tiny.safetensors", "attention_window": 0}},
    "2": {"class_type": "LongTakeLabelPrompt", "inputs": {"model": ["1", 0], "prompt": "red disc"}},
    "3": {"class_type": "LongTakeEmptyClip", "inputs": {"model": ["1", 0], "frames": 8}},
}


def shown(samples):
    return {
        "8": {"class_type": "VAEDecode", "inputs": {"samples": samples, "vae": ["1", 1]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "long_service"}},
    }


def bare(seed):
    """ComfyUI's own sampler on the model as it is."""
    given = {"model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["3", 0], "cfg": 1.0, "denoise": 1.0}
    given |= {"seed": seed, "steps": 3, "sampler_name": "euler", "scheduler": "normal"}
    return MODEL | {"7": {"class_type": "KSampler", "inputs": given}} | shown(["7", 0])


def guided(seed):
    """History guidance around a rollout: variants of a call, state of a sampling."""
    given = {"model": ["1", 0], "positive": ["2", 0], "seed": seed, "frames": 12, "steps": 4, "lag": 1.0, "guidance": ["4", 0]}
    return (
        MODEL
        | {"4": {"class_type": "LongTakeHistoryGuidance", "inputs": {}}, "7": {"class_type": "LongTakeRollout", "inputs": given}}
        | shown(["7", 0])
    )


def recorded(seed, folder="take", frames=24):
    given = {"model": ["1", 0], "vae": ["1", 1], "positive": ["2", 0], "seed": seed, "frames": frames, "steps": 4, "lag": 1.0}
    given |= {"folder": folder, "decode_batch": 4, "save_every": 4}
    return MODEL | {"7": {"class_type": "LongTakeStream", "inputs": given}}


def extended(seed):
    given = {"model": ["1", 0], "clip": ["3", 0], "positive": ["2", 0], "seed": seed, "new_frames": 8, "window": 8, "overlap": 4}
    given |= {"steps": 2, "corrector_steps": 0, "weight": 0.0}
    return MODEL | {"7": {"class_type": "LongTakeExtend", "inputs": given}} | shown(["7", 0])


KINDS = (bare, guided, recorded, extended)


def pictures(url, entry):
    """Pixels of the pictures that a prompt saved."""
    shown_files = [image for output in entry["outputs"].values() for image in output.get("images", ())]
    contents = []
    for image in shown_files:
        with urllib.request.urlopen(f"{url}/view?{urllib.parse.urlencode(image)}", timeout=60) as answer:
            contents.append(Image.open(BytesIO(answer.read())).convert("RGB").tobytes())  # the workflow beside it is another
    return contents


def test_sixty_prompts_with_interrupts_leave_nothing_behind(comfyui, tmp_path):
    """Every fourth one is cancelled somewhere, every tenth time memory is given back; afterwards the bare model makes what it made."""
    assert host.name == "comfyui"
    (tmp_path / "models" / "longtake").mkdir(parents=True)
    video_model().save(tmp_path / "models" / "longtake" / "tiny.safetensors")
    moments = random.Random(3)
    with running(comfyui, Path(pack.__file__).parent, tmp_path) as url:
        process, marks, ends = process_of(url), {}, []

        def run(graph, cancel=None):
            prompt = posted(url, "/prompt", prompt=complete(graph))["prompt_id"]
            if cancel is not None:
                time.sleep(cancel)
                posted(url, "/interrupt")
            entry = ended(url, prompt)
            said = [
                message for message in entry["status"]["messages"] if message[0] in ("execution_error", "execution_interrupted")
            ]
            assert entry["status"]["completed"] or (cancel is not None and said[-1][0] == "execution_interrupted"), said
            return entry

        first = pictures(url, run(bare(1)))
        assert len(first) == 8
        for number in range(1, PROMPTS + 1):
            recording = (
                KINDS[number % len(KINDS)] is recorded
            )  # one take, longer each time: cancelled and gone on with, until it comes to its end
            graph = recorded(5, frames=FRAMES - PROMPTS + number) if recording else KINDS[number % len(KINDS)](number)
            entry = run(graph, moments.uniform(0.02, 0.4) if recording and number < PROMPTS - 4 else None)
            ends.append(entry["status"]["status_str"])
            if number % 10 == 0:
                posted(url, "/free", unload_models=True, free_memory=True)
                time.sleep(1.5)
            if number in (SETTLED, PROMPTS):
                marks[number] = measured(process)
        run(recorded(5, "whole", FRAMES - 2))
        graph = bare(1)
        graph["9"]["inputs"]["filename_prefix"] = "again"  # or ComfyUI would not even save them
        posted(url, "/free", unload_models=True, free_memory=True)
        time.sleep(1.5)
        again = pictures(url, run(graph))
    assert first == again, "the bare model"
    takes = [sorted((tmp_path / "output" / name).glob("*.png")) for name in ("take", "whole")]
    assert [path.name for path in takes[0]] == [path.name for path in takes[1]] and len(takes[0]) == FRAMES - 2
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(*takes, strict=True)), "cancelled again and again"
    early, late = marks[SETTLED], marks[PROMPTS]
    assert late[0] - early[0] < GROWTH, f"memory grew by {(late[0] - early[0]) / MIB:.1f} MiB"
    assert late[1] <= early[1] + 1, f"threads: {early[1]}, then {late[1]}"
    assert late[2] <= early[2] + 2, f"open files: {early[2]}, then {late[2]}"
    assert ends.count("success") >= PROMPTS - 14 and set(ends) <= {"success", "error"}
    print(
        f"{(late[0] - early[0]) / MIB:+.1f} MiB, {late[1] - early[1]:+} threads, {late[2] - early[2]:+} files",
        ends.count("error"),
    )
