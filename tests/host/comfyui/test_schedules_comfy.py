"""Prompt schedules in ComfyUI: the numbers of its own nodes, with windows and without, and on video models."""

import pytest
import tiny_wan
import torch
from pack.nodes.keyframes.keyed_control import LongTakeKeyframedControlNet
from pack.nodes.keyframes.keyframes import LongTakeKeyframes
from pack.nodes.keyframes.schedules import LongTakePromptSchedule
from small_clip import Words
from tiny_motion import image_model, text
from video_calls import guess as guess_video
from whole_windows import FRAMES, PLAN, close, control_net, drawn, guess, hints, run, whole

pytestmark = pytest.mark.comfy
WRITTEN = "0: a; 4: b; 6: c"


@pytest.fixture(scope="module")
def model(comfyui):
    return image_model()


def scheduled(written=WRITTEN, **changes):
    return LongTakePromptSchedule.execute(clip=Words(), schedule=written, **({"frames": FRAMES} | changes)).args[0]


def alone(word):
    return [[Words.encoding(word)[0], {}]]


def test_text_is_core_s_average_of_the_two_prompts_in_each_frame(model):
    import nodes

    made = guess(model, drawn(FRAMES, 4, 8, 8), torch.tensor(5.0), scheduled())
    for frame, (one, other, part) in enumerate(
        [*(("a", "b", i / 4) for i in range(4)), ("b", "c", 0), ("b", "c", 0.5), ("c", "c", 0)]
    ):
        (mean,) = nodes.ConditioningAverage().addWeighted(alone(other), alone(one), part)
        x = drawn(FRAMES, 4, 8, 8)[[frame]]
        close(made[frame], guess(model, x, torch.tensor(5.0), mean)[0])


def test_predictions_are_core_s_masked_and_combined_prompts(model):
    """The graph of some forty nodes that did this before: a mask per prompt, Set Mask, Combine."""
    import nodes

    shares = torch.tensor([[1, 0.75, 0.5, 0.25, 0, 0, 0], [0, 0.25, 0.5, 0.75, 1, 0.5, 0], [0, 0, 0, 0, 0, 0.5, 1.0]])
    masks = shares[:, :, None, None].expand(-1, -1, 64, 64)
    masked = [
        nodes.ConditioningSetMask().append(alone(word), mask, "default", 1.0)[0] for word, mask in zip("abc", masks, strict=True)
    ]
    (both,) = nodes.ConditioningCombine().combine(*masked[:2])
    (every,) = nodes.ConditioningCombine().combine(both, masked[2])
    close(run(model, positive=scheduled(blend="predictions")), run(model, positive=every), 1e-6)


@pytest.mark.parametrize("blend", ["text", "predictions"])
def test_windows_change_nothing(model, blend):
    x = drawn(FRAMES, 4, 8, 8)
    plain = guess(model, x, torch.tensor(5.0), scheduled(blend=blend))
    close(guess(whole(model, PLAN), x, torch.tensor(5.0), scheduled(blend=blend)), plain)
    assert (plain - guess(model, x, torch.tensor(5.0), alone("a"))).flatten(1).abs().amax(1)[1:].min() > 1e-3


@pytest.mark.parametrize("blend", ["text", "predictions"])
def test_windows_of_a_longer_clip_hold_the_last_prompt(model, blend):
    x = drawn(FRAMES, 4, 8, 8)
    short, full = (
        guess(whole(model, PLAN), x, torch.tensor(5.0), scheduled("0: a; 2: b", blend=blend, frames=n)) for n in (3, FRAMES)
    )
    assert torch.equal(short, full)


def test_a_video_model_takes_predictions_at_levels_of_its_own(comfyui):
    levels = torch.tensor([0.2, 0.2, 0.4, 0.4, 0.7, 1.0])
    video, x = tiny_wan.wan_model(), tiny_wan.video()
    words = {word: tiny_wan.text(seed) for word, seed in (("a", 8), ("b", 9))}

    class Clip(Words):
        def encode_from_tokens_scheduled(self, tokens):
            return words[tokens["l"]]

    def scheduled_video(**changes):
        return LongTakePromptSchedule.execute(clip=Clip(), schedule="0: a; 4: b", negative="a", frames=6, **changes).args[0]

    made = guess_video(video, x, levels[None], positive=scheduled_video(blend="predictions"), cfg=1.0)
    one, other = (guess_video(video, x, levels[None], positive=words[word], cfg=1.0) for word in "ab")
    part = torch.tensor([0, 0.25, 0.5, 0.75, 1, 1])[:, None, None]
    close(made, (1 - part) * one + part * other)
    with pytest.raises(
        ValueError, match="mixed for 6 frames and this model has one text for all .* set blend of Prompt Schedule to"
    ):
        guess_video(video, x, levels[None], positive=scheduled_video(), cfg=1.0)


def test_a_control_s_strength_follows_a_schedule(model):
    """A frame alone, with the same hint at a fixed strength, is what each must be."""
    keyframes = LongTakeKeyframes.execute(images=hints(1).movedim(1, -1), frames="0", reach=4096, clip_frames=FRAMES).args[0]
    shown, x = hints(), drawn(FRAMES, 4, 8, 8)
    conds = LongTakeKeyframedControlNet.execute(
        positive=text(3),
        negative=text(4),
        control_net=control_net(),
        keyframes=keyframes,
        hints=shown.movedim(1, -1),
        strength_per_frame="0: 0; 6: 1.5",
    ).result
    made = guess(model, x, torch.tensor(5.0), *conds)
    for frame in (0, 3, 6):
        strength = frame / 4 * (1 - frame / 4097)
        control = control_net().set_cond_hint(shown[[frame]], strength)
        fixed = [[[text(seed)[0][0], {"control": control, "control_apply_to_uncond": True}]] for seed in (3, 4)]
        close(made[frame], guess(model, x[[frame]], torch.tensor(5.0), *fixed)[0])
