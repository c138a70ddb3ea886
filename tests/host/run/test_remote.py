"""Workflows on a server: what is sent, what comes back, what is said when something is wrong."""

import pytest
from pack.host.run import errors, remote
from pack.host.run.facts import NodeFacts
from pretended_server import frame, progress, serving
from small_graphs import NODES


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    with serving() as server:
        yield server


def test_a_server_runs_it_and_the_files_come_here(server, tmp_path):
    for name in ("a_00001_.png", "a_00001_(2).png"):
        server.polls = 0
        file, preview, text = remote.Server(server.url + "/").run_workflow({"_note": "x", **NODES}, tmp_path)
        assert file["path"] == tmp_path / "deep" / name
        assert file["path"].read_bytes() == b"file a_00001_.png"
        assert preview == {"node": "2", "class_type": "SaveImage", "kind": "preview"}
        assert text == {"node": "3", "class_type": "SaveImage", "kind": "text", "text": "seed 5"}
    assert server.asked[0][0] == "/prompt"
    assert server.asked[0][1]["prompt"] == NODES
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


def test_a_job_that_the_server_forgot_is_given_up(server, tmp_path):
    server.remembers, server.ready = False, 10**9
    with pytest.raises(ValueError, match="knows nothing of the job any more"):
        remote.Server(server.url).run_workflow(NODES, tmp_path)


# Who may come in


def test_headers_of_the_command_line():
    assert remote.headers_of(["X-Key: a:b", "Y:"], "secret") == {"Authorization": "Bearer secret", "X-Key": "a:b", "Y": ""}
    assert remote.headers_of(["Authorization: Basic x"], "secret") == {"Authorization": "Basic x"}
    assert remote.headers_of([], None) == {}
    for line in ("no colon", ": nothing", "X: a\r\nY: b"):
        with pytest.raises(ValueError, match="'Name: value'"):
            remote.headers_of([line], None)


def test_every_request_carries_the_headers(server, tmp_path):
    server.token, server.frames = "Bearer secret", []
    with pytest.raises(ValueError, match=r"nobody in .* \(401\): give --token or --header"):
        remote.Server(server.url).run_workflow(NODES, tmp_path)
    server.headers.clear()
    remote.Server(server.url, remote.headers_of(["X-Key: k"], "secret")).run_workflow(NODES, tmp_path)
    assert len(server.headers) > 3
    assert all(one["X-Key"] == "k" and one["Authorization"] == "Bearer secret" for one in server.headers)


def test_the_token_does_not_follow_to_another_server(server, tmp_path):
    with serving() as other:
        server.moved_to = other.url
        remote.Server(server.url, {"Authorization": "Bearer secret"}).ask("/queue")
        assert len(other.headers) == 1
        assert "Authorization" not in other.headers[0]


# Files of ours


def facts(name):
    known = {
        "LoadImage": NodeFacts("Load Image", {"image": "image"}, uploads=frozenset({"image"}), menus={"image": ["there.png"]}),
        "Camera": NodeFacts("Camera", {"file": "file"}, menus={"file": ["old.txt"]}),
        "Words": NodeFacts("Words", {"text": "text"}),
    }
    return known.get(name)


def test_local_files_are_sent_and_named_as_the_server_names_them(server, tmp_path):
    (tmp_path / "cat.png").write_bytes(b"a cat")
    (tmp_path / "path.txt").write_bytes(b"a path")
    workflow = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "cat.png"}},
        "2": {"class_type": "LoadImage", "inputs": {"image": str(tmp_path / "cat.png")}},
        "3": {"class_type": "Camera", "inputs": {"file": "path.txt"}},
        "4": {"class_type": "Words", "inputs": {"text": "cat.png"}},
        "5": {"class_type": "LoadImage", "inputs": {"image": "there.png"}},
        "6": {"class_type": "Unknown", "inputs": {"image": "cat.png"}},
        "7": {"class_type": "LoadImage", "inputs": {"image": ["1", 0]}},
    }
    made, sent = remote.Server(server.url).with_uploads(workflow, facts, tmp_path)
    named = {id: next(iter(node["inputs"].values())) for id, node in made.items()}
    assert named == {
        "1": "mine/sent1.png",
        "2": "mine/sent1.png",
        "3": "mine/sent2.png",
        "4": "cat.png",
        "5": "there.png",
        "6": "cat.png",
        "7": ["1", 0],
    }
    assert sent == [tmp_path / "cat.png", tmp_path / "path.txt"]
    kind, body = server.uploads[0]
    boundary = kind.partition("boundary=")[2].encode()
    assert body.count(b"--" + boundary) == 3
    assert b'name="image"; filename="cat.png"' in body
    assert b"\r\n\r\na cat\r\n--" in body


def test_what_the_server_knows_of_a_class(server):
    server.information = {
        "A/B": {},
        "SaveImage": {"display_name": "Save Image", "output_node": True, "input": {"required": {"x": ["INT"]}}},
    }
    known = remote.Server(server.url)
    assert known.facts("SaveImage", {"a": ("b",)}) == NodeFacts("Save Image", {"x": "x"}, saves=True, replaced={"a": ("b",)})
    assert known.facts("Nothing") is None


# Progress


def heard(server, tmp_path):
    reports = []
    remote.Server(server.url, report=reports.append).run_workflow(NODES, tmp_path)
    return [(report.task, report.done, report.total) for report in reports]


def test_progress_is_heard(server, tmp_path):
    server.ready = 20
    whole = progress("2", 3, 9)
    server.frames = [
        frame(b'{"type": "status", "data": {"status": {}}}'),
        progress("1", 1, 9, prompt_id="p1"),
        progress("1", 5, 9, prompt_id="someone else's"),
        frame(b"\0" * 300, opcode=2),
        frame(b"are you there", opcode=9),
        frame(whole[2:20], ends=False),
        frame(whole[20:], opcode=0),
        frame(b'{"type": "executed", "data": null}'),
        progress("x", 9, 9),
    ]
    assert heard(server, tmp_path) == [("node 1 (LoadImage)", 1, 9), ("node 2 (SaveImage)", 3, 9), ("node x", 9, 9)]


def test_a_server_that_hangs_up_is_asked_on(server, tmp_path):
    server.ready = 5
    server.frames = [progress("1", 1, 9), frame(b"", opcode=8)]
    assert heard(server, tmp_path) == [("node 1 (LoadImage)", 1, 9)]


def test_without_a_socket_there_is_the_result(server, tmp_path):
    assert server.frames is None
    assert heard(server, tmp_path) == []
