"""Cells of contact sheets."""

import numpy as np
from pack import run
from PIL import Image

CELL = 32 * 8


def pictures(name, settings, folder):
    """The PNG files of a workflow, previews among them, by the title of the node that made them."""
    workflow = run.part("host.run.workflows").read(name)
    executor, core, facts = (run.part(f"host.{part}") for part in ("standalone.executor", "standalone.core_nodes", "run.facts"))
    nodes = run.pack_nodes() | core.core_nodes()
    prompt = run.changed(workflow, settings, lambda kind: facts.of_node(nodes[kind]) if kind in nodes else None)
    kept, _ = executor.without_classes(prompt, [node.__name__ for node in core.VIDEO_NODES if node.__name__ not in nodes])
    made = executor.Executor(nodes, folder, temp=folder / "previews").run(kept)
    paths = {workflow[item.node]["_meta"]["title"]: path for item in made for path in (*item.files, *item.previews)}
    return {title: np.asarray(Image.open(path).convert("RGB")) for title, path in paths.items() if path.suffix == ".png"}


def cells(sheet, columns):
    """The pictures of a contact sheet."""
    step = sheet.shape[1] // columns  # with the line behind each
    starts = [(top, left) for top in range(0, sheet.shape[0], step) for left in range(0, sheet.shape[1], step)]
    return [sheet[top : top + CELL, left : left + CELL] for top, left in starts]
