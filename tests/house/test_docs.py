"""README and docs: short, with links that lead somewhere, and lists that are as the nodes and workflows are."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "models" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def leading_nowhere(page: Path) -> list[str]:
    """The links of a page to files that are not there."""
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    return [link for link in links if ":" not in link and not (page.parent / link.partition("#")[0]).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    assert leading_nowhere(page) == []


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("[a](page.md) ![b](gone.png) [c](https://example.org)", encoding="utf-8")
    assert leading_nowhere(page) == ["gone.png"]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_the_lists_are_as_nodes_and_workflows_are(tmp_path):
    subprocess.run([sys.executable, ROOT / "docs" / "write_lists.py", tmp_path], check=True, capture_output=True)
    for page in tmp_path.iterdir():
        same = page.read_text(encoding="utf-8") == (ROOT / "docs" / page.name).read_text(encoding="utf-8")
        assert same, f"docs/{page.name} is old: python docs/write_lists.py"


NEIGHBOURS = {
    "ComfyUI-AnimateDiff-Evolved": "animatediff",
    "ComfyUI-Advanced-ControlNet": "adv_control",
}


def nodes_of(folder: Path) -> set[str]:
    """The ids of the nodes that a pack registers, read from its source: the keys of ``NODE_CLASS_MAPPINGS`` or what they name, and
    every ``node_id`` of a schema."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in folder.glob("*.py")]
    walked = [node for tree in trees for node in ast.walk(tree)]
    own = {
        node.name: part.value.value
        for node in walked
        if isinstance(node, ast.ClassDef)
        for part in node.body
        if isinstance(part, ast.Assign)
        and getattr(part.targets[0], "id", "") == "NodeID"
        and isinstance(part.value, ast.Constant)
    }
    ids = {node.value.value for node in walked if isinstance(node, ast.keyword) and node.arg == "node_id"}
    for node in walked:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        name = target.value if isinstance(target, ast.Subscript) else target
        if getattr(name, "id", "") != "NODE_CLASS_MAPPINGS":
            continue
        keys = [target.slice] if isinstance(target, ast.Subscript) else getattr(node.value, "keys", [])
        for key in keys:
            ids.add(key.value if isinstance(key, ast.Constant) else own[key.value.id])
    return ids


@pytest.mark.parametrize("pack", NEIGHBOURS)
def test_every_node_of_the_neighbours_has_an_answer(pack):
    folder = Path(os.environ.get("LONGTAKE_NEIGHBOURS", "/nowhere")) / pack / NEIGHBOURS[pack]
    if not folder.is_dir():
        pytest.skip(f"no checkout of {pack}: set LONGTAKE_NEIGHBOURS to the folder that holds it")
    answered = set(re.findall(r"`([\w+]+)`", (ROOT / "docs" / "animatediff_evolved.md").read_text(encoding="utf-8")))
    theirs = nodes_of(folder)
    assert len(theirs) > 40
    assert sorted(theirs - answered) == []
