"""Make a ComfyUI checkout importable in a process that is not ComfyUI's own. Imports nothing of ComfyUI, or of this pack, itself."""

import importlib
import sys
from pathlib import Path
from types import ModuleType


def boot(checkout: Path, *, base_directory: Path | None = None) -> None:
    """Import ComfyUI from ``checkout``, without a server and without reading this program's command line.

    Doing it again for the same checkout does nothing. A process can hold one ComfyUI only: its modules have names like ``nodes``.

    Args:
        checkout: the folder with ComfyUI's ``main.py``.
        base_directory: where its ``models``, ``input`` and ``output`` are; None means in the checkout.

    Raises:
        ValueError: a module of one of ComfyUI's names is already imported from somewhere else.
    """
    _check_names(checkout)
    if "comfy" in sys.modules:
        return
    folder = str(checkout)
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)  # before this pack's own ``nodes``, which lies in the folder of a script run from here

    # The order matters: everything below reads ``args`` while it is imported.
    args = importlib.import_module("comfy.cli_args").args
    if base_directory is not None:
        args.base_directory = str(base_directory)
    args.cpu = args.cpu or not _has_gpu()
    importlib.import_module("utils.extra_config")  # ``nodes`` puts the folder ``comfy`` on the path, and it has a ``utils.py``
    importlib.import_module("nodes")
    _read_extra_paths(checkout)


def _check_names(checkout: Path) -> None:
    for name in ("comfy", "nodes", "folder_paths", "execution"):
        module = sys.modules.get(name)
        if module is not None and not _lies_in(module, checkout):
            where = getattr(module, "__file__", None) or "nowhere"
            raise ValueError(
                f"{name} is already imported from {where}, so the ComfyUI in {checkout} cannot be: start a new process for it"
            )


def _lies_in(module: ModuleType, checkout: Path) -> bool:
    places = [module.__file__] if getattr(module, "__file__", None) else list(getattr(module, "__path__", []))
    return any(Path(place).resolve().is_relative_to(checkout.resolve()) for place in places if place)


def _has_gpu() -> bool:
    torch = importlib.import_module("torch")
    backends = [getattr(torch, name, None) for name in ("cuda", "xpu", "npu", "mlu")]
    mps = getattr(torch.backends, "mps", None)
    return any(backend is not None and backend.is_available() for backend in (*backends, mps))


def _read_extra_paths(checkout: Path) -> None:
    """Where the user keeps models outside the checkout, as ComfyUI's own start does."""
    path = checkout / "extra_model_paths.yaml"
    if path.is_file():
        importlib.import_module("utils.extra_config").load_extra_path_config(str(path))
