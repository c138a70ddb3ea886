"""Which ComfyUI is found, and which Python is its own."""

import os
import sys
from pathlib import Path

import pytest
from pack import run
from pack.host.run import find

ROOT = Path(run.__file__).parent


def checkout(folder, requirements="torch\n"):
    for mark in find.MARKS:
        (folder / mark).parent.mkdir(parents=True, exist_ok=True)
        (folder / mark).touch()
    (folder / "requirements.txt").write_text(requirements)
    return folder


def test_the_variable_decides(tmp_path, monkeypatch):
    monkeypatch.setenv(find.VARIABLE, str(checkout(tmp_path / "c")))
    assert find.find(ROOT) == tmp_path / "c"
    monkeypatch.setenv(find.VARIABLE, "")
    assert find.find(ROOT) is None
    monkeypatch.setenv(find.VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match=r"COMFYUI_PATH is .* no ComfyUI checkout"):
        find.find(ROOT)


def test_the_comfyui_around_the_pack_comes_before_those_at_home(tmp_path, monkeypatch):
    monkeypatch.delenv(find.VARIABLE, raising=False)
    monkeypatch.setattr(find.Path, "home", lambda: tmp_path)
    pack = tmp_path / "elsewhere" / "pack"
    pack.mkdir(parents=True)
    assert find.find(pack) is None
    assert find.find(pack) is None
    checkout(tmp_path / "ComfyUI")
    assert find.find(pack) == tmp_path / "ComfyUI"
    checkout(tmp_path / "comfy" / "ComfyUI")
    assert find.find(pack) == tmp_path / "comfy" / "ComfyUI"
    around = checkout(tmp_path / "around")
    (around / "custom_nodes").mkdir()
    (around / "custom_nodes" / "pack").symlink_to(pack, target_is_directory=True)
    assert find.find(around / "custom_nodes" / "pack") == around


def test_what_a_checkout_needs(tmp_path):
    folder = checkout(tmp_path, "comfyui-frontend-package==1\ntorch\nsome-odd>=1 ; sys_platform == 'x'\n# words\n")
    assert find.missing(folder) is None
    (folder / "requirements.txt").write_text("torch\nno-such-thing>=1\n")
    assert find.missing(folder) == "no-such-thing"
    (folder / "requirements.txt").write_text("torch\n#non essential dependencies:\nno-such-thing\n")
    assert find.missing(folder) is None


def test_a_checkouts_own_python(tmp_path):
    assert find.python_of(tmp_path) == Path(sys.executable)
    own = tmp_path / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.touch()
    assert find.python_of(tmp_path) == own


class Become(Exception):
    """What stands for another program in our place."""


@pytest.fixture
def lacking(tmp_path, monkeypatch):
    """A ComfyUI that needs what this Python does not have, with a Python of its own."""

    def become(python, arguments):
        raise Become(python, *arguments)

    folder = checkout(tmp_path / "c", "no-such-thing\n")
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").touch()
    monkeypatch.setenv(find.VARIABLE, str(folder))
    monkeypatch.setattr(run.os, "execv", become)
    monkeypatch.setattr(sys, "argv", ["run.py", "long_take"])
    monkeypatch.delenv(run.FIRST_PYTHON, raising=False)
    yield folder
    os.environ.pop(run.FIRST_PYTHON, None)


def test_comfyuis_own_python_takes_over(lacking):
    own = str(lacking / ".venv" / "bin" / "python")
    with pytest.raises(Become) as caught:
        run.comfyui_for("auto")
    assert caught.value.args == (own, own, str(ROOT / "run.py"), "long_take")
    assert os.environ[run.FIRST_PYTHON] == sys.executable


def test_a_comfyui_that_cannot_be_imported_leaves_the_first_python_to_run_standalone(lacking, monkeypatch, capsys):
    monkeypatch.setenv(run.FIRST_PYTHON, "/first/python")
    with pytest.raises(Become) as caught:
        run.comfyui_for("auto")
    assert caught.value.args[0] == "/first/python"
    assert caught.value.args[-2:] == ("--host", "standalone")
    assert "no-such-thing" in capsys.readouterr().err


def test_without_another_python_auto_is_standalone(lacking, capsys):
    (lacking / ".venv" / "bin" / "python").unlink()
    assert run.comfyui_for("auto") is None
    assert "no-such-thing" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no-such-thing"):
        run.comfyui_for("comfyui")


def test_no_comfyui(monkeypatch):
    monkeypatch.setenv(find.VARIABLE, "")
    assert run.comfyui_for("auto") is None
    assert run.comfyui_for("standalone") is None
    with pytest.raises(ValueError, match="no ComfyUI was found"):
        run.comfyui_for("comfyui")
