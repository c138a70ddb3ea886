"""Find everything that is wrong with a workflow before any of it runs.

Workflows are ComfyUI's API format: ``{id: {"class_type": ..., "inputs": {name: value or [id, output number]}}}``. What ComfyUI accepts
is accepted; what it would quietly leave out (a branch that cannot run) or convert beyond recognition is refused.
"""

import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any

from .schema import ComfyNode, Schema

Workflow = Mapping[str, Mapping[str, Any]]
Nodes = Mapping[str, type[ComfyNode]]
MOST_OPTIONS = 20
NEEDS = {"CreateVideo": "av", "SaveVideo": "av"}


def is_link(value: Any) -> bool:
    """Whether an input's value says which node it comes from."""
    return isinstance(value, list)


def label(workflow: Workflow, node: str) -> str:
    """How sentences call a node."""
    return f"node {node} ({workflow[node]['class_type']})"


def own_override(node: type[ComfyNode], method: str) -> bool:
    """Whether a node class has a method that the base class only announces."""
    return getattr(node, method).__func__ is not getattr(ComfyNode, method).__func__


class Checker:
    """One workflow against the nodes there are.

    Args:
        workflow: API format, notes stripped.
        nodes: by class name.

    Attributes:
        order: ids of all nodes that must run, each after those it needs; complete when there are no problems.
        values: for each of them, the inputs that are no links, converted to their type.
    """

    def __init__(self, workflow: Workflow, nodes: Nodes):
        self.workflow, self.nodes = workflow, nodes
        self.schemas: dict[str, Schema] = {}
        self.order: list[str] = []
        self.values: dict[str, dict[str, Any]] = {}

    def problems(self) -> list[str]:
        """Everything that is wrong, one sentence each."""
        found = list(self._shape())
        if found:
            return found
        self.schemas = {name: self.nodes[name].GET_SCHEMA() for name in {node["class_type"] for node in self.workflow.values()}}
        outputs = [id for id in self.workflow if self.schema(id).is_output_node]
        if not outputs:
            return ["the workflow saves and shows nothing: add a node such as SaveImage"]
        found = list(self._walk(outputs))
        return found + [sentence for id in self.workflow if id in self.order for sentence in self._inputs(id)]

    def schema(self, node: str) -> Schema:
        """The schema of a node of the workflow."""
        return self.schemas[self.workflow[node]["class_type"]]

    def links(self, node: str) -> dict[str, tuple[str, int]]:
        """The node's linked inputs: which node and which of its outputs."""
        known = {item.id for item in self.schema(node).inputs}
        given = self.workflow[node].get("inputs", {})
        return {name: (str(link[0]), int(link[1])) for name, link in given.items() if is_link(link) and name in known}

    def _shape(self) -> Iterator[str]:
        if not self.workflow:
            yield "the workflow has no nodes"
        for id, node in self.workflow.items():
            if not isinstance(node, Mapping) or not isinstance(node.get("class_type"), str):
                yield f"node {id} has no class_type: the file is no workflow in API format, or it is damaged"
            elif not isinstance(node.get("inputs", {}), Mapping):
                yield f"node {id} ({node['class_type']}): its inputs are no table of names and values"
            elif node["class_type"] not in self.nodes:
                yield self._unknown(id, node["class_type"])

    def _unknown(self, id: str, name: str) -> str:
        if name in NEEDS:
            return (
                f"node {id} ({name}) needs the package {NEEDS[name]}, which is not installed: python -m pip install {NEEDS[name]}"
            )
        where = "the standalone host has this pack's nodes and a few of ComfyUI's"
        return f"node {id} ({name}): there is no such node here, {where}: run the workflow in ComfyUI, or take the node out"

    def _walk(self, outputs: list[str]) -> Iterator[str]:
        """Depth first from the outputs; an explicit stack, so that long chains do not hit Python's limit."""
        done: set[str] = set()
        for root in outputs:
            path: dict[str, Iterator[str]] = {}
            if root not in done:
                path[root] = self._needed(root)
            while path:
                id = next(reversed(path))
                for needed in path[id]:
                    if needed in path:
                        around = [*list(path)[list(path).index(needed) :], needed]
                        yield "these nodes wait for each other: " + " <- ".join(label(self.workflow, item) for item in around)
                    elif needed not in done:
                        path[needed] = self._needed(needed)
                        break
                else:
                    del path[id]
                    done.add(id)
                    self.order.append(id)

    def _needed(self, node: str) -> Iterator[str]:
        """The nodes that a node needs, once each, as far as its links make sense."""
        given = self.workflow[node].get("inputs", {})
        known = {item.id for item in self.schema(node).inputs}
        sources = [str(link[0]) for name, link in given.items() if name in known and is_link(link) and link]
        return iter([id for id in dict.fromkeys(sources) if id in self.workflow])

    def _inputs(self, node: str) -> Iterator[str]:
        given = self.workflow[node].get("inputs", {})
        where = label(self.workflow, node)
        cls = self.nodes[self.workflow[node]["class_type"]]
        own_check = _parameters(cls.validate_inputs) if own_override(cls, "validate_inputs") else set()
        values: dict[str, Any] = {}
        sound = True
        for item in self.schema(node).inputs:
            if item.id not in given:
                problem = None if item.optional else _absent(item)
            elif is_link(given[item.id]):
                problem = self._link(given[item.id], item)
            else:
                values[item.id], problem = _converted(given[item.id], item)
                if problem is None and item.id not in own_check:
                    problem = _out_of_range(values[item.id], item)
            if problem is not None:
                sound = False
                yield f"{where}: input {item.id!r} {problem}"
        self.values[node] = values
        if own_check and sound:
            yield from self._own_check(cls, own_check, node)

    def _own_check(self, cls: type[ComfyNode], names: set[str], node: str) -> Iterator[str]:
        given = self.workflow[node].get("inputs", {})
        verdict = cls.validate_inputs(**{name: self.values[node].get(name) for name in names if name in given})
        if verdict is not True:
            reason = verdict if isinstance(verdict, str) else "these inputs do not go together"
            yield f"{label(self.workflow, node)}: input{'s' if len(names) > 1 else ''} {', '.join(sorted(names))}: {reason}"

    def _link(self, link: list[Any], item: Any) -> str | None:
        if len(link) != 2 or isinstance(link[1], bool) or not isinstance(link[1], (int, float)):
            return f"is {link}: a link is a node's id and the number of one of its outputs"
        source, index = str(link[0]), int(link[1])
        if source not in self.workflow:
            return f"is linked to node {source}, which the workflow does not have"
        outputs = self.schema(source).outputs
        if not 0 <= index < len(outputs):
            return f"is linked to output {index} of {label(self.workflow, source)}, which has {len(outputs)}"
        comes, wanted = outputs[index].get_io_type(), item.get_io_type()
        if not _fits(comes, wanted):
            return f"takes {wanted} and is linked to output {index} of {label(self.workflow, source)}, which is {comes}"
        return None


def _parameters(method: Any) -> set[str]:
    return set(inspect.signature(method).parameters)


def _fits(comes: str, wanted: str) -> bool:
    given, taken = ({kind.strip() for kind in text.split(",")} for text in (comes, wanted))
    return "*" in given | taken or bool(given & taken)


def _absent(item: Any) -> str:
    default = getattr(item, "default", None)
    return "is missing" + (f": its usual value is {default!r}" if default is not None else ": link it to another node")


def _unwrapped(value: dict[str, Any]) -> Any:
    """ComfyUI's way to write a list that is no link."""
    return value.get("__value__", value)


def _converted(value: Any, item: Any) -> tuple[Any, str | None]:
    """The value as its type, and what is wrong with it."""
    kind = item.get_io_type()
    if isinstance(value, dict):
        value = _unwrapped(value)
    problem = f"is {value!r}: it takes "
    if kind in ("INT", "FLOAT"):
        try:
            number = float(value) if kind == "FLOAT" else int(value)
        except (TypeError, ValueError, OverflowError):
            return value, problem + ("a whole number" if kind == "INT" else "a number")
        return number, None if math.isfinite(number) else problem + "a finite number"
    if kind == "BOOLEAN":
        return (bool(value), None) if value in (True, False) else (value, problem + "true or false")
    if kind == "STRING":
        return str(value), None
    if kind == "COMBO":
        return value, None
    return value, f"is {value!r}: it takes a link to a node that gives {kind}"


def _out_of_range(value: Any, item: Any) -> str | None:
    least, most, options = (getattr(item, name, None) for name in ("min", "max", "options"))
    if least is not None and value < least:
        return f"is {value}: the least is {least}"
    if most is not None and value > most:
        return f"is {value}: the most is {most}"
    if options is not None and value not in options:
        shown = ", ".join(map(str, options[:MOST_OPTIONS])) or "nothing, since no file of this kind was found"
        more = f" and {len(options) - MOST_OPTIONS} more" if len(options) > MOST_OPTIONS else ""
        return f"is {value!r}: there is {shown}{more}"
    return None
