"""Subgraph blueprints in ComfyUI's editor: listed, opened, and queued as what they are parts of."""

import importlib.util
import json

import pytest
from browser import ROOT, Editor, browsing, lacking, serving

pytestmark = [
    pytest.mark.comfy,
    pytest.mark.slow,
    pytest.mark.skipif(bool(lacking()), reason=lacking() or "all there"),
]
PATHS = sorted((ROOT / "subgraphs").glob("*.json"))


@pytest.fixture(scope="module")
def server(comfyui, tmp_path_factory):
    with serving(comfyui, tmp_path_factory.mktemp("comfyui")) as server:
        try:
            server.get("/global_subgraphs")
        except OSError:
            pytest.skip("this ComfyUI is older than blueprints of packs")
        yield server


@pytest.fixture(scope="module")
def editor(server):
    with browsing() as browser:
        yield Editor(browser, server)


@pytest.fixture(scope="module")
def drawing():
    spec = importlib.util.spec_from_file_location("longtake_drawing", ROOT / "workflows" / "api_to_ui.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_blueprint_is_queued_as_the_workflow_is(path, editor, drawing):
    (plan,) = (plan for plan in drawing.BLUEPRINTS if plan.name == path.stem)
    editor.draw(json.loads(path.read_text(encoding="utf-8")))
    editor.page.wait_for_function("app.graph._nodes.length === 1")
    made = {node["_meta"]["title"]: node for node in editor.prompt().values()}
    wanted = {node["_meta"]["title"]: node for node in plan.part(drawing.read(plan.workflow)).values()}
    assert set(made) == set(wanted)
    for title, node in wanted.items():
        typed = {key: value for key, value in node["inputs"].items() if not isinstance(value, list)}
        assert {key: made[title]["inputs"].get(key) for key in typed} == typed, title
    assert editor.errors == []


def test_the_server_lists_them(server):
    listed = json.loads(server.get("/global_subgraphs"))
    ours = {entry["name"] for entry in listed.values() if entry["source"] == "custom_node"}
    assert ours == {path.stem for path in PATHS}
