"""Workflows drawn for ComfyUI's editor."""

import os
import subprocess
import sys
from pathlib import Path

import pack
import pytest
from conftest import load
from pack.host.standalone import core_nodes
from small_graphs import NODES

ROOT = Path(pack.__file__ or "").parent


@pytest.fixture(scope="module")
def drawing():

    return load("longtake_drawing", ROOT / "workflows" / "api_to_ui.py")


def io_schemas(drawing):
    nodes = {node.__name__: node.GET_SCHEMA() for node in (*core_nodes.NODES, *core_nodes.VIDEO_NODES)}
    return nodes | {schema.node_id: schema for schema in drawing.others(core_nodes.io)}


def read_back(drawn, known):
    """The API format of a drawing, as the editor would export it."""
    links = {link[0]: [str(link[1]), link[2]] for link in drawn["links"]}
    workflow = {}
    for node in drawn["nodes"]:
        if node["type"] == "Note":
            continue
        values = iter(node["widgets_values"])
        linked = {socket["name"]: links[socket["link"]] for socket in node["inputs"] if socket["link"] is not None}
        inputs = {}
        for item in known[node["type"]].inputs:
            if item.get_io_type() in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"):
                inputs[item.id] = next(values)
                if item.id == "seed" or getattr(item, "upload", None):
                    assert next(values) in ("fixed", "image")
        assert next(values, None) is None
        workflow[str(node["id"])] = {"class_type": node["type"], "inputs": inputs | linked}
    return workflow


def test_drawings_say_the_same(drawing):
    workflow = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "cat.png"}},
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 2}},
        "3": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
        "4": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["3", 1]}},
        "5": {
            "class_type": "KSampler",
            "inputs": {"model": ["3", 0], "seed": 4, "steps": 2, "cfg": 1.5, "sampler_name": "euler", "scheduler": "normal"}
            | {"positive": ["4", 0], "negative": ["4", 0], "latent_image": ["2", 0], "denoise": 1.0},
        },
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["3", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "x"}},
    }
    known = io_schemas(drawing)
    noted = workflow | {"3": workflow["3"] | {"_meta": {"note": "read me"}}}
    drawn = drawing.Drawing(noted, known).json()
    assert read_back(drawn, known) == workflow
    assert [node["widgets_values"] for node in drawn["nodes"] if node["type"] == "Note"] == [["read me"]]


def test_drawn_nodes_do_not_overlap(drawing):
    known = io_schemas(drawing)
    previews = {str(i): {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}} for i in range(2, 6)}
    drawn = drawing.Drawing({"1": NODES["1"], **previews}, known).json()["nodes"]
    boxes = [(*node["pos"], node["pos"][0] + node["size"][0], node["pos"][1] + node["size"][1]) for node in drawn]
    for i, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[i + 1 :]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
    assert all(box[0] > boxes[0][2] for box in boxes[1:])


def test_drawings_link_both_ways(drawing):
    drawn = drawing.Drawing(NODES, io_schemas(drawing)).json()
    nodes = {node["id"]: node for node in drawn["nodes"]}
    for number, source, output, target, slot, kind in drawn["links"]:
        assert number in nodes[source]["outputs"][output]["links"]
        assert nodes[target]["inputs"][slot]["link"] == number
        assert nodes[source]["outputs"][output]["type"] == kind


def test_what_cannot_be_drawn_is_named(drawing):
    with pytest.raises(ValueError, match=r"node 1 \(Strange\)"):
        drawing.Drawing({"1": {"class_type": "Strange", "inputs": {}}}, {})
    with pytest.raises(ValueError, match="node 2 is linked to output 5 of node 1"):
        drawing.Drawing({"1": NODES["1"], "2": {**NODES["2"], "inputs": {"images": ["1", 5]}}}, io_schemas(drawing)).json()


def test_shipped_drawings_are_up_to_date():
    process = subprocess.run(
        [sys.executable, str(ROOT / "workflows" / "api_to_ui.py"), "--check"],
        env=os.environ | {"COMFYUI_PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
