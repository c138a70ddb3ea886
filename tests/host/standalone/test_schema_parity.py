"""The standalone host's schemas against ComfyUI's: same ids, inputs, types, defaults and limits, for every node of both."""

import asyncio
import importlib
import sys
from pathlib import Path

import pytest
from conftest import load
from pack.host import standalone
from pack.host.standalone import core_nodes
from pack.host.standalone.schema import Hidden

pytestmark = pytest.mark.comfy
ROOT = Path(__file__).resolve().parents[3]
BARE = "pack_standalone"
CORE = (*core_nodes.NODES, *core_nodes.VIDEO_NODES)
LATER = {"CreateVideo": {"bit_depth"}}  # inputs that only newer ComfyUIs have; all of them optional
DYNAMIC = {"SaveVideo": {"format", "codec"}}  # plain menus that became nested ones; the same plain values still work
SHOWN = {"default", "min", "max", "step", "options", "multiline", "control_after_generate", "image_upload"}


@pytest.fixture(scope="module")
def bare_nodes():
    """This pack's nodes as they are without ComfyUI: a second copy of the pack, told that its host is the standalone one."""
    load(BARE, ROOT / "__init__.py")
    host = importlib.import_module(f"{BARE}.host")
    host.chosen = lambda: importlib.import_module(f"{BARE}.host.standalone")
    nodes = importlib.import_module(f"{BARE}.nodes").node_classes()
    yield {node.GET_SCHEMA().node_id: node for node in nodes}
    for name in [name for name in sys.modules if name.partition(".")[0] == BARE]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def real_nodes(comfyui):
    """This pack's nodes as they are in ComfyUI."""
    import pack

    extension = asyncio.run(pack.comfy_entrypoint())
    return {node.GET_SCHEMA().node_id: node for node in asyncio.run(extension.get_node_list())}


@pytest.fixture(scope="module")
def comfy_nodes(comfyui):
    """ComfyUI's own nodes."""
    import nodes

    if "SaveAnimatedWEBP" not in nodes.NODE_CLASS_MAPPINGS:
        asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
    return nodes.NODE_CLASS_MAPPINGS


def information(node):
    """What ComfyUI's web page would be told of one of our look-alikes."""
    schema = node.GET_SCHEMA()
    table = {"required": {}}
    for item in schema.inputs:
        facts = {key: value for key, value in item.as_dict().items() if key != "optional"}
        table.setdefault("optional" if item.optional else "required", {})[item.id] = (item.get_io_type(), facts)
    for item in schema.hidden:
        table.setdefault("hidden", {})[item.name] = (item.value,)
    return {
        "name": schema.node_id,
        "display_name": schema.display_name,
        "category": schema.category,
        "description": schema.description,
        "input": table,
        "input_order": {key: list(value) for key, value in table.items()},
        "output": [item.get_io_type() for item in schema.outputs],
        "output_name": [item.display_name or item.get_io_type() for item in schema.outputs],
        "output_is_list": [item.is_output_list for item in schema.outputs],
        "output_tooltips": [item.tooltip for item in schema.outputs],
        "output_node": schema.is_output_node,
        "deprecated": schema.is_deprecated,
        "experimental": schema.is_experimental,
    }


def without_files(information):
    """The same without menus of files and folders, which differ between hosts."""
    for group in ("required", "optional"):
        for name, (kind, facts) in information["input"].get(group, {}).items():
            if kind == "COMBO" and (
                name == "folder" or facts["options"] in ([], ["none"]) or any("." in str(option) for option in facts["options"])
            ):
                facts["options"] = "files"
    return information


def test_both_hosts_have_the_same_nodes(bare_nodes, real_nodes):
    assert sorted(bare_nodes) == sorted(real_nodes)
    assert not any(isinstance(node, type) and issubclass(node, standalone.io.ComfyNode) for node in real_nodes.values())


def test_our_nodes_look_the_same_in_both(bare_nodes, real_nodes):
    for name, node in bare_nodes.items():
        ours, real = without_files(information(node)), without_files(real_nodes[name].GET_NODE_INFO_V1())
        assert ours == {key: real[key] for key in ours}, name


def plain(kind, facts):
    """An input as (type, facts that matter), whichever way its node declares it."""
    if isinstance(kind, (list, tuple)):
        kind, facts = "COMBO", {**facts, "options": list(kind)}
    if kind == "COMBO" and facts.get("options") and "default" not in facts:
        facts = {**facts, "default": facts["options"][0]}
    return str(kind), {key: value for key, value in facts.items() if key in SHOWN and value not in (None, False)}


def inputs_of(table):
    groups = (table.get("required", {}), table.get("optional", {}))
    return {name: plain(entry[0], entry[1] if len(entry) > 1 else {}) for group in groups for name, entry in group.items()}


@pytest.mark.parametrize("node", CORE, ids=lambda node: node.__name__)
def test_core_nodes_are_comfyuis(node, comfy_nodes):
    name = node.__name__
    real = comfy_nodes[name]
    ours, theirs = inputs_of(information(node)["input"]), inputs_of(real.INPUT_TYPES())
    flexible = LATER.get(name, set()) | DYNAMIC.get(name, set())
    for given in set(ours) - flexible:
        kind, facts = ours[given]
        if name == "LoadImage":
            facts, theirs[given][1]["options"] = {**facts, "options": []}, []  # each has its own folder
            facts.pop("default", None), theirs[given][1].pop("default", None)
            facts.pop("options"), theirs[given][1].pop("options")
        assert theirs[given] == (kind, facts), given
    needed = set(real.INPUT_TYPES()["required"])
    assert needed <= set(ours), "a workflow that runs there would lack something here"
    optional = {item.id for item in node.GET_SCHEMA().inputs if item.optional}
    assert set(ours) - set(theirs) <= optional & flexible


@pytest.mark.parametrize("node", CORE, ids=lambda node: node.__name__)
def test_core_nodes_give_what_comfyuis_give(node, comfy_nodes):
    real = comfy_nodes[node.__name__]
    schema = node.GET_SCHEMA()
    assert [item.get_io_type() for item in schema.outputs][: len(real.RETURN_TYPES)] == list(real.RETURN_TYPES)
    assert schema.is_output_node == bool(getattr(real, "OUTPUT_NODE", False))
    if schema.is_output_node:
        assert schema.hidden == [Hidden.prompt, Hidden.extra_pnginfo]


def test_drawn_nodes_are_comfyuis(comfy_nodes):
    drawing = load("longtake_drawing", ROOT / "workflows" / "api_to_ui.py")
    for schema in drawing.others(standalone.io):
        if schema.node_id == "FrameInterpolationModelLoader" and schema.node_id not in comfy_nodes:
            continue  # of 2026; the workflow with it is for newer versions
        wanted = comfy_nodes[schema.node_id].INPUT_TYPES()
        drawn = [item.id for item in schema.inputs]
        real = wanted["required"] | {name: entry for name, entry in wanted.get("optional", {}).items() if name in drawn}
        assert [item.id for item in schema.inputs] == list(real)
        drawn = [item.get_io_type() for item in schema.outputs]
        assert drawn == list(comfy_nodes[schema.node_id].RETURN_TYPES)[: len(drawn)]  # newer versions append some
        assert [drawing.is_widget(item) for item in schema.inputs] == [
            not isinstance(entry[0], str) or entry[0] in drawing.WIDGETS for entry in real.values()
        ]
