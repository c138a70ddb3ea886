"""Find ComfyUI on this machine. Only command-line programs and the tests look; inside ComfyUI nothing needs to."""

import importlib.metadata
import os
import re
import sys
from pathlib import Path

MARKS = ("main.py", "folder_paths.py", "comfy/model_patcher.py")
VARIABLE = "COMFYUI_PATH"
PYTHONS = (".venv/bin/python", "venv/bin/python", ".venv/Scripts/python.exe", "venv/Scripts/python.exe")


def is_checkout(folder: Path) -> bool:
    """Whether ``folder`` is a ComfyUI checkout."""
    return all((folder / mark).is_file() for mark in MARKS)


def find(start: Path) -> Path | None:
    """The ComfyUI to use for the pack in folder ``start``, or None.

    In this order: the one that ``COMFYUI_PATH`` names (set but empty: none), the one whose ``custom_nodes`` holds the pack, the
    default workspace of comfy-cli, and ``ComfyUI`` in the home folder.

    Raises:
        ValueError: ``COMFYUI_PATH`` names something else.
    """
    named = os.environ.get(VARIABLE)
    if named is not None:
        return _named(named)
    home = Path.home()
    candidates = [*_holders(start), home / "comfy" / "ComfyUI", home / "ComfyUI"]
    return next((folder for folder in candidates if is_checkout(folder)), None)


def _named(name: str) -> Path | None:
    if not name.strip():
        return None
    folder = Path(name).expanduser().absolute()
    if not is_checkout(folder):
        marks = ", ".join(MARKS)
        raise ValueError(
            f"{VARIABLE} is {name!r}, which is no ComfyUI checkout: it must hold {marks} (or be empty for no ComfyUI)"
        )
    return folder


def _holders(start: Path) -> list[Path]:
    """The folders that ``start`` may be a custom node of; as written first, then with links followed."""
    paths = (start.absolute(), start.resolve())
    return [path.parent.parent for path in paths if path.parent.name == "custom_nodes"]


def python_of(checkout: Path) -> Path:
    """The interpreter of a checkout: its own virtual environment's, else this one."""
    return next((checkout / name for name in PYTHONS if (checkout / name).is_file()), Path(sys.executable))


def missing(checkout: Path) -> str | None:
    """The first package that this Python lacks to import a checkout, or None.

    ComfyUI's ``requirements.txt`` is what is asked for, without its web pages (``comfyui-...``) and its optional part.
    """
    requirements = checkout / "requirements.txt"
    text = requirements.read_text(encoding="utf-8") if requirements.is_file() else "torch"
    for line in text.split("#non essential", 1)[0].splitlines():
        match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line.strip())
        if match is None or ";" in line or match[0].lower().startswith("comfyui-"):
            continue
        try:
            importlib.metadata.distribution(match[0])
        except importlib.metadata.PackageNotFoundError:
            return match[0]
    return None
