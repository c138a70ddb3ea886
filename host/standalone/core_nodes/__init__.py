"""The few nodes of ComfyUI's own that the shipped workflows use, under ComfyUI's ids, inputs and defaults.

A test compares each with the real one. ``CreateVideo`` and ``SaveVideo`` are there when PyAV is.
"""

import importlib.util

from .. import schema as io
from .latents import ImageScaleBy, VAEDecode, VAEEncode
from .pictures import LoadImage, PreviewImage, SaveAnimatedWEBP, SaveImage
from .video import CreateVideo, SaveVideo

VIDEO_NODES = (CreateVideo, SaveVideo)
NODES = (LoadImage, SaveImage, PreviewImage, SaveAnimatedWEBP, VAEDecode, VAEEncode, ImageScaleBy)


def core_nodes() -> dict[str, type[io.ComfyNode]]:
    """The nodes by id; the two for video files only where PyAV is installed."""
    available = NODES + (VIDEO_NODES if importlib.util.find_spec("av") else ())
    return {node.__name__: node for node in available}
