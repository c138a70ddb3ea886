"""A workflow as nodes and links by name, read from either of ComfyUI's two formats and written back in the same one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Source = tuple[str, int]  # a node's id, and the number of its output
GAP = 60  # pixels between a node and those that stand for it


@dataclass
class Node:
    """One node.

    Attributes:
        kind: its class.
        values: of its widgets, by name; of a node whose names are not known, none.
        links: what is connected to its inputs, by name.
        title: as the user named it.
        drawn: as the editor's format has it; None for nodes that are new, or come from the API format.
        place: where it stands in the editor.
    """

    kind: str
    values: dict[str, Any] = field(default_factory=dict)
    links: dict[str, Source] = field(default_factory=dict)
    title: str = ""
    drawn: dict[str, Any] | None = None
    place: tuple[float, float] = (0.0, 0.0)


@dataclass
class Graph:
    """A workflow.

    Attributes:
        nodes: by id.
        given: the whole file, in the editor's format; None for the API format.
    """

    nodes: dict[str, Node]
    given: dict[str, Any] | None = None

    @classmethod
    def read(cls, workflow: Mapping[str, Any], widgets: Mapping[str, Sequence[str]]) -> "Graph":
        """A workflow of either format.

        Args:
            workflow: the file.
            widgets: by class, the names of its widgets in their order, which the editor's format does not say.

        Raises:
            ValueError: it is no workflow.
        """
        if isinstance(workflow.get("nodes"), list):
            return cls(_drawn(workflow, widgets), dict(workflow))
        nodes = {}
        for id, node in workflow.items():
            if id.startswith("_"):
                continue
            if not isinstance(node, Mapping) or "class_type" not in node:
                raise ValueError(f"node {id} has no class_type: give a workflow as ComfyUI saves or exports it")
            inputs = dict(node.get("inputs", {}))
            links = {name: (str(value[0]), int(value[1])) for name, value in inputs.items() if _is_link(value)}
            values = {name: value for name, value in inputs.items() if name not in links}
            nodes[id] = Node(node["class_type"], values, links, node.get("_meta", {}).get("title", ""))
        return cls(nodes)

    def consumers(self, id: str) -> list[str]:
        """The nodes that take something from a node."""
        return [other for other, node in self.nodes.items() if any(source == id for source, _ in node.links.values())]

    def behind(self, source: Source | None) -> Source | None:
        """Where a link comes from, reroutes looked through; None for none."""
        seen = set()
        while source is not None and source[0] in self.nodes and self.nodes[source[0]].kind == "Reroute" and source not in seen:
            seen.add(source)
            source = next(iter(self.nodes[source[0]].links.values()), None)
        return source

    def free_id(self) -> str:
        """An id that no node has."""
        numbers = [int(id) for id in self.nodes if id.isdigit()]
        last = 0 if self.given is None else int(self.given.get("last_node_id", 0))
        return str(max([last, *numbers], default=0) + 1)

    def written(self, draw: Callable[[Node, str], dict[str, Any]]) -> dict[str, Any]:
        """The file, in the format that it was read from.

        Args:
            draw: makes a new node, with its id, into what the editor's format has: ``inputs`` and ``outputs`` without links, and
                ``widgets_values``.
        """
        if self.given is None:
            return {
                id: {
                    "class_type": node.kind,
                    **({"_meta": {"title": node.title}} if node.title else {}),
                    "inputs": {**node.values, **{name: list(source) for name, source in node.links.items()}},
                }
                for id, node in self.nodes.items()
            }
        drawn = {id: node.drawn or draw(node, id) for id, node in self.nodes.items()}
        drawn = {id: {**node, "inputs": [dict(item) for item in node.get("inputs") or []]} for id, node in drawn.items()}
        links, outgoing = [], {}
        for id, node in self.nodes.items():
            for slot, item in enumerate(drawn[id]["inputs"]):
                item["link"] = None
                source = node.links.get(item["name"])
                if source is None or source[0] not in drawn:
                    continue
                outputs = drawn[source[0]].get("outputs") or []
                kind = outputs[source[1]].get("type", "*") if source[1] < len(outputs) else "*"
                item["link"] = len(links) + 1
                links.append([len(links) + 1, _number(source[0]), source[1], _number(id), slot, kind])
                outgoing.setdefault(source, []).append(len(links))
        for id, node in drawn.items():
            node["outputs"] = [{**item, "links": outgoing.get((id, slot))} for slot, item in enumerate(node.get("outputs") or [])]
        numbers = [int(id) for id in drawn if id.isdigit()]
        return {
            **self.given,
            "nodes": list(drawn.values()),
            "links": links,
            "last_node_id": max(numbers, default=0),
            "last_link_id": len(links),
        }


def _number(id: str) -> int | str:
    return int(id) if id.isdigit() else id


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], (str, int)) and isinstance(value[1], int)


def _drawn(workflow: Mapping[str, Any], widgets: Mapping[str, Sequence[str]]) -> dict[str, Node]:
    """The nodes of the editor's format. Links are lists in its version 0.4, and tables in later ones."""
    sources: dict[Any, Source] = {}
    for link in workflow.get("links") or []:
        number, origin, slot = link[:3] if isinstance(link, list) else (link["id"], link["origin_id"], link["origin_slot"])
        sources[number] = (str(origin), int(slot))
    nodes = {}
    for node in workflow["nodes"]:
        values = node.get("widgets_values") or []
        names = widgets.get(node["type"], ())
        named = dict(values) if isinstance(values, Mapping) else dict(zip(names, values, strict=False))
        links = {
            item["name"]: sources[item["link"]] for item in node.get("inputs") or [] if sources.get(item.get("link")) is not None
        }
        place = node.get("pos") or [0, 0]
        x, y = (place["0"], place["1"]) if isinstance(place, Mapping) else place[:2]
        nodes[str(node["id"])] = Node(
            node["type"],
            {name: value for name, value in named.items() if name not in links and value is not None},
            links,
            node.get("title", ""),
            node,
            (float(x), float(y)),
        )
    return nodes
