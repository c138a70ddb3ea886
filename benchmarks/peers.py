"""ComfyUI, this pack and other packs' checkouts in one process, for programs that compare them.

Nothing is written into a checkout: models and outputs go to a folder of their own, which is removed at exit, and no byte code is kept.
"""

import atexit
import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("custom_nodes", "input", "models", "output", "temp", "user")


def load(name: str, path: Path) -> ModuleType:
    """Run a file as the module ``name``; an ``__init__.py`` as the package of its folder."""
    inside = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=inside)
    assert spec is not None and spec.loader is not None, path
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start_comfyui(checkout: Path | None = None) -> Path:
    """Import ComfyUI and, under the name ``pack``, this pack inside it. Gives the folder that ComfyUI calls its base directory.

    Args:
        checkout: ComfyUI's folder; None for the one that the tests would use.

    Raises:
        ValueError: none is found, or this Python cannot import it.
    """
    find = load("longtake_find", ROOT / "host" / "run" / "find.py")
    checkout = checkout or find.find(ROOT)
    if checkout is None or not find.is_checkout(checkout):
        raise ValueError(f"{checkout or 'nothing'} is no ComfyUI checkout: name one with --comfyui or COMFYUI_PATH")
    lacking = find.missing(checkout)
    if lacking:
        raise ValueError(f"this Python lacks {lacking}, which {checkout} needs: run with {find.python_of(checkout)}")
    sys.dont_write_bytecode = True
    base = Path(tempfile.mkdtemp(prefix="longtake-peers-"))
    atexit.register(shutil.rmtree, base, ignore_errors=True)
    for folder in FOLDERS:
        (base / folder).mkdir()
    load("longtake_boot", ROOT / "host" / "comfyui" / "boot.py").boot(checkout, base_directory=base)
    load("pack", ROOT / "__init__.py")
    return base


class Peer:
    """Another pack's nodes, by id."""

    def __init__(self, name: str, checkout: Path):
        """Import the pack in folder ``checkout`` as the module ``name``."""
        if not (checkout / "__init__.py").is_file():
            raise ValueError(f"{checkout} is no node pack: it has no __init__.py")
        self.name = name
        self.nodes: dict[str, Any] = load(name, checkout / "__init__.py").NODE_CLASS_MAPPINGS

    def call(self, node: str, **inputs: Any) -> Any:
        """The first output of a node (of the old kind) for these inputs."""
        kind = self.nodes[node]
        return getattr(kind(), kind.FUNCTION)(**inputs)[0]

    def module(self, name: str) -> Any:
        """One of its files, as an imported module."""
        return sys.modules[f"{self.name}.{name}"]
