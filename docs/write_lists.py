"""Write ``nodes.md`` and ``workflows.md`` from the nodes' schemas and the workflows: ``python docs/write_lists.py [FOLDER]``.

Without a folder they go to ``docs/``.
"""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MADE = "Made by `python docs/write_lists.py`; what is changed here by hand goes with its next run."


def run_file() -> ModuleType:
    """The pack's ``run.py``, which makes the pack importable under a name of its own."""
    if "longtake_run" not in sys.modules:
        spec = importlib.util.spec_from_file_location("longtake_run", ROOT / "run.py")
        assert spec is not None and spec.loader is not None
        module = sys.modules["longtake_run"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["longtake_run"]


def cell(text: str) -> str:
    """A text as it may stand in a table."""
    return " ".join(text.split()).replace("|", "\\|")


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def nodes_page(schemas: list[Any]) -> str:
    """All nodes, a table for each category of the menu, each node with its help page."""
    parts = ["# Nodes", f"{MADE} The links lead to the help pages that the editor shows."]
    for category in sorted({schema.category for schema in schemas}):
        members = sorted((item for item in schemas if item.category == category), key=lambda item: item.display_name)
        rows = [
            [
                f"[{item.display_name}](../web/docs/{item.node_id}.md)",
                cell(item.description),
                ", ".join(out.display_name or out.get_io_type() for out in item.outputs) or "files alone",
            ]
            for item in members
        ]
        parts += [f"## {category}", table(["node", "what it does", "gives"], rows)]
    return "\n\n".join(parts) + "\n"


def workflows_page(workflows: ModuleType, here: set[str]) -> str:
    """All workflows: what each makes, and what it needs."""
    rows = []
    for name in workflows.names():
        workflow = workflows.read(name)
        host, _, wanted = workflows.needs(workflow, here).partition("; ")
        files = wanted if wanted == "nothing to download" else ", ".join(f"`{file}`" for file in wanted.split(", "))
        rows.append([f"[`{name}`](../workflows/{name}.json)", cell(workflows.about(workflow)), host, files])
    head = (
        f"{MADE} Each is there for the editor (`workflows/`) and in API format (`workflows/api/`); `python run.py NAME` runs it."
    )
    return "\n\n".join(["# Workflows", head, table(["workflow", "what comes out", "where it runs", "files"], rows)]) + "\n"


def pages() -> dict[str, str]:
    """File -> text of both pages."""
    os.environ["COMFYUI_PATH"] = ""  # the lists are the same on every host
    run = run_file()
    return {
        "nodes.md": nodes_page([node.GET_SCHEMA() for node in run.pack_nodes().values()]),
        "workflows.md": workflows_page(run.part("host.run.workflows"), run.without_comfyui()),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs"
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
        print(folder / name)
