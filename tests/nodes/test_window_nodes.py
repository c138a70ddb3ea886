"""The nodes for context windows: what they hand to the host, what they show, and what they refuse before the host is asked."""

import pytest
import torch
from pack import host
from pack.modules.temporal.window_schedules import FUSES, SCHEDULES
from pack.modules.temporal.windows import MODES, WindowPlan
from pack.nodes.motion.windows import LongTakeContextWindows, LongTakeShowPlan


@pytest.fixture
def attached(monkeypatch):
    """What was asked of ``host.context_windows``, which here gives back a new model."""
    asked = []

    def context_windows(model, plan, mode):
        asked.append((model, plan, mode))
        return f"{model} with windows"

    monkeypatch.setattr(host, "context_windows", context_windows, raising=False)
    return asked


@pytest.fixture
def planned(monkeypatch):
    """Let the host say that a model has these windows, and this memory plan."""

    def say(plan, mode="temporal", trained=16, most=32):
        monkeypatch.setattr(host, "window_plan", lambda model: (plan, mode, trained, most), raising=False)
        monkeypatch.setattr(host, "memory_text", lambda model, latent: f"memory for {len(latent['samples'])}", raising=False)

    return say


def latent(*shape):
    return {"samples": torch.zeros(shape)}


def test_a_new_node_is_automatic_temporal_and_static(attached):
    assert LongTakeContextWindows.execute(model="m").args == ("m with windows",)
    assert attached == [("m", WindowPlan("standard_static", 0, 4, 1, False, "pyramid", "attention"), "temporal")]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("fuse", FUSES)
def test_every_choice_arrives(attached, mode, schedule, fuse):
    loop = schedule == "looped_uniform"
    given = {"schedule": schedule, "length": 24, "overlap": 7, "stride": 3, "closed_loop": loop, "fuse": fuse}
    LongTakeContextWindows.execute(model="m", mode=mode, **given)
    ((model, plan, asked),) = attached
    assert (model, asked) == ("m", mode)
    assert plan == WindowPlan(**given, fuse_at=MODES[mode])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"length": 16, "overlap": 16}, "windows of 16 frames cannot overlap by 16"),
        ({"length": 4, "overlap": 4}, "cannot overlap by 4: use an overlap of at most 3"),
        ({"length": 1, "overlap": 0}, "a window needs at least 2 frames"),
        ({"closed_loop": True}, "standard_static cannot close a loop"),
        ({"stride": 0}, "stride is 0"),
        ({"mode": "fast"}, "mode is 'fast': choose one of temporal, views, whole"),
        ({"schedule": "uniform"}, "schedule is 'uniform': choose one of standard_static"),
        ({"fuse": "gauss"}, "fuse is 'gauss': choose one of pyramid"),
    ],
)
def test_what_cannot_work_never_reaches_the_model(attached, given, sentence):
    with pytest.raises(ValueError, match=sentence):
        LongTakeContextWindows.execute(model="m", **given)
    assert attached == []


def test_the_plan_is_shown_as_a_picture_and_a_text(planned):
    planned(WindowPlan())
    output = LongTakeShowPlan.execute(model="m", latent=latent(64, 4, 8, 8))
    picture, text = output.args
    assert picture.shape[0] == 1
    assert picture.shape[3] == 3
    assert text.startswith("64 frames: standard_static, windows of 16, overlap 4, pyramid; mode temporal")
    assert text.endswith("memory for 64")
    assert output.ui.as_dict() == {"text": (text,)}


def test_an_automatic_length_is_shown_as_chosen(planned):
    planned(WindowPlan(length=0, overlap=0), trained=24)
    assert "windows of 24, overlap 6" in LongTakeShowPlan.execute(model="m", latent=latent(64, 4, 8, 8)).args[1]


def test_steps_are_those_of_the_sampler(planned):
    planned(WindowPlan("standard_uniform"))
    few, many = (LongTakeShowPlan.execute(model="m", latent=latent(64, 4, 8, 8), steps=steps).args for steps in (2, 6))
    assert few[0].shape[1] < many[0].shape[1]
    assert "... and 2 more steps" in many[1]


def test_a_model_without_windows_is_one_pass(planned):
    planned(None)
    assert "add context windows of at most 32" in LongTakeShowPlan.execute(model="m", latent=latent(64, 4, 8, 8)).args[1]
    planned(None, trained=None, most=None)
    assert LongTakeShowPlan.execute(model="m", latent=latent(64, 4, 8, 8)).args[1].startswith("64 frames in one pass")


def test_video_latents_have_their_frames_on_the_third_axis(planned):
    planned(WindowPlan(), "whole")
    text = LongTakeShowPlan.execute(model="m", latent=latent(1, 16, 30, 8, 8)).args[1]
    assert text.startswith("30 frames: ")
    assert "whole 1.60 (this model)" in text


def test_windows_too_long_for_the_module_are_refused(planned):
    planned(WindowPlan(length=48))
    with pytest.raises(ValueError, match="windows of 48 frames are longer than the 32 frames"):
        LongTakeShowPlan.execute(model="m", latent=latent(64, 4, 8, 8))
