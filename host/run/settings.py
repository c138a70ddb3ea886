"""Inputs of a workflow changed from the command line, as ``NODE.INPUT=VALUE``."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .facts import NodeFacts
from .words import meant

Known = Callable[[str], NodeFacts | None]  # of a class of nodes; None where nothing is known of it


def value_of(text: str, old: Any) -> Any:
    """A value from the command line: text stays text where the input held text, else JSON, else text.

    >>> value_of("3", 1), value_of("3", "a"), value_of("true", False), value_of("red disk", None)
    (3, '3', True, 'red disk')
    """
    if isinstance(old, str):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


class Settings:
    """A workflow with settings applied.

    Args:
        workflow: stays as it is.
        known: what is known of a class.

    Attributes:
        workflow: the changed copy.
        changed: (node, input) of every setting, with the setting as it was written.
    """

    def __init__(self, workflow: Mapping[str, Any], known: Known):
        self.workflow = {id: {**node, "inputs": dict(node.get("inputs", {}))} for id, node in workflow.items()}
        self.known = known
        self.changed: dict[tuple[str, str], str] = {}

    def apply(self, settings: Iterable[str]) -> None:
        """Change inputs, in order.

        Raises:
            ValueError: a setting is written wrongly, or names a node or an input that is not there.
        """
        for setting in settings:
            target, equals, text = setting.partition("=")
            places = [place for place, letter in enumerate(target) if letter == "." and 0 < place < len(target) - 1]
            if not equals or not places:
                raise ValueError(f"--set {setting}: write it as NODE.INPUT=VALUE, such as LongTakeRollout.frames=64")
            # titles may hold dots, and so may inputs of a nested menu
            cut = next((place for place in places if self._nodes_named(target[:place])), places[-1])
            id = self._node_named(target[:cut])
            key = self._input_named(id, target[cut + 1 :], setting)
            inputs = self.workflow[id]["inputs"]
            inputs[key] = value_of(text, inputs.get(key))
            self.changed[id, key] = setting

    def without_effect(self) -> list[str]:
        """A sentence for each setting that changes nothing of what is made."""
        needed = self._needed()
        found = []
        for (id, key), setting in self.changed.items():
            facts, inputs = self._facts(id), self.workflow[id]["inputs"]
            over = [link for link, keys in facts.replaced.items() if key in keys and isinstance(inputs.get(link), list)]
            if over:
                source = str(inputs[over[0]][0])
                found.append(
                    f"--set {setting} has no effect: {over[0]} of {self._label(id)} is connected and takes its place: set it in"
                    f" {self._label(source)}"
                )
            elif needed and id not in needed:
                found.append(f"--set {setting} has no effect: nothing that is saved or shown needs {self._label(id)}")
        return found

    def _facts(self, id: str) -> NodeFacts:
        node = self.workflow[id]
        facts = self.known(node.get("class_type", ""))
        return facts or NodeFacts(str(node.get("class_type")), {key: key for key in node["inputs"]})

    def _label(self, id: str) -> str:
        node = self.workflow.get(id, {})
        return f"node {id} ({node.get('_meta', {}).get('title') or node.get('class_type')})"

    def _called(self, id: str) -> tuple[str, ...]:
        """What a node may be called, beside its id."""
        node = self.workflow[id]
        return tuple(filter(None, (node.get("class_type"), node.get("_meta", {}).get("title"), self._facts(id).title)))

    def _nodes_named(self, name: str) -> list[str]:
        if name in self.workflow:
            return [name]
        exact = [id for id in self.workflow if name in self._called(id)]
        return exact or [id for id in self.workflow if name.lower() in map(str.lower, self._called(id))]

    def _node_named(self, name: str) -> str:
        found = self._nodes_named(name)
        if len(found) > 1:
            raise ValueError(f"{len(found)} nodes are called {name!r}: use one of the ids {', '.join(found)}")
        if not found:
            guess = meant(name, [word for id in self.workflow for word in self._called(id)])
            there = ", ".join(f"{id} ({self._called(id)[0]})" for id in self.workflow)
            raise ValueError(f"no node is called {name!r}: {guess}the workflow has {there}")
        return found[0]

    def _input_named(self, id: str, name: str, setting: str) -> str:
        facts = self._facts(id)
        there = dict.fromkeys([*self.workflow[id]["inputs"], *facts.inputs])
        if name in there:
            return name
        shown = [key for key, title in facts.inputs.items() if title.lower() == name.lower()]
        if len(shown) == 1:
            return shown[0]
        guess = meant(name, [*there, *facts.inputs.values()])
        raise ValueError(f"--set {setting}: {self._called(id)[0]} has no input {name!r}: {guess}it has {', '.join(there)}")

    def _needed(self) -> set[str]:
        """The nodes that something saved or shown depends on; none where nothing is known of what saves."""
        waiting = [id for id in self.workflow if self._facts(id).saves]
        needed: set[str] = set()
        while waiting:
            id = waiting.pop()
            if id in self.workflow and id not in needed:
                needed.add(id)
                waiting += [str(value[0]) for value in self.workflow[id]["inputs"].values() if isinstance(value, list) and value]
        return needed
