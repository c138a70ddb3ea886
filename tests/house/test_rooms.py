"""Where things are: imports run downwards from room to room, and no file lies outside a room."""

import ast
import re
from pathlib import Path

import pack
import pytest

ROOT = Path(pack.__file__ or "").parent
# the ground floor last: a file may import from its own room and from those after it
ROOMS = {
    "modules": [
        "train",
        "draw",
        "measure",
        "checkpoints",
        "control",
        "data",
        "disk",
        "guidance",
        "sampling",
        "temporal",
        "nets",
        "noise",
        "fields",
    ],
    "host/comfyui": [
        "executor",
        "boot",
        "port",
        "interpolation",
        "training",
        "training_checks",  # which MODELs it is for
        "training_encoders",  # VAE, CLIP and CLIP vision for it
        "sampling",  # our samplers and guides in ComfyUI's
        "control",  # what a conditioning carries
        "attach",  # what a MODEL carries
        "parts",  # a call about some frames of a clip
        "memory",
        "attached",
        "layout",
        "options",
        "progress",
        "folders",
    ],
}


def running_up(house: Path, rooms: list[str]) -> list[str]:
    """Every import of a file in ``house`` that leads to a room above its own, as ``file:line imports what``; a file may be a room."""
    found = []
    for path in sorted(house.glob("**/*.py")):
        place = path.relative_to(house).with_suffix("").parts
        if place[0] not in rooms:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or node.level != len(place):
                continue  # of its own room, or of another house
            for other in [node.module.partition(".")[0]] if node.module else [item.name for item in node.names]:
                if other in rooms and rooms.index(other) < rooms.index(place[0]):
                    found.append(f"{'/'.join((house.name, *place))}.py:{node.lineno} imports {other}")
    return found


@pytest.mark.parametrize("house", ROOMS)
def test_imports_run_downwards(house):
    assert running_up(ROOT / house, ROOMS[house]) == []


@pytest.mark.parametrize("house", ROOMS)
def test_every_file_is_in_a_room(house):
    rooms = {path.parent.name for path in (ROOT / house).glob("*/__init__.py")}
    files = {path.stem for path in (ROOT / house).glob("*.py")} - {"__init__"}
    assert rooms | files == set(ROOMS[house])
    assert house != "modules" or not files


def counting_rows(text: str) -> list[str]:
    """Where a file asks ComfyUI how a batch of the model divides, or divides it itself."""
    return re.findall(r"(?:get\(|\[)\"cond_or_uncond\"|(?:len\(x(?:_noisy)?\)|x(?:_noisy)?\.shape\[0\]) //", text)


def test_one_file_knows_how_a_batch_divides():
    """``call_info.CallInfo``: what else counted rows for itself took tiles and variants for frames."""
    house = ROOT / "host" / "comfyui"
    found = [path for path in house.glob("**/*.py") if counting_rows(path.read_text(encoding="utf-8"))]
    assert found == [house / "attach" / "call_info.py"]


def leading_nowhere(root: Path) -> list[str]:
    """Every relative import of the pack that no file answers, also where the type checker alone imports: it only warns of these."""
    found = []
    for path in [file for house in ("modules", "nodes", "host") for file in sorted((root / house).rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not node.level or not node.module:
                continue
            target = path.parents[node.level - 1].joinpath(*node.module.split("."))
            if not (target.is_dir() or target.with_suffix(".py").is_file()):
                found.append(f"{path.relative_to(root).as_posix()}:{node.lineno} imports {'.' * node.level}{node.module}")
    return found


def test_every_import_leads_somewhere(tmp_path):
    assert leading_nowhere(ROOT) == []
    (tmp_path / "nodes").mkdir()
    (tmp_path / "nodes" / "file.py").write_text("from ..modules.gone import thing\n", encoding="utf-8")
    assert leading_nowhere(tmp_path) == ["nodes/file.py:1 imports ..modules.gone"]


def named_places(text: str) -> list[tuple[str, str]]:
    """``(file or folder, name in it)`` of everything in backticks that looks like a path; no name for a path alone."""
    return re.findall(r"`((?:modules|nodes|host|web|tests)/[\w/.]*?)(?::(\w+))?`", text)


def defined_in(path: Path) -> set[str]:
    """What a file defines or imports at its top."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {item.id for target in targets for item in ast.walk(target) if isinstance(item, ast.Name)}
    return names


def test_what_the_readme_names_is_there():
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Where things are")[1]
    places = named_places(section)
    assert len(places) > 20
    for path, name in places:
        assert (ROOT / path).exists(), path
        assert not name or name in defined_in(ROOT / path), f"{path} has no {name}"
    assert named_places("`modules/no/file.py:thing`") == [("modules/no/file.py", "thing")]


def test_an_import_upwards_is_named(tmp_path):
    for room, line in {"low": "from ..high import thing\n", "high": "from ..low.below import other\n"}.items():
        (tmp_path / room).mkdir()
        (tmp_path / room / "file.py").write_text(line, encoding="utf-8")
    assert running_up(tmp_path, ["high", "low"]) == [f"{tmp_path.name}/low/file.py:1 imports high"]


MOST = 300  # lines: what is longer is about two things


def too_long(root: Path) -> dict[str, int]:
    """Files of ``modules/``, ``nodes/`` and ``host/`` with too many lines."""
    files = (path for house in ("modules", "nodes", "host") for path in sorted((root / house).glob("**/*.py")))
    lengths = {str(path.relative_to(root)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    return {name: length for name, length in lengths.items() if length > MOST}


def test_no_file_is_too_long():
    assert too_long(ROOT) == {}


def test_a_file_that_is_too_long_is_named(tmp_path):
    (tmp_path / "nodes").mkdir()
    (tmp_path / "nodes" / "long.py").write_text("pass\n" * (MOST + 1), encoding="utf-8")
    assert too_long(tmp_path) == {"nodes/long.py": MOST + 1}
