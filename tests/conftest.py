"""Import the pack the way ComfyUI does, under the fixed name ``pack``, and put ComfyUI behind it where there is one to be found.

Where it is looked for is ``host/run/find.py``'s rule (``COMFYUI_PATH`` first; set but empty means none). When it is not found, or
this Python cannot import it, the pack runs on its standalone host and the tests marked ``comfy`` skip, saying why.

What tests may use: the fixtures below and ``helpers/``: ``tiny*.py`` (small models), ``shapes.py`` (the checker that runs under
every test). Folders mirror those of the pack. Marks are given here: the file of a ``unit`` test uses modules alone, a ``graph``
test runs on the standalone host, and a test says of itself that it is ``comfy``.
"""

import functools
import importlib.util
import os
import random
import shutil
import sys
import tempfile
import zlib
from pathlib import Path
from types import ModuleType

import pytest

sys.modules.setdefault(
    "conftest", sys.modules[__name__]
)  # a test that says ``from conftest import load`` must not run this file again
ROOT = Path(__file__).resolve().parents[1]
HELPERS = str(ROOT / "tests" / "helpers")
if HELPERS not in sys.path:  # benchmarks import this file without pytest
    sys.path.append(HELPERS)
from javascript import js  # noqa: E402, F401  a fixture; a conftest.py beside it would take this one's name out of ``sys.modules``

SCRATCH: list[Path] = []  # ComfyUI's base directory, when there is a ComfyUI: its checkout stays as it is


def load(name: str, path: Path) -> ModuleType:
    """Run a file as the module ``name``, whatever folder it lies in."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def boot_comfyui() -> tuple[Path | None, str | None]:
    """Make ComfyUI importable. Gives its folder, or None and the reason why not."""
    find = load("longtake_find", ROOT / "host" / "run" / "find.py")
    checkout = find.find(ROOT)
    if checkout is None:
        empty = "COMFYUI_PATH is empty, which asks for none" if "COMFYUI_PATH" in os.environ else "set COMFYUI_PATH to a checkout"
        return None, f"no ComfyUI was found: {empty}"
    lacking = find.missing(checkout)
    if lacking:
        return None, f"found at {checkout}, but this Python lacks {lacking}: run with {find.python_of(checkout)} -m pytest"
    sys.dont_write_bytecode = sys.pycache_prefix is None  # not into somebody's checkout
    base = Path(tempfile.mkdtemp(prefix="longtake-tests-"))
    SCRATCH.append(base)
    for folder in ("custom_nodes", "input", "models", "output", "temp", "user"):
        (base / folder).mkdir()
    load("longtake_boot", ROOT / "host" / "comfyui" / "boot.py").boot(checkout, base_directory=base)
    import nodes

    # Two files claim the name: ComfyUI's, which everything there imports, must have it before our folder can.
    assert Path(nodes.__file__ or "").resolve() == (checkout / "nodes.py").resolve(), nodes.__file__
    return checkout, None


COMFYUI, WHY_NOT = boot_comfyui()
load("pack", ROOT / "__init__.py")


def pytest_addoption(parser):
    parser.addoption(
        "--no-shapes",
        action="store_true",
        help="do not check the shapes that docstrings state, which takes a quarter of the time (for a second run of the same tests)",
    )


def pytest_configure():
    import torch

    torch.set_num_threads(1)  # the tensors are tiny: threads would only wait for each other, and much longer on a busy machine


def pytest_report_header() -> str:
    return f"comfyui: {COMFYUI or WHY_NOT}"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Every test begins at random numbers of its own, those of its name: one that fails once fails again."""
    import torch

    seed = zlib.crc32(item.nodeid.encode())
    random.seed(seed)
    torch.manual_seed(seed)


@functools.cache
def knows_a_host(path: Path) -> bool:
    """Whether a file of tests uses more of the pack than its modules."""
    return any(
        name in path.read_text(encoding="utf-8") for name in ("pack.nodes", "pack.host", "pack import host", "pack import run")
    )


def pytest_collection_modifyitems(items):
    import torch

    for item in items:
        if not item.get_closest_marker("comfy"):
            item.add_marker(pytest.mark.graph if knows_a_host(item.path) else pytest.mark.unit)
        if WHY_NOT and item.get_closest_marker("comfy"):
            item.add_marker(pytest.mark.skip(reason=WHY_NOT))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_unconfigure():
    for folder in SCRATCH:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def documented_shapes_hold(pytestconfig):
    from shapes import ShapeChecker

    if pytestconfig.getoption("no_shapes"):
        yield
        return
    with ShapeChecker(ROOT / "modules"):
        yield


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The ComfyUI checkout behind the pack."""
    if COMFYUI is None:
        pytest.skip(WHY_NOT or "no ComfyUI")
    return COMFYUI


@pytest.fixture
def tiny_video_model():
    """A ``VideoModel`` with random weights: pictures 16x16 in patches of 4, labels, causal rotary time. Calls take milliseconds."""
    from tiny import video_model

    return video_model()


@pytest.fixture
def tiny_video_file(tiny_video_model, tmp_path) -> Path:
    """The same, as a file."""
    path = tmp_path / "tiny.safetensors"
    tiny_video_model.save(path)
    return path
