"""The editor in Chinese, and the templates' pictures in its template browser, as people see them."""

import json

import browser as helpers
import pytest
from browser import FOLDER, ROOT, Editor, browsing, lacking, serving

pytestmark = [
    pytest.mark.comfy,
    pytest.mark.slow,
    pytest.mark.skipif(bool(lacking()), reason=lacking() or "all there"),
]
NODES = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
NEWER = 3  # nodes that may be newer than the translations
SHOWN = """kind => {
  const node = LiteGraph.createNode(kind);
  const said = item => [item.name, item.label ?? item.localized_name ?? item.name];
  const outputs = node.outputs.map(item => said(item)[1]);
  return [node.title, [...node.inputs, ...node.widgets ?? []].map(said), outputs]
}"""


@pytest.fixture(scope="module")
def server(comfyui, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(helpers, "SETTINGS", helpers.SETTINGS | {"Comfy.Locale": "zh"})
        with serving(comfyui, tmp_path_factory.mktemp("comfyui")) as server:
            yield server


@pytest.fixture(scope="module")
def editor(server):
    with browsing() as browser:
        yield Editor(browser, server)


def english(editor, kind):
    """What a new node shows that is not as its translation says."""
    title, inputs, outputs = editor.call(SHOWN, kind)
    told = NODES.get(kind, {})
    wrong = [] if title == told.get("display_name") else [title]
    wrong += [shown for name, shown in inputs if name in told["inputs"] and shown != told["inputs"][name]["name"]]
    return wrong + [
        shown for place, shown in enumerate(outputs) if shown != told.get("outputs", {}).get(str(place), {}).get("name", shown)
    ]


def test_every_node_is_shown_in_chinese(editor):
    kinds = editor.call("() => Object.keys(LiteGraph.registered_node_types).filter(kind => kind.startsWith('LongTake'))")
    assert len(kinds) >= 60
    wrong = {kind: found for kind in kinds if kind in NODES and (found := english(editor, kind))}
    assert wrong == {}
    assert len(set(kinds) - set(NODES)) <= NEWER


def test_the_menu_is_in_chinese(editor):
    category = editor.call("kind => LiteGraph.registered_node_types[kind].nodeData.category", "LongTakeApplyMotionModule")
    assert category == "LongTake/运动"


def test_the_templates_pictures_are_where_the_browser_looks(server):
    listed = json.loads(server.get("/workflow_templates"))[FOLDER]
    for name in ("postcards_take", "pia"):
        assert name in listed
        assert server.get(f"/api/workflow_templates/{FOLDER}/{name}.jpg")[:2] == bytes.fromhex("ffd8"), "it is a JPEG"
