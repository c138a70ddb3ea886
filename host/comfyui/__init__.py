"""The port on ComfyUI. Only files in this folder import anything of ComfyUI's.

Nothing of ComfyUI is imported before a name of the port is asked for, so ``boot`` can be imported on a machine without it.
"""

import importlib
from typing import Any


def __getattr__(attribute: str) -> Any:
    if attribute.startswith("_") or attribute == "port":
        raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
    return getattr(importlib.import_module(".port", __name__), attribute)
