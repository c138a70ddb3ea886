"""The widgets in ``web/`` in ComfyUI's editor: what they draw, what dragging does, and that workflows are the same without them."""

import json

import numpy as np
import pack.nodes
import pytest
from browser import FOLDER, ROOT, Editor, browsing, frontend, lacking, serving
from pack.modules.draw.pictures import heat_map
from pack.modules.sampling.level_matrix import planned
from pack.nodes.forcing.forcing import LongTakeRollout
from PIL import Image, ImageDraw

pytestmark = [
    pytest.mark.comfy,
    pytest.mark.slow,
    pytest.mark.skipif(bool(lacking()), reason=lacking() or "all there"),
]
FRAMES, SIDE = 8, 32
LEVELS, KEYS, MARGIN, STRIP = (
    5,
    4,
    16,
    126,
)  # ids in the workflow below; the strip's left and right margin and its middle, in pixels
WORKFLOWS = sorted(path.stem for path in ROOT.glob("workflows/*.json"))


def workflow(frames: str = "0, 2") -> dict:
    """Two pictures as known frames of a short take, few steps."""
    rollout = {
        "cfg": 1.0,
        "seed": 0,
        "frames": 1,
        "schedule": "pyramid",
        "steps": 1,
        "lag": 1.0,
        "block": 1,
        "window": 0,
        "eta": 0.0,
    }
    rollout |= {"context_noise": 0.0, "context_noise_kind": "noise", "order": "euler", "sink_frames": 0}
    levels = {
        "frames": FRAMES,
        "schedule": "trapezoid",
        "steps": 2,
        "lag": 1.0,
        "block": 1,
        "known": 0,
        "custom": "",
        "window": 0,
    }
    nodes = {
        1: ("LoadImage", {"image": "key0.png"}),
        2: ("LoadImage", {"image": "key1.png"}),
        3: ("ImageBatch", {"image1": ["1", 0], "image2": ["2", 0]}),
        KEYS: ("LongTakeKeyframes", {"images": ["3", 0], "frames": frames, "strength": "1", "reach": 0, "clip_frames": FRAMES}),
        LEVELS: ("LongTakeNoiseLevels", levels | {"known_at": ["6", 1]}),
        6: ("LongTakeKnownFrames", {"keyframes": [str(KEYS), 0], "vae": ["7", 1], "frames": FRAMES}),
        7: ("LongTakeLoadVideoModel", {"model_name": "longtake_shapes_both_ways.safetensors"}),
        8: ("LongTakeRollout", {"model": ["7", 0], "known_frames": ["6", 0], "noise_levels": [str(LEVELS), 0]} | rollout),
        9: ("VAEDecode", {"samples": ["8", 0], "vae": ["7", 1]}),
        10: ("SaveImage", {"images": ["9", 0], "filename_prefix": "clip"}),
    }
    return {str(id): {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}} for id, (kind, inputs) in nodes.items()}


@pytest.fixture(scope="module")
def server(comfyui, tmp_path_factory):
    base = tmp_path_factory.mktemp("comfyui")
    with serving(comfyui, base) as server:
        for number, colour in enumerate(("red", "blue", "lime")):
            picture = Image.new("RGB", (SIDE, SIDE))
            ImageDraw.Draw(picture).ellipse((4 + 6 * number, 8, 16 + 6 * number, 20), fill=colour)
            picture.save(base / "input" / f"key{number}.png")
        yield server


@pytest.fixture(scope="module")
def browser(server):
    with browsing() as browser:
        yield browser


@pytest.fixture(scope="module")
def shared_editor(browser, server):
    editor = Editor(browser, server)
    yield editor
    editor.close()


@pytest.fixture
def editor(shared_editor):
    shared_editor.errors.clear()
    yield shared_editor
    assert [error for error in shared_editor.errors if FOLDER in error] == [], "and no script of the pack has failed"


def place(canvas, frame: int, count: int = FRAMES, height: int = STRIP) -> tuple[float, float]:
    """Where a frame is on the screen."""
    box = canvas.bounding_box()
    return box["x"] + MARGIN + (frame + 0.5) * (box["width"] - 2 * MARGIN) / count, box["y"] + height


def drag(editor: Editor, canvas, start: int, end: int, count: int = FRAMES) -> None:
    mouse = editor.page.mouse
    mouse.move(*place(canvas, start, count))
    mouse.down()
    mouse.move(*place(canvas, end, count), steps=5)
    mouse.up()
    editor.settle()


def clip(server, outputs: dict) -> list[np.ndarray]:
    """The frames that a run saved."""
    return [
        np.asarray(Image.open(server.base / "output" / image["filename"]).convert("RGB")) for image in outputs["10"]["images"]
    ]


def pixels(canvas) -> np.ndarray:
    """What a canvas shows, one sample per pixel of the page: h w 3."""
    size, data = canvas.evaluate("c => [[c.height, c.width], [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]]")
    return np.array(data, dtype=np.uint8).reshape(*size, 4)[..., :3]


# What is served


def test_scripts_and_help_pages_are_served(server):
    listed = {path for path in json.loads(server.get("/extensions")) if FOLDER in path}
    assert listed == {f"/extensions/{FOLDER}/{path.name}" for path in (ROOT / "web").glob("*.js")}
    for path in [*(ROOT / "web").glob("*.js"), ROOT / "web" / "docs" / "LongTakeKeyframes.md"]:
        assert server.get(f"/extensions/{FOLDER}/{path.relative_to(ROOT / 'web')}") == path.read_bytes()


# Keyframes


def test_a_dragged_keyframe_moves_in_the_clip(editor, server):
    editor.open(workflow("0, 2"))
    keys = [np.asarray(Image.open(server.base / "input" / f"key{number}.png").convert("RGB")) for number in (0, 1)]
    before = clip(server, editor.run())
    assert [i for i, frame in enumerate(before) if np.abs(frame.astype(int) - keys[1]).max() <= 1] == [2]
    drag(editor, editor.canvas(KEYS, "timeline"), 2, 5)
    assert editor.value(KEYS, "frames") == "0, 5"
    after = clip(server, editor.run())
    assert [i for i, frame in enumerate(after) if np.abs(frame.astype(int) - keys[1]).max() <= 1] == [5]
    assert [i for i, frame in enumerate(after) if np.abs(frame.astype(int) - keys[0]).max() <= 1] == [0]


@pytest.mark.parametrize(
    ("text", "start", "end", "then"),
    [
        ("0, -1", 7, 4, "0, -4"),
        ("even", 7, 3, "0, 3"),
        ("0, 5", 0, 5, "4, 5"),
        ("6, 1", 1, 0, "6, 0"),
        ("0, 5", 3, 6, "0, 5"),  # there is none at 3
        ("0,5", 5, 5, "0,5"),  # a click changes nothing
    ],
)
def test_dragging_writes_the_frames(editor, text, start, end, then):
    editor.open(workflow(text))
    drag(editor, editor.canvas(KEYS, "timeline"), start, end)
    assert editor.value(KEYS, "frames") == then
    assert editor.prompt()[str(KEYS)]["inputs"]["frames"] == then


def count_of(canvas, colour: tuple[int, int, int]) -> int:
    """How many pixels of a canvas have a colour, about."""
    return int((np.abs(pixels(canvas).astype(int) - colour).max(-1) < 25).sum())


def until(editor: Editor, condition) -> None:
    """Wait for what the page does by and by."""
    for _ in range(200):
        if condition():
            return
        editor.page.wait_for_timeout(100)
    assert condition()


def test_a_thumbnail_shows_its_image_and_drags_too(editor):
    editor.open(workflow("0, 4"))
    canvas = editor.canvas(KEYS, "timeline")
    until(editor, lambda: count_of(canvas, (0, 0, 255)) > 50 and count_of(canvas, (255, 0, 0)) > 50)
    mouse, width = editor.page.mouse, canvas.bounding_box()["width"] - 2 * MARGIN
    x, y = place(canvas, 4, height=70)
    mouse.move(x + 12, y)
    mouse.down()
    mouse.move(x + 12 + 2 * width / FRAMES, y, steps=4)
    mouse.up()
    editor.settle()
    assert editor.value(KEYS, "frames") == "0, 6"


def test_images_that_other_nodes_make_are_shown_after_a_run(editor):
    images = {"width": 64, "height": 32, "batch_size": 2, "color": 0x0000FF}
    keyframes = {"images": ["1", 0], "frames": "even", "strength": "1", "reach": 0, "clip_frames": FRAMES}
    made = {
        "1": ("EmptyImage", images),
        str(KEYS): ("LongTakeKeyframes", keyframes),
        "3": ("PreviewImage", {"images": [str(KEYS), 1]}),
    }
    editor.open({id: {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}} for id, (kind, inputs) in made.items()})
    canvas = editor.canvas(KEYS, "timeline")
    editor.settle()
    assert count_of(canvas, (0, 0, 255)) == 0, "nor can even be told before"
    editor.run()
    until(editor, lambda: count_of(canvas, (0, 0, 255)) > 2 * 40 * 20)
    drag(editor, canvas, FRAMES - 1, 3)
    assert editor.value(KEYS, "frames") == "0, 3"


@pytest.mark.skipif(frontend() < (1, 40), reason="nodes drawn as HTML are an experiment in this front end")
def test_nodes_that_are_drawn_as_html_have_it_too(browser, server):
    editor = Editor(browser, server, vue=True)
    try:
        editor.open(workflow("0, 2"))
        canvas = editor.canvas(KEYS, "timeline")
        until(editor, lambda: canvas.bounding_box() is not None)
        drag(editor, canvas, 2, 5)
        assert editor.value(KEYS, "frames") == "0, 5"
    finally:
        editor.call("vue => app.ui.settings.setSettingValueAsync('Comfy.VueNodes.Enabled', vue)", False)
        editor.close()


def test_a_double_click_adds_and_takes_away_where_images_and_numbers_differ(editor):
    editor.open(workflow("0"))
    canvas = editor.canvas(KEYS, "timeline")
    for frame, then in ((6, "0, 6"), (3, "0, 6"), (6, "0, 6")):  # the second and third would leave numbers and images unlike
        editor.page.mouse.dblclick(*place(canvas, frame))
        editor.settle()
        assert editor.value(KEYS, "frames") == then
    editor.type(KEYS, "frames", "0, 3, 6")
    editor.settle()
    editor.page.mouse.dblclick(*place(canvas, 3))
    assert editor.value(KEYS, "frames") == "0, 6"


def test_a_drag_can_be_undone(editor):
    editor.open(workflow("0, 2"))
    drag(editor, editor.canvas(KEYS, "timeline"), 2, 6)
    assert editor.value(KEYS, "frames") == "0, 6"
    editor.page.wait_for_timeout(300)
    editor.page.keyboard.press("Control+z")
    editor.page.wait_for_function(f"app.graph.getNodeById({KEYS}).widgets.find(w => w.name === 'frames').value === '0, 2'")


# Schedules


def scheduled(text: str, kind: str = "LongTakePromptSchedule", **changes) -> dict:
    """A schedule that nothing encodes; the numbers of a value schedule are saved by Preview Any."""
    settings = {"schedule": text, "interpolation": "linear", "frames": FRAMES, "fps": 8.0}
    if kind == "LongTakePromptSchedule":
        settings |= {"negative": "", "before": "", "after": "", "blend": "text"}
    return {str(KEYS): {"class_type": kind, "inputs": settings | changes, "_meta": {"title": kind}}}


STRIP_MIDDLE = 68  # of a schedule's strip, in pixels


def drag_key(editor: Editor, start: int, end: int) -> None:
    canvas, mouse = editor.canvas(KEYS, "strip"), editor.page.mouse
    mouse.move(*place(canvas, start, height=STRIP_MIDDLE))
    mouse.down()
    mouse.move(*place(canvas, end, height=STRIP_MIDDLE), steps=5)
    mouse.up()
    editor.settle()


@pytest.mark.parametrize(
    ("text", "start", "end", "then"),
    [
        ("0: a forest; 4: snow", 4, 6, "0: a forest; 6: snow"),
        ('"0": "a forest", "-1": "snow"', 7, 3, '"0": "a forest", "-5": "snow"'),
        ("0: a; 2: b; 4: c", 2, 6, "0: a; 6: b; 4: c"),  # past another
        ("0: a; 4: b", 2, 6, "0: a; 4: b"),  # there is none at 2
    ],
)
def test_dragging_a_key_changes_its_time_in_the_text(editor, text, start, end, then):
    editor.open(scheduled(text))
    drag_key(editor, start, end)
    assert editor.value(KEYS, "schedule") == then
    assert editor.prompt()[str(KEYS)]["inputs"]["schedule"] == then


def test_a_double_click_adds_a_key_and_takes_one_away(editor):
    editor.open(scheduled("0: a forest\n6: snow"))
    canvas = editor.canvas(KEYS, "strip")
    for frame, then in ((3, "0: a forest\n6: snow\n3: a forest"), (6, "0: a forest\n3: a forest")):
        editor.page.mouse.dblclick(*place(canvas, frame, height=STRIP_MIDDLE))
        editor.settle()
        assert editor.value(KEYS, "schedule") == then


def test_the_strip_shows_shares_as_mixtures_and_what_does_not_read(editor):
    editor.open(scheduled("0: a; 4: b"))
    canvas = editor.canvas(KEYS, "strip")
    editor.settle()
    first, second = (64, 200, 190), (245, 170, 70)  # web/drawing.js's first two inks
    image = pixels(canvas).astype(int)
    scale = image.shape[1] / canvas.evaluate("c => c.clientWidth")
    row = image[round((50 + 4) * scale)]
    for frame, part in ((2, 0.5), (6, 1.0)):
        x = MARGIN + (frame + 0.5) * (image.shape[1] / scale - 2 * MARGIN) / FRAMES
        wanted = [(1 - part) * one + part * other for one, other in zip(first, second, strict=True)]
        assert np.abs(row[round((x + 4) * scale)] - wanted).max() <= 2
    editor.type(KEYS, "schedule", "0: a; b")
    editor.settle()
    assert count_of(canvas, (245, 170, 70)) > 50


def test_a_dragged_value_schedule_is_what_is_queued(editor):
    graph = scheduled("0: 0; 4: 1", "LongTakeValueSchedule") | {
        "5": {"class_type": "PreviewAny", "inputs": {"source": [str(KEYS), 0]}, "_meta": {"title": "said"}}
    }
    editor.open(graph)
    drag_key(editor, 4, 2)
    assert editor.value(KEYS, "schedule") == "0: 0; 2: 1"
    assert editor.run()["5"]["text"] == ["0, 0.5, 1, 1, 1, 1, 1, 1"]


# Widgets that do nothing


def greyed(editor: Editor, id: int) -> list[str]:
    return editor.call("id => app.graph.getNodeById(id).widgets.filter(w => w.disabled).map(w => w.name)", id)


def test_what_a_link_replaces_is_greyed_out_while_it_is_there(editor):
    editor.open(workflow())
    rollout = LongTakeRollout.REPLACED["noise_levels"]
    assert greyed(editor, 8) == list(rollout) and greyed(editor, LEVELS) == []
    editor.call("id => { const n = app.graph.getNodeById(id); n.disconnectInput(n.findInputSlot('noise_levels')) }", 8)
    assert greyed(editor, 8) == []
    editor.call(
        "([from, to]) => { const [a, b] = [from, to].map(id => app.graph.getNodeById(id)); a.connect(0, b, 'noise_levels') }",
        [LEVELS, 8],
    )
    assert greyed(editor, 8) == list(rollout)
    editor.draw(editor.call("() => app.graph.serialize()"))
    assert greyed(editor, 8) == list(rollout), "and in a workflow that is loaded"


def test_the_table_of_such_widgets_is_the_nodes_own(editor):
    path = f"/extensions/{FOLDER}/replaced_widgets.js"
    table = editor.call("async path => (await import(path)).REPLACED", path)
    nodes = {node.GET_SCHEMA().node_id: node for node in pack.nodes.node_classes()}
    assert table == {
        name: {input: list(names) for input, names in node.REPLACED.items()} for name, node in nodes.items() if node.REPLACED
    }


# Noise levels


def shown_levels(canvas, rows: int, columns: int) -> np.ndarray:
    """The colours at the middles of the cells: m f 3. The map is what is left below the numbers of the frames."""
    image = pixels(canvas)
    scale = image.shape[1] / canvas.evaluate("c => c.clientWidth")
    paper = np.abs(image.astype(int) - (24, 26, 30)).max(-1) <= 1
    bottom = image.shape[0] - round(6 * scale)
    column = paper[:bottom, round(40 * scale)]
    top = int(np.flatnonzero(column)[-1]) + 1
    left, right = round(34 * scale), image.shape[1] - round(8 * scale)
    ys = top + (np.arange(rows) + 0.5) * (bottom - top) / rows
    xs = left + (np.arange(columns) + 0.5) * (right - left) / columns
    return image[ys.astype(int)][:, xs.astype(int)]


@pytest.mark.parametrize(
    "values",
    [
        {"schedule": "pyramid", "steps": 6, "lag": 2.0},
        {"schedule": "autoregressive", "steps": 3, "block": 4},
        {"schedule": "trapezoid", "steps": 5, "lag": 1.5, "known_at": "2, -1"},
        {"schedule": "ar_diffusion", "steps": 6, "known": 1},
        {"schedule": "custom", "custom": "33 23 12 01 00"},
    ],
)
def test_the_levels_are_drawn_as_they_are_typed(editor, values):
    editor.open({"5": workflow()["5"] | {"inputs": workflow()["5"]["inputs"] | {"known_at": ""}}})
    canvas = editor.canvas(LEVELS, "drawing")
    for name, value in values.items():
        editor.type(LEVELS, name, value)
    editor.settle()
    given = {"lag": 1.0, "steps": 2, "known": 0} | values
    text, at = given.pop("custom", ""), given.pop("known_at", "")
    known = [int(word) for word in at.split(", ")] if at else given.pop("known")
    given.pop("known", None)
    levels = planned(given.pop("schedule"), FRAMES, given.pop("steps"), known=known, text=text, **given)
    wanted = heat_map(levels.matrix(), top=levels.steps, cell=1)[0].numpy() * 255
    shown = shown_levels(canvas, *wanted.shape[:2])
    assert np.abs(shown - wanted).max() <= 2


def test_what_the_node_would_refuse_is_written_instead(editor):
    editor.open({"5": workflow()["5"] | {"inputs": workflow()["5"]["inputs"] | {"known_at": "99"}}})
    canvas = editor.canvas(LEVELS, "drawing")
    editor.settle()
    assert count_of(canvas, (245, 170, 70)) > 50


def test_the_levels_follow_a_keyframe_while_it_is_dragged(editor):
    editor.open(workflow("0, 2"))
    drag(editor, editor.canvas(KEYS, "timeline"), 2, 5)
    canvas = editor.canvas(LEVELS, "drawing")
    editor.settle()
    levels = planned("trapezoid", FRAMES, 2, known=[0, 5])
    wanted = heat_map(levels.matrix(), top=2, cell=1)[0].numpy() * 255
    assert np.abs(shown_levels(canvas, *wanted.shape[:2]) - wanted).max() <= 2


# With and without


@pytest.fixture(scope="module")
def plain_editor(browser, server):
    editor = Editor(browser, server, widgets=False)
    yield editor
    editor.close()


@pytest.mark.parametrize("name", WORKFLOWS)
def test_shipped_workflows_load_and_would_queue_what_their_api_files_say(editor, name):
    editor.draw(json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8")))
    assert editor.call("() => app.graph.nodes.map(n => n.type).filter(t => !(t in LiteGraph.registered_node_types))") == []
    assert editor.page.locator("[role=dialog]").all_inner_texts() == []
    wanted = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    wanted = {id: node for id, node in wanted.items() if not id.startswith("_")}
    numbers = {id: str(number) for number, id in enumerate(wanted, start=1)}
    queued = editor.prompt()
    assert set(queued) == set(numbers.values())
    for id, node in wanted.items():
        for input, value in node["inputs"].items():
            value = [numbers[value[0]], value[1]] if isinstance(value, list) else value
            assert queued[numbers[id]]["inputs"].get(input) == value, (node["class_type"], input)


def test_workflows_are_the_same_without_the_widgets(shared_editor, plain_editor):
    name = "keyframes_timeline"
    drawn = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    said = []
    for one in (shared_editor, plain_editor):
        one.draw(drawn)
        nodes = one.call("() => app.graph.serialize().nodes.map(n => [n.id, n.type, n.widgets_values, n.inputs?.length])")
        said.append((one.prompt(), nodes))
    assert said[0] == said[1]
    assert plain_editor.call("() => document.querySelectorAll('canvas.longtake-canvas').length") == 0
    assert shared_editor.call("() => document.querySelectorAll('canvas.longtake-canvas').length") == 2
