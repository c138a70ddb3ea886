"""How strongly a motion module acts: per frame, mask, block and point of the sampling."""

import math

import pytest
import torch
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.temporal.block_rules import BlockRule, block_factor, parse_blocks, parse_numbers
from pack.modules.temporal.frames import resized
from pack.modules.temporal.settings import MotionKeyframe, MotionSettings, Strength

SLOT = "up_blocks.1.motion_modules.2"
SCHEDULE = NoiseSchedule.named("linear")
IDS = torch.arange(4)


def at(percent, frames=4):
    return torch.full((frames,), SCHEDULE.at_percent(percent)).clamp(max=1e4)


def gain(settings, percent, slot=SLOT, ids=IDS, sigma=None):
    return settings.gain(slot, 2, ids, at(percent, len(ids)) if sigma is None else sigma, SCHEDULE.at_percent)


def test_nothing_set_changes_nothing():
    assert MotionSettings().neutral and MotionSettings().gains((SLOT,), 2, IDS, at(0.5), SCHEDULE.at_percent) == {}
    plain = gain(MotionSettings(keyframes=(MotionKeyframe(),)), 0.5)
    assert plain.effect is None and plain.scales == (None, None)


@pytest.mark.parametrize(("percent", "on"), [(0.1, False), (0.25, True), (0.4, True), (0.6, True), (0.7, False)])
def test_a_range_of_the_sampling(percent, on):
    assert (gain(MotionSettings(start_percent=0.25, end_percent=0.6), percent) is not None) is on


def test_every_frame_counts_by_its_own_noise_level():
    sigma = torch.tensor([SCHEDULE.at_percent(p) for p in (0.1, 0.3, 0.5, 0.9)])
    given = gain(MotionSettings(start_percent=0.2, end_percent=0.6), 0, sigma=sigma)
    assert given.effect.tolist() == [0, 1, 1, 0]


def test_keyframes_hold_until_the_next():
    frames = (MotionKeyframe(0.5, Strength(0.2)), MotionKeyframe(0.2, Strength(0.7), Strength(1.5)))
    settings = MotionSettings(effect=0.5, keyframes=frames)
    found = [gain(settings, percent) for percent in (0.1, 0.2, 0.4, 0.5, 0.9)]
    assert [g.effect[0].item() for g in found] == pytest.approx([0.5, 0.35, 0.35, 0.1, 0.1])
    assert [None if g.scales[0] is None else g.scales[0][0].item() for g in found] == [None, 1.5, 1.5, None, None]


def test_lists_go_on_with_their_last_and_multiply():
    strength = Strength(2.0, (1.0, 0.5), torch.tensor([[[0.0, 1.0]], [[1.0, 1.0]]]))
    assert strength.at(torch.tensor([0, 1, 7])).tolist() == [[[0.0, 2.0]], [[1.0, 1.0]], [[1.0, 1.0]]]


def test_masks_are_resized_as_comfyui_does():
    mask = torch.rand(3, 6, 10, generator=torch.Generator().manual_seed(0))
    wanted = torch.nn.functional.interpolate(mask[:, None], size=(4, 5), mode="bilinear")[:, 0]
    assert torch.equal(resized(mask, 4, 5), wanted) and resized(mask, 6, 10) is mask
    assert resized(torch.ones(3), 4, 5).shape == (3, 1, 1)


def test_a_mask_of_one_keyframe_and_a_number_of_another():
    mask = torch.zeros(1, 2, 2)
    mask[0, 0, 0] = 1
    settings = MotionSettings(keyframes=(MotionKeyframe(0, Strength(mask=mask)), MotionKeyframe(0.5, Strength(0.25))))
    sigma = torch.tensor([SCHEDULE.at_percent(p) for p in (0.1, 0.8)])
    given = gain(settings, 0, ids=torch.arange(2), sigma=sigma)
    assert given.effect[0].tolist() == [[1, 0], [0, 0]] and given.effect[1].tolist() == [[0.25, 0.25], [0.25, 0.25]]


@pytest.mark.parametrize(
    ("text", "slot", "factor"),
    [
        ("up 0.5", SLOT, 0.5),
        ("up.1 0.5", SLOT, 0.5),
        ("up.1.2 0", SLOT, 0.0),
        ("up.1.1 0", SLOT, 1.0),
        ("up.2 0", SLOT, 1.0),
        ("down 0; mid 0", SLOT, 1.0),
        ("all 0.2\nup 0.3", SLOT, 0.3),
        ("up.1.2 0.9; all 0.2", SLOT, 0.2),
        ("mid 0.4", "mid_block.motion_modules.0", 0.4),
        ("down.0.1 -1", "down_blocks.0.motion_modules.1", -1.0),
        ("down.1 0.1", "down_blocks.10.motion_modules.1", 1.0),
    ],
)
def test_rules_by_place(text, slot, factor):
    assert block_factor(parse_blocks(text), slot) == factor


def test_rules_of_scale_reach_each_attention():
    settings = MotionSettings(keyframes=(MotionKeyframe(blocks=parse_blocks("up scale=1.2,0.8; mid scale=2")),))
    assert [s[0].item() for s in gain(settings, 0.5).scales] == pytest.approx([1.2, 0.8])
    assert [s[0].item() for s in gain(settings, 0.5, "mid_block.motion_modules.0").scales] == [2, 2]
    assert parse_blocks("up effect=0.5 scale=2") == (BlockRule("up", 0.5, (2.0,)),)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: parse_blocks("left 0.5"), "names no part of the U-Net"),
        (lambda: parse_blocks("up.1.2.3 0.5"), "names no part"),
        (lambda: parse_blocks("up"), "changes nothing"),
        (lambda: parse_blocks("up much"), "'much' in .* is no number"),
        (lambda: parse_blocks("up gain=1"), "is not understood"),
        (lambda: parse_blocks("up 0.1,0.2"), "is not understood"),
        (lambda: parse_blocks("up 11"), "out of range"),
        (lambda: parse_numbers("1, nan"), "out of range"),
        (lambda: parse_numbers("1; 2"), "is no number"),
        (lambda: MotionSettings(effect=-0.1), "effect is -0.1"),
        (lambda: MotionSettings(scale=math.nan), "scale is nan"),
        (lambda: MotionSettings(start_percent=0.5, end_percent=0.5), "the start must lie below the end"),
        (lambda: MotionSettings(end_percent=1.5), "end_percent is 1.5: it must lie between 0 and 1"),
        (lambda: MotionKeyframe(1.5), "start_percent is 1.5"),
    ],
)
def test_slips_are_sentences(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.comfy
@pytest.mark.parametrize("percent", [0.0, 0.001, 0.2, 0.5, 0.77, 0.999, 1.0])
def test_percents_are_comfyuis(percent):
    import comfy.model_sampling

    sampling = comfy.model_sampling.ModelSamplingDiscrete()
    theirs = float(sampling.percent_to_sigma(percent))
    ours = NoiseSchedule(sampling.sigmas).at_percent(percent)
    assert ours == pytest.approx(theirs, rel=1e-5) or (percent == 0 and ours == math.inf and theirs > 1e8)
