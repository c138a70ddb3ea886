"""What every schedule promises, for every schedule in the table, and the published matrices."""

from collections import deque
from itertools import pairwise

import pytest
import torch
from pack.modules.sampling.known_frames import gaps, known_frames, numbers_of, only_at_the_start
from pack.modules.sampling.noise_levels import NoiseLevels
from pack.modules.sampling.schedules import SCHEDULES

CASES = [
    (name, frames, steps, lag, block, known)
    for name in SCHEDULES
    for frames, steps, lag, block, known in (
        (1, 1, 1, 1, 0),
        (3, 3, 1, 1, 0),
        (9, 4, 1, 1, 2),
        (12, 8, 2, 2, 3),
        (10, 4, 0.5, 1, 0),
        (7, 5, 7, 1, 1),
        (11, 6, 0, 4, 0),
        (16, 5, 2.5, 3, 4),
    )
]


@pytest.fixture(params=CASES, ids=str)
def levels(request):
    name, frames, steps, lag, block, known = request.param
    return NoiseLevels.named(name, frames, steps, lag=lag, block=block, known=known)


def test_goes_from_noise_to_clean_one_level_at_a_time_and_never_idles(levels):
    matrix = levels.matrix()
    assert (matrix[:, levels.known] == 0).all()
    assert (matrix[0, ~levels.known] == levels.steps).all()
    assert (matrix[-1] == 0).all()
    drop = matrix[:-1] - matrix[1:]
    assert ((drop == 0) | (drop == 1)).all()
    assert drop.any(dim=1).all(), "a row that moves nothing wastes a model call"


def test_calls_are_the_matrix_seen_through_windows(levels):
    matrix = levels.matrix()
    for window in {levels.in_flight(), levels.frames, levels.frames + 5}:
        calls = list(levels.rows(window))
        assert len(calls) == len(matrix) - 1
        for row, call in enumerate(calls):
            assert len(call.ids) <= window
            assert torch.equal(matrix[row, call.ids], call.before)
            assert torch.equal(matrix[row + 1, call.ids], call.after)
            outside = torch.ones(levels.frames, dtype=torch.bool)
            outside[call.ids] = False
            assert torch.equal(matrix[row, outside], matrix[row + 1, outside]), "a frame outside the window would have to move"


def test_a_window_shorter_than_what_is_in_flight_is_refused_before_the_first_call(levels):
    if levels.in_flight() > 1:
        with pytest.raises(ValueError, match=r"window of at least \d+"):
            levels.rows(levels.in_flight() - 1)


def rows(name, frames, steps, **options):
    return ["".join(map(str, row)) for row in NoiseLevels.named(name, frames, steps, **options).matrix().tolist()]


def test_published_matrices():
    """Diffusion Forcing v1.5's, worked out by hand in the notes; the trapezoid as it was meant to be."""
    assert rows("pyramid", 3, 3) == ["333", "233", "123", "012", "001", "000"]
    assert rows("autoregressive", 3, 3) == ["333", "233", "133", "033", "023", "013", "003", "002", "001", "000"]
    assert rows("full_sequence", 3, 3) == ["333", "222", "111", "000"]
    assert rows("trapezoid", 5, 3) == ["33333", "23332", "12321", "01210", "00100", "00000"]
    assert rows("pyramid", 5, 3, lag=0.5) == ["33333", "22333", "11223", "00112", "00001", "00000"]


@pytest.mark.parametrize("steps", [1, 3, 7])
@pytest.mark.parametrize("frames", [1, 2, 3, 6])
@pytest.mark.parametrize("lag", [0, 0.5, 1, 1.5, 2])
def test_pyramid_is_diffusion_forcing_s_double_loop(steps, frames, lag):
    height = steps + int((frames - 1) * lag) + 1
    reference = torch.tensor([[steps + int(f * lag) - m for f in range(frames)] for m in range(height)]).clamp(0, steps)
    keep = torch.cat([torch.tensor([True]), (reference.diff(dim=0) != 0).any(1)])
    assert torch.equal(NoiseLevels.named("pyramid", frames, steps, lag=lag).matrix(), reference[keep])


@pytest.mark.parametrize("block", [1, 3])
def test_pyramid_spans_from_full_sequence_to_autoregressive(block):
    at = lambda name, lag: NoiseLevels.named(name, 9, 4, lag=lag, block=block).matrix()  # noqa: E731
    assert torch.equal(at("pyramid", 0), at("full_sequence", 1))
    assert torch.equal(at("pyramid", 4), at("autoregressive", 1))
    assert torch.equal(at("pyramid", 99), at("autoregressive", 1)), "a larger lag would only idle"


@pytest.mark.parametrize("frames", [2, 3, 4, 5, 16])
def test_trapezoid_is_symmetric(frames):
    matrix = NoiseLevels.named("trapezoid", frames, 4, lag=1).matrix()
    assert torch.equal(matrix, matrix.flip(1))


def test_model_calls_of_a_long_pyramid_are_lag_per_frame():
    assert len(NoiseLevels.named("pyramid", 164, 12, lag=3, known=4).moments) == 12 + 3 * 159


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "spiral"}, "choose one of pyramid"),
        ({"frames": 0}, "frames is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"block": 0}, "block is 0"),
        ({"lag": -1}, "lag is -1"),
        ({"lag": float("nan")}, "lag is nan"),
        ({"known": 4}, "ask for more frames"),
        ({"known": -1}, "known is -1"),
    ],
)
def test_bad_input_is_one_sentence(change, sentence):
    given = {"name": "pyramid", "frames": 4, "steps": 3, "lag": 1, "block": 1, "known": 0} | change
    name, frames, steps = (given.pop(key) for key in ("name", "frames", "steps"))
    with pytest.raises(ValueError, match=sentence):
        NoiseLevels.named(name, frames, steps, **given)


def test_a_longer_clip_is_made_by_the_same_calls_as_far_as_the_shorter_goes():
    short, long = (NoiseLevels.named("pyramid", frames, 6, lag=2, known=2) for frames in (9, 30))
    for one, other in zip(short.rows(7), long.rows(7), strict=False):
        assert torch.equal(one.ids, other.ids[other.ids < 9])
        assert torch.equal(one.before, other.before[: len(one.before)])


def test_a_trapezoid_shows_its_finished_ends():
    calls = list(NoiseLevels.named("trapezoid", 7, 3, lag=2).rows(7))
    assert all(call.ids.tolist() == list(range(7)) for call in calls)


def without_idle_rows(rows):
    """As a tensor: rows that repeat the one before them cost no model call."""
    kept = [row for number, row in enumerate(rows) if number == 0 or row != rows[number - 1]]
    return torch.tensor(kept)


# Diffusion Forcing v1.5, independently: each frame's level by counting, one frame and one row at a time.


def forcing_pyramid(horizon, steps, uncertainty):
    rows = []
    for m in range(steps + int((horizon - 1) * uncertainty) + 1):
        rows.append([min(steps, max(0, steps + int(frame * uncertainty) - m)) for frame in range(horizon)])
    return rows


@pytest.mark.parametrize("steps", [1, 3, 7])
@pytest.mark.parametrize("frames", [1, 2, 3, 6])
def test_autoregressive_and_full_sequence_are_diffusion_forcing_s(steps, frames):
    equal = lambda name, rows: torch.equal(NoiseLevels.named(name, frames, steps).matrix(), without_idle_rows(rows))  # noqa: E731
    assert equal("autoregressive", forcing_pyramid(frames, steps, steps))
    assert equal("full_sequence", [[level] * frames for level in range(steps, -1, -1)])


@pytest.mark.parametrize("steps", [1, 3, 5])
@pytest.mark.parametrize(("frames", "chunk"), [(6, 3), (7, 3), (5, 1), (4, 9)])
@pytest.mark.parametrize("lag", [0, 0.5, 1, 2, 99])
def test_chunked_is_diffusion_forcing_s_outer_loop(steps, frames, chunk, lag):
    """v1.5 builds a matrix for each chunk, and begins the next chunk when this one is clean."""
    rows, done = [], 0
    while done < frames:
        horizon = min(chunk, frames - done)
        for row in forcing_pyramid(horizon, steps, min(lag, steps)):
            rows.append([0] * done + row + [steps] * (frames - done - horizon))
        done += horizon
    assert torch.equal(NoiseLevels.named("chunked", frames, steps, lag=lag, block=chunk).matrix(), without_idle_rows(rows))


@pytest.mark.parametrize("steps", [2, 5])
@pytest.mark.parametrize("frames", [1, 2, 3, 6, 7])
@pytest.mark.parametrize("lag", [0, 0.5, 1, 2])
def test_trapezoid_is_the_one_that_was_meant(steps, frames, lag):
    """The mirror of a column is counted from the last one; v1.5 counts it from the first (``-t`` at t = 0)."""
    rows = []
    for m in range(steps + int((frames - 1) // 2 * lag) + 1):
        row = [0] * frames
        for t in range((frames + 1) // 2):
            row[t] = row[frames - 1 - t] = min(steps, max(0, steps + int(t * lag) - m))
        rows.append(row)
    assert torch.equal(NoiseLevels.named("trapezoid", frames, steps, lag=lag).matrix(), without_idle_rows(rows))


# SkyReels-V2, by its counters: 0 waits, 1 to N are evaluations, N + 1 is done.


def skyreels(frames, steps, ar_step, block, ready):
    """Rows of (levels before the evaluation, whether each frame is updated by it)."""
    blocks = frames // block
    counters = [steps + 1 if number < ready // block else 0 for number in range(blocks)]
    while any(counter < steps for counter in counters):
        following = []
        for number in range(blocks):
            free = number == 0 or counters[number - 1] >= steps
            counter = counters[number] + 1 if free else following[number - 1] - ar_step
            following.append(min(max(counter, 0), steps + 1))
        updated = [new != old and new != steps + 1 for new, old in zip(following, counters, strict=True)]
        counters = following
        levels = [steps if counter == 0 else steps + 1 - counter for counter in counters]
        yield [level for level in levels for _ in range(block)], [flag for flag in updated for _ in range(block)]


@pytest.mark.parametrize("steps", [1, 3, 5])
@pytest.mark.parametrize(("blocks", "block", "ready"), [(1, 1, 0), (2, 1, 0), (4, 1, 0), (5, 1, 2), (4, 3, 0), (4, 3, 3)])
@pytest.mark.parametrize("step", range(8))
def test_ar_step_is_skyreels_recurrence(steps, blocks, block, ready, step):
    levels = NoiseLevels.named("ar_step", blocks * block, steps, lag=step, block=block, known=ready)
    matrix, theirs = levels.matrix(), list(skyreels(blocks * block, steps, step, block, ready))
    assert len(theirs) == levels.rows_total
    for row, (before, updated) in enumerate(theirs):
        assert matrix[row].tolist() == before
        assert (matrix[row] != matrix[row + 1]).tolist() == updated


def test_ar_step_as_published():
    """The worked example: 5 steps, ar_step 2, 4 blocks."""
    assert rows("ar_step", 4, 5, lag=2) == (
        "5555 4555 3555 2455 1355 0245 0135 0024 0013 0002 0001 0000".split()  # noqa: SIM905
    )


# FIFO-Diffusion: a queue.


@pytest.mark.parametrize(("frames", "steps"), [(1, 4), (9, 4), (20, 8)])
def test_fifo_is_a_queue_that_every_call_moves_by_one_slot(frames, steps):
    queue, waiting, levels, seen = deque(), deque(range(frames)), [steps] * frames, []
    while waiting or queue:
        if waiting:
            queue.append(waiting.popleft())  # pure noise joins at the end
        seen.append(list(levels))
        for frame in queue:
            levels[frame] -= 1
        if levels[queue[0]] == 0:
            queue.popleft()
    seen.append(levels)
    assert NoiseLevels.named("fifo", frames, steps).matrix().tolist() == seen


# Rolling Diffusion: local times of a window, Sections 3.2 and 3.3 of arXiv:2402.09470, in floating point.


@pytest.mark.parametrize(("wide", "shift"), [(1, 3), (4, 2), (5, 1), (3, 4)])
@pytest.mark.parametrize("frames", [1, 3, 9])
def test_rolling_has_the_paper_s_local_times(wide, shift, frames):
    steps, states = wide * shift, []

    def state(first, local):
        """The clip when the window begins at frame ``first`` and its frames are at these times."""
        state = [0.0 if frame < first else 1.0 for frame in range(frames)]
        for place, time in enumerate(local):
            if first + place < frames:
                state[first + place] = time
        states.append([round(level * steps, 6) for level in state])

    for count in range(steps + 1):  # the initial schedule, t from 1 to 0
        t = 1 - count / steps
        state(0, [min(1.0, max(0.0, w / wide + t)) for w in range(wide)])
    for first in range(1, frames):  # then shift, and t from 1 to 0 again
        for count in range(shift + 1):
            t = 1 - count / shift
            state(first, [(w + t) / wide for w in range(wide)])
    matrix = NoiseLevels.named("rolling", frames, steps, lag=shift)
    assert torch.equal(matrix.matrix().double(), without_idle_rows(states).double())
    assert matrix.in_flight() == min(wide, frames)


# PA-VDM: chunks join and leave, every step takes the same off all of them, in floating point.


@pytest.mark.parametrize(("chunks", "shift", "chunk"), [(1, 3, 2), (6, 5, 5), (4, 2, 1), (3, 1, 2)])
@pytest.mark.parametrize("count", [1, 2, 8])
def test_progressive_has_pa_vdm_s_stages(chunks, shift, chunk, count):
    """``chunks`` in flight, ``chunks * shift`` steps, ``count`` chunks in all; stages as in its set of progressive timesteps."""
    steps = chunks * shift
    stages = [[(place + 1) / chunks - stage / steps for place in range(chunks)] for stage in range(shift)]
    states = []
    for newest in range(count + chunks - 1):  # each chunk is for ``shift`` steps the newest, then chunks only leave
        for stage in stages:
            state = [0.0 if number + chunks <= newest else 1.0 for number in range(count)]
            for place, level in enumerate(stage):
                number = newest - (chunks - 1) + place
                if 0 <= number < count:
                    state[number] = level
            states.append([round(level * steps, 6) for level in state for _ in range(chunk)])
    states.append([0.0] * (count * chunk))
    levels = NoiseLevels.named("progressive", count * chunk, steps, lag=shift, block=chunk)
    assert torch.equal(levels.matrix().double(), without_idle_rows(states).double())
    assert levels.in_flight() == min(chunks, count) * chunk


def test_rolling_and_progressive_share_their_steps_evenly():
    """A lag that does not divide the steps becomes the next one that does: never more frames in flight than asked for."""
    for name in ("rolling", "progressive"):
        for steps in range(1, 13):
            for lag in (0, 0.3, 1, 2, 3, 4.5, 5, 20):
                levels = NoiseLevels.named(name, 60, steps, lag=lag)
                shift = int(levels.offsets[1])
                assert steps % shift == 0
                assert shift >= min(lag, steps)
                assert levels.in_flight() == steps // shift


# What a frame costs.

COSTS = [  # name, steps, lag, block -> model calls per new frame, frames in flight: the notes' table
    ("autoregressive", 8, 1, 1, 8, 1),
    ("autoregressive", 8, 1, 4, 2, 4),
    ("pyramid", 8, 2, 1, 2, 4),
    ("pyramid", 9, 2, 3, 2 / 3, 15),
    ("pyramid", 8, 0.5, 1, 0.5, 16),
    ("ar_step", 50, 5, 5, 1, 50),
    ("fifo", 16, 7, 7, 1, 16),
    ("rolling", 8, 2, 1, 2, 4),
    ("progressive", 30, 5, 5, 1, 30),
    ("chunked", 4, 1, 4, 7 / 4, 4),
]


@pytest.mark.parametrize(("name", "steps", "lag", "block", "cost", "flying"), COSTS)
def test_a_frame_of_a_long_take_costs_what_the_papers_say(name, steps, lag, block, cost, flying):
    short, long = (NoiseLevels.named(name, frames, steps, lag=lag, block=block) for frames in (240, 480))
    assert (long.rows_total - short.rows_total) / 240 == cost
    assert long.in_flight() == flying


def test_a_full_sequence_costs_steps_per_clip():
    assert NoiseLevels.named("full_sequence", 48, 20).rows_total == 20


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_frame_is_moved_as_often_as_it_has_steps(name):
    levels = NoiseLevels.named(name, 20, 6, lag=2, block=2, known=[0, 1, 19])
    counted = torch.zeros(20, dtype=torch.int64)
    for call in levels.rows(20):
        counted[call.ids] += call.before != call.after
    assert torch.equal(counted, levels.moves())
    assert counted.tolist() == [0, 0, *[6] * 17, 0]


def test_single_rows_and_columns_are_those_of_the_matrix():
    levels = NoiseLevels.named("pyramid", 20, 6, lag=2.5, known=3)
    rows, ids = torch.tensor([0, 7, levels.rows_total]), torch.tensor([2, 3, 11, 19])
    assert torch.equal(levels.part(rows, ids), levels.matrix()[rows][:, ids])


def test_a_long_take_s_offsets_are_exact():
    """Single precision ends at 16,777,216."""
    assert SCHEDULES["pyramid"](torch.tensor([20_000_001]), 4, 1.0, 1).tolist() == [20_000_001]
    assert SCHEDULES["pyramid"](torch.tensor([100, 100_000]), 4, 0.29, 1).tolist() == [29, 29_000]


# Known frames anywhere.


def marks(text):
    return torch.tensor([letter == "k" for letter in text])


@pytest.mark.parametrize(
    ("known", "offsets"),
    [
        ("k.......k", [0, 0, 1, 2, 3, 2, 1, 0, 0]),
        ("k...k...k", [0, 0, 1, 0, 0, 0, 1, 0, 0]),
        ("...k..", [2, 1, 0, 0, 0, 1]),
        ("k..k...", [0, 0, 0, 0, 0, 1, 2]),
        (".....k", [4, 3, 2, 1, 0, 0]),
        ("kk.....", [0, 0, 0, 1, 2, 1, 0]),  # known only at the start: as in Diffusion Forcing, the clip's end leads too
        (".......", [0, 1, 2, 3, 2, 1, 0]),
    ],
)
def test_a_trapezoid_fills_gaps_from_their_known_ends_inward(known, offsets):
    assert NoiseLevels.named("trapezoid", len(known), 3, lag=1, known=marks(known)).offsets.tolist() == offsets


@pytest.mark.parametrize("known", ["k.......k", "k...k...k..k", "...k....k..", "..k...", "k.k.k....k"])
@pytest.mark.parametrize(("lag", "block"), [(0, 1), (1, 1), (2.5, 2), (99, 1)])
@pytest.mark.parametrize("window", [0, 7, 11])
def test_filling_in_is_a_matrix_and_shows_what_it_leads_to(known, lag, block, window):
    mask, steps = marks(known), 4
    levels = NoiseLevels.named("trapezoid", len(known), steps, lag=lag, block=block, known=mask, window=window)
    matrix = levels.matrix()
    assert (matrix[:, mask] == 0).all()
    assert (matrix[0, ~mask] == steps).all()
    assert (matrix[-1] == 0).all()
    drop = matrix[:-1] - matrix[1:]
    assert ((drop == 0) | (drop == 1)).all()
    assert drop.any(dim=1).all()
    calls = list(levels.rows(levels.in_flight()))
    assert len(calls) == len(matrix) - 1
    for row, call in enumerate(calls):
        assert len(call.ids) <= levels.in_flight()
        assert torch.equal(matrix[row, call.ids], call.before)
        outside = torch.ones(len(known), dtype=torch.bool)
        outside[call.ids] = False
        assert torch.equal(matrix[row, outside], matrix[row + 1, outside])
        shown = set(call.ids.tolist())
        for frame in (drop[row] > 0).nonzero().flatten().tolist():
            beside = {frame - 1, frame + 1} & set(mask.nonzero().flatten().tolist())
            assert beside <= shown, "a frame next to a known one has to see it"


def test_gaps_that_do_not_fit_the_window_together_are_filled_in_turn():
    known = list(range(0, 41, 8))
    together = NoiseLevels.named("trapezoid", 41, 4, lag=1, known=known)
    assert (together.in_flight(), together.rows_total) == (41, 7)
    in_turn = NoiseLevels.named("trapezoid", 41, 4, lag=1, known=known, window=17)
    assert (in_turn.in_flight(), in_turn.rows_total) == (17, 3 * 7)
    one_by_one = NoiseLevels.named("trapezoid", 41, 4, lag=1, known=known, window=9)
    assert (one_by_one.in_flight(), one_by_one.rows_total) == (9, 5 * 7)


def test_other_schedules_count_only_the_frames_that_are_made():
    levels = NoiseLevels.named("pyramid", 7, 3, lag=1, known=[0, 3, -1])
    assert levels.offsets[~levels.known].tolist() == [0, 1, 2, 3]
    assert levels.known.tolist() == [True, False, False, True, False, False, True]


def test_gaps_and_numbers():
    assert list(gaps(marks("k..k.k."))) == [(1, 3), (4, 5), (6, 7)]
    assert only_at_the_start(marks("kk..."))
    assert not only_at_the_start(marks("kk..k"))
    assert numbers_of("0, 8 -1,,+3") == [0, 8, -1, 3]
    assert known_frames([0, -1], 4).tolist() == [True, False, False, True]


@pytest.mark.parametrize("text", ["one", "1.5", "0-3", "0;1"])
def test_what_is_no_frame_number(text):
    with pytest.raises(ValueError, match="is no frame number: write whole numbers"):
        numbers_of(text)


@pytest.mark.parametrize(
    ("known", "sentence"),
    [
        ([9], "frame 9 is known and the clip has frames 0 to 3"),
        ([-5], "frame -5 is known"),
        ([0, 1, 2, 3], "nothing is left to generate"),
        (marks("k."), "2 frames are marked as known or not, and the clip has 4"),
    ],
)
def test_bad_known_frames_are_one_sentence(known, sentence):
    with pytest.raises(ValueError, match=sentence):
        NoiseLevels.named("trapezoid", 4, 3, known=known)


def test_the_window_stands_around_what_is_filled_in():
    levels = NoiseLevels.named("trapezoid", 31, 3, lag=1, known=[0, 10, 20, 30], window=14)
    for call in levels.rows(14):
        moving = call.ids[call.before != call.after]
        left, right = int(moving[0] - call.ids[0]), int(call.ids[-1] - moving[-1])
        assert len(call.ids) == 14
        assert abs(left - right) <= 1 or call.ids[0] == 0 or call.ids[-1] == 30


def test_anchors_and_a_trapezoid_share_the_window():
    levels = NoiseLevels.named("trapezoid", 31, 3, lag=1, known=[0, 10, 20, 30], window=11)
    for call in levels.rows(14, sink_frames=2):
        assert len(call.ids) <= 14
        assert call.ids[:2].tolist() == [0, 1]
        assert all(a < b for a, b in pairwise(call.ids.tolist()))
