"""Schedules that are written out: what they promise, AR-Diffusion's from its definition, matrices from text, and their pictures."""

from fractions import Fraction

import pytest
import torch
from pack.modules.draw.level_picture import cost_of, draw_levels
from pack.modules.sampling.forcing import Forcing
from pack.modules.sampling.job import Job
from pack.modules.sampling.level_matrix import MATRICES, NAMES, LevelMatrix, matrix_of, planned
from pack.modules.sampling.noise_levels import NoiseLevels
from pack.modules.sampling.schedules import SCHEDULES
from pack.nodes.forcing.forcing import LongTakeNoiseLevels


def on_the_line(place, row, frames, steps):
    """Level of a token: the line through two anchor points, in exact numbers; arXiv:2305.09515, Section 3.2."""
    start = (min(max(frames - row, 0), frames), min(max(row - frames, 0), steps))
    end = (2 * frames, steps)
    level = Fraction(end[1] - start[1], end[0] - start[0]) * (place - start[0]) + start[1]
    return float(min(max(level, Fraction(0)), Fraction(steps)))


@pytest.mark.parametrize("frames", [1, 2, 5, 16])
@pytest.mark.parametrize("steps", [1, 3, 12])
def test_ar_diffusion_is_the_line_through_its_anchors(frames, steps):
    levels = planned("ar_diffusion", frames, steps)
    expected = [[on_the_line(n, t, frames, steps) for n in range(1, frames + 1)] for t in range(frames + steps, -1, -1)]
    torch.testing.assert_close(levels.matrix(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    assert levels.rows_total == frames + steps
    assert levels.in_flight() == frames, "all frames move from the first row on"


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("known", [0, 3, [0, -1]])
def test_every_matrix_keeps_the_rules_and_leaves_known_frames_alone(name, known):
    levels = planned(name, 12, 5, known=known)
    matrix = levels.matrix()
    assert (matrix[:, levels.known] == 0).all()
    assert (matrix[0, ~levels.known] == 5).all()
    assert (matrix[-1] == 0).all()
    assert ((matrix[:-1] - matrix[1:]) >= 0).all()
    assert (matrix[:-1] != matrix[1:]).any(dim=1).all()
    assert torch.equal(levels.known, NoiseLevels.named("pyramid", 12, 5, known=known).known)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("known", [0, 2, [0, 6, -1]])
def test_a_schedule_written_out_makes_the_same_calls(name, known):
    """So both ways to have a schedule look through windows in the same way, on both sides where frames do not finish in order."""
    levels = NoiseLevels.named(name, 13, 4, lag=1.5, block=2, known=known)
    written = LevelMatrix(levels.matrix(), 4, levels.waiting)
    assert written.in_flight() == levels.in_flight()
    assert torch.equal(written.moves(), levels.moves())
    for window, sink_frames in ((levels.in_flight(), 0), (levels.in_flight() + 3, 0), (levels.in_flight() + 4, 2)):
        for ours, theirs in zip(written.rows(window, sink_frames), levels.rows(window, sink_frames), strict=True):
            assert torch.equal(ours.ids, theirs.ids)
            assert torch.equal(ours.before, theirs.before)
            assert torch.equal(ours.after, theirs.after)
            assert (ours.times is None) == (theirs.times is None)
            assert ours.times is None or torch.equal(ours.times, theirs.times)


def test_a_frame_that_pauses_stays_in_the_window():
    """Only finished frames may be left behind."""
    levels = matrix_of("2222 1222 1122 1112 1111 1110 1100 1000 0000")
    assert levels.in_flight() == 4
    for call in levels.rows(4):
        begun = (levels.matrix() > 0) & (levels.matrix() < 2)
        assert call.ids[0] == 0, begun


def test_real_levels_are_sampled_between_their_sigmas():
    """A model that knows the clean frames gives them, and is told the sigma on the line between two levels."""
    levels, sigmas, seen = matrix_of("2. 2.; 1.5 2; 0.25 1; 0 0"), torch.tensor([0.0, 1.0, 3.0]), []

    def denoise(view):
        seen.append(view.sigma.tolist())
        return torch.full_like(view.x, 7.0)

    sampler = Forcing(levels, 2)(Job(denoise, torch.zeros(2, 1, 1, 1), sigmas))
    for _ in range(levels.rows_total):
        next(sampler)
    with pytest.raises(StopIteration) as end:
        next(sampler)
    torch.testing.assert_close(end.value.value, torch.full((2, 1, 1, 1), 7.0))
    assert seen == [[3.0, 3.0], [2.0, 3.0], [0.25, 1.0]]


@pytest.mark.parametrize(
    "text",
    [
        "333 233 123 012 001 000",
        "333\n233\n123\n012\n001\n000\n",
        "3 3 3\n2 3 3\n1 2 3\n0 1 2\n0 0 1\n0 0 0",
        "3,3,3; 2,3,3; 1,2,3; 0,1,2; 0,0,1; 0,0,0",
        "\n 3, 3 3\n\n2 3,3\n1 2 3\n0 1 2\n 0 0 1\n0 0 0",
    ],
)
def test_all_ways_to_write_a_matrix(text):
    levels = matrix_of(text)
    assert levels.steps == 3
    assert levels.matrix().dtype == torch.int64
    assert torch.equal(levels.matrix(), NoiseLevels.named("pyramid", 3, 3, lag=1).matrix())


def test_levels_above_nine_and_real_ones():
    assert matrix_of("\n".join(f"{level}, {min(level + 1, 12)}" for level in range(12, -1, -1)) + "\n0 0").steps == 12
    real = matrix_of("4.0 4.0\n1.5 4.0\n0 2.25\n0 0")
    assert real.matrix().dtype == torch.float64
    assert real.matrix()[2].tolist() == [0, 2.25]
    assert matrix_of("2.\n0.5\n0").frames == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the custom matrix is empty"),
        (" \n;\n", "the custom matrix is empty"),
        ("33 23 1", "row 2 of the custom matrix has 1 levels and row 0 has 2"),
        ("3 x\n0 0", "row 0 has frame 1 at level 'x'"),
        ("3 -1\n0 0", "row 0 has frame 1 at level -1: levels lie between 0"),
        ("1e9 1.\n0 0", "row 0 has frame 0 at level 1e9"),
        ("nan 1.\n0 0", "row 0 has frame 0 at level nan"),
        ("2.5 2.5\n0 0", "row 0 has frame 0 at level 2.5: the level of noise is a whole number"),
        ("32 22 11 00", "row 0 has frame 1 at level 2: in row 0 every frame is noise, 3, or known, 0"),
        ("33 23 24 11", "row 2 has frame 1 at level 4: levels lie between 0 .clean. and 3"),
        ("33 23 33 22", "row 2 takes frame 0 up from 2 to 3: levels never rise"),
        ("30 20 11 00", "row 2 takes frame 1 up from 0 to 1: levels never rise"),
        ("33 13 02 01 00", "row 1 takes frame 0 from 3 to 1: whole levels fall by 1 at a time"),
        ("22 12 12 01 00", "row 2 moves no frame .frame 0 stays at 1."),
        ("22 12 01", "row 2 has frame 1 at level 1: in the last row every frame is clean, 0"),
        ("22", "at least 2 rows"),
        ("00 00", "steps is 0"),
    ],
)
def test_what_no_sampler_can_follow_is_one_sentence(text, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        matrix_of(text)
    assert str(error.value).count("\n") == 0


def test_known_frames_of_a_custom_matrix_are_its_zeros():
    levels = planned("custom", 99, 99, text="0330 0230 0120 0010 0000")
    assert (levels.frames, levels.steps, levels.known.tolist()) == (4, 3, [True, False, False, True])
    assert planned("custom", 99, 99, text="0330 0230 0120 0010 0000", known=[0, -1]).frames == 4
    with pytest.raises(ValueError, match=r"0 in every row of the custom matrix \(0, 3\) are the known ones"):
        planned("custom", 99, 99, text="0330 0230 0120 0010 0000", known=1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "spiral"}, "choose one of"),
        ({"steps": 0}, "steps is 0"),
        ({"frames": 0}, "frames is 0"),
        ({"known": 4}, "nothing is left"),
    ],
)
@pytest.mark.parametrize("name", ["pyramid", "ar_diffusion"])
def test_bad_numbers_are_one_sentence(name, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        planned(**{"name": name, "frames": 4, "steps": 3} | change)


# The picture


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shown_and_moved_is_counted(name):
    text = "044 034 023 012 001 000"
    levels = planned(name, 14, 4, lag=1.5, block=2, known=0 if name == "custom" else [0, 13], window=14, text=text)
    cost = cost_of(levels, levels.frames)
    moved, shown = torch.zeros(levels.frames, dtype=torch.int64), torch.zeros(levels.frames, dtype=torch.int64)
    calls = list(levels.rows(levels.frames))
    for call in calls:
        moved[call.ids] += call.before != call.after
        shown[call.ids] += 1
    assert torch.equal(cost.moved, moved)
    assert torch.equal(cost.shown, shown)
    assert cost.calls == len(calls)


def test_the_cost_in_words():
    lines = cost_of(NoiseLevels.named("pyramid", 34, 12, lag=3, known=2), 16).lines()
    assert lines[0] == "32 frames to make and 2 known: 105 model calls, 3.28 per new frame"
    assert lines[1].startswith("4 in flight: the least window; a window of 16 leaves 12 for context, ")
    assert "has no room for context" in cost_of(planned("full_sequence", 8, 5)).lines()[1]


def test_the_picture_holds_the_map_and_a_strip_of_calls():
    from pack.modules.draw import level_picture as drawing

    levels = planned("pyramid", 30, 4, lag=1, known=2)
    picture = draw_levels(levels, 12)
    assert picture.dtype == torch.float32
    assert picture.shape[0] == 1
    assert picture.shape[3] == 3
    rows = levels.rows_total + 1
    side = 560 // rows
    assert picture.shape[1] == drawing.TOP + rows * side + drawing.GAP + drawing.STRIP + drawing.BOTTOM
    cell = lambda row, frame: picture[0, drawing.TOP + row * side + side // 2, drawing.LEFT + frame * side + side // 2]  # noqa: E731
    assert torch.equal(cell(0, 0), cell(rows - 1, 29)), "known frames are as dark as finished ones"
    assert cell(0, 2).sum() > cell(2, 2).sum() > cell(4, 2).sum(), "bright is noise"
    strip = drawing.TOP + rows * side + drawing.GAP
    bottom = lambda frame: picture[0, strip + drawing.STRIP - 1, drawing.LEFT + frame * side + side // 2]  # noqa: E731
    assert not torch.equal(bottom(0), bottom(2)), "known frames are shown and never moved"
    assert tuple((bottom(2) * 255).round().int().tolist()) == drawing._BAR


@pytest.mark.parametrize(("frames", "steps"), [(1, 1), (3, 2), (10_000, 12)])
def test_pictures_of_short_and_very_long_takes(frames, steps):
    picture = draw_levels(planned("pyramid", frames, steps, lag=3))
    assert max(picture.shape) < 2000
    assert picture.min() >= 0
    assert picture.max() <= 1


# The node


def levels_node(**values):
    return LongTakeNoiseLevels.execute(**values).args


def test_the_node_takes_known_frames_anywhere():
    levels, picture, calls, report = levels_node(frames=17, schedule="trapezoid", steps=4, lag=1.0, known_at="0, 8 -1", window=9)
    assert levels.known.nonzero().flatten().tolist() == [0, 8, 16]
    assert (levels.in_flight(), calls) == (9, 14)
    assert report.splitlines()[0] == "trapezoid, 4 steps"
    assert "14 model calls, 1 per new frame" in report
    assert picture.shape[0] == 1
    both = levels_node(frames=17, known=2, known_at="-1")[0]
    assert both.known.nonzero().flatten().tolist() == [0, 1, 16]


def test_the_node_takes_a_custom_matrix():
    levels, _, calls, report = levels_node(schedule="custom", custom="0333\n0233\n0123\n0012\n0001\n0000")
    assert (levels.frames, levels.steps, calls) == (4, 3, 5)
    assert "3 frames to make and 1 known: 5 model calls" in report


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"schedule": "custom"}, "the custom matrix is empty"),
        ({"known_at": "first"}, "'first' is no frame number"),
        ({"known_at": "40"}, "frame 40 is known and the clip has frames 0 to 31"),
        ({"window": 2}, "the window holds 2 frames and this schedule has 4 in flight"),
        ({"schedule": "custom", "custom": "2 2\n2 1\n1 0\n0 0", "known_at": "0"}, "leave known at 0 and known_at empty"),
    ],
)
def test_the_node_says_what_is_wrong(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        levels_node(**values)
