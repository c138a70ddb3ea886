"""From AnimateDiff-Evolved's graphs to ours: which of its nodes are which of ours, what is left out, and why.

A node that has one counterpart is a row of ``rows.ROWS``. Those that put a motion module into a model take along what is connected to
them, motion LoRAs, windows, strengths and settings, which here are nodes one behind the other. What has no counterpart stays as it is and
is named.
"""

from collections.abc import Callable, Mapping
from typing import Any

from .graph import GAP, Graph, Node, Source
from .motion import APPLYING
from .rows import ALIASES, LATENTS, NOTHING, ROWS, SAYING, WIDGETS
from .sparse import sparse


class Conversion:
    """One graph on its way.

    Attributes:
        graph: what becomes of it.
        said: sentences about what was left out, each with the node that it is about.
        taken: ids of nodes that others took along.
        usual: the values of a new node of a class.
    """

    def __init__(self, graph: Graph, usual: Callable[[str], Mapping[str, Any]]):
        self.graph, self.said, self.taken, self.usual = graph, [], set(), usual
        self.moved: dict[Source, Source] = {}  # outputs of nodes that are gone, and what stands for them

    def run(self) -> None:
        """Convert all that can be."""
        for node in self.graph.nodes.values():
            node.kind = ALIASES.get(node.kind, node.kind)
        for rule in RULES:
            for id in list(self.graph.nodes):
                if id in self.graph.nodes:
                    rule(self, id)
        for node in self.graph.nodes.values():
            node.links = {name: self.now(source) for name, source in node.links.items()}
        self._sweep()
        for id, node in self.graph.nodes.items():
            if is_theirs(node.kind):
                self.say(id, f"{node.kind} has no counterpart here, or hangs together with one that has none: it stays as it is")

    def now(self, source: Source) -> Source:
        """What stands for an output."""
        while source in self.moved:
            source = self.moved[source]
        return source

    def source(self, node: Node, name: str) -> Source | None:
        """What is connected to an input, reroutes looked through."""
        return self.graph.behind(node.links.get(name))

    def before(self, node: Node, name: str) -> Node | None:
        """The node that is connected to an input."""
        source = self.source(node, name)
        return None if source is None else self.graph.nodes.get(source[0])

    def add(self, kind: str, near: str, values: Mapping[str, Any], links: Mapping[str, Source | None], title: str = "") -> str:
        """A new node beside another; links that are None are none. Gives its id."""
        id, (x, y) = self.graph.free_id(), self.graph.nodes[near].place
        made = sum(node.drawn is None and node.place[0] == x for node in self.graph.nodes.values())
        links = {name: source for name, source in links.items() if source is not None}
        values = {name: value for name, value in {**self.usual(kind), **values}.items() if name not in links}
        self.graph.nodes[id] = Node(kind, values, links, title, None, (x, y + made * 4 * GAP))
        return id

    def put(self, id: str, outputs: Mapping[int, Source]) -> None:
        """A node is gone, and these stand for its outputs."""
        self.moved |= {(id, slot): source for slot, source in outputs.items()}

    def say(self, id: str, text: str) -> None:
        """Tell the user about a node."""
        node = self.graph.nodes[id]
        self.said.append(f"node {id} ({node.title or node.kind}): {text}")

    def left_out(self, id: str, reasons: Mapping[str, str]) -> None:
        """Tell of inputs that are dropped, where they were set to something."""
        node = self.graph.nodes[id]
        for name, why in reasons.items():
            value = node.values.get(name, NOTHING.get(name))
            if name in node.links or value != NOTHING.get(name):
                self.say(id, f"{name} is left out: {why}")

    def _sweep(self) -> None:
        """Take out what nothing takes from any more, of classes that only say something to others, and reroutes to nowhere."""
        gone = {id for id, _ in self.moved}
        while gone:
            for id in gone:
                self.graph.nodes.pop(id, None)
            gone = {
                id
                for id, node in self.graph.nodes.items()
                if (node.kind in SAYING and not self.graph.consumers(id))
                or (node.kind == "Reroute" and any(source not in self.graph.nodes for source, _ in node.links.values()))
            }


def one_to_one(conversion: Conversion, id: str) -> None:
    """A node with one counterpart."""
    node = conversion.graph.nodes[id]
    row = ROWS.get(node.kind)
    if row is None or (id, 0) in conversion.moved:
        return
    staying = [other for other in conversion.graph.consumers(id) if other not in conversion.taken]
    if node.kind == "ADE_LoadAnimateDiffModel" and any(is_theirs(conversion.graph.nodes[other].kind) for other in staying):
        return  # what stays as it is takes theirs
    conversion.left_out(id, row.dropped)
    values = {ours: node.values[name] for name, ours in row.names.items() if name in node.values}
    links = {ours: node.links.get(name) for name, ours in row.names.items()}
    if row.kind.endswith("Schedule"):
        values = {**values, "frames": length_of(conversion, id, values)}
    new = conversion.add(row.kind, id, values, links, node.title if node.drawn is None else node.drawn.get("title", ""))
    name, slot = LATENTS.get(node.kind, ("", None))
    through = {} if slot is None or name not in node.links else {slot: node.links[name]}
    conversion.put(id, {theirs: (new, ours) for theirs, ours in row.outputs.items()} | through)


def length_of(conversion: Conversion, id: str, values: Mapping[str, Any]) -> int:
    """The frames of a schedule: as it says, or those of the empty latent that it was connected to; 0 for any."""
    node = conversion.graph.nodes[id]
    if "frames" in values:
        return int(values["frames"])
    latent = conversion.before(node, LATENTS[node.kind][0]) if node.kind in LATENTS else None
    if latent is not None and isinstance(latent.values.get("batch_size"), int):
        return int(latent.values["batch_size"])
    conversion.say(id, "the length of its latent is not known before it runs: set frames, where times count from the end")
    return 0


def applying(conversion: Conversion, id: str) -> None:
    """A node that puts motion modules into a model."""
    node = conversion.graph.nodes[id]
    if node.kind in APPLYING:
        APPLYING[node.kind](conversion, id, node)


RULES: tuple[Callable[[Conversion, str], None], ...] = (applying, sparse, one_to_one)


def is_theirs(kind: str) -> bool:
    """Whether a class is one of theirs."""
    return kind.startswith(("ADE_", "ACN_")) or kind in ALIASES or (kind in WIDGETS and kind != "EmptyLatentImage")


def converted(
    workflow: Mapping[str, Any],
    usual: Callable[[str], Mapping[str, Any]],
    draw: Callable[[Node, str], dict[str, Any]],
) -> tuple[dict[str, Any], list[str]]:
    """A workflow with this pack's nodes in the place of theirs, in the format that it came in, and what is to be said of it.

    Args:
        workflow: of either of ComfyUI's formats.
        usual: gives the values of a new node of a class.
        draw: see ``Graph.written``.

    Raises:
        ValueError: it is no workflow, or there is nothing in it to convert.
    """
    graph = Graph.read(workflow, WIDGETS | {theirs: WIDGETS[kind] for theirs, kind in ALIASES.items()})
    if not any(is_theirs(node.kind) for node in graph.nodes.values()):
        raise ValueError(
            "the graph has no node of AnimateDiff-Evolved, Advanced-ControlNet or FizzNodes: there is nothing to convert"
        )
    conversion = Conversion(graph, usual)
    conversion.run()
    if workflow.get("definitions", {}).get("subgraphs"):
        conversion.said.append(
            "the graph has subgraphs, whose insides stay as they are: unpack them first where theirs are inside"
        )
    return conversion.graph.written(draw), conversion.said
