"""The numbers that the widgets in ``web/`` draw, computed by Node.js: equal to what the modules compute, refusals included."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from pack.modules.control.keyframes import read_frames
from pack.modules.draw.level_picture import cost_of
from pack.modules.sampling.known_frames import numbers_of
from pack.modules.sampling.level_matrix import CUSTOM, NAMES, planned
from pack.modules.sampling.plan_settings import NoiseLevelSettings
from sparing import sparing

BUILT = {
    "frames": 12,
    "schedule": "pyramid",
    "steps": 6,
    "lag": 2.0,
    "block": 1,
    "known": 0,
    "known_at": "",
    "custom": "",
    "window": 0,
}


def nodes_plan(values: dict[str, Any]) -> Any:
    """What Noise Levels makes of its widgets."""
    known = numbers_of(values["known_at"]) or values["known"]
    if values["schedule"] != CUSTOM:
        known = NoiseLevelSettings(frames=values["frames"], known=values["known"], known_at=values["known_at"]).known_frames()
    given = {name: values[name] for name in ("lag", "block", "window")}
    return planned(values["schedule"], values["frames"], values["steps"], known=known, text=values["custom"], **given)


def outcome(function: Callable[..., Any], *args: Any) -> Any:
    """What a function gives, or the sentence that it refuses with."""
    try:
        return function(*args)
    except ValueError as error:
        return f"refused: {error}"


def plain(plan: Any) -> Any:
    """A plan as ``js_calls.mjs`` writes it."""
    if isinstance(plan, str):
        return plan
    numbers = {"steps": plan.steps, "known": plan.known.tolist(), "calls": plan.rows_total, "least": plan.in_flight()}
    return numbers | {"levels": plan.matrix().tolist()}


def assert_same(js: Any, values: dict[str, Any]) -> None:
    ours, its = plain(outcome(nodes_plan, values)), outcome(js, "level_matrix", "planned", values)
    if isinstance(ours, str):
        assert its == ours, values
        return
    its.pop("cost")
    assert its.pop("levels") == [pytest.approx(row, abs=1e-9) for row in ours.pop("levels")], values
    assert its == ours, values


@pytest.mark.parametrize("schedule", [name for name in NAMES if name != CUSTOM])
def test_schedules_are_those_of_the_modules(js, schedule):
    draw = random.Random(schedule)
    for _ in range(60):
        frames = draw.randint(1, 24)
        numbers = [draw.randint(-frames, frames - 1) for _ in range(draw.choice((0, 0, 1, 3)))]
        assert_same(
            js,
            {
                "frames": frames,
                "schedule": schedule,
                "steps": draw.randint(1, 14),
                "lag": draw.choice((0.0, 0.25, 0.29, 1.0, 1.5, 2.75, 3.0, 7.0, 100.0)),
                "block": draw.choice((1, 2, 3, 5, 40)),
                "known": draw.choice((0, 0, 1, 2, 30)),
                "known_at": draw.choice((", ", " ")).join(map(str, numbers)),
                "custom": "",
                "window": draw.choice((0, 0, 4, 9)),
            },
        )


@pytest.mark.parametrize("frames", sparing((1, 2, 7, 300), 1, 2, 7))
def test_long_clips_count_the_same(js, frames):
    for schedule in ("trapezoid", "pyramid", "chunked"):
        assert_same(js, BUILT | {"schedule": schedule, "frames": frames, "steps": 20, "lag": 1.25, "block": 3})


@pytest.mark.parametrize(
    "text",
    [
        "33 23 12 01 00",
        "333\n233\n123\n012\n001\n000",
        "2.0, 2.0\n1.5, 2.0\n0.5, 1.0\n0.0, 0.5\n0.0, 0.0",
        "3 3; 2, 3; 1 2; 0 1; 0 0",
        "202 101 000",
        "3.0 3.0; 1.0 2.0; 0.0 0.0",
        "10 10\n9 10\n8 9",
        "",
        " \n ",
        "33 2",
        "33 13 00",
        "33 33 00",
        "23 13 00",
        "12 21 00",
        "11 00 x0",
        "1.5 1.5; 0.0 0.0",
        "00 00",
        "3",
        "inf 1.0; 0.0 0.0",
        "-1 1; 0 0",
        "0.30000001 1.0; 0.0 0.0",
        "1e1 1; 0 0",
        "200000 1; 0 0",
    ],
)
def test_written_matrices_are_read_and_refused_alike(js, text):
    assert_same(js, BUILT | {"schedule": CUSTOM, "custom": text})


@pytest.mark.parametrize(
    ("known", "known_at"), [(0, "1"), (1, ""), (0, "0"), (0, "-2"), (0, "9"), (2, ""), (0, "a"), (0, "0 1 2")]
)
def test_known_frames_of_a_written_matrix(js, known, known_at):
    assert_same(js, BUILT | {"schedule": CUSTOM, "custom": "202 101 000", "known": known, "known_at": known_at})


@pytest.mark.parametrize("known_at", ["12", "-13", "0 x", "1.5", "+3, -1", "0 1 2 3 4 5 6 7 8 9 10 11", ",,"])
def test_known_frames_are_read_and_refused_alike(js, known_at):
    assert_same(js, BUILT | {"known_at": known_at})


@pytest.mark.parametrize("window", (0, 1, 2, 3, 4, 30))
def test_the_cost_and_the_window(js, window):
    values = BUILT | {"window": window}
    ours = outcome(lambda: cost_of(nodes_plan(values), window))
    its = js("level_matrix", "planned", values)["cost"]
    if isinstance(ours, str):
        assert f"refused: {its['refusal']}" == ours
        return
    assert (its["calls"], its["made"], its["least"], its["refusal"]) == (ours.calls, ours.made, ours.in_flight, "")
    assert f"{ours.calls / ours.made:.3g}" == f"{its['each']:g}"


# Keyframes


def at(*frames: int) -> list[dict[str, Any]]:
    """Keyframes counted from the start."""
    return [{"at": frame, "fromEnd": False} for frame in frames]


def test_even_is_spread_as_by_the_module(js):
    for count in range(1, 60):
        for images in range(1, 12):
            ours = outcome(lambda: list(read_frames("even", images, count)))  # noqa: B023
            assert outcome(js, "keyframe_numbers", "spread", images, count) == ours, (images, count)


@pytest.mark.parametrize("text", ["0, 8, -1", "3", " 5 -5", "0,0"])
def test_numbers_are_read_and_written_back(js, text):
    keyframes = js("keyframe_numbers", "readKeyframes", text, None, 17)
    numbers = read_frames(text, len(keyframes), 17)
    assert [keyframe["at"] for keyframe in keyframes] == [number % 17 for number in numbers]
    assert js("keyframe_numbers", "written", keyframes, 17) == ", ".join(map(str, numbers))


def test_even_becomes_numbers(js):
    keyframes = js("keyframe_numbers", "readKeyframes", " Even ", 3, 17)
    assert keyframes == at(0, 8, 16)
    assert js("keyframe_numbers", "written", keyframes, 17) == "0, 8, 16"


@pytest.mark.parametrize(
    ("text", "images", "count", "words"),
    [
        ("0, 17", None, 17, "frame 17 .* 0 to 16, or -1 to -17"),
        ("-18", None, 17, "frame -18"),
        ("0, x", None, 17, "'x' is no frame number"),
        ("even", 3, 2, "the clip has 2 frames"),
        ("even", 3, 0, "clip_frames is 0"),
        ("even", None, 9, "known when the node has run"),
    ],
)
def test_what_cannot_be_drawn_is_said(js, text, images, count, words):
    with pytest.raises(ValueError, match=words):
        js("keyframe_numbers", "readKeyframes", text, images, count)


def test_a_keyframe_moves_to_the_nearest_free_frame_on_its_way(js):
    assert js("keyframe_numbers", "moved", at(0, 8, 16), 1, 5, 17) == at(0, 5, 16)
    assert js("keyframe_numbers", "moved", at(0, 8, 16), 1, 16, 17) == at(0, 15, 16)
    assert js("keyframe_numbers", "moved", at(0, 8, 16), 1, -40, 17) == at(0, 1, 16)
    assert js("keyframe_numbers", "moved", at(0, 1, 2), 2, 0, 17) == at(0, 1, 2)
    assert js("keyframe_numbers", "moved", at(0, 8), 0, 99, 17) == at(16, 8)


def test_a_keyframe_counted_from_the_end_stays_so(js):
    keyframes = js("keyframe_numbers", "readKeyframes", "0, -1", 2, 16)
    assert js("keyframe_numbers", "written", js("keyframe_numbers", "moved", keyframes, 1, 12, 16), 16) == "0, -4"


def test_keyframes_come_and_go_only_where_images_are_unlike_numbers(js):
    assert js("keyframe_numbers", "added", at(0), 5, 2) == at(0, 5)
    assert js("keyframe_numbers", "added", at(0), 5, None) == at(0, 5)
    assert js("keyframe_numbers", "added", at(0, 3), 5, 2) is None
    assert js("keyframe_numbers", "added", at(0), 0, 2) is None
    assert js("keyframe_numbers", "removed", at(0, 3), 0, 1) == at(3)
    assert js("keyframe_numbers", "removed", at(0, 3), 0, 2) is None
    assert js("keyframe_numbers", "removed", at(0), 0, None) is None


def test_what_the_node_will_refuse_is_said_beforehand(js):
    assert js("keyframe_numbers", "complaint", at(0, 3), 2) == ""
    assert js("keyframe_numbers", "complaint", at(0, 3), None) == ""
    assert js("keyframe_numbers", "complaint", at(0, 3), 1) == "1 image and 2 frame numbers: one for each image"
    assert "frame 3" in js("keyframe_numbers", "complaint", at(0, 3, 3), 3)


@pytest.mark.parametrize(
    ("text", "clip", "length"), [("0, 8", 16, 16), ("0, 8", 0, 17), ("-12", 0, 20), ("even", 0, 0), ("", 0, 9)]
)
def test_the_strip_is_as_long_as_the_clip_or_has_room(js, text, clip, length):
    assert js("keyframe_numbers", "stripLength", text, clip) == length
