"""Workflows drawn for ComfyUI's editor."""

import json
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
        if node["type"] == "MarkdownNote":
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
    note = "read me\n\n**Files that it needs**\n\n- cat.png in `input`\n- a.safetensors in `models/checkpoints`"
    assert [node["widgets_values"] for node in drawn["nodes"] if node["type"] == "MarkdownNote"] == [[note]]


SHIPPED = [path.stem for path in sorted((ROOT / "workflows").glob("*.json"))]


def boxes_of(drawn):
    """Left, top, right and bottom of every node, its title above it included."""
    for node in drawn["nodes"]:
        (left, top), (width, height) = node["pos"], node["size"]
        yield left, top - 30, left + width, top + height


def overlapping(drawn):
    boxes = list(boxes_of(drawn))
    return [
        (one, other)
        for i, one in enumerate(boxes)
        for other in boxes[i + 1 :]
        if one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
    ]


def test_drawn_nodes_do_not_overlap(drawing):
    known = io_schemas(drawing)
    previews = {str(i): {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}} for i in range(2, 6)}
    drawn = drawing.Drawing({"1": NODES["1"], **previews}, known).json()
    assert not overlapping(drawn)
    drawn["nodes"][1]["pos"] = drawn["nodes"][0]["pos"]
    assert overlapping(drawn)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_graph_fits_a_window_and_its_groups_hold_its_nodes(name):
    drawn = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    boxes = list(boxes_of(drawn))
    groups = [group["bounding"] for group in drawn["groups"]]
    assert not overlapping(drawn)
    assert max(box[2] for box in boxes) - min(box[0] for box in boxes) <= 2500
    for node, (left, top, right, bottom) in zip(drawn["nodes"], boxes, strict=True):
        held = [x <= left and y <= top and right <= x + w and bottom <= y + h for x, y, w, h in groups]
        assert sum(held) == (node["type"] != "MarkdownNote"), node["type"]


def test_the_stages_of_a_graph(drawing):
    """Two samplings in a row: what lies between them is sampling, what shows the first one's result is result."""
    kinds = {
        "load": drawing.layout.Kind(frozenset(), frozenset({"MODEL"})),
        "text": drawing.layout.Kind(frozenset({"CLIP"}), frozenset({"CONDITIONING"})),
        "empty": drawing.layout.Kind(frozenset(), frozenset({"LATENT"})),
        "one": drawing.layout.Kind(frozenset({"MODEL", "LATENT"}), frozenset({"LATENT"}), random=True),
        "between": drawing.layout.Kind(frozenset({"LATENT"}), frozenset({"IMAGE"})),
        "look": drawing.layout.Kind(frozenset({"IMAGE"}), frozenset(), saves=True),
        "two": drawing.layout.Kind(frozenset({"MODEL", "IMAGE"}), frozenset({"LATENT"}), random=True),
        "save": drawing.layout.Kind(frozenset({"LATENT"}), frozenset(), saves=True),
    }
    links = {
        "one": ["load", "text", "empty"],
        "between": ["one"],
        "look": ["between"],
        "two": ["load", "between"],
        "save": ["two"],
    }
    workflow = {id: {"inputs": {str(i): [source, 0] for i, source in enumerate(links.get(id, []))}} for id in kinds}
    found = drawing.layout.stages(workflow, kinds)
    assert found == {
        **{"load": "Models", "text": "What it shows", "empty": "Sampling", "one": "Sampling", "between": "Sampling"},
        **{"look": "Result", "two": "Sampling", "save": "Result"},
    }


def test_every_file_that_is_wanted_has_an_address_and_no_other(drawing):
    workflows = drawing.files
    wanted = {file for name in workflows.names() for file in workflows.files(workflows.read(name)) if not workflows.bundled(file)}
    models = {file.rpartition("/")[2] for file in wanted if file.startswith("models/")}
    assert set(drawing.addresses.ADDRESSES) | drawing.addresses.MADE == models
    assert all(address.startswith("https://") for address in drawing.addresses.ADDRESSES.values())
    loader = {"1": {"class_type": "LongTakeLoadMotionModule", "inputs": {"motion_module": "v3_sd15_mm.ckpt"}}}
    (node,) = drawing.Drawing(loader, drawing.schemas()).json()["nodes"]
    address = "https://huggingface.co/guoyww/animatediff/resolve/main/v3_sd15_mm.ckpt"
    assert node["properties"]["models"] == [{"name": "v3_sd15_mm.ckpt", "url": address, "directory": "animatediff_models"}]
    assert node["properties"]["cnr_id"] == "longtake"


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


@pytest.fixture(scope="module")
def plans(drawing):
    return {plan.name: plan for plan in drawing.BLUEPRINTS}


@pytest.mark.parametrize("path", sorted((ROOT / "subgraphs").glob("*.json")), ids=lambda path: path.stem)
def test_a_blueprints_links_meet_and_its_inputs_are_the_workflows(path, drawing, plans):
    plan, made = plans[path.stem], json.loads(path.read_text(encoding="utf-8"))
    (inner,), (outer,) = made["definitions"]["subgraphs"], made["nodes"]
    assert outer["type"] == inner["id"] and len({link["id"] for link in inner["links"]}) == len(inner["links"])
    nodes = {node["id"]: node for node in inner["nodes"]}
    for link in inner["links"]:
        start, end = nodes.get(link["origin_id"]), nodes.get(link["target_id"])
        assert end is None or end["inputs"][link["target_slot"]]["link"] == link["id"]
        assert start is None or link["id"] in start["outputs"][link["origin_slot"]]["links"]
        assert start or link["id"] in inner["inputs"][link["origin_slot"]]["linkIds"]
        assert end or link["id"] in inner["outputs"][link["target_slot"]]["linkIds"]
    assert [socket["name"] for socket in outer["inputs"]] == [name for name, _, _ in plan.inputs]
    workflow = drawing.read(plan.workflow)
    titles = {node["_meta"]["title"]: node for node in workflow.values() if "title" in node.get("_meta", {})}
    assert all(key in titles[title]["inputs"] for _, title, key in plan.inputs)


def test_a_blueprint_of_a_title_that_is_not_there_is_refused(plans):
    with pytest.raises(ValueError, match="has 0 nodes called 'SD1.5 checkpoint'"):
        plans["AnimateDiff Clip"].part({"1": {"class_type": "A", "inputs": {}, "_meta": {"title": "B"}}})


def test_new_inputs_are_filled_in_at_their_place(drawing):
    """``--fill``: the shipped files have all of them, and one that was taken out comes back where it was, with its usual value."""
    known, name = drawing.schemas(), "postcards_take"
    workflow = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    assert json.dumps(drawing.filled(workflow, known)) == json.dumps(workflow)
    id, node = next((id, node) for id, node in workflow.items() if node["class_type"] == "LongTakeRollout")
    short = {name: value for name, value in node["inputs"].items() if name not in ("eta", "order")}
    made = drawing.filled({id: node | {"inputs": short}}, known)[id]["inputs"]
    assert list(made) == list(node["inputs"]) and (made["eta"], made["order"]) == (0.0, "euler")


def test_shipped_drawings_are_up_to_date():
    process = subprocess.run(
        [sys.executable, str(ROOT / "workflows" / "api_to_ui.py"), "--check"],
        env=os.environ | {"COMFYUI_PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
