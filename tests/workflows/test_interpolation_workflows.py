"""The workflows that fill in: what is given stays, what is made lies between, and an edit reaches the other frames."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pack import host
from PIL import Image
from sheets import cells, pictures
from small_workflows import STAND_INS, Keep, Pixels, nodes_of, read_video, titled, write_video
from tiny_motion import PUBLISHED

API = Path(__file__).resolve().parents[2] / "workflows" / "api"
EDIT, TO_FPS = (
    json.loads((API / f"{name}.json").read_text(encoding="utf-8")) for name in ("edit_and_propagate", "interpolate_to_fps")
)


@pytest.mark.skipif(host.name != "standalone", reason="the nodes run on ComfyUI here; test_nodes.py checks them there")
def test_5_frames_become_17_and_those_65(tmp_path):
    """As a user without ComfyUI runs it, with few steps: given frames are in both passes as they were, the others are new."""
    settings = ["A take.steps=6", "Levels of the first pass.steps=2", "Levels of the second pass.steps=1"]
    made = pictures("interpolate_hints", settings, tmp_path)
    second, first, blends = (
        cells(made[title], columns)
        for title, columns in (("Save contact sheet", 13), ("17 frames", 17), ("17 frames by blending", 17))
    )
    assert (len(second), len(first), len(blends)) == (65, 17, 17)
    assert all(np.array_equal(second[4 * place], frame) for place, frame in enumerate(first))
    same = [np.array_equal(one, other) for one, other in zip(first, blends, strict=True)]
    assert [place for place, equal in enumerate(same) if equal] == [0, 4, 8, 12, 16], "keyframes are those that were given"
    steps = np.abs(np.diff(np.stack(second).astype(int), axis=0)).max(axis=(1, 2, 3))
    assert steps.min() > 0, "no frame is held"


def small(graph, changes=()):
    """The same with small stand-ins, 64x64 pixels, two steps, and ``((title, input), value)`` changed."""
    graph = copy.deepcopy(graph)
    for node in graph.values():
        if node["class_type"] in STAND_INS:
            node["class_type"] = STAND_INS[node["class_type"]].__name__
        sizes = {"width": 64, "height": 64, "steps": 3}
        node["inputs"] |= {key: value for key, value in sizes.items() if isinstance(node["inputs"].get(key), int)}
    for (title, key), value in changes:
        node = graph[titled(graph, title)]
        assert key in node["inputs"]
        node["inputs"][key] = value
    (video,) = nodes_of(graph, "CreateVideo")
    return graph | {"keep": {"class_type": "Keep", "inputs": {"images": video["inputs"]["images"]}}}


def ran(graph, folder, changes=()):
    """What was saved, and the frames ``f h w c``."""
    from pack.host.comfyui.executor import run_workflow

    Keep.frames = None
    return run_workflow(small(graph, changes), folder), Keep.frames


@pytest.fixture(scope="module")
def files(comfyui):
    """The files that the workflows name, and stand-ins for what is too large."""
    import folder_paths
    import nodes

    inputs, models = Path(folder_paths.get_input_directory()), Path(folder_paths.models_dir)
    module = models / "animatediff_models" / "v3_sd15_mm.ckpt"
    module.parent.mkdir(parents=True, exist_ok=True)
    torch.save(PUBLISHED["v3"](), module)
    write_video(inputs / "video.mp4", 18)
    edited = np.zeros((64, 64, 3), dtype=np.uint8)
    edited[16:48, 16:48] = (250, 40, 40)
    Image.fromarray(edited).save(inputs / "edited.png")
    classes = {cls.__name__: cls for cls in (*STAND_INS.values(), Keep)}
    nodes.NODE_CLASS_MAPPINGS.update(classes)
    yield torch.from_numpy(edited)[None].float() / 255
    for name in classes:
        del nodes.NODE_CLASS_MAPPINGS[name]
    for path in (module, inputs / "video.mp4", inputs / "edited.png"):
        path.unlink()


@pytest.mark.comfy
def test_an_edited_frame_reaches_the_others_and_stays_as_it_is(files, tmp_path):
    results, frames = ran(EDIT, tmp_path / "edit")
    (video,) = [item["path"] for item in results if item["class_type"] == "SaveVideo"]
    assert read_video(video) == (16, 12) and torch.isfinite(frames).all()
    kept = Pixels().decode(Pixels().encode(files))
    torch.testing.assert_close(frames[:1], kept, atol=1e-4, rtol=0)
    edit = ("Which frame it is", "frames")
    _, last = ran(EDIT, tmp_path / "last", [(edit, "-1")])
    torch.testing.assert_close(last[-1:], kept, atol=1e-4, rtol=0)
    assert (last[:1] - kept).abs().max() > 0.05
    assert (last[1:-1] - frames[1:-1]).abs().amax(dim=(1, 2, 3)).min() > 1e-3, "where the edit is reaches every other frame"


@pytest.mark.comfy
@pytest.mark.parametrize(
    ("knob", "value"),
    [
        (("Follow the edges", "strength"), 0.0),
        (("How much changes", "denoise"), 0.4),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_what_holds_an_edit_together_reaches_the_frames(files, tmp_path, knob, value):
    (_, usual), (_, other) = ran(EDIT, tmp_path / "a"), ran(EDIT, tmp_path / "b", [(knob, value)])
    assert (usual[1:] - other[1:]).abs().max() > 1e-3


@pytest.mark.comfy
def test_a_video_at_another_rate_is_as_long_as_it_was(files, tmp_path):
    graph = copy.deepcopy(TO_FPS)
    del graph[nodes_key(graph, "FrameInterpolationModelLoader")]
    node = graph[nodes_key(graph, "LongTakeInterpolateTo")]["inputs"]
    node.pop("interp_model")
    node["method"] = "blend"
    results, frames = ran(graph, tmp_path)
    (video,) = [item["path"] for item in results if item["class_type"] == "SaveVideo"]
    assert read_video(video) == (35, 24) and len(frames) == 35


def nodes_key(graph, class_type):
    """The id of the one node of a class."""
    (found,) = [key for key, node in graph.items() if node["class_type"] == class_type]
    return found
