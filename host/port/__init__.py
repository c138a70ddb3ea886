"""What a host offers: the names that nodes may take from ``host``, each with its signature, in groups by topic.

The type checker holds both hosts to these classes (the last lines of this file): a parameter that is renamed, left out or put
elsewhere on either side is an error. A new name is a method here and a function in both hosts; or in ComfyUI's alone, with a row in
``standalone/elsewhere.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .image_models import ImageModels
from .models import Models, Training
from .run import Run
from .sampling import Sampling


class Everywhere(Run, Models, Training, Sampling, Protocol):
    """What both hosts do."""


class Declarations(Protocol):
    """What nodes are declared with: ``comfy_api.latest`` there, the same names in ``standalone/schema.py`` here."""

    if TYPE_CHECKING:
        from ..standalone import schema as io
        from ..standalone import ui
        from ..standalone.schema import ComfyExtension


class Host(Everywhere, ImageModels, Declarations, Protocol):
    """All that nodes may ask for."""


DECLARED_WITH = {"ComfyExtension", "io", "ui"}  # the class above has them for the type checker alone: importing them is choosing
NAMES = frozenset(name for name in dir(Host) if not name.startswith("_")) | DECLARED_WITH

if TYPE_CHECKING:
    from .. import standalone
    from ..comfyui import port as comfyui

    without_comfyui: Everywhere = standalone
    with_comfyui: Host = comfyui
