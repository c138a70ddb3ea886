"""``run.py convert``: a graph of another pack's nodes as one of ours, beside it."""

import argparse
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .convert import converted
from .graph import Node

DRAWING = Path(__file__).resolve().parents[3] / "workflows" / "api_to_ui.py"


def convert(argv: Sequence[str], note: Callable[[str], None]) -> Path:
    """Convert the graph that the command line names. Gives the new file.

    Args:
        argv: what stands behind ``convert``.
        note: tells the user what was left out.

    Raises:
        ValueError: the file is no graph, holds nothing to convert, or the new one is there already.
    """
    parser = argparse.ArgumentParser(
        prog="run.py convert",
        description="Turn a graph of AnimateDiff-Evolved, Advanced-ControlNet and FizzNodes into one of this pack's nodes.",
    )
    parser.add_argument("graph", type=Path, help="a workflow, as ComfyUI saves it or in API format")
    parser.add_argument("--to", type=Path, metavar="FILE", help="the new file (GRAPH_longtake.json beside it)")
    options = parser.parse_args(argv)
    target = options.to or options.graph.with_name(f"{options.graph.stem}_longtake.json")
    if target.exists():
        raise ValueError(f"{target} is there already: name another file with --to, or take it away")
    try:
        workflow = json.loads(options.graph.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"there is no file {options.graph}: give a workflow that ComfyUI saved") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{options.graph} is no JSON ({error}): give a workflow that ComfyUI saved") from None
    if not isinstance(workflow, Mapping):
        raise ValueError(f"{options.graph} holds no workflow: give one that ComfyUI saved")
    made, said = converted(workflow, *editor())
    for sentence in said:
        note(sentence)
    target.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    return target


def editor() -> tuple[Callable[[str], Mapping[str, Any]], Callable[[Node, str], dict[str, Any]]]:
    """What a new node of a class is set to, and how it is drawn; by ``workflows/api_to_ui.py``, which knows the schemas."""
    spec = importlib.util.spec_from_file_location("longtake_api_to_ui", DRAWING)
    assert spec is not None and spec.loader is not None
    drawing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawing)
    known = drawing.schemas()

    def usual(kind: str) -> dict[str, Any]:
        return {
            item.id: value
            for item in known[kind].inputs
            if drawing.is_widget(item) and (value := drawing.usual(item)) is not None
        }

    def draw(node: Node, id: str) -> dict[str, Any]:
        title = {"title": node.title} if node.title else {}
        api = {id: {"class_type": node.kind, "inputs": node.values, "_meta": title}}
        made = drawing.Drawing(api, known).json()["nodes"][0]
        sockets = {item["name"] for item in made["inputs"]}
        kinds = {item.id: item.get_io_type() for item in known[node.kind].inputs}
        linked = [
            {"name": name, "type": kinds[name], "link": None, "widget": {"name": name}}
            for name in node.links
            if name not in sockets
        ]
        return {**made, "id": int(id), "pos": list(node.place), "inputs": [*made["inputs"], *linked]}

    return usual, draw
