"""Prompt Schedule and Value Schedule, and what takes their texts, on whichever host is there."""

import pytest
import torch
from pack import host
from pack.modules.control.prompt_mixing import mixed_encodings, row_ids
from pack.modules.control.schedule import numbers_per_frame
from pack.nodes.forcing.forcing import LongTakeRollout
from pack.nodes.keyframes.schedules import LongTakePromptSchedule, LongTakeValueSchedule
from pack.nodes.models.models import LongTakeLabelPrompt
from pack.nodes.motion.motion import LongTakeMotionKeyframe
from small_clip import Words
from tiny import video_model

FRAMES = 12


@pytest.fixture
def model():
    return host.video_model(video_model())


def scheduled(schedule, **changes):
    changes = {"clip": Words()} | changes if "model" not in changes else changes
    return LongTakePromptSchedule.execute(schedule=schedule, **changes).args


def roll(model, positive, **changes):
    options = {"frames": FRAMES, "steps": 3, "lag": 1.0, "seed": 3}
    return LongTakeRollout.execute(model=model, positive=positive, **(options | changes)).args[0]["samples"]


def test_a_frame_has_its_prompts_encodings_in_their_shares():
    (entry,), (against,), report, _ = scheduled("0: a; 8: b; 20: c", negative="worst", frames=FRAMES)
    tokens, options = entry
    a, b, c = (Words.encoding(word) for word in "abc")
    for frame, (one, other, part) in {0: (a, b, 0), 2: (a, b, 0.25), 8: (b, c, 0), 11: (b, c, 0.25)}.items():
        torch.testing.assert_close(tokens[frame], ((1 - part) * one[0] + part * other[0])[0])
        torch.testing.assert_close(options["pooled_output"][frame], ((1 - part) * one[1] + part * other[1])[0])
    assert torch.equal(against[0], Words.encoding("worst")[0]) and len(against[0]) == 1
    assert report.splitlines()[-1] == "The clip has 12 frames: 1 of 3 keys lie behind its end."


def test_each_prompt_is_encoded_once_with_what_stands_around_it():
    clip = Words()
    scheduled("0: a; 4: b; 8: a", clip=clip, before="x", after="(y:1.2)", negative="b")
    assert sorted(clip.seen) == ["b", "x, a, (y:1.2)", "x, b, (y:1.2)"]


def test_a_longer_prompt_is_repeated_so_that_a_frame_of_one_prompt_is_that_prompt():
    one, two = torch.randn(1, 4, 3), torch.randn(1, 8, 3)
    ((rows, _),) = mixed_encodings([[[one, {}]], [[two, {}]]], torch.eye(2))
    assert torch.equal(rows[0], one[0].repeat(2, 1)) and torch.equal(rows[1], two[0])
    with pytest.raises(ValueError, match="the prompts have 4 and 7 tokens, which cannot be mixed: .* set blend to predictions"):
        mixed_encodings([[[one, {}]], [[two[:, :7], {}]]], torch.eye(2))
    with pytest.raises(ValueError, match="also gives attention_mask"):
        mixed_encodings([[[one, {"attention_mask": one}]]] * 2, torch.eye(2))


def test_predictions_are_a_condition_for_each_prompt_with_its_share():
    positive, *_ = scheduled("0: a; 8: b", blend="predictions", interpolation="smooth")
    masks = torch.stack([options["mask"][:, 0, 0] for _, options in positive])
    assert [options["mask"].shape for _, options in positive] == [(16, 8, 8)] * 2
    part = (torch.arange(16) / 8).clamp_max(1)
    torch.testing.assert_close(masks[1], 3 * part**2 - 2 * part**3)
    torch.testing.assert_close(masks.sum(0), torch.ones(16))


def test_the_negative_may_be_a_schedule_and_an_entry_may_add_to_it():
    _, ((tokens, _),), *_ = scheduled('"0": "a --neg p", "8": "b"', negative="0: m; 8: n", frames=9, interpolation="hold")
    assert torch.equal(tokens[0], Words.encoding("m, p")[0][0]) and torch.equal(tokens[8], Words.encoding("n")[0][0])


def test_later_prompts_come_with_their_times_for_samplers_that_turn_from_one_to_the_next():
    positive, _, _, prompts = scheduled('0:4 = "a", 24 = "b", 3.5s = "c"', blend="shots", fps=16.0, frames=0, before="x")
    assert [prompt.seconds for prompt in prompts] == [1.5, 3.5]
    for prompt, text in zip(prompts, ("x, b", "x, c"), strict=True):
        assert torch.equal(prompt.conditioning[0][0], Words.encoding(text)[0])
    assert len(positive) == 1 and torch.equal(positive[0][0], Words.encoding("x, a")[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clip": None}, "nothing is connected to clip or model"),
        ({"model": object(), "clip": Words()}, "both clip and model are connected"),
        ({"model": object(), "clip": None}, "no LongTake video model"),
        ({"schedule": "0: a; b"}, "^line 1, column 7: 'b' has no time"),
        ({"schedule": "0: a; 0: b"}, "^line 1, column 7: there are two entries for frame 0"),
        ({"schedule": "0: (a:`t/0`); 8: b"}, "^line 1, column 1: 't/0' has no value at frame 0"),
        ({"interpolation": "cubic"}, "'cubic': choose one of hold, linear, smooth"),
        ({"blend": "both"}, "'both': choose one of text, predictions, shots"),
        ({"fps": 0.0}, "fps is 0: it must lie between"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_is_encoded(options, words):
    clip = Words()
    given = {"clip": clip, "schedule": "0: a; 8: b"} | options
    with pytest.raises(ValueError, match=words):
        LongTakePromptSchedule.execute(**given)
    assert not clip.seen


@pytest.mark.parametrize(
    ("node", "schedule", "words"),
    [
        (LongTakePromptSchedule, "0: a; b", "line 1, column 7: 'b' has no time"),
        (LongTakeValueSchedule, "0: 1, 4: x", "line 1, column 7: 'x' holds 'x'"),
    ],
)
def test_what_does_not_read_is_said_before_a_run(node, schedule, words):
    given = {"schedule": schedule, "interpolation": "linear", "frames": 16, "fps": 8.0}
    given |= {"negative": ""} if node is LongTakePromptSchedule else {}
    assert words in node.validate_inputs(**given)
    assert node.validate_inputs(**given | {"schedule": "0: 1"}) is True
    assert node.validate_inputs(**given | {"schedule": None}) is True, "it comes by a link"


def test_it_can_be_cancelled_between_two_prompts(monkeypatch):
    clip = Words()
    monkeypatch.setattr(host.chosen(), "check_interrupt", lambda: clip.seen and stop())

    def stop():
        raise host.Interrupted

    with pytest.raises(host.Interrupted):
        scheduled("0: a; 4: b; 8: c", clip=clip)
    assert clip.seen == ["a"]


# On a model of this pack that knows words


def test_one_word_all_along_is_label_prompt(model):
    label = LongTakeLabelPrompt.execute(model=model, prompt="red").args[0]
    positive, *_ = scheduled("0: red; 5: red", model=model)
    assert torch.equal(roll(model, positive), roll(model, label))


def test_frames_follow_their_own_prompt(model):
    """Until its first frame that another prompt is for, or that sees such a one, a take is the first prompt's."""
    red = roll(model, LongTakeLabelPrompt.execute(model=model, prompt="red").args[0], schedule="autoregressive", window=3)
    changed = roll(
        model,
        scheduled("0: red; 6: blue", model=model, interpolation="hold", frames=FRAMES)[0],
        schedule="autoregressive",
        window=3,
    )
    assert torch.equal(changed[:6], red[:6])
    assert (changed[6:] - red[6:]).abs().flatten(1).amax(1).min() > 1e-3


@pytest.mark.parametrize("schedule", ["pyramid", "autoregressive"])
def test_behind_its_last_frame_a_schedule_holds(model, schedule):
    """A take that is longer than its schedule, as those without an end are."""
    short, full = (scheduled("0: red; 4: blue", model=model, frames=frames)[0] for frames in (0, FRAMES))
    assert len(short[0][1]["pooled_output"]) == 5 and len(full[0][1]["pooled_output"]) == FRAMES
    assert torch.equal(roll(model, short, schedule=schedule), roll(model, full, schedule=schedule))


def test_rows_hold_or_start_over():
    ids = torch.tensor([0, 2, 3, 7])
    assert row_ids(ids, 3, held=True).tolist() == [0, 2, 2, 2] and row_ids(ids, 3, held=False).tolist() == [0, 2, 0, 1]


# Numbers


def test_numbers_come_as_text_list_and_mask():
    text, floats, mask = LongTakeValueSchedule.execute(schedule="0: 1; 4: 0.5", frames=6).args
    assert text == "1, 0.875, 0.75, 0.625, 0.5, 0.5" and floats == [1, 0.875, 0.75, 0.625, 0.5, 0.5]
    assert mask.shape == (6, 8, 8) and mask[:, 3, 3].tolist() == floats
    assert numbers_per_frame(text, "x") == numbers_per_frame("0: 1, 4: 0.5, 5: 0.5", "x") == tuple(floats)


def test_motion_keyframe_reads_a_schedule_where_it_reads_a_list():
    given = [
        LongTakeMotionKeyframe.execute(effect_per_frame=text, scale_per_frame=text).args[0][0]
        for text in ("1, 0.75, 0.5", "0: 1; 2: 0.5")
    ]
    assert given[0] == given[1] and given[0].effect.frames == (1.0, 0.75, 0.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0: 1; x", "^effect_per_frame, line 1, column 7: 'x' has no time"),
        ("0: 1; -1: 0", "^effect_per_frame, line 1, column 7: the time -1 needs the clip's length"),
        ("0: 1; 4: 20", r"^effect_per_frame is 10.5 at frame 2"),
    ],
)
def test_a_bad_schedule_names_the_input(text, words):
    with pytest.raises(ValueError, match=words):
        LongTakeMotionKeyframe.execute(effect_per_frame=text)
