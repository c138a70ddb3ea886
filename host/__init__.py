"""Where nodes run: inside ComfyUI, or standalone. Both offer the same names, listed with their signatures in ``port``.

The host is chosen once, when the first of those names is asked for: ComfyUI when it is booted in this process, else standalone.
Nothing else in this pack ever looks for ComfyUI. A choice at first use, not at import, lets ``host.run`` and the booting code be
imported before there is anything to choose.

To the type checker, ``host`` in a node file is the ``Host`` of ``port``: the pack's ``__init__.py`` says so.
"""

import functools
import importlib
import sys
from types import ModuleType
from typing import Any

from .port import NAMES


@functools.cache
def chosen() -> ModuleType:
    """The module that implements the port in this process."""
    return importlib.import_module(".comfyui.port" if "comfy" in sys.modules else ".standalone", __name__)


def __getattr__(attribute: str) -> Any:
    if attribute not in NAMES:  # Python asks too, for ``run`` in ``from .host import run``
        raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
    return getattr(chosen(), attribute)
