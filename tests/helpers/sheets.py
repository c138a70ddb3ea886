"""Cells of contact sheets."""

import numpy as np
from pack import run
from PIL import Image

CELL = 32 * 8


def pictures(name, settings, folder):
    """The PNG files of a workflow by the title of the node that made them."""
    workflow = run.part("host.run.workflows").read(name)
    made = run.run_standalone(workflow, settings, folder)
    paths = {workflow[item["node"]]["_meta"]["title"]: item["path"] for item in made if item["kind"] == "file"}
    return {title: np.asarray(Image.open(path).convert("RGB")) for title, path in paths.items() if path.suffix == ".png"}


def cells(sheet, columns):
    """The pictures of a contact sheet."""
    step = sheet.shape[1] // columns  # with the line behind each
    starts = [(top, left) for top in range(0, sheet.shape[0], step) for left in range(0, sheet.shape[1], step)]
    return [sheet[top : top + CELL, left : left + CELL] for top, left in starts]
