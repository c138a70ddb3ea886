"""Every workflow file against the nodes of a real ComfyUI: its own information on them, its server, and ``comfy run``."""

import asyncio
import importlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pack
import pytest
from gate import from_editor, problems
from live_server import asked, files_for, running
from pack.host.run import workflows

ROOT = Path(pack.__file__ or "").parent
NAMES = workflows.names()
NEWER = {"FrameInterpolationModelLoader"}  # nodes that not every supported version has
# what one version wants and the other leaves out: a file that has both runs on both
EXTRA = {"SaveVideo.codec", "SaveVideo.format.codec"}
LATER = {"CreateVideo"}  # with bit_depth at the end, in newer versions
# deprecated in newer versions; nothing in older ones joins two clips instead
STILL = {"skyreels_next_clip": "ImageBatch: deprecated"}
VARIABLE = "COMFY_CLI"
THROUGH_CLI = (
    *("long_take", "image_to_video", "inbetween", "history_guided", "train_from_clips", "animatediff_text_to_video"),
    *("animatediff_lcm", "animatediff_sdxl", "pia", "skyreels_long_video"),
)


@pytest.fixture(scope="module")
def information(comfyui):
    """What this ComfyUI tells of every class, files of the workflows included in its menus."""
    import folder_paths
    import nodes

    base = Path(folder_paths.models_dir).parent
    files_for({file for name in NAMES for file in workflows.files(workflows.read(name))}, base)
    folder_paths.filename_list_cache.clear()
    asyncio.run(importlib.import_module("pack.host.comfyui.executor").load_nodes())
    return {name: told(name, node) for name, node in nodes.NODE_CLASS_MAPPINGS.items()}


def told(name, node):
    """As the server's ``/object_info`` has it."""
    if hasattr(node, "GET_NODE_INFO_V1"):
        facts = node.GET_NODE_INFO_V1()
        return {**facts, "deprecated": facts.get("deprecated")}
    outputs = [kind if isinstance(kind, str) else "COMBO" for kind in node.RETURN_TYPES]
    return {"input": node.INPUT_TYPES(), "output": outputs, "deprecated": getattr(node, "DEPRECATED", False)}


def read(name, information):
    workflow = workflows.read(name)
    missing = {node["class_type"] for node in workflow.values()} & NEWER - set(information)
    if missing:
        pytest.skip(f"this ComfyUI is older than its {', '.join(missing)}")
    return workflow


def wrong_in(name, workflow, information):
    """What is wrong, but for what has to stay."""
    return [line for line in problems(workflow, information, EXTRA) if STILL.get(name, "nothing") not in line]


@pytest.mark.comfy
@pytest.mark.parametrize("name", NAMES)
def test_files_in_api_format_fit_the_nodes_there_are(name, information):
    assert wrong_in(name, read(name, information), information) == []


@pytest.mark.comfy
@pytest.mark.parametrize("name", NAMES)
def test_files_for_the_editor_fit_the_nodes_there_are(name, information):
    wanted = read(name, information)
    made = from_editor(json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8")), information, LATER)
    assert wrong_in(name, made, information) == []
    for id, node in wanted.items():
        same = {key: value for key, value in made[id]["inputs"].items() if key in node["inputs"]}
        assert same == {key: node["inputs"][key] for key in same}, f"node {id} ({node['class_type']})"


INFORMATION = {
    "Source": {"input": {}, "output": ["IMAGE"]},
    "Old": {"input": {}, "output": [], "deprecated": True},
    "Save": {
        "input": {
            "required": {
                "images": ["IMAGE", {}],
                "kind": [
                    "COMFY_DYNAMICCOMBO_V3",
                    {"options": [{"key": "a", "inputs": {"required": {"rate": ["INT", {"max": 9}]}}}]},
                ],
                "mode": [["x", "y"], {}],
            }
        },
        "output": [],
    },
}
RIGHT = {"images": ["1", 0], "kind": "a", "kind.rate": 3, "mode": "x"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, None),
        ({"kind.rate": None}, "kind.rate is missing"),
        ({"kind.rate": 12}, "kind.rate is 12, which is out of range"),
        ({"kind": "b", "kind.rate": None}, "kind is 'b', which the menu does not have"),
        ({"mode": "z"}, "mode is 'z', which the menu does not have"),
        ({"more": 1}, "there is no input more"),
        ({"images": 3}, "images takes a link to IMAGE"),
        ({"images": ["1", 1]}, "images takes IMAGE and is linked to output 1 of Source"),
    ],
)
def test_the_gate_sees(changes, sentence):
    inputs = {key: value for key, value in (RIGHT | changes).items() if value is not None}
    found = problems({"1": {"class_type": "Source", "inputs": {}}, "2": {"class_type": "Save", "inputs": inputs}}, INFORMATION)
    assert found == ([] if sentence is None else [f"2 Save: {sentence}"])


def test_the_gate_sees_nodes_that_are_old_or_not_there():
    found = problems({"1": {"class_type": "Old", "inputs": {}}, "2": {"class_type": "None", "inputs": {}}}, INFORMATION)
    assert found == ["1 Old: deprecated", "2 None: there is no such node"]


# A real server


@pytest.fixture(scope="module")
def server(comfyui, tmp_path_factory):
    base = tmp_path_factory.mktemp("server")
    files_for({file for name in NAMES for file in workflows.files(workflows.read(name)) if not workflows.bundled(file)}, base)
    with running(comfyui, ROOT, base) as url:
        yield url


@pytest.mark.comfy
@pytest.mark.slow
def test_the_server_tells_the_same(server, information):
    """What is checked above without a server is what a server says of the nodes that workflows use."""
    there = asked(server, "/object_info")
    used = {node["class_type"] for name in NAMES for node in workflows.read(name).values()} & set(information)
    for name in NAMES:
        if not {node["class_type"] for node in workflows.read(name).values()} - set(there):
            assert wrong_in(name, workflows.read(name), there) == [], name
    for name in sorted(used):
        ours = json.loads(json.dumps(information[name]["input"], default=str))
        assert set(ours) - {"hidden"} == set(there[name]["input"]) - {"hidden"}, name
        for group in set(ours) - {"hidden"}:
            assert list(ours[group]) == list(there[name]["input"][group]), name


@pytest.mark.comfy
@pytest.mark.slow
@pytest.mark.parametrize("name", THROUGH_CLI)
def test_comfy_run_takes_it(name, server, tmp_path):
    """The authors' own command accepts the file."""
    program = os.environ.get(VARIABLE) or shutil.which("comfy")
    if program is None:
        pytest.skip(f"comfy-cli is not installed: pip install comfy-cli elsewhere, and name its program in {VARIABLE}")
    host, port = server.removeprefix("http://").split(":")
    file = ROOT / "workflows" / "api" / f"{name}.json"
    command = [program, "--skip-prompt", "run", "--workflow", str(file), "--host", host, "--port", port]
    environment = os.environ | {"HOME": str(tmp_path), "DO_NOT_TRACK": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
