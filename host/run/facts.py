"""What is known of a class of nodes before it runs, wherever it is known from: a schema of this pack, or what ComfyUI tells of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

UPLOADS = ("image_upload", "video_upload", "audio_upload", "file_upload")


@dataclass(frozen=True)
class NodeFacts:
    """A class of nodes.

    Attributes:
        title: what the editor calls it.
        inputs: id -> what the editor calls it.
        saves: whether it is run for what it saves or shows.
        menus: input -> what may be chosen.
        uploads: inputs whose file the editor would upload.
        replaced: input that may be linked -> the inputs that do nothing then.
    """

    title: str
    inputs: Mapping[str, str]
    saves: bool = False
    menus: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    uploads: frozenset[str] = frozenset()
    replaced: Mapping[str, Sequence[str]] = field(default_factory=dict)


def of_node(node: Any) -> NodeFacts:
    """Facts of a node class of this pack, or of the standalone host."""
    schema = node.GET_SCHEMA()
    return NodeFacts(
        title=schema.display_name or schema.node_id,
        inputs={item.id: item.display_name or item.id for item in schema.inputs},
        saves=schema.is_output_node,
        replaced=getattr(node, "REPLACED", {}),
    )


def of_information(name: str, information: Mapping[str, Any], replaced: Mapping[str, Sequence[str]]) -> NodeFacts:
    """Facts of a class from ComfyUI's ``/object_info``.

    Args:
        name: of the class.
        information: what ComfyUI tells of it.
        replaced: as in ``NodeFacts``, which ComfyUI does not know.
    """
    entries = dict(_entries(information.get("input", {})))
    options = {key: entry[1] if len(entry) > 1 and isinstance(entry[1], Mapping) else {} for key, entry in entries.items()}
    menus = {key: entry[0] if isinstance(entry[0], list) else options[key].get("options") for key, entry in entries.items()}
    return NodeFacts(
        title=information.get("display_name") or name,
        inputs={key: options[key].get("display_name") or key for key in entries},
        saves=bool(information.get("output_node")),
        menus={key: menu for key, menu in menus.items() if isinstance(menu, list)},
        uploads=frozenset(key for key in entries if any(options[key].get(upload) for upload in UPLOADS)),
        replaced=replaced,
    )


def _entries(groups: Mapping[str, Any]) -> Iterable[tuple[str, Sequence[Any]]]:
    for group in ("required", "optional"):
        yield from (groups.get(group) or {}).items()
