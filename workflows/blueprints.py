"""Subgraph blueprints: parts of the workflows as one node each, which ComfyUI's editor lists among its own (``subgraphs/`` of a pack).

``api_to_ui.py`` writes them. The format is that of ComfyUI's ``blueprints`` folder: a workflow of one node, whose type is the id of a
subgraph in its ``definitions``.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OUTSIDE_IN, OUTSIDE_OUT = -10, -20  # what the editor calls the two ends of a subgraph
SPACE = uuid.UUID("7d3d7a0e-3d4c-4d53-9d0e-6c6f6e677461")  # ids are made of names, so that drawing again changes nothing
WIDTH, ROW = 340, 28


@dataclass(frozen=True)
class Blueprint:
    """What one is made of.

    Attributes:
        name: as the editor lists it.
        description: one sentence.
        workflow: the one that it is a part of.
        inside: titles of the nodes that it holds.
        inputs: name outside, title of the node, its input.
        outputs: name outside, title of the node, number of its output.
    """

    name: str
    description: str
    workflow: str
    inside: tuple[str, ...]
    inputs: tuple[tuple[str, str, str], ...]
    outputs: tuple[tuple[str, str, int], ...]

    @property
    def id(self) -> str:
        """The subgraph's id."""
        return str(uuid.uuid5(SPACE, self.name))

    def part(self, workflow: Mapping[str, Any]) -> dict[str, Any]:
        """The nodes that it holds, in API format; links from outside are left out.

        Raises:
            ValueError: the workflow has no node of a title, or more than one.
        """
        nodes = {id: node for id, node in workflow.items() if not id.startswith("_")}
        found = {}
        for title in self.inside:
            ids = [id for id, node in nodes.items() if node.get("_meta", {}).get("title") == title]
            if len(ids) != 1:
                raise ValueError(
                    f"{self.workflow} has {len(ids)} nodes called {title!r}, and the blueprint {self.name!r} holds one"
                )
            found[ids[0]] = nodes[ids[0]]
        return {
            id: {
                "class_type": node["class_type"],
                "_meta": {"title": node["_meta"]["title"]},
                "inputs": {
                    key: value for key, value in node["inputs"].items() if not (isinstance(value, list) and value[0] not in found)
                },
            }
            for id, node in found.items()
        }

    def json(self, drawn: Mapping[str, Any], types: Mapping[tuple[str, str], str]) -> dict[str, Any]:
        """The blueprint, as the editor stores it.

        Args:
            drawn: ``part`` in the editor's format.
            types: (title, input) -> its type, for every input of a node inside.
        """
        nodes = {node["title"]: node for node in drawn["nodes"]}
        links = [
            {"id": id, "origin_id": start, "origin_slot": slot, "target_id": end, "target_slot": to, "type": kind}
            for id, start, slot, end, to, kind in drawn["links"]
        ]
        sockets, ends, shown, values = [], [], [], []
        for number, (name, title, key) in enumerate(self.inputs):
            node, kind = nodes[title], types[title, key]
            slot = next((i for i, socket in enumerate(node["inputs"]) if socket["name"] == key), None)
            widget = slot is None
            if slot is None:
                slot = len(node["inputs"])
                node["inputs"].append({"name": key, "type": kind, "widget": {"name": key}, "link": None})
            id = len(links) + 1
            node["inputs"][slot]["link"] = id
            links.append(
                {
                    "id": id,
                    "origin_id": OUTSIDE_IN,
                    "origin_slot": number,
                    "target_id": node["id"],
                    "target_slot": slot,
                    "type": kind,
                }
            )
            sockets.append({"id": str(uuid.uuid5(SPACE, f"{self.name}/{name}")), "name": name, "type": kind, "linkIds": [id]})
            shown.append({"name": name, "type": kind, **({"widget": {"name": name}} if widget else {}), "link": None})
            if widget:
                values.append(name)
        for number, (name, title, slot) in enumerate(self.outputs):
            node = nodes[title]
            kind, id = node["outputs"][slot]["type"], len(links) + 1
            node["outputs"][slot]["links"] = [*(node["outputs"][slot]["links"] or []), id]
            links.append(
                {
                    "id": id,
                    "origin_id": node["id"],
                    "origin_slot": slot,
                    "target_id": OUTSIDE_OUT,
                    "target_slot": number,
                    "type": kind,
                }
            )
            ends.append({"id": str(uuid.uuid5(SPACE, f"{self.name}/out/{name}")), "name": name, "type": kind, "linkIds": [id]})
        right = max(node["pos"][0] + node["size"][0] for node in drawn["nodes"])
        inside = {
            "id": self.id,
            "version": 1,
            "state": {"lastGroupId": 0, "lastNodeId": drawn["last_node_id"], "lastLinkId": len(links), "lastRerouteId": 0},
            "revision": 0,
            "config": {},
            "name": self.name,
            "inputNode": {"id": OUTSIDE_IN, "bounding": [-200, 0, 140, 40 + 20 * len(sockets)]},
            "outputNode": {"id": OUTSIDE_OUT, "bounding": [right + 60, 0, 140, 40 + 20 * len(ends)]},
            "inputs": sockets,
            "outputs": ends,
            "widgets": [],
            "nodes": drawn["nodes"],
            "groups": [],
            "links": links,
            "extra": {},
            "category": "LongTake",
            "description": self.description,
        }
        outer = {
            "id": 1,
            "type": self.id,
            "pos": [0, 0],
            "size": [WIDTH, 60 + ROW * (len(shown) + len(ends))],
            "flags": {},
            "order": 0,
            "mode": 0,
            "inputs": shown,
            "outputs": [{"name": end["name"], "type": end["type"], "links": None} for end in ends],
            "title": self.name,
            "properties": {"proxyWidgets": [["-1", name] for name in values], "cnr_id": "longtake"},
            "widgets_values": [],
        }
        return {
            "revision": 0,
            "last_node_id": 1,
            "last_link_id": 0,
            "nodes": [outer],
            "links": [],
            "version": 0.4,
            "definitions": {"subgraphs": [inside]},
            "extra": {},
        }


MOTION = ("SD1.5 checkpoint", "Motion module", "Model that draws clips")
SAMPLING = ("What to show", "What to avoid", "16 frames", "Draw all frames together", "Frames")
ASKED = (
    ("checkpoint", "SD1.5 checkpoint", "ckpt_name"),
    ("motion module", "Motion module", "motion_module"),
    ("prompt", "What to show", "text"),
    ("negative prompt", "What to avoid", "text"),
    ("frames", "16 frames", "batch_size"),
    ("seed", "Draw all frames together", "seed"),
)
FRAMES = (("frames", "Frames", 0),)

BLUEPRINTS = (
    Blueprint(
        "AnimateDiff Clip",
        "A text becomes a clip, with an SD1.5 checkpoint and a motion module.",
        "animatediff_text_to_video",
        (*MOTION, *SAMPLING),
        ASKED,
        FRAMES,
    ),
    Blueprint(
        "Keyframed Clip",
        "A clip that meets two pictures at the frames that are named, by SparseCtrl.",
        "sparse_keyframes",
        (
            *("SD1.5 checkpoint", "AnimateDiff v3's domain adapter", "Motion module", "Model that draws clips"),
            *("First at 512x512", "Last at 512x512", "When the first is met", "When the last is met"),
            *("SparseCtrl", "Lead the clip by them"),
            *SAMPLING,
        ),
        (
            *(("first picture", "First at 512x512", "image"), ("last picture", "Last at 512x512", "image")),
            *(("meets the first at", "When the first is met", "frames"), ("meets the last at", "When the last is met", "frames")),
            *ASKED,
        ),
        FRAMES,
    ),
    Blueprint(
        "Long Take",
        "A take of any length from a bundled model, which needs no file.",
        "long_take",
        ("Model", "Prompt", "Negative", "Noise levels", "Long take", "Frames"),
        (
            *(("model", "Model", "model_name"), ("prompt", "Prompt", "prompt")),
            *(("frames", "Noise levels", "frames"), ("seed", "Long take", "seed")),
        ),
        FRAMES,
    ),
)
