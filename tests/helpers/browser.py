"""A ComfyUI server with this pack, and its editor in a headless Chromium, for tests that use them as people do.

``python tests/helpers/browser.py FILE.png FILE.webp``, with ComfyUI's Python and ``COMFYUI_PATH``, takes the picture of the
widgets that the README shows, the workflow keyframes_timeline after a run with its middle keyframe on the way to another frame,
and records the drag, the run after it, and the clip whose keyframe has moved.
"""

import io
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageDraw, ImageSequence

ROOT = Path(__file__).resolve().parents[2]
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


class Timeline:
    """The workflow keyframes_timeline in the editor after a run, its two widgets side by side."""

    SHOWN = {"x": 480, "y": 160, "width": 760, "height": 615}  # of the page, in pixels
    STRIP, MARGIN, FRAMES = 126, 16, 16  # the strip's middle from the widget's top, its left and right margin, and the clip

    def __init__(self, browser: Any, server: Server):
        self.server, self.editor = server, Editor(browser, server)
        self.editor.draw(json.loads((ROOT / "workflows" / "keyframes_timeline.json").read_text(encoding="utf-8")))
        self.editor.run()
        kinds = ["LongTakeKeyframes", "LongTakeNoiseLevels"]
        self.ids = self.editor.call("kinds => kinds.map(kind => app.graph.nodes.find(node => node.type === kind).id)", kinds)
        self.editor.call(
            "ids => ids.map(id => app.graph.getNodeById(id)).forEach((node, i) => {"
            " node.pos = [380 * i, -3000]; node.setSize([340, node.computeSize()[1]]) })",
            self.ids,
        )
        self.box = self.editor.canvas(self.ids[0], "timeline").bounding_box()

    def place(self, frame: float) -> tuple[float, float]:
        """Where a frame is on the screen."""
        step = (self.box["width"] - 2 * self.MARGIN) / self.FRAMES
        return self.box["x"] + self.MARGIN + (frame + 0.5) * step, self.box["y"] + self.STRIP

    def picture(self) -> Image.Image:
        """What the widgets look like."""
        self.editor.settle()
        return Image.open(io.BytesIO(self.editor.page.screenshot(clip=self.SHOWN))).convert("RGB")

    def clip(self) -> list[Image.Image]:
        """The frames of the last run, as it saved them."""
        last = max((self.server.base / "output").glob("keyframes_timeline_*.webp"))
        return [frame.convert("RGB") for frame in ImageSequence.Iterator(Image.open(last))]


def take_picture(timeline: Timeline, path: Path) -> None:
    """Save what the widgets look like while a keyframe is on its way."""
    mouse = timeline.editor.page.mouse
    mouse.move(*timeline.place(8))
    mouse.down()
    mouse.move(*timeline.place(11), steps=5)
    timeline.picture().save(path)


def record(timeline: Timeline, path: Path, start: int = 8, end: int = 12) -> None:
    """Save a film: a keyframe is dragged, the workflow queued, and under the widgets stands the clip of the last run.

    Raises:
        AssertionError: the picture of the keyframe is not where it was dragged.
    """
    mouse, before = timeline.editor.page.mouse, timeline.clip()
    film = [(with_clip(timeline.picture(), before, start, "the clip"), 1500)]
    mouse.move(*timeline.place(start))
    mouse.down()
    for part in range(1, 11):
        mouse.move(*timeline.place(start + (end - start) * part / 10))
        film.append((with_clip(timeline.picture(), before, start, "the clip; the keyframe is being dragged"), 120))
    mouse.up()
    assert timeline.editor.value(timeline.ids[0], "frames") == f"0, {end}, -1"
    film.append((with_clip(timeline.picture(), before, start, "dropped; queued"), 900))
    timeline.editor.run()
    after = timeline.clip()
    alike = [number for number, frame in enumerate(after) if far(frame, before[start]) < 3]
    assert alike == [end], f"the keyframe's picture is at {alike}, not at {end}"
    film.append((with_clip(timeline.picture(), after, end, "the clip that came"), 3000))
    frames, times = zip(*film, strict=True)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=list(times), loop=0, quality=80, method=6)
    print(f"{path}: {len(frames)} pictures; the keyframe's picture was frame {start} and is frame {end} of the clip")


def far(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of two pictures, 0..255."""
    return max(high for _, high in ImageChops.difference(one, other).getextrema())


def with_clip(picture: Image.Image, clip: Sequence[Image.Image], key: int, words: str) -> Image.Image:
    """A picture with a row of small frames under it, one of them framed."""
    side, gap = picture.width // len(clip), 30
    whole = Image.new("RGB", (picture.width, picture.height + gap + side), (20, 22, 26))
    whole.paste(picture, (0, 0))
    draw = ImageDraw.Draw(whole)
    draw.text((8, picture.height + 9), words, fill=(230, 230, 230))
    for number, frame in enumerate(clip):
        corner = number * side, picture.height + gap
        whole.paste(frame.resize((side - 2, side - 2), Image.Resampling.NEAREST), corner)
        if number == key:
            draw.rectangle((*corner, corner[0] + side - 3, corner[1] + side - 3), outline=(255, 170, 60), width=3)
    return whole


def main() -> None:
    """Make the files that are named."""
    checkout = Path(os.environ["COMFYUI_PATH"])
    with tempfile.TemporaryDirectory() as folder, serving(checkout, Path(folder)) as server, browsing() as browser:
        for name in sys.argv[1:]:
            (record if name.endswith(".webp") else take_picture)(Timeline(browser, server), Path(name))


if __name__ == "__main__":
    main()
