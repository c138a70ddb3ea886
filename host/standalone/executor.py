"""Run a workflow: everything checked first, every node after those it needs, unchanged nodes not at all."""

import hashlib
import json
import logging
import math
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..run.bar import Bar, Report
from ..run.errors import NodeError, WorkflowError
from .schema import ComfyNode, FolderType, HiddenHolder, NodeOutput
from .session import Session
from .ui import directory_of
from .validation import Checker, Nodes, Workflow, own_override

log = logging.getLogger("longtake")


@dataclass(frozen=True)
class Result:
    """What one node had to show.

    Attributes:
        node: its id.
        class_type: its class.
        files: what it saved.
        previews: what it only showed, in the temporary folder.
        texts: what it said.
        ran: False when an earlier run's result was taken.
    """

    node: str
    class_type: str
    files: tuple[Path, ...] = ()
    previews: tuple[Path, ...] = ()
    texts: tuple[str, ...] = ()
    ran: bool = True

    def items(self) -> list[dict[str, Any]]:
        """One table per file and text, as ``run.py`` prints them whatever the host."""
        about = {"node": self.node, "class_type": self.class_type}
        files = [about | {"kind": "file", "path": path} for path in self.files]
        previews = [about | {"kind": "preview"}] * len(self.previews)  # gone when the run is over
        return files + previews + [about | {"kind": "text", "text": text} for text in self.texts]


@dataclass(frozen=True)
class _Kept:
    values: tuple[Any, ...]
    shown: dict[str, tuple[Any, ...]]


def without_notes(workflow: Mapping[str, Any]) -> dict[str, Any]:
    """The nodes of a workflow file: entries whose name starts with ``_`` are for people."""
    return {id: node for id, node in workflow.items() if not id.startswith("_")}


def without_classes(workflow: Workflow, classes: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """The workflow without the nodes of some classes and all that depends on them, and the ids of what was left out."""
    gone = {id for id, node in workflow.items() if node.get("class_type") in set(classes)}
    while True:
        more = {
            id
            for id, node in workflow.items()
            if id not in gone and any(isinstance(v, list) and v and str(v[0]) in gone for v in node.get("inputs", {}).values())
        }
        if not more:
            return {id: node for id, node in workflow.items() if id not in gone}, [id for id in workflow if id in gone]
        gone |= more


@dataclass
class Executor:
    """Runs workflows, and remembers the last one's results for the next.

    Attributes:
        nodes: the node classes by name.
        output, input, temp: folders; None for the session's defaults. Previews are there as long as the executor is.
        report: is told of progress; draws a bar in a terminal by default.
    """

    nodes: Nodes
    output: Path | None = None
    input: Path | None = None
    temp: Path | None = None
    report: Callable[[Report], None] = field(default_factory=Bar)

    def __post_init__(self) -> None:
        self.session = Session(self.output, self.input, self.temp, self.report)
        self._kept: dict[str, _Kept] = {}

    def check(self, workflow: Mapping[str, Any]) -> list[str]:
        """Everything that is wrong with a workflow, one sentence each; nothing is run."""
        with self.session.active():
            return Checker(without_notes(workflow), self.nodes).problems()

    def cancel(self) -> None:
        """Stop the run at the next model call or node; may be called from another thread or from ``report``."""
        self.session.cancel()

    def run(self, workflow: Mapping[str, Any], extra_pnginfo: dict[str, Any] | None = None) -> list[Result]:
        """Run a workflow in API format.

        Args:
            workflow: what to run.
            extra_pnginfo: what saved files shall say beside the workflow.

        Returns:
            One result for each node that has something to show, in the order they ran.

        Raises:
            WorkflowError: it cannot run; all that is wrong with it. Nothing was run.
            NodeError: a node failed.
            Interrupted: it was cancelled; what the finished nodes saved is there, and nothing else.
        """
        workflow = without_notes(workflow)
        self.session.resume()
        with self.session.active():
            checker = Checker(workflow, self.nodes)
            problems = checker.problems()
            if problems:
                raise WorkflowError(problems)
            return self._run(workflow, checker, extra_pnginfo)

    def _run(self, workflow: Workflow, checker: Checker, extra_pnginfo: dict[str, Any] | None) -> list[Result]:
        keys: dict[str, str] = {}
        results = []
        try:
            for id in checker.order:
                self.session.check()
                self.session.task = f"node {id} ({workflow[id]['class_type']})"
                cls = self.nodes[workflow[id]["class_type"]]
                links = checker.links(id)
                keys[id] = self._key(id, cls, checker, links, keys)
                kept = self._kept.get(keys[id])
                if kept is None:
                    linked = {name: self._kept[keys[source]].values[index] for name, (source, index) in links.items()}
                    hidden = HiddenHolder(id, dict(workflow), extra_pnginfo)
                    self._kept[keys[id]] = _execute(id, cls, checker.values[id] | linked, hidden, len(checker.schema(id).outputs))
                now = self._kept[keys[id]]
                if any(now.shown.values()):
                    results.append(Result(id, workflow[id]["class_type"], **now.shown, ran=kept is None))
        finally:
            self.session.task = ""
        wanted = set(keys.values())
        self._kept = {key: kept for key, kept in self._kept.items() if key in wanted}
        return results

    def _key(
        self, id: str, cls: type[ComfyNode], checker: Checker, links: Mapping[str, tuple[str, int]], keys: Mapping[str, str]
    ) -> str:
        """A name for a node's result: the same exactly when the result must be the same."""
        values = checker.values[id]
        facts: dict[str, Any] = {"class": checker.workflow[id]["class_type"], "values": values}
        facts["links"] = {name: [keys[source], index] for name, (source, index) in links.items()}
        schema = checker.schema(id)
        if schema.is_output_node or schema.not_idempotent:
            facts["node"] = id  # two that save the same both save
        if own_override(cls, "fingerprint_inputs"):
            facts["fingerprint"] = _fingerprint(id, cls, checker, links)
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=repr).encode()).hexdigest()


def _fingerprint(id: str, cls: type[ComfyNode], checker: Checker, links: Mapping[str, Any]) -> str:
    """What the node says has changed beside its inputs; linked inputs are None, as in ComfyUI."""
    try:
        value = cls.fingerprint_inputs(**(dict.fromkeys(links) | checker.values[id]))
    except Exception as error:
        raise NodeError(id, checker.workflow[id]["class_type"], _sentence(error)) from error
    never = isinstance(value, float) and math.isnan(value)  # ComfyUI's way to say: always run
    return secrets.token_hex() if never else repr(value)


def _execute(id: str, cls: type[ComfyNode], values: Mapping[str, Any], hidden: HiddenHolder, outputs: int) -> _Kept:
    """Run one node; whatever goes wrong is said with its id and class."""
    log.debug("node %s (%s) runs", id, cls.__name__)
    informed = type(cls.__name__, (cls,), {"hidden": hidden, "__module__": cls.__module__})
    try:
        output = informed.execute(**values)
    except Exception as error:
        raise NodeError(id, cls.GET_SCHEMA().node_id, _sentence(error)) from error
    if not isinstance(output, NodeOutput) or len(output.args) < outputs:
        given = f"{len(output.args)} values" if isinstance(output, NodeOutput) else type(output).__name__
        raise NodeError(id, cls.GET_SCHEMA().node_id, f"it returned {given} and has {outputs} outputs")
    shown = output.ui.as_dict() if hasattr(output.ui, "as_dict") else output.ui or {}
    paths: dict[bool, list[Path]] = {True: [], False: []}
    for item in shown.get("images", ()):
        folder = FolderType(item["type"])
        paths[folder is FolderType.temp].append(directory_of(folder) / item["subfolder"] / item["filename"])
    texts = tuple(str(text) for text in shown.get("text", ()))
    return _Kept(output.args, {"files": tuple(paths[False]), "previews": tuple(paths[True]), "texts": texts})


def _sentence(error: Exception) -> str:
    """What an error says; its kind as well when it was not made to be read by users."""
    text = str(error).strip()
    return (
        text
        if text and isinstance(error, (ValueError, RuntimeError, OSError))
        else f"{type(error).__name__}: {text}".rstrip(": ")
    )
