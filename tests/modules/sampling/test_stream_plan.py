"""Takes without an end: the same calls as of a clip, from any row on, with nothing that grows."""

import sys
from itertools import islice, takewhile

import pytest
import torch
from pack.modules.sampling.causal import BlockLevels
from pack.modules.sampling.fifo import Queue
from pack.modules.sampling.noise_levels import EndlessLevels, NoiseLevels
from pack.modules.sampling.schedules import ENDLESS, SCHEDULES

CASES = [
    (1, 1, 1, 1, 0),
    (3, 3, 1, 1, 0),
    (9, 4, 1, 1, 2),
    (12, 8, 2, 2, 3),
    (10, 4, 1.0, 1, 0),
    (7, 5, 7, 1, 1),
    (16, 5, 2.5, 3, 4),
    (60, 12, 3, 1, 4),
    (30, 20, 1.29, 2, 7),
    (5, 20, 1, 1, 1),
]


def same(one, other):
    return (
        torch.equal(one.ids, other.ids)
        and torch.equal(one.before, other.before)
        and torch.equal(one.after, other.after)
        and (one.times is None) == (other.times is None)
        and (one.times is None or torch.equal(one.times, other.times))
    )


def all_same(ones, others):
    ones, others = list(ones), list(others)
    return len(ones) == len(others) and all(map(same, ones, others))


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_stream_of_n_frames_is_the_matrix_through_windows(name, case):
    frames, steps, lag, block, known = case
    levels = NoiseLevels.named(name, frames, steps, lag=lag, block=block, known=known)
    stream = EndlessLevels(name, steps, lag, block, known, frames)
    assert stream.rows_total == levels.rows_total
    assert stream.in_flight() == levels.in_flight()
    for window, sink_frames in ((levels.in_flight(), 0), (levels.in_flight() + 5, 0), (levels.in_flight() + 5, 3)):
        assert all_same(stream.rows(window, sink_frames), levels.rows(window, sink_frames))


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("case", [(40, 4, 1, 1, 2), (40, 6, 2.5, 3, 0)], ids=str)
def test_a_stream_goes_on_at_any_row(name, case):
    frames, steps, lag, block, known = case
    stream = EndlessLevels(name, steps, lag, block, known, frames)
    whole = list(stream.rows(stream.in_flight() + 2, 1 if known else 0))
    for row in (0, 1, 5, 6, 23, len(whole) - 2, len(whole) - 1, len(whole)):
        assert all_same(stream.rows(stream.in_flight() + 2, 1 if known else 0, row), whole[row:])


@pytest.mark.parametrize("name", ENDLESS)
def test_a_take_without_an_end_begins_as_one_with_an_end(name):
    endless, long = EndlessLevels(name, 6, 2, 2, known=3), NoiseLevels.named(name, 200, 6, lag=2, block=2, known=3)
    assert endless.rows_total == 0
    assert endless.in_flight() == long.in_flight()
    assert all_same(islice(endless.rows(20), 150), islice(long.rows(20), 150))


@pytest.mark.parametrize("name", ENDLESS)
def test_far_out_it_is_what_it_was_at_the_beginning(name):
    """A million frames on: the same calls, with ids moved along. So nothing depends on how long the take has been going."""
    stream = EndlessLevels(name, 6, 2, 2)
    turns = 300_000
    period = {"chunked": 2, "fifo": 1, "rolling": 1}.get(name, 2)  # frames after which it repeats
    rows = int(stream._offset(period * turns))
    for near, far in zip(islice(stream.rows(20, start=120), 12), islice(stream.rows(20, start=120 + rows), 12), strict=True):
        assert torch.equal(near.ids + period * turns, far.ids)
        assert torch.equal(near.before, far.before)
        assert torch.equal(near.after, far.after)


def test_its_state_does_not_grow():
    """The generator holds a few numbers; what it gives is as long as the window, however far it has gone."""
    stream = EndlessLevels("pyramid", 12, 3)
    held = []
    for row in (0, 30_000, 3_000_000):
        calls = stream.rows(16, start=row)
        for call in islice(calls, 5):
            assert len(call.ids) <= 16
        held.append(sum(sys.getsizeof(value) for value in calls.gi_frame.f_locals.values()))
    assert max(held) - min(held) < 200


@pytest.mark.parametrize(("lag", "block", "pace"), [(3, 1, 3), (2.5, 1, 2.5), (4, 8, 0.5), (99, 1, 12)])
def test_the_pace_is_the_cost_per_frame(lag, block, pace):
    assert EndlessLevels("pyramid", 12, lag, block).pace == pytest.approx(pace, rel=1e-5)


def alike(one, other, window, sink_frames, ahead):
    """How many rows of two plans are the same, from the first on."""
    rows = zip(*(plan.rows(window, sink_frames, ahead=ahead) for plan in (one, other)), strict=False)
    return sum(1 for _ in takewhile(lambda pair: same(*pair), islice(rows, 400)))


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("block", [1, 3])
@pytest.mark.parametrize("name", ENDLESS)
def test_an_end_may_move_while_no_call_has_felt_it(name, block, ahead):
    """A take that was to be endless can be given an end, and a later one, as long as no call has begun or shown a frame beyond it."""
    short, long, endless = (EndlessLevels(name, 6, 2, frames=frames, block=block) for frames in (20, 60, 0))
    for window, sink_frames in ((short.in_flight(), 0), (18, 0), (24, 2)):
        for other in (long, endless):
            shared = short.extent(window, sink_frames, ahead=ahead).shared(other.extent(window, sink_frames, ahead=ahead))
            assert shared == alike(short, other, window, sink_frames, ahead)
    brief, window = EndlessLevels(name, 6, 2, frames=2, block=block), long.in_flight()
    if brief.in_flight() != window:
        assert brief.extent(window).shared(long.extent(window)) == 0, "so short a clip has other windows"
    assert short.extent(24).shared(short.extent(24)) == float("inf")


@pytest.mark.parametrize(
    ("short", "long", "window"),
    [
        *((NoiseLevels.named(name, 20, 6, lag=2), NoiseLevels.named(name, 33, 6, lag=2), 33) for name in SCHEDULES),
        *((NoiseLevels.named(name, 20, 6, lag=2), NoiseLevels.named(name, 33, 6, lag=2), 12) for name in ("pyramid", "fifo")),
        (NoiseLevels.named("pyramid", 20, 6, known=[0, 1, 9]), NoiseLevels.named("pyramid", 33, 6, known=[0, 1, 9]), 18),
        (NoiseLevels.named("pyramid", 20, 6, known=3), NoiseLevels.named("pyramid", 33, 6, known=3), 18),
        (Queue(20, 2, 4), Queue(33, 2, 4), 4),
        (Queue(20, 2, 4, False), Queue(0, 2, 4, False), 4),
        (Queue(20, 2, 4, True, True), Queue(33, 2, 4, True, True), 4),
        (Queue(5, 2, 4), Queue(33, 2, 4), 4),
        (BlockLevels((4, 2), 3, 4, 12), BlockLevels((4, 2), 3, 4, 21), 3),
        (BlockLevels((4, 2), 3, 4, 12, (4, 3, 1), 3), BlockLevels((4, 2), 3, 4, 0, (4, 3, 1), 3), 3),
    ],
    ids=str,
)
def test_no_plan_says_that_it_shares_more_rows_than_it_does(short, long, window):
    for ahead in (False, True):
        mine, other = (plan.extent(window, ahead=ahead) for plan in (short, long))
        if mine.differing(other):  # where the end is felt from the first row on, and so is no other take's
            assert not short._rising
            continue
        assert mine.shared(other) == other.shared(mine) <= alike(short, long, window, 0, ahead)
        if isinstance(short, BlockLevels):
            assert mine.shared(other) == short.rows_total
        if isinstance(short, Queue) and short.frames > 10:  # and none that shows a frame behind the end
            assert mine.shared(other) == sum(1 for _ in takewhile(lambda row: int(row.ids[-1]) < 20, short.rows(window)))


@pytest.mark.parametrize("plan", [Queue(0, 3, 4), Queue(0, 2, 6, False), Queue(30, 3, 4, True, True), Queue(30, 2, 4)], ids=str)
def test_a_queue_goes_on_at_any_row(plan):
    rows = list(islice(plan.rows(plan.window), 300))
    for start in range(len(rows)):
        assert same(next(plan.rows(plan.window, start=start)), rows[start])
    if plan.frames:
        assert plan.rows_total == len(rows) and next(plan.rows(plan.window, start=len(rows)), None) is None
    else:
        assert plan.rows_total == 0 and next(plan.rows(plan.window, start=10**9)).ids[0] > 10**6


def test_plans_of_other_facts_are_told_apart():
    one = EndlessLevels("pyramid", 6, 2).extent(18)
    assert one.differing(EndlessLevels("rolling", 6, 3).extent(18)) == ["schedule", "lag"]
    levels = [NoiseLevels.named("pyramid", 9, 4, lag=lag, known=known).extent(9) for lag, known in ((1, 0), (2, 0), (1, 2))]
    assert levels[0].differing(levels[1]) == ["offsets"]
    assert "known" in levels[0].differing(levels[2])


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - set(ENDLESS)))
def test_schedules_that_need_an_end_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} needs to know where the take ends before it can begin: .*use pyramid"):
        EndlessLevels(name, 4)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "spiral"}, "choose one of"),
        ({"steps": 0}, "steps is 0"),
        ({"lag": 0}, "lag is 0, with which all frames are at the same noise level"),
        ({"lag": 1e-9}, "lag is 1e-09, with which"),
        ({"lag": float("nan")}, "lag is nan"),
        ({"name": "ar_step", "lag": 0.5}, "use a larger lag"),
        ({"block": 0}, "block is 0"),
        ({"known": -1}, "known is -1"),
        ({"known": 5, "frames": 5}, "nothing is left to generate"),
        ({"frames": -3}, "frames is -3"),
    ],
)
def test_bad_input_is_one_sentence(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        EndlessLevels(**{"name": "pyramid", "steps": 4} | change)


def test_a_window_that_is_too_short_is_refused_before_the_first_call():
    with pytest.raises(ValueError, match="window of at least 4"):
        EndlessLevels("pyramid", 12, 3).rows(3)
    with pytest.raises(ValueError, match="4 in flight and 2 sink frames at once: use a window of at least 6"):
        EndlessLevels("pyramid", 12, 3).rows(5, sink_frames=2)
