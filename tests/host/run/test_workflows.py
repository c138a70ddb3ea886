"""Workflows: which one is read, what it is about, what it needs."""

import pytest
from pack import run
from pack.host.run import workflows
from small_graphs import NODES, written


def test_shipped_workflows_are_known_by_name():
    assert run.DEFAULT in workflows.names()
    assert workflows.read(run.DEFAULT) == workflows.read(str(workflows.API / "postcards_take.json"))


def test_notes_are_no_nodes(tmp_path):
    assert workflows.read(written(tmp_path / "w.json", NODES | {"_note": "read me"})) == NODES


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
        workflows.read(name)


def test_an_editor_workflow_names_the_file_to_use(tmp_path):
    name = written(tmp_path / "long_take.json", {"nodes": [], "links": []})
    with pytest.raises(ValueError, match=r"run workflows.api.long_take\.json instead"):
        workflows.read(name)


def test_a_mistyped_name_is_guessed():
    with pytest.raises(ValueError, match=r"no workflow 'long_tkae': did you mean 'long_take'.*--list"):
        workflows.read("long_tkae")


# What it is about, and what it needs

HERE = {"LoadImage", "SaveImage"}


def test_every_workflow_says_what_it_is_about_in_a_sentence():
    told = {name: workflows.about(workflows.read(name)) for name in workflows.names()}
    assert [name for name, sentence in told.items() if not sentence.endswith((".", "?", "!")) or len(sentence) > 150] == []
    assert len(set(told.values())) == len(told)


def test_what_a_workflow_needs():
    loaders = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
        "2": {"class_type": "LongTakeApplyMotionLora", "inputs": {"lora_name": "pan.ckpt", "model": ["1", 0]}},
        "3": {"class_type": "LongTakeLoadVideoModel", "inputs": {"model_name": "longtake_shapes.safetensors"}},
    }
    wanted = "models/checkpoints/sd15.safetensors, models/animatediff_motion_lora/pan.ckpt"
    assert workflows.needs(loaders, HERE) == f"needs ComfyUI; {wanted}"
    assert workflows.needs(NODES, HERE) == "runs without ComfyUI too; input/cat.png"
    assert workflows.needs({"3": loaders["3"]}, {"LongTakeLoadVideoModel"}) == "runs without ComfyUI too; nothing to download"


def test_every_file_that_a_workflow_names_is_listed():
    endings = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".png", ".jpg", ".mp4", ".webp", ".txt", ".csv")
    for name in workflows.names():
        workflow = workflows.read(name)
        values = [value for node in workflow.values() for value in node["inputs"].values() if isinstance(value, str)]
        listed = [file.rpartition("/")[2] for file in workflows.files(workflow)]
        assert {value for value in values if value.endswith(endings)} == set(listed), name


def test_the_sentence_for_a_workflow_that_only_comfyui_runs():
    nodes = {
        str(number): {"class_type": name, "inputs": {}} for number, name in enumerate(("KSampler", "A", "B", "C", "SaveImage"))
    }
    assert "for its nodes KSampler, A, B and 1 more, and none was found" in workflows.refusal(nodes, HERE)
    assert "for its node KSampler, and" in workflows.refusal({"0": nodes["0"]}, HERE)
    assert workflows.refusal(NODES, HERE) is None
    assert workflows.refusal({"1": {"class_type": "LongTakeRolout", "inputs": {}}}, HERE) is None, "mistyped, not ComfyUI's"
