"""What users see: every node's schema and help page, the base class that fills in defaults, and the workflows that come along."""

import asyncio
import importlib
import inspect
import json
import logging
from pathlib import Path

import pack
import pack.nodes
import pytest
from pack import host
from pack.nodes.node import LongTakeNode, schema_defaults
from publish_nodes import LIST, described, taken_back

ROOT = Path(pack.__file__ or "").parent
NODES = {node.GET_SCHEMA().node_id: node for node in pack.nodes.node_classes()}
WORKFLOWS = sorted(ROOT.glob("workflows/api/*.json"))
io = host.io


@pytest.fixture(params=NODES)
def node(request):
    return NODES[request.param]


# Every node


def test_every_file_is_loaded():
    loaded = {Path(file.__file__ or "") for file in pack.nodes.node_files()}
    assert loaded == set(ROOT.glob("nodes/**/*.py")) - {ROOT / "nodes" / "__init__.py"}
    assert NODES


def test_the_entry_point_lists_them():
    extension = asyncio.run(pack.comfy_entrypoint())
    assert {item.GET_SCHEMA().node_id for item in asyncio.run(extension.get_node_list())} == set(NODES)


def test_published_nodes_only_grow():
    """Saved workflows name ids and inputs, and count widgets and outputs: append, never insert or rename."""
    published = json.loads(LIST.read_text(encoding="utf-8"))
    present = {name: described(item.GET_SCHEMA()) for name, item in NODES.items()}
    assert not taken_back(published, present)
    assert present == published, "new nodes, inputs or outputs: python tests/helpers/publish_nodes.py"


@pytest.mark.parametrize(
    ("now", "wrong"),
    [
        ({"N": {"inputs": [["a", "INT"], ["b", "INT"]], "outputs": ["MODEL", "VAE"]}, "M": {"inputs": [], "outputs": []}}, None),
        ({}, "the node N is gone"),
        ({"N": {"inputs": [["b", "INT"], ["a", "INT"]], "outputs": ["MODEL"]}}, "its inputs were"),
        ({"N": {"inputs": [["a", "FLOAT"]], "outputs": ["MODEL"]}}, "its inputs were"),
        ({"N": {"inputs": [["a", "INT"]], "outputs": []}}, "its outputs were"),
    ],
)
def test_what_is_taken_back_is_noticed(now, wrong):
    found = taken_back({"N": {"inputs": [["a", "INT"]], "outputs": ["MODEL"]}}, now)
    assert not found if wrong is None else wrong in found[0]


def test_names_and_words(node):
    schema = node.GET_SCHEMA()
    assert schema.node_id.startswith("LongTake")
    assert schema.node_id == node.__name__
    assert schema.display_name
    assert schema.category.startswith("LongTake/")
    assert schema.description


def test_every_input_is_explained(node):
    assert [item.id for item in node.GET_SCHEMA().inputs if not item.tooltip] == []


def test_every_node_has_a_help_page(node):
    page = ROOT / "web" / "docs" / f"{node.GET_SCHEMA().node_id}.md"
    assert page.is_file(), f"write {page.relative_to(ROOT)}"
    assert len(page.read_text(encoding="utf-8").split()) > 15


def test_every_help_page_has_a_node():
    assert {path.stem for path in ROOT.glob("web/docs/*.md")} <= set(NODES)


def test_execute_takes_the_schemas_inputs(node):
    """By name, or settings as ``**given``, which are widgets; none is named that is no input."""
    inputs = {item.id: item for item in node.GET_SCHEMA().inputs}
    parameters = inspect.signature(node.execute).parameters.values()
    named = {item.name for item in parameters if item.kind is not inspect.Parameter.VAR_KEYWORD}
    assert named <= set(inputs)
    if len(named) == len(parameters):
        assert named == set(inputs)
    assert all(hasattr(inputs[name], "default") for name in set(inputs) - named)


def test_only_links_have_no_default(node):
    """Whoever calls a node from Python need give nothing that could be left alone in the editor."""
    schema = node.GET_SCHEMA()
    widgets = ("INT", "FLOAT", "BOOLEAN", "STRING", "COMBO")
    without = [item.id for item in schema.inputs if item.get_io_type() in widgets and item.id not in schema_defaults(node)]
    empty_menus = [item.id for item in schema.inputs if item.get_io_type() == "COMBO" and not item.options]
    assert set(without) <= set(empty_menus)


# The base class


class Example(LongTakeNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Example",
            category="LongTake/test",
            inputs=[
                io.Latent.Input("latent"),
                io.Int.Input("frames", default=16),
                io.Combo.Input("kind", options=["first", "second"]),
                io.Boolean.Input("loop", default=False),
                io.Mask.Input("mask", optional=True),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, latent, frames, kind, loop, mask):
        return io.NodeOutput(latent, frames, kind, loop, mask)


class Narrower(Example):
    """Another schema for the same ``execute``."""

    @classmethod
    def define_schema(cls):
        schema = super().define_schema()
        schema.node_id = "Narrower"
        schema.inputs[1].default = 8
        return schema


@pytest.mark.parametrize(
    ("cls", "args", "given", "expected"),
    [
        (Example, (), {"latent": 1}, (1, 16, "first", False, None)),
        (Example, (), {"latent": 1, "frames": 3, "mask": 2}, (1, 3, "first", False, 2)),
        (Example, (1, 5), {"kind": "second"}, (1, 5, "second", False, None)),
        (Example, (1, 5, "second", True, 2), {}, (1, 5, "second", True, 2)),
        (Narrower, (), {"latent": 1}, (1, 8, "first", False, None)),
    ],
)
def test_what_is_not_given_is_the_schemas_default(cls, args, given, expected):
    assert tuple(cls.execute(*args, **given).result) == expected


@pytest.mark.parametrize(
    ("args", "given", "sentence"),
    [
        ((), {}, "Example needs 'latent' and there is no default for it: add latent=... to the call"),
        ((), {"latent": 1, "frame": 3}, "Example has no input 'frame': it has latent, frames, kind, loop, mask"),
        ((1,), {"latent": 1}, "Example got 'latent' twice"),
        ((1, 2, 3, 4, 5, 6), {}, "Example got 6 values and takes 5 by place"),
    ],
)
def test_calls_that_cannot_be_meant(args, given, sentence):
    with pytest.raises(ValueError, match=sentence):
        Example.execute(*args, **given)


@pytest.mark.comfy
@pytest.mark.parametrize("cls", [Example, Narrower])
def test_comfyuis_clones_work_too(cls):
    """As its executor calls a node: on a locked clone, through ``EXECUTE_NORMALIZED``."""
    from comfy_api.internal import first_real_override, make_locked_method_func

    assert first_real_override(cls, "execute") is not None
    assert first_real_override(cls, "validate_inputs") is None
    cls.VALIDATE_CLASS()
    cls.GET_SCHEMA()
    clone = cls.PREPARE_CLASS_CLONE(None)
    for _ in range(2):
        output = make_locked_method_func(cls, "EXECUTE_NORMALIZED", clone)(latent=1)
        assert output.result[:3] == (1, 8 if cls is Narrower else 16, "first")
    assert cls.FUNCTION == "EXECUTE_NORMALIZED"


# Files that cannot be imported


def files_of(folder, monkeypatch):
    monkeypatch.setattr(pack.nodes, "__path__", [str(folder)])
    return [file.__name__ for file in pack.nodes.node_files()]


def test_a_file_whose_package_is_missing_is_named_and_left_out(tmp_path, monkeypatch, caplog):
    (tmp_path / "needy.py").write_text("import no_such_package.part\n", encoding="utf-8")
    (tmp_path / "plain.py").write_text("value = 1\n", encoding="utf-8")
    with caplog.at_level(logging.WARNING, "longtake"):
        assert files_of(tmp_path, monkeypatch) == ["pack.nodes.plain"]
    assert "nodes/needy.py needs the package no_such_package" in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("from . import nothing_here\n", ImportError),
        ("from .nothing_here import x\n", ImportError),
        ("1 / 0\n", ZeroDivisionError),
    ],
)
def test_other_mistakes_are_not_hidden(text, error, tmp_path, monkeypatch):
    (tmp_path / "wrong.py").write_text(text, encoding="utf-8")
    with pytest.raises(error):
        files_of(tmp_path, monkeypatch)


# Workflows


def workflow_of(path):
    return {key: value for key, value in json.loads(path.read_text(encoding="utf-8")).items() if not key.startswith("_")}


# inputs that name a file -> where ComfyUI and the standalone host look for it
FOLDERS = {
    "ckpt_name": ("checkpoints", "checkpoints"),
    "vae_name": ("vae", "vae"),
    "model_name": ("longtake", ""),
    "FrameInterpolationModelLoader.model_name": ("frame_interpolation", "frame_interpolation"),
    "motion_module": ("animatediff_models", "animatediff_models"),
    "lora_name": ("loras", "loras"),
    "control_net_name": ("controlnet", "controlnet"),
    "unet_name": ("diffusion_models", "diffusion_models"),
    "fps_file": ("diffusion_models", "diffusion_models"),
    "clip_name": ("text_encoders", "text_encoders"),
    "CLIPVisionLoader.clip_name": ("clip_vision", "clip_vision"),
    "image_prompt": ("ipadapter", "ipadapter"),
    "sparse_control": ("controlnet", "controlnet"),
    "file": ("../input", "input"),
    "image": ("../input", "input"),
}


NEWER = {"FrameInterpolationModelLoader"}  # ComfyUI's nodes that not every supported version has


@pytest.fixture
def named_files(tmp_path, monkeypatch):
    """Every model file that a workflow names is there, empty: what is checked is the workflow, not this machine."""
    on_comfyui = host.name == "comfyui"
    if on_comfyui:
        import folder_paths

        root = Path(folder_paths.models_dir)
    else:
        root = tmp_path
        monkeypatch.setenv("LONGTAKE_MODELS", str(root))
    made = []
    for path in WORKFLOWS:
        for node in workflow_of(path).values():
            for name, (there, here) in FOLDERS.items():
                loader, _, wanted = name.rpartition(".")
                value = node["inputs"].get(wanted) if loader in ("", node["class_type"]) else None
                if not isinstance(value, str):  # absent, or linked
                    continue
                file = root / (there if on_comfyui else here) / value
                if not file.exists():
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.touch()
                    made.append(file)
    yield
    for file in made:
        file.unlink()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_our_nodes_in_workflows_are_complete(path):
    """Every input that has a widget is written down, so a new default does not change what an old file shows."""
    for key, item in workflow_of(path).items():
        if item["class_type"].startswith("LongTake"):
            schema = NODES[item["class_type"]].GET_SCHEMA()
            known = [field.id for field in schema.inputs]
            assert set(item["inputs"]) <= set(known), f"node {key}"
            widgets = [field.id for field in schema.inputs if hasattr(field, "default")]
            lacking = sorted(set(widgets) - set(item["inputs"]))
            assert not lacking, f"node {key} lacks {lacking}: python workflows/api_to_ui.py --fill writes them"
            assert item["_meta"]["title"]


@pytest.mark.skipif(host.name != "standalone", reason="ComfyUI is here: its own validation runs instead")
@pytest.mark.usefixtures("named_files")
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_validate_standalone(path):
    core = importlib.import_module("pack.host.standalone.core_nodes")
    executor = importlib.import_module("pack.host.standalone.executor")
    nodes = NODES | core.core_nodes()
    workflow, _ = executor.without_classes(
        workflow_of(path), [cls.__name__ for cls in core.VIDEO_NODES if cls.__name__ not in nodes]
    )
    problems = executor.Executor(nodes).check(workflow)
    elsewhere = {item["class_type"] for item in workflow.values()} - set(nodes)
    if elsewhere:  # a workflow for ComfyUI alone: that is the only thing to be said about it
        assert not any(name.startswith("LongTake") for name in elsewhere)
        assert all("there is no such node here" in problem for problem in problems)
        pytest.skip(f"needs ComfyUI's own {', '.join(sorted(elsewhere))}")
    assert not problems


@pytest.mark.comfy
@pytest.mark.usefixtures("named_files")
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_validate_in_comfyui(path):
    import execution

    comfyui = importlib.import_module("pack.host.comfyui.executor")

    async def check():
        import nodes

        await comfyui.load_nodes()
        missing = {item["class_type"] for item in workflow_of(path).values()} & NEWER - set(nodes.NODE_CLASS_MAPPINGS)
        if missing:
            pytest.skip(f"this ComfyUI is older than its {', '.join(missing)}")
        return await execution.validate_prompt("id", workflow_of(path), None)

    valid, error, _, node_errors = asyncio.run(check())
    assert valid, error
    assert not node_errors


NOTES = ("Note", "MarkdownNote")
AFTER_SEED = ("fixed", "increment", "decrement", "randomize")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_files_for_the_editor_are_in_step(path):
    """``workflows/x.json``, which ComfyUI's template browser lists, is the same graph as ``workflows/api/x.json``."""
    file = ROOT / "workflows" / path.name
    assert file.is_file(), f"python workflows/api_to_ui.py writes {file.relative_to(ROOT)}"
    editor, workflow = json.loads(file.read_text(encoding="utf-8")), workflow_of(path)
    shown = {str(item["id"]): item for item in editor["nodes"] if item["type"] not in NOTES}
    assert {key: item["type"] for key, item in shown.items()} == {key: item["class_type"] for key, item in workflow.items()}
    links = {link[0]: (str(link[1]), link[2]) for link in editor["links"]}
    for key, item in workflow.items():
        linked = {slot["name"]: links[slot["link"]] for slot in shown[key].get("inputs", []) if slot.get("link") is not None}
        assert linked == {name: (str(v[0]), v[1]) for name, v in item["inputs"].items() if isinstance(v, list)}, key
        values = [value for value in shown[key].get("widgets_values", []) if value not in AFTER_SEED]
        if (
            item["class_type"] in NODES
        ):  # the editor keeps a value for inputs that are linked, too; ComfyUI's own nodes here have none
            widgets = [field.id for field in NODES[item["class_type"]].GET_SCHEMA().inputs if hasattr(field, "default")]
            values = [value for name, value in zip(widgets, values, strict=False) if name not in linked]
        # a nested menu has its name in newer versions after a dot, and the same place in the editor
        written = [value for name, value in item["inputs"].items() if not isinstance(value, list) and "." not in name]
        # more may follow: inputs that only newer versions have
        assert values[: len(written)] == written, (
            f"node {key} differs: python workflows/api_to_ui.py --fill writes both files in step"
        )
