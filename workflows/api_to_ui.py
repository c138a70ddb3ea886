"""Draw the workflows of ``workflows/api`` for ComfyUI's editor, and subgraphs of them: ``python workflows/api_to_ui.py [--check|--fill]``.

The files in ``workflows/api`` are written by hand; those in ``workflows``, which ComfyUI lists as templates, are made here. Nodes stand
in groups (``layout.py``); what stands under ``note`` in a node's ``_meta`` becomes a note, and under it the files that are needed, which
loaders name with their addresses for the editor's dialog. ``--check`` only says what is out of date; ``--fill`` first writes into the API
files what a node has got since: new inputs with their usual values, in the node's order.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).absolute().parent
SEEDS = ("seed", "noise_seed")  # the editor gives these a control of their own, unless the schema says no
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
ROW, HEAD = 24, 60
NOTE = 400  # width of the note, which stands left of everything
PICTURE = 260  # room for what a node shows
SHOWING = ("SaveImage", "PreviewImage", "SaveAnimatedWEBP", "SaveVideo", "LoadImage", "LoadVideo", "LongTakeShowPlan")
CANVASES = {
    "LongTakeKeyframes": 192,
    "LongTakeNoiseLevels": 214,
    "LongTakePromptSchedule": 142,
    "LongTakeValueSchedule": 142,
}  # heights of web/*_widget.js, margins included


def load_run() -> ModuleType:
    """``run.py`` as a module: it knows how to import the pack."""
    spec = importlib.util.spec_from_file_location("longtake_run", FOLDER.parent / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RUN = load_run()
layout, addresses, others = (
    RUN.part("workflows.layout"),
    RUN.part("workflows.addresses"),
    RUN.part("workflows.comfyui_nodes").others,
)
files, BLUEPRINTS = RUN.part("host.run.workflows"), RUN.part("workflows.blueprints").BLUEPRINTS


def schemas() -> dict[str, Any]:
    """The schemas of this pack's nodes and the standalone host's core ones, by class."""
    core = RUN.part("host.standalone.core_nodes")
    nodes = RUN.pack_nodes() | {node.__name__: node for node in (*core.NODES, *core.VIDEO_NODES)}
    known = {name: node.GET_SCHEMA() for name, node in nodes.items()}
    return known | {schema.node_id: schema for schema in others(core.io)}


def widgets_of(item: Any, value: Any) -> list[Any]:
    """What the editor stores for one input that can be typed in: its value, and that of the control beside it."""
    control = getattr(item, "control_after_generate", None)
    if control or (control is None and item.get_io_type() == "INT" and item.id in SEEDS):
        return [value, "fixed"]
    return [value, "image"] if getattr(item, "upload", None) else [value]


def is_widget(item: Any) -> bool:
    """Whether an input can be typed in."""
    return item.get_io_type() in WIDGETS and not getattr(item, "force_input", None)


def usual(item: Any) -> Any:
    """What the editor shows in a new node."""
    options = getattr(item, "options", None)
    return item.default if item.default is not None else options[0] if options else None


class Drawing:
    """One workflow on its way to the editor's format.

    Args:
        workflow: API format.
        known: schemas by class.

    Raises:
        ValueError: the workflow has a node or a link that the schemas do not know.
    """

    def __init__(self, workflow: Mapping[str, Any], known: Mapping[str, Any]):
        metas = [node.get("_meta", {}) for node in workflow.values() if isinstance(node, dict)]
        self.note = "\n\n".join(meta["note"] for meta in metas if "note" in meta)
        self.nodes = {id: node for id, node in workflow.items() if not id.startswith("_")}
        strange = [f"{id} ({node['class_type']})" for id, node in self.nodes.items() if node["class_type"] not in known]
        if strange:
            raise ValueError(f"no schema is known for node {strange[0]}: add it to others()")
        self.schemas = {id: known[node["class_type"]] for id, node in self.nodes.items()}
        self.numbers = {id: number for number, id in enumerate(self.nodes, start=1)}
        self.links: list[list[Any]] = []
        self.outgoing: dict[tuple[str, int], list[int]] = {}

    def json(self) -> dict[str, Any]:
        """The editor's format, version 0.4."""
        kinds = {id: kind_of(schema) for id, schema in self.schemas.items()}
        places, groups = layout.placed(self.nodes, kinds, self._height, -NOTE if self.note else 0)
        drawn = [self._node(id, order, places[id]) for order, id in enumerate(self.nodes)]
        for node, id in zip(drawn, self.nodes, strict=True):
            for slot, output in enumerate(node["outputs"]):
                output["links"] = self.outgoing.get((id, slot))
        if self.note:
            drawn.append(self._note(len(drawn)))
        return {
            "last_node_id": len(drawn),
            "last_link_id": len(self.links),
            "nodes": drawn,
            "links": self.links,
            "groups": [group.json(number) for number, group in enumerate(groups, start=1)],
            "config": {},
            "extra": {},
            "version": 0.4,
        }

    def _height(self, id: str) -> int:
        schema = self.schemas[id]
        sockets = max(sum(not is_widget(item) for item in schema.inputs), len(schema.outputs))
        rows = sockets + sum(len(widgets_of(item, None)) for item in schema.inputs if is_widget(item))
        tall = sum(3 * ROW for item in schema.inputs if getattr(item, "multiline", False))
        kind = self.nodes[id]["class_type"]
        return HEAD + ROW * rows + tall + (PICTURE if kind in SHOWING else CANVASES.get(kind, 0))

    def _node(self, id: str, order: int, place: tuple[int, int]) -> dict[str, Any]:
        node, schema = self.nodes[id], self.schemas[id]
        inputs, values = [], []
        for item in schema.inputs:
            given = node["inputs"].get(item.id)
            linked = isinstance(given, list)
            if is_widget(item):
                values += widgets_of(item, usual(item) if linked or given is None else given)
            if linked or not is_widget(item):
                socket = {
                    "name": item.id,
                    "type": item.get_io_type(),
                    "link": self._link(given, id, len(inputs)) if linked else None,
                }
                inputs.append(
                    socket | ({"widget": {"name": item.id}} if is_widget(item) else {}) | ({"shape": 7} if item.optional else {})
                )
        title = node.get("_meta", {}).get("title")
        return {
            "id": self.numbers[id],
            "type": node["class_type"],
            **({"title": title} if title else {}),
            "pos": list(place),
            "size": [layout.WIDTH, self._height(id)],
            "flags": {},
            "order": order,
            "mode": 0,
            "inputs": inputs,
            "outputs": [
                {"name": item.display_name or item.get_io_type(), "type": item.get_io_type(), "links": None, "slot_index": slot}
                for slot, item in enumerate(schema.outputs)
            ],
            "properties": self._properties(id),
            "widgets_values": values,
        }

    def _link(self, source: Sequence[Any], target: str, slot: int) -> int:
        id, output = str(source[0]), int(source[1])
        if id not in self.nodes or output >= len(self.schemas[id].outputs):
            raise ValueError(f"node {target} is linked to output {output} of node {id}, which is not there")
        number = len(self.links) + 1
        kind = self.schemas[id].outputs[output].get_io_type()
        self.links.append([number, self.numbers[id], output, self.numbers[target], slot, kind])
        self.outgoing.setdefault((id, output), []).append(number)
        return number

    def _properties(self, id: str) -> dict[str, Any]:
        """What the editor knows of a node beside its values: where to get its pack and its models."""
        kind = self.nodes[id]["class_type"]
        pack = "longtake" if kind.startswith("LongTake") else "comfy-core"
        models = [
            {"name": name, "url": addresses.ADDRESSES[name], "directory": folder.removeprefix("models/")}
            for folder, _, name in (file.rpartition("/") for file in files.files({id: self.nodes[id]}))
            if name in addresses.ADDRESSES
        ]
        return {"Node name for S&R": kind, "cnr_id": pack, **({"models": models} if models else {})}

    def _note(self, order: int) -> dict[str, Any]:
        wanted = [file for file in files.files(self.nodes) if not files.bundled(file)]
        lines = [f"- {linked(file)}" for file in wanted]
        text = "\n\n".join([self.note, *(["**Files that it needs**", "\n".join(lines)] if lines else [])])
        height = HEAD + ROW * (len(self.note) // 48 + self.note.count("\n") + 3 * len(lines) + 4)
        return {
            "id": order + 1,
            "type": "MarkdownNote",
            "pos": [-2 * NOTE - layout.PAD, 0],
            "size": [NOTE, height],
            "flags": {},
            "order": order,
            "mode": 0,
            "inputs": [],
            "outputs": [],
            "properties": {},
            "widgets_values": [text],
            "color": "#432",
            "bgcolor": "#653",
        }


def kind_of(schema: Any) -> Any:
    """What a node is, for its place."""
    takes, gives = (frozenset(item.get_io_type() for item in items) for items in (schema.inputs, schema.outputs))
    random = any(item.id in (*SEEDS, "noise") for item in schema.inputs)
    return layout.Kind(takes, gives, schema.is_output_node or not schema.outputs, random)


def linked(file: str) -> str:
    """A file's name with its address, and its folder."""
    folder, _, name = file.rpartition("/")
    address = addresses.ADDRESSES.get(name)
    return f"[{name}]({address}) in `{folder}`" if address else f"{name} in `{folder}`"


def text_of(made: Mapping[str, Any]) -> str:
    """The text of a file for the editor."""
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def read(name: str) -> dict[str, Any]:
    """A workflow in API format, notes included."""
    return json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))


def blueprint(plan: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    """A subgraph blueprint in the editor's format."""
    part = plan.part(read(plan.workflow))
    types = {
        (node["_meta"]["title"], item.id): item.get_io_type()
        for node in part.values()
        for item in known[node["class_type"]].inputs
    }
    return plan.json(Drawing(part, known).json(), types)


def files_made() -> dict[Path, str]:
    """Path -> text of every file."""
    known = schemas()
    graphs = {FOLDER / path.name: Drawing(read(path.stem), known).json() for path in sorted(FOLDER.glob("api/*.json"))}
    graphs |= {FOLDER.parent / "subgraphs" / f"{plan.name}.json": blueprint(plan, known) for plan in BLUEPRINTS}
    return {path: text_of(graph) for path, graph in graphs.items()}


def filled(workflow: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """A workflow, API format, whose nodes of this pack have every input that can be typed in, in their schema's order."""
    made = {}
    for id, node in workflow.items():
        schema = known.get(node["class_type"]) if node.get("class_type", "").startswith("LongTake") else None
        if schema is not None:
            given, names = node["inputs"], [item.id for item in schema.inputs]
            usually = {item.id: usual(item) for item in schema.inputs if is_widget(item)}
            inputs = {name: given.get(name, usually.get(name)) for name in names if name in given or name in usually}
            node = node | {"inputs": inputs | {name: value for name, value in given.items() if name not in names}}
        made[id] = node
    return made


def fill() -> None:
    """Write into the API files what their nodes have got since; a node a line."""
    known = schemas()
    for path in sorted((FOLDER / "api").glob("*.json")):
        workflow = json.loads(path.read_text(encoding="utf-8"))
        made = filled(workflow, known)
        if json.dumps(made) != json.dumps(workflow):  # the order counts too
            lines = (f"  {json.dumps(id)}: {json.dumps(node, ensure_ascii=False)}" for id, node in made.items())
            path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8", newline="\n")
            sys.stderr.write(f"filled: {path.name}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Write all files, or with ``--check`` name those that are out of date. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Draw the workflows of workflows/api for ComfyUI's editor.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    parser.add_argument("--fill", action="store_true", help="first write new inputs of this pack's nodes into workflows/api")
    given = parser.parse_args(argv)
    check = given.check
    if given.fill:
        fill()
    stale = []
    for target, text in files_made().items():
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            stale.append(target.name)
            if not check:
                target.parent.mkdir(exist_ok=True)
                partial = target.with_name(f".{target.name}.partial")
                partial.write_text(text, encoding="utf-8", newline="\n")
                partial.replace(target)
    if stale:
        sys.stderr.write(f"{'out of date' if check else 'written'}: {', '.join(stale)}\n")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
