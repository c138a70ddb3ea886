"""The port: both hosts have its names and signatures, the type checker holds them to it, and what one cannot do it says."""

import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pack
import pytest
from pack import host
from pack.host import port, standalone
from pack.host.standalone.elsewhere import SENTENCES, refusal

ROOT = Path(pack.__file__ or "").parent
GROUPS = [port.Run, port.Models, port.Training, port.Sampling, port.ImageModels]
FUNCTIONS = sorted(name for name in port.NAMES if inspect.isfunction(getattr(port.Host, name, None)))


def shape(function):
    """The parameters of a function: name, kind, and whether one may leave them out."""
    parameters = inspect.signature(function).parameters.values()
    return [(item.name, item.kind, item.default is not item.empty) for item in parameters if item.name != "self"]


def defaults(function):
    """What is taken for parameters that are left out, where the port says it."""
    parameters = inspect.signature(function).parameters.values()
    return {item.name: item.default for item in parameters if item.default not in (item.empty, ...)}


def test_every_name_of_the_port_is_in_one_group():
    names = [name for group in (*GROUPS, port.Declarations) for name in vars(group) if not name.startswith("_")]
    assert len(names) == len(set(names))
    assert set(names) | port.DECLARED_WITH == port.NAMES


def test_the_host_here_has_every_name():
    assert [name for name in port.NAMES if not hasattr(host, name)] == []
    assert all(getattr(host, name) is getattr(host.chosen(), name) for name in port.NAMES - set(SENTENCES))


def test_other_names_do_not_choose_a_host():
    """``from .host import run`` asks for a name as well: before ComfyUI is booted."""
    code = (
        "import importlib, sys\n"
        f"sys.path.insert(0, {str(ROOT.parent)!r})\n"
        f"host = importlib.import_module({ROOT.name + '.host'!r})\n"
        f"from_there = importlib.import_module({ROOT.name + '.host.run.find'!r})\n"
        "assert not hasattr(host, 'finds') and host.chosen.cache_info().currsize == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_host_here_takes_what_the_port_says(name):
    if name in SENTENCES and host.name == "standalone":
        pytest.skip("refused here, whatever it is given")
    stated, there = getattr(port.Host, name), getattr(host, name)
    assert shape(there) == shape(stated)
    assert defaults(stated).items() <= defaults(there).items()
    assert inspect.getdoc(stated), "what an editor shows"


def test_what_the_standalone_host_cannot_do_it_says():
    only_there = {name for name in vars(port.ImageModels) if not name.startswith("_")}
    assert only_there == set(SENTENCES)
    for name, sentence in SENTENCES.items():
        with pytest.raises(ValueError, match=re.escape(sentence)):
            getattr(standalone, name)("whatever", it="is")
        assert re.search(r"use it|use \w+|connect|choose", sentence), "what to do instead"
    with pytest.raises(KeyError):
        refusal("sample")()
    with pytest.raises(AttributeError, match="no attribute 'apply_cameras'"):
        _ = standalone.apply_cameras


# (file, what stands there, what is put there, what the type checker says)
BROKEN = {
    "a parameter renamed on ComfyUI": (
        "host/comfyui/control/keyed_control.py",
        r"(?<=    )control: Any,",
        "control_net: Any,",
        'Parameter name mismatch: "control" versus "control_net"',
    ),
    "a parameter renamed standalone": (
        "host/standalone/models.py",
        r"(?<=def level_sigmas\(model: Model, )steps",
        "step",
        'Parameter name mismatch: "steps" versus "step"',
    ),
    "a parameter renamed in the port": (
        "host/port/image_models.py",
        r"path: CameraPath",
        "camera: CameraPath",
        'Parameter name mismatch: "camera" versus "path"',
    ),
    "a parameter more on ComfyUI": (
        "host/comfyui/attach/context.py",
        r"mode: str\)",
        "mode: str, hurry: bool)",
        'Extra parameter "hurry"',
    ),
    "a name missing on ComfyUI": (
        "host/comfyui/port.py",
        r"from \.attach\.camera import apply_camera\n",
        "",
        '"apply_camera" is not present',
    ),
    "a name missing standalone": (
        "host/standalone/__init__.py",
        r"from \.sampling import identity, sample\n",
        "from .sampling import identity\n",
        '"sample" is not present',
    ),
    "a node that gives too much": (
        "nodes/motion/camera.py",
        r"host\.apply_camera\(model, poses, strength\)",
        "host.apply_camera(model, poses, strength, 3)",
        "Expected 3 positional arguments",
    ),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The code, to be broken."""
    if importlib.util.find_spec("basedpyright") is None:
        pytest.skip("the type checker is not installed: python -m pip install basedpyright")
    folder = tmp_path_factory.mktemp("copy")
    for name in ("modules", "nodes", "host"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def complaints(folder, file):
    """What the type checker says of the port and one file."""
    command = [sys.executable, "-m", "basedpyright", "--level", "error", "host/port/__init__.py", file]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


@pytest.mark.slow
def test_the_type_checker_is_content(copy):
    assert complaints(copy, "nodes/motion/camera.py").startswith("0 errors")


@pytest.mark.slow
@pytest.mark.parametrize("case", BROKEN)
def test_the_type_checker_sees(case, copy):
    file, there, put, said = BROKEN[case]
    path = copy / file
    before = path.read_text(encoding="utf-8")
    broken, times = re.subn(there, put, before, count=1)
    assert times, "what is to be broken is not there"
    path.write_text(broken, encoding="utf-8")
    try:
        assert said in complaints(copy, file)
    finally:
        path.write_text(before, encoding="utf-8")
