"""The shipped AnimateDiff workflows in ComfyUI's own executor, from the loaders to the video file.

Everything is real but the checkpoint and the ControlNet: ComfyUI recognises full-size files only, so these two loaders give small random
models. The other model files are small ones under the published names. Pictures are 64x64 and two steps are sampled; how many frames
there are is left as it is shipped.
"""

import copy
import json
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from small_workflows import STAND_INS, Keep, nodes_of, read_video, spatial_lora, titled, write_video
from sparing import sparing
from tiny_lora import lora_state
from tiny_motion import PUBLISHED

API = Path(__file__).resolve().parents[2] / "workflows" / "api"
WORKFLOWS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(API.glob("animatediff_*.json"))}
LONG = 17  # frames from which on a motion module needs windows
SMALL = {"width": 64, "height": 64, "steps": 2}

FRAMES = {
    "animatediff_text_to_video": 16,
    "animatediff_long_loop": 48,
    "animatediff_prompt_travel": 48,
    "animatediff_camera_moves": 16,
    "animatediff_controlnet_windows": 48,
    "animatediff_reference": 48,
    "animatediff_sdxl": 16,
    "animatediff_lcm": 16,
    "animatediff_video_to_video": 48,
    "animatediff_fifo": 48,
    "animatediff_fifo_to_disk": 16,  # the last ones of 48
}
FAMILY = {
    "v3_sd15_mm.ckpt": "v3",
    "mm_sd_v15_v2.ckpt": "v2",
    "mm_sdxl_v10_beta.ckpt": "SDXL-beta",
    "AnimateLCM_sd15_t2v.ckpt": "AnimateLCM",
}


# What can be read off the files


def test_every_workflow_is_run_here():
    assert set(FRAMES) == set(WORKFLOWS)


@pytest.mark.parametrize("graph", WORKFLOWS.values(), ids=WORKFLOWS)
def test_a_workflow_explains_itself_and_ends_in_a_video(graph):
    (note,) = [node["_meta"]["note"] for node in graph.values() if "note" in node["_meta"]]
    assert "models/checkpoints" in note and "models/animatediff_models" in note and "To try:" in note
    titles = [node["_meta"]["title"] for node in graph.values()]
    assert len(set(titles)) == len(titles), "--set finds nodes by title"
    assert all(title in titles for title in note.split('"')[1::2]), "what the note names is there"
    (saved,) = nodes_of(graph, "SaveVideo")
    assert graph[saved["inputs"]["video"][0]]["class_type"] == "CreateVideo"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_long_clips_have_windows_and_show_them(name):
    needed = FRAMES[name] >= LONG and not nodes_of(WORKFLOWS[name], "LongTakeFifoSampler")  # whose window is the sampler's
    assert (
        len(nodes_of(WORKFLOWS[name], "LongTakeContextWindows")) == len(nodes_of(WORKFLOWS[name], "LongTakeShowPlan")) == needed
    )


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_queue_has_a_level_for_each_place(name):
    for sampler in nodes_of(WORKFLOWS[name], "LongTakeFifoSampler"):
        (scheduler,) = nodes_of(WORKFLOWS[name], "BasicScheduler")
        assert scheduler["inputs"]["steps"] == sampler["inputs"]["partitions"] * sampler["inputs"]["window"]


# Running them


def model_files(root):
    """Every file that the workflows name, as (path, how to write it)."""
    for graph in WORKFLOWS.values():
        for node in graph.values():
            given = node["inputs"]
            if "motion_module" in given and isinstance(given["motion_module"], str):
                name = given["motion_module"]
                yield root / "animatediff_models" / name, lambda path, name=name: torch.save(PUBLISHED[FAMILY[name]](), path)
            if node["class_type"] == "LongTakeApplyMotionLora":
                seed = zlib.crc32(given["lora_name"].encode())
                yield (
                    root / "animatediff_motion_lora" / given["lora_name"],
                    lambda path, seed=seed: torch.save(lora_state(middle=True, seed=seed), path),
                )
            if node["class_type"] == "LoraLoaderModelOnly":
                yield root / "loras" / given["lora_name"], lambda path: save_file(spatial_lora(), path)


@pytest.fixture(scope="module")
def files(comfyui):
    """The workflows' files, and the stand-ins among ComfyUI's nodes."""
    import folder_paths
    import nodes

    made = {}
    for path, write in model_files(Path(folder_paths.models_dir)):
        if path not in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)
            made[path] = path
    video, picture = (Path(folder_paths.get_input_directory()) / name for name in ("video.mp4", "reference.png"))
    write_video(video, 50)
    Image.linear_gradient("L").convert("RGB").save(picture)
    classes = {cls.__name__: cls for cls in (*STAND_INS.values(), Keep)}
    nodes.NODE_CLASS_MAPPINGS.update(classes)
    yield
    for name in classes:
        del nodes.NODE_CLASS_MAPPINGS[name]
    for path in (*made, video, picture):
        path.unlink()


def small(name, changes=()):
    """A workflow with stand-ins, small sizes, and ``((title, input), value)`` changed."""
    graph = copy.deepcopy(WORKFLOWS[name])
    for node in graph.values():
        if node["class_type"] in STAND_INS:
            node["class_type"] = STAND_INS[node["class_type"]].__name__
        node["inputs"] |= {key: value for key, value in SMALL.items() if isinstance(node["inputs"].get(key), int)}
    for sampler in nodes_of(graph, "LongTakeFifoSampler"):
        sampler["inputs"]["partitions"] = 1
        (scheduler,) = nodes_of(graph, "BasicScheduler")
        scheduler["inputs"]["steps"] = sampler["inputs"]["window"]
    for (title, key), value in changes:
        node = graph[titled(graph, title)]
        assert key in node["inputs"]
        node["inputs"][key] = value
    (video,) = nodes_of(graph, "CreateVideo")
    return graph | {"keep": {"class_type": "Keep", "inputs": {"images": video["inputs"]["images"]}}}


def run(name, folder, changes=()):
    """What a workflow saved and showed, and its frames: ``f h w c``."""
    from pack.host.comfyui.executor import run_workflow

    Keep.frames = None
    return run_workflow(small(name, changes), folder), Keep.frames


@pytest.fixture(scope="module")
def as_shipped(files, tmp_path_factory):
    """What each workflow gives without a change, computed once."""
    known = {}

    def of(name):
        if name not in known:
            known[name] = run(name, tmp_path_factory.mktemp(name))
        return known[name]

    return of


@pytest.mark.comfy
@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_makes_its_video(name, as_shipped):
    results, frames = as_shipped(name)
    (video,) = [item["path"] for item in results if item["class_type"] == "SaveVideo"]
    rate = 12 if nodes_of(WORKFLOWS[name], "LoadVideo") else 8
    assert read_video(video) == (FRAMES[name], rate)
    assert frames.shape == (FRAMES[name], 64, 64, 3)
    assert torch.isfinite(frames).all()
    assert (frames[1:] - frames[:-1]).abs().amax(dim=(1, 2, 3)).min() > 1e-3, "no frame is a copy of the one before"
    texts = [item["text"] for item in results if item["class_type"] == "LongTakeShowPlan" and item["kind"] == "text"]
    assert len(texts) == len(nodes_of(WORKFLOWS[name], "LongTakeShowPlan"))
    assert all(f"{FRAMES[name]} frames" in text for text in texts)


# one line for each node whose part in a workflow is worth a look: without it the frames must be others
KNOBS = [
    ("animatediff_text_to_video", ("Model that draws clips", "effect"), 0.0),
    ("animatediff_long_loop", ("Windows around the loop", "closed_loop"), False),
    ("animatediff_prompt_travel", ("Prompts", "interpolation"), "hold"),
    ("animatediff_camera_moves", ("Zoom in", "strength"), 0.0),
    ("animatediff_camera_moves", ("Pan right (left, turned around)", "strength"), 0.7),
    ("animatediff_controlnet_windows", ("Follow the edges", "strength"), 0.0),
    ("animatediff_controlnet_windows", ("48 frames of it", "batch_index"), 2),
    ("animatediff_reference", ("All frames look at it", "strength"), 0.0),
    ("animatediff_sdxl", ("Model that draws clips", "effect"), 0.0),
    ("animatediff_lcm", ("AnimateLCM's LoRA for the image model", "strength_model"), 0.0),
    ("animatediff_video_to_video", ("Draw it anew", "denoise"), 0.3),
    ("animatediff_fifo", ("Queue", "lookahead"), False),
    ("animatediff_fifo", ("Prompts by frame", "schedule"), "a meadow"),
]
QUICK = [knob for knob in KNOBS if knob[0] != "animatediff_fifo"]  # it calls the model for every frame


@pytest.mark.comfy
@pytest.mark.parametrize(
    ("name", "knob", "value"), sparing(KNOBS, *QUICK), ids=lambda value: value if isinstance(value, str) else None
)
def test_what_the_workflow_is_about_reaches_the_frames(name, knob, value, as_shipped, tmp_path):
    _, shipped = as_shipped(name)
    _, other = run(name, tmp_path, [(knob, value)])
    assert (shipped - other).abs().max() > 1e-3


STILL = (("Model that draws clips", "effect"), 0.0)
HELD = range(12), range(18, 30), range(36, 48)  # by the three lines of the workflow's schedule


@pytest.fixture(scope="module")
def single_prompts(files, tmp_path_factory):
    """The frames of each prompt alone: ``f h w c``."""
    graph = WORKFLOWS["animatediff_prompt_travel"]
    lines = graph[titled(graph, "Prompts")]["inputs"]["schedule"].splitlines()
    return [
        run(
            "animatediff_prompt_travel",
            tmp_path_factory.mktemp("single"),
            [STILL, (("Prompts", "schedule"), line.partition("= ")[2])],
        )[1]
        for line in lines
    ]


@pytest.mark.comfy
@pytest.mark.parametrize("mode", ["temporal", "views", "whole"])
def test_prompts_hold_where_the_schedule_says_so(mode, single_prompts, tmp_path):
    """Without motion, frames do not know each other: each is what its own prompt makes, or a mixture."""
    _, travel = run("animatediff_prompt_travel", tmp_path, [STILL, (("Windows over the clip", "mode"), mode)])
    for single, held in zip(single_prompts, HELD, strict=True):
        assert [frame for frame in range(48) if (travel[frame] - single[frame]).abs().max() < 1e-4] == list(held)
