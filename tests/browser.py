"""A ComfyUI server with this pack, and its editor in a headless Chromium, for tests that use them as people do.

``python tests/browser.py FILE.png``, with ComfyUI's Python and ``COMFYUI_PATH``, takes the picture of the widgets that the README shows:
the workflow keyframes_timeline after a run, and its middle keyframe on the way to another frame.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = "ComfyUI-LongTake"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False}  # a newcomer's page begins with a dialog
STARTING, RUNNING = 240, 240  # seconds: machines that run tests may be busy


def lacking() -> str:
    """Why there is no browser to test with, or nothing."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "no Playwright: pip install playwright"
    return "" if found() else f"no Chromium on the path: none of {', '.join(BROWSERS)}"


def found() -> str | None:
    """The browser's file."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def frontend() -> tuple[int, ...]:
    """The version of ComfyUI's editor that this Python has; () for none."""
    try:
        return tuple(int(part) for part in version("comfyui-frontend-package").split(".")[:2])
    except PackageNotFoundError:
        return ()


class Server:
    """ComfyUI, running."""

    def __init__(self, address: str, base: Path):
        self.address, self.base = address, base

    def get(self, path: str) -> bytes:
        """What an address of the server gives."""
        with urllib.request.urlopen(self.address + path, timeout=60) as answer:
            return answer.read()


@contextmanager
def serving(checkout: Path, base: Path) -> Iterator[Server]:
    """A server of a checkout, with ``base`` for all that it reads and writes."""
    for name in ("custom_nodes", "input", "output", "models", "temp", "user"):
        (base / name).mkdir(parents=True, exist_ok=True)
    (base / "custom_nodes" / FOLDER).symlink_to(ROOT)
    (base / "user" / "default").mkdir()
    (base / "user" / "default" / "comfy.settings.json").write_text(json.dumps(SETTINGS))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = (
        f"--cpu --port {port} --base-directory {base} --database-url sqlite:///:memory: --disable-api-nodes --preview-method none"
    )
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    with (base / "server.log").open("w") as log:
        command = [sys.executable, str(checkout / "main.py"), *options.split()]
        process = subprocess.Popen(command, cwd=checkout, env=environment, stdout=log, stderr=subprocess.STDOUT)
    server = Server(f"http://127.0.0.1:{port}", base)
    try:
        _wait_for(server, process)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_for(server: Server, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + STARTING
    while True:
        log = (server.base / "server.log").read_text(errors="replace")
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server did not start; it wrote:\n{log[-3000:]}")
        try:
            server.get("/extensions")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
        else:
            return


@contextmanager
def browsing() -> Iterator[Any]:
    """A headless Chromium with a profile of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found(), headless=True, args=FLAGS.split())
        yield browser
        browser.close()


class Editor:
    """ComfyUI's editor in a page of its own.

    Args:
        browser: from ``browsing``.
        server: to open.
        widgets: False keeps the pack's scripts from loading.
        vue: whether nodes are drawn as HTML ("Nodes 2.0") or on the canvas.
    """

    def __init__(self, browser: Any, server: Server, *, widgets: bool = True, vue: bool = False):
        self.server, self.errors = server, []
        self.page = browser.new_page(viewport={"width": 1400, "height": 900})
        self.page.set_default_timeout(RUNNING * 1000)
        self.page.on("pageerror", lambda error: self.errors.append(f"{error}\n{error.stack}"))
        if not widgets:
            self.page.route(f"**/extensions/{FOLDER}/*.js", lambda route: route.abort())
        self.page.goto(server.address)
        self.page.wait_for_function("'LongTakeNoiseLevels' in (window.LiteGraph?.registered_node_types ?? {})")
        self.page.wait_for_function("(window.app?.extensionManager?.workflow?.activeWorkflow ?? null) !== null")
        self.page.evaluate("vue => app.ui.settings.setSettingValueAsync('Comfy.VueNodes.Enabled', vue)", vue)

    def call(self, function: str, *args: Any) -> Any:
        """What a JavaScript function gives, of arguments that JSON can hold."""
        return self.page.evaluate(f"args => ({function})(...args)", list(args))

    def draw(self, workflow: dict) -> None:
        """Load a workflow in the editor's format."""
        self.call("async workflow => { await app.loadGraphData(workflow) }", workflow)

    def open(self, workflow: dict) -> None:
        """Load a workflow in API format."""
        self.call("async workflow => { await app.loadApiJson(workflow, 'test') }", workflow)

    def value(self, node: int, widget: str) -> Any:
        """What a widget says."""
        return self.call("(id, name) => app.graph.getNodeById(id).widgets.find(w => w.name === name).value", node, widget)

    def type(self, node: int, widget: str, value: Any) -> None:
        """Set a widget as its own control does."""
        self.call(
            "(id, name, value) => { const node = app.graph.getNodeById(id), w = node.widgets.find(w => w.name === name);"
            " w.value = value; w.callback?.(value) }",
            node,
            widget,
            value,
        )

    def canvas(self, node: int, widget: str) -> Any:
        """The canvas of one of the pack's widgets, brought to the middle of the screen."""
        self.call(
            "id => { const node = app.graph.getNodeById(id), ds = app.canvas.ds; ds.scale = 1;"
            " ds.offset[0] = 500 - node.pos[0]; ds.offset[1] = 200 - node.pos[1]; app.canvas.setDirty(true, true) }",
            node,
        )
        handle = self.page.evaluate_handle(
            "([id, name]) => app.graph.getNodeById(id).widgets.find(w => w.name === name).element", [node, widget]
        )
        element = handle.as_element()
        element.wait_for_element_state("stable")
        return element

    def prompt(self) -> dict:
        """The workflow as the editor would queue it."""
        return self.call("async () => (await app.graphToPrompt()).output")

    def run(self) -> dict:
        """Queue the workflow and wait for its end: what each node showed, by its id."""
        before = set(json.loads(self.server.get("/history")))
        self.call("async () => { await app.queuePrompt(0, 1) }")
        deadline = time.monotonic() + RUNNING
        while time.monotonic() < deadline:
            history = json.loads(self.server.get("/history"))
            for name in set(history) - before:
                status = history[name]["status"]
                assert status["status_str"] == "success", status["messages"][-1]
                return history[name]["outputs"]
            self.page.wait_for_timeout(200)
        raise TimeoutError("the workflow did not end")

    def settle(self) -> None:
        """Let the page draw what has changed."""
        self.call("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 50))))")

    def close(self) -> None:
        """End the page."""
        self.page.close()


def take_picture(path: Path) -> None:
    """Save what the widgets look like."""
    checkout = Path(os.environ["COMFYUI_PATH"])
    with tempfile.TemporaryDirectory() as folder, serving(checkout, Path(folder)) as server, browsing() as browser:
        editor = Editor(browser, server)
        editor.draw(json.loads((ROOT / "workflows" / "keyframes_timeline.json").read_text(encoding="utf-8")))
        editor.run()
        kinds = ["LongTakeKeyframes", "LongTakeNoiseLevels"]
        ids = editor.call("kinds => kinds.map(kind => app.graph.nodes.find(node => node.type === kind).id)", kinds)
        editor.call(
            "ids => ids.map(id => app.graph.getNodeById(id)).forEach((node, i) => {"
            " node.pos = [380 * i, -3000]; node.setSize([340, node.computeSize()[1]]) })",
            ids,
        )
        box = editor.canvas(ids[0], "timeline").bounding_box()
        middle, y = box["x"] + box["width"] / 2, box["y"] + 126
        editor.page.mouse.move(middle, y)
        editor.page.mouse.down()
        editor.page.mouse.move(middle + 60, y, steps=5)
        editor.settle()
        editor.page.screenshot(path=path, clip={"x": 480, "y": 160, "width": 760, "height": 615})


if __name__ == "__main__":
    take_picture(Path(sys.argv[1]))
