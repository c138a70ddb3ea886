"""Whoever searches by the words of the field finds a node of this pack."""

import pack
import pack.nodes
import pytest
from pack import host
from pack.nodes.aliases import ALIASES

SCHEMAS = {schema.node_id: schema for schema in (node.GET_SCHEMA() for node in pack.nodes.node_classes())}
# what is typed -> a node that must be among those found
WORDS = {
    "animatediff": "LongTakeApplyMotionModule",
    "animate": "LongTakeApplyMotionModule",
    "AnimateLCM": "LongTakeLoadMotionModule",
    "lcm": "LongTakeLoadMotionModule",
    "hotshot": "LongTakeLoadMotionModule",
    "PIA": "LongTakeFirstFrame",
    "motion lora": "LongTakeApplyMotionLora",
    "motionlora": "LongTakeApplyMotionLora",
    "text to video": "LongTakeApplyMotionModule",
    "image to video": "LongTakeFirstFrame",
    "i2v": "LongTakeApplySparseControl",
    "sparsectrl": "LongTakeApplySparseControl",
    "ip-adapter": "LongTakeApplyImagePrompt",
    "ipadapter": "LongTakeApplyImagePrompt",
    "controlnet": "LongTakeKeyframedControlNet",
    "latent keyframe": "LongTakeKeyframedControlNet",
    "CameraCtrl": "LongTakeApplyCamera",
    "camera control": "LongTakeCameraPoses",
    "freenoise": "LongTakeClipNoise",
    "context options": "LongTakeContextWindows",
    "loop": "LongTakeContextWindows",
    "prompt travel": "LongTakePromptSchedule",
    "prompt schedule": "LongTakePromptSchedule",
    "diffusion forcing": "LongTakeRollout",
    "skyreels": "LongTakeSkyReels",
    "self forcing": "LongTakeCausalTake",
    "infinite": "LongTakeStream",
    "inbetween": "LongTakeKnownFrames",
    "rife": "LongTakeInterpolateTo",
    "frame interpolation": "LongTakeInterpolateTo",
    "fvd": "LongTakeVideoMetrics",
    "dataset": "LongTakeClipFolder",
    "train vae": "LongTakeTrainAutoencoder",
    "gradient accumulation": "LongTakeTrainingOptions",
}


def found(word: str) -> set[str]:
    """The nodes that a search shows: it looks at ids, names and aliases, whatever the case."""
    return {
        name
        for name, schema in SCHEMAS.items()
        if any(word.lower() in text.lower() for text in (name, schema.display_name, *schema.search_aliases))
    }


@pytest.mark.parametrize(("word", "node"), WORDS.items())
def test_a_word_of_the_field_finds_a_node(word, node):
    assert node in found(word)


def test_a_word_of_nothing_finds_none():
    assert found("spreadsheet") == set()


def test_every_node_has_a_row_and_no_row_is_of_a_node_that_is_gone():
    assert set(ALIASES) == set(SCHEMAS)
    assert [name for name, words in ALIASES.items() if not words or len(set(words)) < len(words)] == []


@pytest.mark.comfy
def test_comfyui_is_told():
    """Where it can be: the nodes of 0.3.64 have no such words."""
    from comfy_api.latest import io

    if not hasattr(io.Schema, "search_aliases") and "search_aliases" not in io.Schema.__dataclass_fields__:
        pytest.skip("this ComfyUI knows no words for its search")
    for node in pack.nodes.node_classes():
        told = node.GET_NODE_INFO_V1()
        assert tuple(told["search_aliases"]) == ALIASES[told["name"]]
    assert host.name == "comfyui"
