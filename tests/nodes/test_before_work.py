"""What widgets decide is refused before any work: by every node, for every value that a widget may not have, and by hosts before a run."""

import inspect
import math
import re

import pack.nodes
import pytest
from pack.nodes.forcing.forcing import LongTakeNoiseLevels
from pack.nodes.guidance.guidance import LongTakeHistoryGuidance
from pack.nodes.keyframes.image_prompt import LongTakeApplyImagePrompt
from pack.nodes.keyframes.keyframes import LongTakeKeyframes
from pack.nodes.motion.camera import LongTakeCameraPoses
from pack.nodes.motion.motion import LongTakeApplyMotionModule, LongTakeMotionKeyframe
from pack.nodes.motion.windows import LongTakeContextWindows
from pack.nodes.node import refused, schema_defaults

NODES = {node.GET_SCHEMA().node_id: node for node in pack.nodes.node_classes()}
NUMBERS = ("INT", "FLOAT")


class Untouched:
    """Stands for a model, a latent, pictures: whoever works with it fails the test."""

    def __getattr__(self, name):
        pytest.fail(f"work was begun: {name} was asked for")

    def __len__(self):
        pytest.fail("work was begun: something was counted")


def bad_values(item):
    """Values that a widget may not have, each a kind of mistake."""
    about, kind = getattr(item, "setting", None), item.get_io_type()
    if kind not in NUMBERS:
        menu = about is not None and about.menu
        return ["no such entry"] if menu else {"BOOLEAN": ["on", 3], "STRING": [5]}.get(kind, [])
    least, most = (item.min, item.max) if about is None else (about.least, about.most)
    step = 1 if kind == "INT" else 1e-3
    beyond = [*([] if least is None else [least - step]), *([] if most is None else [most + max(step, abs(most) // 10**6)])]
    return [*beyond, math.nan, "three", True, *([1.5] if kind == "INT" else [math.inf, -math.inf])]


def rows():
    for name, node in NODES.items():
        for item in node.define_schema().inputs:
            for value in bad_values(item):
                yield pytest.param(node, item, value, id=f"{name}-{item.id}-{value}")


@pytest.mark.parametrize(("node", "item", "value"), list(rows()))
def test_a_bad_value_is_refused_before_anything_is_touched(node, item, value):
    given = {other.id: Untouched() for other in node.define_schema().inputs if other.id not in schema_defaults(node)}
    with pytest.raises(ValueError, match=f"^{re.escape(item.id)} is ") as error:
        node.execute(**{**given, item.id: value})
    assert "\n" not in str(error.value) and ": " in str(error.value)


@pytest.mark.parametrize("name", NODES)
def test_every_widget_says_what_it_may_be(name):
    """A number has a range, so that there are values which are refused."""
    for item in NODES[name].define_schema().inputs:
        if item.get_io_type() in NUMBERS:
            assert len(bad_values(item)) > 4, f"{item.id} may be any number"


# Widgets that must go together: hosts are told before a run

TOGETHER = {
    "a keyframe behind the end": (
        LongTakeKeyframes,
        {"frames": "0, 8, 99", "clip_frames": 16},
        "a keyframe is at frame 99 and the clip has 16",
    ),
    "a word among frames": (LongTakeKeyframes, {"frames": "0, last"}, "'last' is no frame number"),
    "two images of one frame": (
        LongTakeKeyframes,
        {"frames": "0, -16", "clip_frames": 16},
        "two images are keyframes of frame 0",
    ),
    "strengths that are not as many": (LongTakeKeyframes, {"frames": "0, 8, 9", "strength": "1, 2"}, "3 images and 2 strengths"),
    "a strength beyond": (LongTakeKeyframes, {"strength": "11"}, "11 in strength is out of range"),
    "a word among effects": (LongTakeMotionKeyframe, {"effect_per_frame": "1, much"}, "'much' in effect_per_frame is no number"),
    "a block that is none": (LongTakeMotionKeyframe, {"blocks": "sideways=1"}, "sideways"),
    "an end before the start": (
        LongTakeApplyMotionModule,
        {"start_percent": 0.8, "end_percent": 0.2},
        "the start must lie below the end",
    ),
    "an even attention window": (LongTakeApplyMotionModule, {"attention_window": 4}, "the attention window is 4 frames"),
    "windows that never move on": (
        LongTakeContextWindows,
        {"length": 8, "overlap": 8},
        "windows of 8 frames cannot overlap by 8",
    ),
    "a loop that cannot be": (
        LongTakeContextWindows,
        {"schedule": "standard_static", "closed_loop": True},
        "cannot close a loop",
    ),
    "a move that is none": (LongTakeCameraPoses, {"more_moves": "fly away"}, "fly away"),
    "a file and moves": (LongTakeCameraPoses, {"move": "from file", "more_moves": "zoom in"}, "a file says all moves"),
    "branches that are none": (LongTakeHistoryGuidance, {"preset": "custom", "branches": "half of it"}, "half of it"),
    "weights of custom": (LongTakeHistoryGuidance, {"preset": "temporal", "branches": "all:2"}, "are for custom"),
    "an image prompt that ends first": (
        LongTakeApplyImagePrompt,
        {"start_percent": 0.5, "end_percent": 0.5},
        "must lie below the end",
    ),
    "a block of an image prompt": (LongTakeApplyImagePrompt, {"blocks": "sideways=1"}, "sideways"),
    "a known frame behind the end": (LongTakeNoiseLevels, {"frames": 8, "known_at": "0, 9"}, "9"),
    "a matrix that is none": (LongTakeNoiseLevels, {"schedule": "custom", "custom": "3 3 x"}, "x"),
    "nothing to make": (LongTakeNoiseLevels, {"frames": 4, "known": 4}, "4 frames are known"),
    "even without a length": (LongTakeKeyframes, {"frames": "even", "clip_frames": 0}, "clip_frames is 0"),
}


@pytest.mark.parametrize("row", TOGETHER)
def test_hosts_are_told_before_a_run(row):
    node, widgets, sentence = TOGETHER[row]
    names = list(inspect.signature(node.validate_inputs).parameters)
    given = {name: value for name, value in {**schema_defaults(node), **widgets}.items() if name in names}
    assert sentence in node.validate_inputs(**given)
    assert node.validate_inputs(**{name: schema_defaults(node)[name] for name in names}) is True
    assert node.validate_inputs(**{**given, next(iter(widgets)): None}) is True, "a link decides"


SPANS = [
    name for name, node in NODES.items() if {"start_percent", "end_percent"} <= {item.id for item in node.define_schema().inputs}
]


@pytest.mark.parametrize("name", SPANS)
def test_a_part_of_the_sampling_that_is_empty_is_told_before_a_run(name):
    node = NODES[name]
    given = {one: schema_defaults(node)[one] for one in inspect.signature(node.validate_inputs).parameters}
    said = node.validate_inputs(**{**given, "start_percent": 0.8, "end_percent": 0.2})
    assert said == "start_percent is 0.8 and end_percent 0.2: the start must lie below the end, or it would never act"


def with_checks():
    return [name for name, node in NODES.items() if "validate_inputs" in vars(node)]


@pytest.mark.parametrize("name", with_checks())
def test_a_node_that_checks_by_itself_checks_ranges_too(name):
    """ComfyUI leaves out its own checks of what a node's ``validate_inputs`` takes."""
    node = NODES[name]
    items = {item.id: item for item in node.define_schema().inputs}
    for taken in inspect.signature(node.validate_inputs).parameters:
        for value in bad_values(items[taken]):
            assert refused(items[taken], value)
            assert node.validate_inputs(**{taken: value}) == f"{taken} {refused(items[taken], value)}"
