"""The command line: what it reads, where it runs, what it says when something is wrong."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

import pytest
from pack import run
from pack.host import errors, find, remote
from pack.host.standalone import core_nodes
from PIL import Image

ROOT = Path(run.__file__).parent
NODES = {
    "1": {"class_type": "LoadImage", "_meta": {"title": "Cat"}, "inputs": {"image": "cat.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "b"}},
}


def written(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


# Which workflow


def test_shipped_workflows_are_known_by_name():
    assert run.DEFAULT in run.names()
    assert run.read_workflow(run.DEFAULT) == run.read_workflow(str(run.API / "long_take.json"))


def test_notes_are_no_nodes(tmp_path):
    assert run.read_workflow(written(tmp_path / "w.json", NODES | {"_note": "read me"})) == NODES


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no workflow .*: give a file in API format, or one of .*long_take"),
        ("{", "no JSON"),
        ("[]", "holds no workflow"),
        ({"nodes": [], "links": []}, "format of ComfyUI's editor.*export it"),
    ],
)
def test_what_is_no_workflow_is_refused(tmp_path, content, words):
    name = str(tmp_path / "w.json") if content is None else written(tmp_path / "w.json", content)
    with pytest.raises(ValueError, match=words):
        run.read_workflow(name)


def test_an_editor_workflow_names_the_file_to_use(tmp_path):
    name = written(tmp_path / "long_take.json", {"nodes": [], "links": []})
    with pytest.raises(ValueError, match=r"run workflows.api.long_take\.json instead"):
        run.read_workflow(name)


# Which settings


def settings(*given):
    return run.changed(NODES, given, lambda name: ["upload"] if name == "LoadImage" else [])


def test_settings_find_nodes_by_id_class_and_title():
    changed = settings("2.filename_prefix=x.y=z", "LoadImage.image=dog.png")
    assert changed["2"]["inputs"]["filename_prefix"] == "x.y=z"
    assert changed["1"]["inputs"]["image"] == "dog.png"
    assert settings("Cat.image=7")["1"]["inputs"]["image"] == "7"
    assert settings("Cat.upload=true")["1"]["inputs"]["upload"] is True
    assert NODES["1"]["inputs"] == {"image": "cat.png"}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("2.filename_prefix", "NODE.INPUT=VALUE"),
        ("frames=3", "NODE.INPUT=VALUE"),
        ("9.image=x", "no node is called '9'.*1 \\(LoadImage\\)"),
        ("SaveImage.images=x", "2 nodes.*'SaveImage'.*ids 2, 3"),
        ("2.filename=x", "SaveImage has no input 'filename', it has images, filename_prefix"),
    ],
)
def test_settings_that_fit_nothing_are_refused(setting, words):
    with pytest.raises(ValueError, match=words):
        settings(setting)


@pytest.mark.parametrize(
    ("text", "old", "value"),
    [
        ("3", 1, 3),
        ("0.5", 1, 0.5),
        ("3", "a", "3"),
        ("true", False, True),
        ("red", None, "red"),
        ('["4", 0]', ["1", 0], ["4", 0]),
    ],
)
def test_values_take_the_kind_that_was_there(text, old, value):
    assert run.value_of(text, old) == value


# Which ComfyUI


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


# A run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "input").mkdir()
    Image.new("RGB", (6, 4), "red").save(tmp_path / "input" / "cat.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_was_saved_is_given_back(folder):
    items = run.run_standalone(NODES, ["2.filename_prefix=c"], folder / "out")
    assert [item["path"].name for item in items] == ["c_00001_.png", "b_00001_.png"]
    assert all(item["path"].is_file() for item in items)


def test_without_pyav_only_the_video_is_left_out(folder, monkeypatch, capsys):
    monkeypatch.setattr(core_nodes, "VIDEO_NODES", core_nodes.VIDEO_NODES)
    monkeypatch.setattr(core_nodes, "core_nodes", lambda: {node.__name__: node for node in core_nodes.NODES})
    film = {"class_type": "CreateVideo", "inputs": {"images": ["1", 0], "fps": 8.0}}
    saved = {"class_type": "SaveVideo", "inputs": {"video": ["4", 0], "filename_prefix": "v", "format": "auto", "codec": "auto"}}
    items = run.run_standalone(NODES | {"4": film, "5": saved}, [], folder / "out")
    assert len(items) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "4 (CreateVideo), 5 (SaveVideo)" in said
    assert "pip install av" in said


def command(*arguments, folder, **more):
    environment = os.environ | {"COMFYUI_PATH": "", "OMP_NUM_THREADS": "1"} | more
    line = [sys.executable, str(ROOT / "run.py"), *arguments]
    return subprocess.Popen(line, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def take(model, frames):
    """A workflow of this pack's nodes with the tiny model."""
    return {
        "_note": "for people",
        "1": {"class_type": "LongTakeLoadVideoModel", "inputs": {"model_name": model}},
        "2": {"class_type": "LongTakeLabelPrompt", "inputs": {"model": ["1", 0], "prompt": "red disc"}},
        "3": {
            "class_type": "LongTakeRollout",
            "inputs": {
                "model": ["1", 0],
                "positive": ["2", 0],
                "cfg": 1.0,
                "seed": 5,
                "frames": frames,
                "schedule": "pyramid",
                "steps": 4,
                "lag": 1.0,
                "block": 1,
                "window": 0,
                "eta": 0.0,
                "context_noise": 0.1,
                "context_noise_kind": "noise",
            },
        },
        "4": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["1", 1]}},
        "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "take"}},
    }


def test_a_take_from_the_command_line(folder, tiny_video_file):
    name = written(folder / "w.json", take(tiny_video_file.name, 6))
    process = command(
        name,
        "--set",
        "SaveImage.filename_prefix=mine",
        "--output",
        "res",
        folder=folder,
        LONGTAKE_MODELS=str(tiny_video_file.parent),
    )
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    lines = out.splitlines()
    assert [Path(line).relative_to(folder).as_posix() for line in lines[:6]] == [f"res/mine_0000{i}_.png" for i in range(1, 7)]
    assert lines[6].startswith("seed 5, 6 frames")
    assert len(lines) == 7
    assert err.splitlines() == ["running standalone"]


def test_errors_are_sentences(folder):
    broken = NODES | {"1": {"class_type": "LongTakeContactSheet", "inputs": {"columns": 0, "count": 4}}}
    broken["2"] = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}}
    process = command(written(folder / "w.json", broken), folder=folder)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (1, "")
    assert "Traceback" not in err
    assert "node 1 (LongTakeContactSheet): input 'columns' is 0: the least is 1" in err
    assert not (folder / "output").exists()


@pytest.mark.skipif(os.name == "nt", reason="signals of a console")
def test_ctrl_c_leaves_nothing_half_written(folder, tiny_video_file):
    name = written(folder / "w.json", take(tiny_video_file.name, 50000))
    process = command(name, folder=folder, LONGTAKE_MODELS=str(tiny_video_file.parent))
    assert process.stderr.readline() == "running standalone\n"
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert len(err.splitlines()) == 1
    assert "cancelled" in err
    assert not list(folder.glob("output/*"))


# A server


class Pretended(http.server.BaseHTTPRequestHandler):
    """As much of ComfyUI's server as we talk to."""

    def log_message(self, *args):
        pass

    def answer(self, value, code=200):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        if self.path == "/prompt" and self.server.refuses:
            reason = {"message": "Value too small", "details": "frames", "extra_info": {"input_name": "frames"}}
            problems = {"3": {"class_type": "LongTakeRollout", "errors": [reason]}}
            return self.answer({"error": {"message": "failed", "details": ""}, "node_errors": problems}, 400)
        return self.answer({"prompt_id": "p1", "node_errors": {}})

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/history/p1":
            self.server.polls += 1
            return self.answer({} if self.server.polls < 2 else {"p1": self.server.entry})
        if url.path == "/queue":
            return self.answer({"queue_running": [[0, "p1"]], "queue_pending": []})
        return self.answer(("file " + dict(urllib.parse.parse_qsl(url.query))["filename"]).encode())


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pretended) as server:
        server.asked, server.polls, server.refuses = [], 0, False
        image = {"filename": "a_00001_.png", "subfolder": "deep", "type": "output"}
        server.entry = {"outputs": {"2": {"images": [image]}, "3": {"text": ["seed 5"]}}, "status": {"messages": []}}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.url = f"http://127.0.0.1:{server.server_port}/"
        yield server
        server.shutdown()


def test_a_server_runs_it_and_the_files_come_here(server, tmp_path):
    for name in ("a_00001_.png", "a_00001_(2).png"):
        server.polls = 0
        file, text = remote.Server(server.url).run_workflow({"_note": "x", **NODES}, tmp_path)
        assert file["path"] == tmp_path / "deep" / name
        assert file["path"].read_bytes() == b"file a_00001_.png"
        assert text == {"node": "3", "class_type": "SaveImage", "kind": "text", "text": "seed 5"}
    assert server.asked[0] == ("/prompt", {"prompt": NODES})
    assert len(list((tmp_path / "deep").iterdir())) == 2


def test_a_server_that_refuses_says_why(server, tmp_path):
    server.refuses = True
    with pytest.raises(errors.WorkflowError, match=r"node 3 \(LongTakeRollout\), input frames: Value too small"):
        remote.Server(server.url).run_workflow(NODES, tmp_path)


def test_a_failure_on_the_server_names_the_node(server, tmp_path):
    data = {"node_id": "3", "node_type": "SaveImage", "exception_message": "disk full\n", "exception_type": "OSError"}
    server.entry = {"outputs": {}, "status": {"messages": [["execution_error", data]]}}
    with pytest.raises(errors.NodeError, match=r"node 3 \(SaveImage\) failed: disk full"):
        remote.Server(server.url).run_workflow(NODES, tmp_path)


def test_ctrl_c_stops_our_job_on_the_server(server, tmp_path, monkeypatch):
    def stop(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(remote.time, "sleep", stop)
    with pytest.raises(KeyboardInterrupt):
        remote.Server(server.url).run_workflow(NODES, tmp_path)
    assert server.asked[-1] == ("/interrupt", {"prompt_id": "p1"})


def test_a_server_cannot_write_elsewhere(server, tmp_path):
    server.entry["outputs"]["2"]["images"][0]["subfolder"] = "../.."
    with pytest.raises(ValueError, match="outside"):
        remote.Server(server.url).run_workflow(NODES, tmp_path / "a")


@pytest.mark.parametrize("url", ["localhost:8188", "ftp://x", "http://127.0.0.1:9"])
def test_no_server(url, tmp_path):
    with pytest.raises(ValueError, match="server"):
        remote.Server(url).run_workflow(NODES, tmp_path)


# Drawings for the editor


@pytest.fixture(scope="module")
def drawing():
    from conftest import load

    return load("longtake_drawing", ROOT / "workflows" / "api_to_ui.py")


def io_schemas(drawing):
    nodes = {node.__name__: node.GET_SCHEMA() for node in (*core_nodes.NODES, *core_nodes.VIDEO_NODES)}
    return nodes | {schema.node_id: schema for schema in drawing.others(core_nodes.io)}


def read_back(drawn, known):
    """The API format of a drawing, as the editor would export it."""
    links = {link[0]: [str(link[1]), link[2]] for link in drawn["links"]}
    workflow = {}
    for node in drawn["nodes"]:
        if node["type"] == "Note":
            continue
        values = iter(node["widgets_values"])
        linked = {socket["name"]: links[socket["link"]] for socket in node["inputs"] if socket["link"] is not None}
        inputs = {}
        for item in known[node["type"]].inputs:
            if item.get_io_type() in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"):
                inputs[item.id] = next(values)
                if item.id == "seed" or getattr(item, "upload", None):
                    assert next(values) in ("fixed", "image")
        assert next(values, None) is None
        workflow[str(node["id"])] = {"class_type": node["type"], "inputs": inputs | linked}
    return workflow


def test_drawings_say_the_same(drawing):
    workflow = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "cat.png"}},
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 2}},
        "3": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
        "4": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["3", 1]}},
        "5": {
            "class_type": "KSampler",
            "inputs": {"model": ["3", 0], "seed": 4, "steps": 2, "cfg": 1.5, "sampler_name": "euler", "scheduler": "normal"}
            | {"positive": ["4", 0], "negative": ["4", 0], "latent_image": ["2", 0], "denoise": 1.0},
        },
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["3", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "x"}},
    }
    known = io_schemas(drawing)
    noted = workflow | {"3": workflow["3"] | {"_meta": {"note": "read me"}}}
    drawn = drawing.Drawing(noted, known).json()
    assert read_back(drawn, known) == workflow
    assert [node["widgets_values"] for node in drawn["nodes"] if node["type"] == "Note"] == [["read me"]]


def test_drawn_nodes_do_not_overlap(drawing):
    known = io_schemas(drawing)
    previews = {str(i): {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}} for i in range(2, 6)}
    drawn = drawing.Drawing({"1": NODES["1"], **previews}, known).json()["nodes"]
    boxes = [(*node["pos"], node["pos"][0] + node["size"][0], node["pos"][1] + node["size"][1]) for node in drawn]
    for i, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[i + 1 :]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
    assert all(box[0] > boxes[0][2] for box in boxes[1:])


def test_drawings_link_both_ways(drawing):
    drawn = drawing.Drawing(NODES, io_schemas(drawing)).json()
    nodes = {node["id"]: node for node in drawn["nodes"]}
    for number, source, output, target, slot, kind in drawn["links"]:
        assert number in nodes[source]["outputs"][output]["links"]
        assert nodes[target]["inputs"][slot]["link"] == number
        assert nodes[source]["outputs"][output]["type"] == kind


def test_what_cannot_be_drawn_is_named(drawing):
    with pytest.raises(ValueError, match=r"node 1 \(Strange\)"):
        drawing.Drawing({"1": {"class_type": "Strange", "inputs": {}}}, {})
    with pytest.raises(ValueError, match="node 2 is linked to output 5 of node 1"):
        drawing.Drawing({"1": NODES["1"], "2": {**NODES["2"], "inputs": {"images": ["1", 5]}}}, io_schemas(drawing)).json()


def test_shipped_drawings_are_up_to_date():
    process = subprocess.run(
        [sys.executable, str(ROOT / "workflows" / "api_to_ui.py"), "--check"],
        env=os.environ | {"COMFYUI_PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
