"""Local attention over time: the pattern of xformers' LocalAttention, with and without the first frame, on any motion module."""

import pytest
import torch
from pack.modules.temporal.config import TemporalConfig
from pack.modules.temporal.motion import MotionModel
from pack.modules.temporal.settings import MotionSettings
from pack.modules.temporal.windows import WindowPlan
from tiny_motion import randomized

SLOT, CHANNELS, FRAMES = "mid_block.motion_modules.0", 32, 12


def pattern(frames, window):
    """xformers' ``local_1d_pattern``: a frame sees those less than half the window away, itself in the middle; cut off at the ends."""
    return torch.tensor([[abs(i - j) < window // 2 + 1 for j in range(frames)] for i in range(frames)])


def module(attentions=1, mask="full"):
    made = MotionModel({SLOT: CHANNELS}, TemporalConfig(heads=4, attentions=attentions, groups=8, mask=mask))
    return randomized(made, 1).requires_grad_(False)


def changed(motion, frame, windows=None):
    """Frames that change with one frame."""
    run = motion.slot_functions()[SLOT]
    x = torch.randn(FRAMES, CHANNELS, 2, 2, generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other[frame] += 1
    with motion.during(motion.frames_for(torch.arange(FRAMES), windows=windows)):
        apart = (run(x.clone()) - run(other)).abs().amax(dim=(1, 2, 3))
    return (apart > 0).nonzero().flatten().tolist()


@pytest.mark.parametrize("window", [1, 3, 5, 11])
def test_the_mask_is_xformers(window):
    made = module().looking(window).frames_for(torch.arange(FRAMES)).mask
    assert torch.equal(made, pattern(FRAMES, window))
    assert module().looking(0).frames_for(torch.arange(FRAMES)).mask is None


@pytest.mark.parametrize("attentions", [1, 2])
def test_a_frame_reaches_as_far_as_its_attentions(attentions):
    motion = module(attentions).looking(5)
    assert changed(motion, 6) == list(range(6 - 2 * attentions, 6 + 2 * attentions + 1))
    assert changed(module(attentions), 6) == list(range(FRAMES))


def test_every_frame_sees_the_first_one_besides():
    motion = module().looking(5, first=True)
    assert changed(motion, 0) == list(range(FRAMES))
    assert changed(motion, 6) == [4, 5, 6, 7, 8]
    expected = pattern(FRAMES, 5)
    expected[:, 0] = True
    assert torch.equal(motion.frames_for(torch.arange(FRAMES)).mask, expected)


def test_a_mask_of_its_own_still_holds():
    made = module(mask="causal").looking(5).frames_for(torch.arange(FRAMES)).mask
    assert torch.equal(made, pattern(FRAMES, 5) & torch.ones(FRAMES, FRAMES, dtype=torch.bool).tril())


def test_context_windows_slide_over_it():
    """Each window has its part of the whole clip's pattern."""
    motion, plan = module().looking(3), WindowPlan("standard_static", 6, 2)
    shown = motion.frames_for(torch.arange(FRAMES), windows=plan.windows(FRAMES))
    for group in shown.groups:
        for index, mask in zip(group.index, group.mask, strict=True):
            assert torch.equal(mask, pattern(FRAMES, 3)[index][:, index])
    assert changed(motion, 5, plan.windows(FRAMES)) == [4, 5, 6]


@pytest.mark.parametrize("window", [2, 4])
def test_a_window_without_a_middle_is_refused(window):
    with pytest.raises(ValueError, match=f"the attention window is {window} frames: it must be odd"):
        MotionSettings(attention_window=window)
    with pytest.raises(ValueError, match="or 0 for all"):
        module().looking(window)


@pytest.mark.comfy
def test_the_node_sets_it_and_nothing_else_changes(tmp_path):
    from pack.modules.checkpoints.motion import load_motion_module
    from pack.nodes.motion.motion import LongTakeApplyMotionModule
    from tiny_motion import image_model, ksample, motion_file

    made = load_motion_module(motion_file(tmp_path))
    model = image_model()

    def frames(**inputs):
        return ksample(LongTakeApplyMotionModule.execute(model=model, motion_module=made, **inputs).args[0], frames=9, steps=2)

    usual = frames()
    assert torch.equal(usual, frames(attention_window=0, see_first_frame=True)), "the first frame is seen anyway"
    torch.testing.assert_close(usual, frames(attention_window=17), atol=1e-4, rtol=1e-4)  # as wide as the clip
    near, with_sink_frames = frames(attention_window=3), frames(attention_window=3, see_first_frame=True)
    assert (near - usual).abs().max() > 1e-3 and (with_sink_frames - near).abs().max() > 1e-3
