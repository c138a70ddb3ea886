"""A real ComfyUI server with this pack: where its model files are empty, workflows are checked there, not run."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pack.nodes

SECONDS = 180  # to start


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def files_for(workflows, base):
    """Every file that workflows name, empty, where ComfyUI looks for it: ``models/...`` and ``input/...`` below ``base``."""
    for file in workflows:
        path = base / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@contextlib.contextmanager
def running(checkout, pack, base):
    """The address of a server that runs in a folder of its own."""
    for folder in ("custom_nodes", "input", "models", "output", "temp", "user"):
        (base / folder).mkdir(exist_ok=True)
    (base / "custom_nodes" / "longtake").symlink_to(pack, target_is_directory=True)
    port, log = free_port(), base / "log.txt"
    command = [sys.executable, "main.py", "--cpu", "--port", str(port), "--base-directory", str(base)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONDONTWRITEBYTECODE": "1"}
    with log.open("w") as out, subprocess.Popen(command, cwd=checkout, stdout=out, stderr=out, env=environment) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(SECONDS * 2):
                if server.poll() is not None:
                    raise AssertionError(f"the server ended: {log.read_text()[-2000:]}")
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"{url}/system_stats", timeout=5).close()
                    break
                time.sleep(0.5)
            else:
                raise AssertionError(f"no answer after {SECONDS} s: {log.read_text()[-2000:]}")
            yield url
        finally:
            server.terminate()


def asked(url, path):
    """An answer of the server."""
    with urllib.request.urlopen(url + path, timeout=60) as answer:
        return json.loads(answer.read())


def posted(url, path, **data):
    """The answer to what is posted."""
    request = urllib.request.Request(url + path, json.dumps(data).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read().decode()) from error
    return json.loads(text) if text else None


def ended(url, prompt):
    """How a prompt ended: its entry in the history."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        history = asked(url, f"/history/{prompt}")
        if prompt in history:
            return history[prompt]
        time.sleep(0.02)
    raise AssertionError(f"the prompt {prompt} does not end")


def complete(graph):
    """Widgets that are not named have the values of a new node."""
    for node in graph.values():
        found = [cls for cls in pack.nodes.node_classes() if cls.__name__ == node["class_type"]]
        for item in found[0].GET_SCHEMA().inputs if found else ():
            if getattr(item, "default", None) is not None:
                node["inputs"].setdefault(item.id, item.default)
    return graph
