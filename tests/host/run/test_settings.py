"""Inputs changed from the command line."""

import pytest
from pack.host.run.facts import NodeFacts, of_information, of_node
from pack.host.run.settings import Settings, value_of
from small_graphs import NODES

FACTS = {
    "LoadImage": NodeFacts("Load Image", {"image": "Picture", "upload": "upload"}),
    "SaveImage": NodeFacts("Save Image", {"images": "images", "filename_prefix": "filename prefix"}, saves=True),
}


def settings(*given, workflow=NODES):
    made = Settings(workflow, FACTS.get)
    made.apply(given)
    return made


def test_nodes_are_found_by_id_class_title_and_what_the_editor_calls_them():
    for name in ("1", "Cat", "LoadImage", "Load Image", "load image"):
        assert settings(f"{name}.image=dog.png").workflow["1"]["inputs"]["image"] == "dog.png"
    assert settings("2.filename_prefix=x.y=z").workflow["2"]["inputs"]["filename_prefix"] == "x.y=z"
    assert NODES["1"]["inputs"] == {"image": "cat.png"}


def test_inputs_are_found_by_id_and_what_the_editor_calls_them():
    assert settings("Cat.picture=7").workflow["1"]["inputs"] == {"image": "7"}
    assert settings("2.Filename Prefix=x").workflow["2"]["inputs"]["filename_prefix"] == "x"
    assert settings("Cat.upload=true").workflow["1"]["inputs"]["upload"] is True


def test_titles_and_nested_inputs_may_hold_dots():
    workflow = {
        "1": {"class_type": "SaveVideo", "_meta": {"title": "At 8.5 fps"}, "inputs": {"format": "mp4", "format.codec": "auto"}}
    }
    for setting in ("At 8.5 fps.format.codec=h264", "1.format.codec=h264", "SaveVideo.format.codec=h264"):
        assert settings(setting, workflow=workflow).workflow["1"]["inputs"] == {"format": "mp4", "format.codec": "h264"}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("2.filename_prefix", "NODE.INPUT=VALUE"),
        ("frames=3", "NODE.INPUT=VALUE"),
        (".frames=3", "NODE.INPUT=VALUE"),
        ("2.=3", "NODE.INPUT=VALUE"),
        ("9.image=x", "no node is called '9': the workflow has 1 \\(LoadImage\\)"),
        ("LaodImage.image=x", "no node is called 'LaodImage': did you mean 'LoadImage'"),
        ("SaveImage.images=x", "2 nodes.*'SaveImage'.*ids 2, 3"),
        ("2.filename=x", "SaveImage has no input 'filename': did you mean 'filename_prefix'.*it has images, filename_prefix"),
        ("Cat.pictrue=x", "LoadImage has no input 'pictrue': did you mean 'Picture'"),
        ("2.zzz=x", "SaveImage has no input 'zzz': it has images, filename_prefix"),
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
    assert value_of(text, old) == value


# What a setting changes


def rollout(**inputs):
    """A take whose schedule may come from another node."""
    return {
        "1": {"class_type": "Levels", "_meta": {"title": "Noise levels"}, "inputs": {"frames": 160}},
        "2": {"class_type": "Rollout", "_meta": {"title": "Long take"}, "inputs": {"frames": 64, "seed": 1, **inputs}},
        "3": {"class_type": "Save", "inputs": {"images": ["2", 0]}},
        "4": {"class_type": "Levels", "inputs": {"frames": 8}},
    }


def warnings(*given, workflow):
    known = {
        "Levels": NodeFacts("Levels", {"frames": "frames"}),
        "Rollout": NodeFacts("Rollout", {}, replaced={"levels": ("frames",)}),
        "Save": NodeFacts("Save", {"images": "images"}, saves=True),
    }
    made = Settings(workflow, known.get)
    made.apply(given)
    return made.without_effect()


def test_what_a_link_replaces_has_no_effect():
    (sentence,) = warnings("Long take.frames=8", "Long take.seed=3", workflow=rollout(levels=["1", 0]))
    assert sentence == (
        "--set Long take.frames=8 has no effect: levels of node 2 (Long take) is connected and takes its place: set it in node 1"
        " (Noise levels)"
    )
    assert warnings("Long take.frames=8", workflow=rollout()) == []
    assert warnings("1.frames=8", workflow=rollout(levels=["1", 0])) == []


def test_what_nothing_saved_needs_has_no_effect():
    (sentence,) = warnings("4.frames=3", workflow=rollout())
    assert sentence == "--set 4.frames=3 has no effect: nothing that is saved or shown needs node 4 (Levels)"


def test_where_nothing_is_known_of_what_saves_nothing_is_said():
    made = Settings(rollout(), lambda name: None)
    made.apply(["4.frames=3"])
    assert made.without_effect() == []


def test_what_a_rollout_says_is_replaced_is_replaced():
    """In the node itself: with a schedule connected its own numbers change nothing of the schedule."""
    from pack.nodes import node_classes

    node = {node.GET_SCHEMA().node_id: node for node in node_classes()}["LongTakeRollout"]
    facts = of_node(node)
    (link,), (widgets,) = facts.replaced, facts.replaced.values()
    assert link in facts.inputs
    assert set(widgets) <= set(facts.inputs)


# What is known of a class


def test_facts_of_comfyuis_information():
    information = {
        "display_name": "Load Image",
        "output_node": True,
        "input": {
            "required": {
                "image": [["a.png", "b.png"], {"image_upload": True}],
                "mode": ["COMBO", {"options": ["x", "y"], "display_name": "Mode"}],
                "model": ["MODEL"],
            },
            "optional": {"strength": ["FLOAT", {"default": 1.0}]},
            "hidden": {"prompt": "PROMPT"},
        },
    }
    facts = of_information("LoadImage", information, {})
    assert facts.title == "Load Image"
    assert facts.saves
    assert facts.inputs == {"image": "image", "mode": "Mode", "model": "model", "strength": "strength"}
    assert facts.menus == {"image": ["a.png", "b.png"], "mode": ["x", "y"]}
    assert facts.uploads == {"image"}
