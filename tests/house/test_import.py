"""Being loaded costs ComfyUI's users next to nothing, and says nothing."""

import ast
import asyncio
import importlib.util
import logging
import os
import subprocess
import sys
from pathlib import Path

import pack.nodes
import pytest
from conftest import COMFYUI

ROOT = Path(pack.__file__ or "").parent
LIMIT = 1.5  # times as long as Python counts to three million at that moment, which a busy machine slows as much


def in_a_new_process(code, **environment):
    """Run code in a fresh interpreter, away from the pack's folder, and give what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT.parent,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


LOAD = f"""
import importlib.util, sys
def load(name):
    spec = importlib.util.spec_from_file_location(name, {str(ROOT / "__init__.py")!r})
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
"""


COUNTING = (
    "taken = time.process_time() - before\n"
    "before, count = time.process_time(), 0\n"
    "for number in range(3_000_000): count += number\n"
    "print('took', taken / (time.process_time() - before))\n"
)


def least(code, **environment):
    """The shortest of three runs of code that ends in ``COUNTING``, in countings; and what was said on the error stream."""
    runs = [in_a_new_process(code, **environment) for _ in range(3)]
    return min(float(out.rsplit("took", 1)[1]) for out, _ in runs), "".join(err for _, err in runs)


def test_the_entry_imports_nothing():
    """Not even torch: ComfyUI, its web page's scanners and pytest all import the folder."""
    out, _ = in_a_new_process(LOAD + "before = set(sys.modules)\nload('a')\nprint(*sorted(set(sys.modules) - before))")
    assert out.split() == ["a"]


def test_the_folder_may_have_any_name(tmp_path):
    for name in ("ComfyUI-LongTake", "longtake.v1-beta", "0 long take"):
        (tmp_path / name).symlink_to(ROOT)
        path = str(tmp_path / name)
        code = LOAD.replace(str(ROOT), path) + f"import asyncio\nmodule = load({path.replace('.', '_x_')!r})\n"
        code += "print(len(asyncio.run(asyncio.run(module.comfy_entrypoint()).get_node_list())))"
        out, _ = in_a_new_process(code, COMFYUI_PATH="")
        assert int(out) == len(pack.nodes.node_classes())


@pytest.mark.slow
def test_loading_the_nodes_is_quick_and_silent():
    """Beyond torch and the packages every ComfyUI has imported already; processor time, best of three."""
    code = (
        LOAD
        + (
            "import asyncio, logging, time\n"
            "logging.basicConfig(level=logging.DEBUG)\n"
            "import torch, numpy, PIL.Image, einops, safetensors.torch, PIL.ImageDraw\n"
            "sys.dont_write_bytecode = False\n"
            "before = time.process_time()\n"
            "nodes = asyncio.run(asyncio.run(load('pack').comfy_entrypoint()).get_node_list())\n"
            "[node.GET_SCHEMA() for node in nodes]\n"
        )
        + COUNTING
    )
    taken, said = least(code, COMFYUI_PATH="")
    assert "longtake" not in said.lower() and taken < LIMIT


@pytest.mark.comfy
def test_comfyui_loads_it_silently(caplog, monkeypatch):
    import nodes

    monkeypatch.setattr(nodes, "NODE_CLASS_MAPPINGS", dict(nodes.NODE_CLASS_MAPPINGS))
    monkeypatch.setattr(nodes, "EXTENSION_WEB_DIRS", {})
    with caplog.at_level(logging.INFO):
        assert asyncio.run(nodes.load_custom_node(str(ROOT)))
    said = [record.getMessage() for record in caplog.records if record.name == "longtake" or record.levelno > logging.INFO]
    assert said == []
    ours = {name for name in nodes.NODE_CLASS_MAPPINGS if name.startswith("LongTake")}
    assert ours == {node.GET_SCHEMA().node_id for node in pack.nodes.node_classes()}
    assert list(nodes.EXTENSION_WEB_DIRS.values()) == [str(ROOT / "web")]


@pytest.mark.comfy
@pytest.mark.slow
def test_comfyui_loads_it_quickly(comfyui, tmp_path):
    """In a process where ComfyUI is up, as at its start: processor time, best of three."""
    boot = ROOT / "host" / "comfyui" / "boot.py"
    code = (
        "import sys, time, asyncio, importlib.util\n"
        "from pathlib import Path\n"
        f"spec = importlib.util.spec_from_file_location('boot', {str(boot)!r})\n"
        "boot = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(boot)\n"
        f"boot.boot(Path({str(comfyui)!r}), base_directory=Path({str(tmp_path)!r}))\n"
        "import nodes\n"
        "if importlib.util.find_spec('comfy_config'):\n"
        "    import comfy_config.config_parser\n"  # ComfyUI's own reader of pyproject.toml, the same for every pack
        "sys.dont_write_bytecode = False\n"
        "before = time.process_time()\n"
        f"assert asyncio.run(nodes.load_custom_node({str(ROOT)!r}))\n"
    ) + COUNTING
    assert least(code, PYTHONDONTWRITEBYTECODE="1")[0] < LIMIT


def names_for_the_type_checker(path):
    """``(module, name)`` of every import that only the type checker makes; a module of ours that is gone it takes for anything."""
    package = ["pack", *path.relative_to(ROOT).parts[:-1]]
    for block in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
            for node in ast.walk(block):
                if isinstance(node, ast.ImportFrom) and node.level:
                    above = package[: len(package) - node.level + 1]
                    module = ".".join([*above, *([node.module] if node.module else [])])
                    yield from ((module, item.name) for item in node.names)


def test_what_the_type_checker_imports_is_there():
    """ComfyUI is not looked for by the type checker, so it keeps silent about imports that lead nowhere."""
    files = [path for place in ("modules", "nodes", "host") for path in sorted((ROOT / place).rglob("*.py"))]
    found = {(path, *names) for path in (ROOT / "__init__.py", *files) for names in names_for_the_type_checker(path)}
    assert len(found) > 20
    gone = []
    for path, module, name in sorted(found):
        if "comfyui" in (name, *module.split(".")) and COMFYUI is None:
            continue
        if not hasattr(importlib.import_module(module), name) and importlib.util.find_spec(f"{module}.{name}") is None:
            gone.append(f"{path.relative_to(ROOT)}: {module} has no {name}")
    assert gone == []
