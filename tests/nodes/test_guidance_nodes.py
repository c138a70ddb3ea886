"""Guidance as users have it: its nodes, in Rollout and as a GUIDER, on the models of both hosts."""

from functools import partial

import pytest
import torch
from custom import advanced
from pack import host
from pack.modules.guidance.branches import fractional, read_branches, vanilla
from pack.modules.guidance.history import HistoryGuidance
from pack.modules.sampling.context_noise import ContextNoise
from pack.modules.sampling.forcing import Forcing
from pack.modules.sampling.model_view import plain
from pack.modules.sampling.noise_levels import NoiseLevels
from pack.modules.temporal.transformer import TemporalConfig
from pack.nodes.forcing.forcing import LongTakeRollout
from pack.nodes.guidance.guidance import LongTakeGuider, LongTakeHistoryGuidance
from pack.nodes.models.models import LongTakeLabelPrompt
from sparing import sparing
from tiny import LABELS, video_model

FRAMES, KNOWN = 12, 3
BRANCHES = "all:1.5, last 2@0.3:0.5, 1..3@0.5:-0.25"
RECURRENT = TemporalConfig(kind="recurrent", groups=8, mask="causal", hidden=8)


@pytest.fixture(params=[None, RECURRENT], ids=["transformer", "recurrent"])
def any_model(request):
    return host.video_model(video_model(**({} if request.param is None else {"temporal": request.param})))


@pytest.fixture
def model():
    return host.video_model(video_model())


def prompt(model, words):
    return LongTakeLabelPrompt.execute(model=model, prompt=words).args[0]


def known(count=KNOWN, seed=0):
    return {"samples": torch.randn(count, 48, 4, 4, generator=torch.Generator().manual_seed(seed))}


def guidance(**given):
    return LongTakeHistoryGuidance.execute(**given).args[0]


def roll(model, **options):
    settings = {"frames": FRAMES, "steps": 4, "lag": 1.0, "known_frames": known(), "positive": prompt(model, "red square")}
    with torch.inference_mode():  # as nodes run
        return LongTakeRollout.execute(model=model, **settings | options).args[0]["samples"]


def same(one, other):
    """To 1e-5 of the largest value."""
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))


def test_the_rollout_is_guided(any_model):
    free = roll(any_model)
    assert torch.equal(roll(any_model, guidance=guidance(weight=1.0)), free), "a weight of 1 is no guidance"
    for settings in (
        {},
        {"preset": "fractional"},
        {"context_noise": 0.1, "generated_only": False},
        {"preset": "temporal", "branches": "all, last 1", "context_noise": 0.02},
        {"segments": "0..1, 1..3"},
        {"preset": "custom", "branches": BRANCHES},
    ):
        guided = roll(any_model, guidance=guidance(**settings))
        assert torch.equal(guided[:KNOWN], free[:KNOWN])
        assert (guided - free)[KNOWN:].abs().max() > 1e-3


@pytest.mark.parametrize("hidden", ["noise", "absent"])
@pytest.mark.parametrize("cfg", sparing([1.0, 2.0], 2.0))
def test_branches_together_and_one_by_one(any_model, hidden, cfg):
    settings = {"cfg": cfg, "negative": prompt(any_model, "")}
    made = [
        roll(any_model, **settings, guidance=guidance(preset="custom", branches=BRANCHES, hidden=hidden, branch_batch=size))
        for size in (0, 1, 2)
    ]
    same(made[1], made[0])
    same(made[2], made[0])


def test_labels_per_frame_follow_the_frames_of_every_branch(model):
    """A prompt that changes along the clip, in branches that leave frames out: as by hand, branch by branch."""
    rows = torch.rand(FRAMES, len(LABELS), generator=torch.Generator().manual_seed(1))
    positive = [[torch.zeros(1, 1, 1), {"pooled_output": rows}]]
    made = [
        roll(model, positive=positive, guidance=guidance(preset="custom", branches=BRANCHES, hidden=hidden, branch_batch=size))
        for hidden in ("noise", "absent")
        for size in (0, 1)
    ]
    same(made[1], made[0])
    same(made[3], made[2])
    flipped = [[torch.zeros(1, 1, 1), {"pooled_output": rows.flip(0)}]]
    other = roll(model, positive=flipped, guidance=guidance(preset="custom", branches=BRANCHES))
    assert (other - made[0]).abs().max() > 1e-3


def test_the_sum_is_of_what_the_branches_say(model):
    """One step, so that the clip is the guess itself: the sum of clips that are made with one branch each."""
    one = {"steps": 1, "lag": 1.0, "schedule": "full_sequence", "frames": 6, "context_noise": 0.0}
    alone = {
        text: roll(model, **one, guidance=guidance(preset="custom", branches=f"{text}:1"))
        for text in ("all", "last 2@0.3", "none")
    }
    guided = roll(model, **one, guidance=guidance(preset="custom", branches="all:1.5, last 2@0.3:0.5"))
    expected = 1.5 * alone["all"] + 0.5 * alone["last 2@0.3"] - alone["none"]
    torch.testing.assert_close(guided[KNOWN:], expected[KNOWN:], rtol=1e-3, atol=1e-3)


def test_guidance_chains(model):
    def doubled(denoise, view):
        return 2 * denoise(view)

    one = {"steps": 1, "schedule": "full_sequence", "frames": 6}
    history = guidance(weight=2.0)
    chained = LongTakeHistoryGuidance.execute(weight=2.0, before=doubled).args[0]
    torch.testing.assert_close(
        roll(model, **one, guidance=chained)[KNOWN:], 2 * roll(model, **one, guidance=history)[KNOWN:], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"preset": "firmly"}, "choose one of vanilla, fractional, temporal, custom"),
        ({"preset": "custom", "branches": "all"}, "'all' cannot be read"),
        ({"preset": "custom", "branches": ""}, "no branches"),
        ({"preset": "custom", "branches": "some:1"}, "'some' cannot be read"),
        ({"preset": "fractional", "level": 2.0}, "level is 2: it must lie between 0 and 1"),
        ({"weight": float("inf")}, "weight is inf: it must lie between 0 and 100"),
        ({"hidden": "gone"}, "choose one of noise, absent"),
        ({"branch_batch": -1}, "branch_batch is -1"),
        ({"preset": "temporal", "branches": "all:1.5"}, "for temporal write frames alone"),
        ({"segments": ""}, "there are no segments"),
        ({"segments": "some"}, "'some' cannot be read"),
        ({"before": HistoryGuidance(vanilla(2.0))}, "two history guidances"),
    ],
)
def test_bad_input_is_one_sentence(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        guidance(**change)


def test_cfg_needs_a_negative(model):
    with pytest.raises(ValueError, match="no negative conditioning is connected"):
        LongTakeGuider.execute(model=model, positive=prompt(model, ""), cfg=2.0)


@pytest.mark.skipif(host.name != "standalone", reason="what the standalone host says")
def test_a_guider_is_for_comfyui(model):
    with pytest.raises(ValueError, match="connect the guidance to Rollout"):
        LongTakeGuider.execute(model=model, positive=prompt(model, ""))


# On ComfyUI: the GUIDER, its own samplers, and its models


def forcing(levels, **options):
    return Forcing(levels, context_noise=ContextNoise(0.1), **options)


@pytest.mark.comfy
def test_the_guider_carries_guidance_to_our_samplers(model):
    levels = NoiseLevels.named("pyramid", FRAMES, 4, lag=1.0, known=KNOWN)
    sigmas, latent = host.level_sigmas(model, 4), torch.zeros(FRAMES, 48, 4, 4)
    latent[:KNOWN] = known()["samples"]
    positive, negative = prompt(model, "red"), prompt(model, "")
    made = []
    for guide in (None, guidance(weight=1.0), guidance(), guidance(branch_batch=1)):
        guider = LongTakeGuider.execute(model=model, positive=positive, negative=negative, cfg=1.5, guidance=guide).args[0]
        made.append(advanced(model, host.forcing_sampler(forcing(levels)), latent, sigmas.flip(0), positive=None, guider=guider))
    assert torch.equal(made[1], made[0])
    assert (made[2] - made[0]).abs().max() > 1e-3
    same(made[3], made[2])


@pytest.mark.comfy
def test_samplers_that_finish_all_frames_together_are_refused_before_the_first_call(model, monkeypatch):
    import comfy.model_base
    import comfy.samplers

    def never(*args, **kwargs):
        raise AssertionError("the model was called")

    euler = comfy.samplers.sampler_object("euler")
    sigmas, latent = host.level_sigmas(model, 3).flip(0), torch.zeros(FRAMES, 48, 4, 4)
    guiders = [
        LongTakeGuider.execute(model=model, positive=prompt(model, "red"), guidance=guide).args[0]
        for guide in (guidance(), lambda denoise, view: 2 * denoise(view), plain)
    ]
    doubled, free = (advanced(model, euler, latent, sigmas, positive=None, guider=guider) for guider in guiders[1:])
    assert (doubled - free).abs().max() > 1e-3, "other guidance goes with every sampler"
    monkeypatch.setattr(comfy.model_base.BaseModel, "apply_model", never)
    with pytest.raises(ValueError, match="history guidance needs a sampler that finishes frames one after the other"):
        advanced(model, euler, latent, sigmas, positive=None, guider=guiders[0])


@torch.no_grad()
def sampled(model, guide, *, latent, positive, negative, levels, cfg=2.0, window=0):
    sigmas = host.level_sigmas(model, levels.steps)
    algorithm = forcing(levels, window=window)
    return host.sample(model, positive, negative, cfg=cfg, latent=latent, algorithm=algorithm, seed=1, sigmas=sigmas, guide=guide)


@pytest.fixture(scope="module")
def animated(tmp_path_factory):
    from pack.modules.checkpoints.motion import load_motion_module
    from tiny_motion import image_model, motion_file

    return host.apply_motion(image_model(), load_motion_module(motion_file(tmp_path_factory.mktemp("motion"))))


def conditions():
    """A prompt per frame, and a ControlNet with a hint per frame."""
    from tiny_motion import text
    from whole_windows import control_net, hints

    control = control_net().set_cond_hint(hints(FRAMES), 0.8, (0.0, 0.9))
    words = torch.cat([text(10 + frame)[0][0] for frame in range(FRAMES)])
    return {
        "positive": [[words, {"control": control, "control_apply_to_uncond": True}]],
        "negative": [[text(4)[0][0], {"control": control, "control_apply_to_uncond": True}]],
    }


@pytest.mark.comfy
@pytest.mark.parametrize("way", ["plain", "chunks", "windows of the motion module", "windows of the whole model"])
@pytest.mark.parametrize("hidden", sparing(["noise", "absent"], "absent"))
def test_image_models_with_motion_give_the_same_together_and_one_by_one(animated, way, hidden, monkeypatch):
    import pack.host.comfyui.attach.motion_call as motion_call
    from pack.modules.temporal.windows import WindowPlan

    model = animated
    if way == "chunks":
        monkeypatch.setattr(motion_call, "plan_for", partial(two_frames, motion_call.plan_for))
    elif way != "plain":
        mode = "whole" if way.endswith("model") else "temporal"
        model = host.context_windows(animated, WindowPlan(length=4, overlap=2), mode)
    levels = NoiseLevels.named("pyramid", 8, 2, lag=1.0, known=KNOWN)
    latent = torch.zeros(8, 4, 8, 8)
    latent[:KNOWN] = torch.randn(KNOWN, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    given = {"latent": latent, "levels": levels, "window": 6} | conditions()
    made = [sampled(model, HistoryGuidance(read_branches(BRANCHES), hidden, size), **given) for size in (0, 1)]
    same(made[1], made[0])
    if way == "plain":
        assert (sampled(model, plain, **given) - made[0]).abs().max() > 1e-3


def two_frames(plan_for, *args, **kwargs):
    """A plan in which two frames go through a layer at once."""
    from dataclasses import replace

    return replace(plan_for(*args, **kwargs), chunk=2)


@pytest.mark.comfy
@pytest.mark.parametrize("hidden", sparing(["noise", "absent"], "absent"))
def test_video_models_give_the_same_together_and_one_by_one(hidden):
    from tiny_wan import SIZE, text, video, wan_model

    model = wan_model()
    levels = NoiseLevels.named("pyramid", 8, 3, lag=1.0, known=2)
    latent = torch.zeros(2, 16, 8, *SIZE)
    latent[:, :, :2] = video(2, batch=2)
    given = {"latent": latent, "levels": levels, "window": 6, "positive": text(3), "negative": text(4)}
    made = [sampled(model, HistoryGuidance(fractional(2.0, 0.5), hidden, size), **given) for size in (0, 1, 2)]
    same(made[1], made[0])
    same(made[2], made[0])
    assert torch.equal(sampled(model, HistoryGuidance(vanilla(1.0)), **given), sampled(model, plain, **given))
    assert (sampled(model, plain, **given) - made[0]).abs().max() > 1e-3


@pytest.mark.comfy
def test_memory_is_planned_for_all_variants(animated):
    from pack.host.comfyui.memory import plan_for

    one, three = (plan_for(animated, (8, 4, 8, 8), None, variants) for variants in (1, 3))
    assert 2 < three.bytes / one.bytes < 4
