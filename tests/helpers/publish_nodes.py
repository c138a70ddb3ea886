"""Add new nodes, inputs and outputs to ``published_nodes.json``: ``python tests/helpers/publish_nodes.py``, before a release.

Saved workflows name ids and inputs and count widgets and outputs, so what is published is never taken back: the script only appends,
and says so when something was renamed, moved or removed.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

LIST = Path(__file__).with_name("published_nodes.json")


def described(schema) -> dict:
    """What a saved workflow depends on."""
    return {
        "inputs": [[item.id, item.get_io_type()] for item in schema.inputs],
        "outputs": [item.get_io_type() for item in schema.outputs],
    }


def taken_back(published: dict, present: dict) -> list[str]:
    """What is published and no longer so, one sentence each."""
    wrong = []
    for name, old in published.items():
        if name not in present:
            wrong.append(f"the node {name} is gone")
            continue
        for part in ("inputs", "outputs"):
            now = present[name][part][: len(old[part])]
            if now != old[part]:
                wrong.append(f"{name}: its {part} were {old[part]} and now begin {now}: append, never insert or rename")
    return wrong


def main() -> None:
    os.environ["COMFYUI_PATH"] = ""  # the list is the same on every host
    sys.path.insert(0, str(LIST.parents[1]))
    import conftest  # noqa: F401  makes the pack importable
    import pack

    extension = asyncio.run(pack.comfy_entrypoint())
    present = {node.GET_SCHEMA().node_id: described(node.GET_SCHEMA()) for node in asyncio.run(extension.get_node_list())}
    published = json.loads(LIST.read_text(encoding="utf-8")) if LIST.exists() else {}
    wrong = taken_back(published, present)
    if wrong:
        sys.exit("\n".join(wrong))
    LIST.write_text(json.dumps(dict(sorted(present.items())), indent=1) + "\n", encoding="utf-8")
    print(f"{len(present)} nodes, {len(present) - len(published)} of them new")


if __name__ == "__main__":
    main()
