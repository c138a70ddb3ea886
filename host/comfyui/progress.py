"""Progress bars, previews, and the Cancel button."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

log = logging.getLogger("longtake")
MOVING = (".mp4",)
PREVIEW_SIDE = 512
ROUND = 100  # where there is no end, the bar is full after so many and begins anew


def check_interrupt() -> None:
    """Raise ``Interrupted`` if the user pressed Cancel."""
    comfy.model_management.throw_exception_if_processing_interrupted()


class Progress:
    """The bar of the node that runs, and one in the terminal as ComfyUI's own samplers draw it.

    Args:
        total: when it is full; 0 where there is no end.
    """

    def __init__(self, total: int):
        self.total = total
        self.bar = comfy.utils.ProgressBar(total)
        self.terminal = tqdm(total=total or None, disable=None if comfy.utils.PROGRESS_BAR_ENABLED else True)

    def update(self, done: int, preview: Tensor | None = None) -> None:
        """Say that ``done`` of the total is done, and stop here if the user cancelled.

        Args:
            done: so far in all.
            preview: ``h w c`` in 0..1, or None.
        """
        value, most = (done, self.total) if self.total else (done % ROUND, ROUND)
        self.bar.update_absolute(value, most, None if preview is None else ("JPEG", picture(preview), PREVIEW_SIDE))
        self.terminal.update(done - self.terminal.n)
        if 0 < self.total <= done:
            self.terminal.close()
        check_interrupt()


def announce(text: str) -> None:
    """Show what is about to happen in the log, and in editors at the node that runs."""
    log.info(text)
    server = running_server()
    if server is not None:
        server.send_progress_text(text, server.last_node_id)


def running_server() -> Any:
    """ComfyUI's server while it runs a node; None in a workflow without a server, or for a node called from Python."""
    module = sys.modules.get("server")
    server: Any = None if module is None else getattr(module.PromptServer, "instance", None)
    return None if getattr(server, "last_node_id", None) is None else server


def show_files(text: str, files: Sequence[Path]) -> None:
    """Show at the node that runs what it has written, also where it does not come to its end: as ComfyUI shows what a node that ended has.

    Args:
        text: what has been done.
        files: pictures or clips below the output folder.
    """
    log.info(text)
    server = running_server()
    if server is None:
        return
    output = Path(folder_paths.get_output_directory()).resolve()
    shown = [{"filename": file.name, "subfolder": file.parent.relative_to(output).as_posix(), "type": "output"} for file in files]
    told: dict[str, Any] = {"images": shown, "text": [text]}
    if any(file.suffix in MOVING for file in files):
        told["animated"] = [True]
    node = {"node": server.last_node_id, "display_node": server.last_node_id, "prompt_id": server.last_prompt_id}
    server.send_sync("executed", {**node, "output": told}, server.client_id)


def picture(pixels: Tensor) -> Image.Image:
    """``pixels``: ``h w c`` in 0..1."""
    return Image.fromarray((pixels.detach().float().cpu().clamp(0, 1) * 255).round().numpy().astype(np.uint8))
