"""Progress bars, previews, and the Cancel button."""

import comfy.model_management
import comfy.utils
import numpy as np
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

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


def picture(pixels: Tensor) -> Image.Image:
    """``pixels``: ``h w c`` in 0..1."""
    return Image.fromarray((pixels.detach().float().cpu().clamp(0, 1) * 255).round().numpy().astype(np.uint8))
