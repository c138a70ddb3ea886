"""Keyframes: frames counted from either end, strengths that fall with distance, a timeline that shows them, and what is refused."""

import pytest
import torch
from pack.modules.control.keyframes import Keyframes, read_frames, read_strengths
from pack.modules.draw.keyframe_picture import LEFT, RIGHT, STRIP, WIDTH, draw_keyframes
from pack.nodes.keyframes.keyframes import LongTakeKeyframes


def pictures(count, height=6, width=9):
    """Each in a grey of its own."""
    return torch.linspace(0, 1, count)[:, None, None, None].expand(count, height, width, 3).contiguous()


def keyframes(*frames, strengths=None, reach=0, **changes):
    count = len(frames)
    return Keyframes(pictures(count), frames, strengths or (1.0,) * count, (reach,) * count, **changes)


def test_frames_count_from_either_end_and_come_out_in_order():
    given = keyframes(-1, 0, 8, strengths=(0.5, 1.0, 2.0))
    at = given.at(16)
    assert at.frames == (0, 8, 15) and at.strengths == (1.0, 2.0, 0.5)
    assert torch.equal(at.images, given.images[[1, 2, 0]])
    assert given.at(9 + 1).frames == (0, 8, 9)
    assert at.at(16).frames == at.frames


@pytest.mark.parametrize("reach", [0, 1, 3, 20])
def test_strength_falls_linearly_and_is_gone_beyond_the_reach(reach):
    weights = keyframes(2, -3, strengths=(1.0, 3.0), reach=reach).weights(10)
    for row, (frame, strength) in zip(weights, ((2, 1.0), (7, 3.0)), strict=True):
        for place, value in enumerate(row.tolist()):
            distance = abs(place - frame)
            assert value == pytest.approx(strength * (1 - distance / (reach + 1)) if distance <= reach else 0)


@pytest.mark.parametrize(
    ("text", "images", "count", "frames"),
    [
        ("0", 1, 0, (0,)),
        ("0 8 -1", 3, 0, (0, 8, -1)),
        ("5,0", 2, 0, (5, 0)),
        ("even", 1, 16, (0,)),
        (" Even ", 4, 16, (0, 5, 10, 15)),
        ("even", 16, 16, tuple(range(16))),
    ],
)
def test_frames_are_read(text, images, count, frames):
    assert read_frames(text, images, count) == frames


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: keyframes(16).at(16), r"at frame 16 and the clip has 16 frames: choose 0 to 15, or -1 to -16"),
        (lambda: keyframes(-17).at(16), r"at frame -17"),
        (lambda: keyframes(15, 0, -1).at(16), r"two images are keyframes of frame 15 \(15 and -1\)"),
        (lambda: keyframes(0, clip=8).at(16), r"laid out for a clip of 8 frames and this one has 16"),
        (lambda: read_frames("0, 1", 3), r"3 images were given and 2 frame numbers \(0, 1\)"),
        (lambda: read_frames("", 1), r"1 image was given and 0 frame numbers \(none\)"),
        (lambda: read_frames("0.5", 1), r"'0.5' is no frame number"),
        (lambda: read_frames("even", 3), r"3 images cannot be spread evenly over the clip: clip_frames is 0"),
        (lambda: read_frames("even", 3, 2), r"the clip has 2 frames"),
        (lambda: read_strengths("1, 2", 3), r"3 images and 2 strengths"),
        (lambda: read_strengths("", 1), r"1 images and 0 strengths"),
        (lambda: read_strengths("much", 1), r"'much' in strength is no number"),
        (lambda: read_strengths("nan", 1), r"nan in strength is out of range"),
        (lambda: keyframes(0, strengths=(11.0,)), r"strength is 11: it must lie between 0 and 10"),
        (lambda: keyframes(0, strengths=(-1.0,)), r"strength is -1"),
        (lambda: keyframes(0, reach=-1), r"reach is -1"),
        (lambda: Keyframes(pictures(2), (0,), (1.0, 1.0), (0, 0)), r"2 images and 1 frame numbers"),
        (lambda: Keyframes(torch.zeros(2, 4, 4), (0, 1), (1.0, 1.0), (0, 0)), r"shape \[2, 4, 4\]"),
        (lambda: Keyframes(torch.zeros(0, 4, 4, 3), (), (), ()), r"shape \[0, 4, 4, 3\]"),
        (lambda: Keyframes(torch.full((1, 4, 4, 3), torch.nan), (0,), (1.0,), (0,)), r"not finite"),
        (
            lambda: keyframes(0).and_then(Keyframes(pictures(1, height=7), (1,), (1.0,), (0,))),
            r"keyframes of 9x6 and 9x7 pixels cannot be joined",
        ),
        (lambda: keyframes(0, clip=8).and_then(keyframes(1, clip=9)), r"clips of 8 and 9 frames"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_the_timeline_shows_each_strength_over_its_frame():
    given = keyframes(0, 9, strengths=(1.0, 0.5), reach=1)
    image = draw_keyframes(given, 10)
    assert image.shape[0] == 1 and image.shape[2:] == (WIDTH, 3) and image.min() >= 0 and image.max() <= 1
    strip = image[0, -12 - STRIP : -12, LEFT : WIDTH - RIGHT]
    empty = torch.tensor([44, 47, 54]) / 255
    filled = ((strip - empty).abs().sum(-1) > 0.1).float().mean(0)
    of_frame = [float(filled[(2 * frame + 1) * len(filled) // 20]) for frame in range(10)]
    assert of_frame == pytest.approx([1, 0.5, 0, 0, 0, 0, 0, 0, 0.25, 0.5], abs=0.02)


def test_the_timeline_shows_the_images_and_stays_in_bounds():
    picture = torch.zeros(1, 40, 80, 3)
    picture[..., 0] = 1
    image = draw_keyframes(Keyframes(picture, (-1,), (1.0,), (0,)), 33)
    assert ((image - torch.tensor([1.0, 0, 0])).abs().sum(-1) < 0.01).sum() == 120 * 60
    many = draw_keyframes(keyframes(*range(40)), 5000)
    assert many.shape[2] == WIDTH and many.shape[1] < 400


def test_the_node_reads_text_and_joins():
    first, timeline = LongTakeKeyframes.execute(images=pictures(2), frames="0, -1", strength="1 0.5").result
    assert (first.frames, first.strengths, first.reach, first.clip) == ((0, -1), (1.0, 0.5), (0, 0), 16)
    assert timeline.shape[0] == 1
    both, _ = LongTakeKeyframes.execute(images=pictures(1), frames="8", reach=2, previous=first).result
    assert both.at(16).frames == (0, 8, 15) and both.at(16).reach == (0, 2, 0)
    anyhow, _ = LongTakeKeyframes.execute(images=pictures(1), frames="-5", clip_frames=0).result
    assert anyhow.at(5).frames == (0,) and anyhow.at(20).frames == (15,)
    with pytest.raises(ValueError, match="at frame 16 and the clip has 16"):
        LongTakeKeyframes.execute(images=pictures(1), frames="16")
