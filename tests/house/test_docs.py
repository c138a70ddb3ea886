"""README and docs: short, with links that lead somewhere, and lists that are as the nodes and workflows are."""

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
