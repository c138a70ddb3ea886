"""Takes without an end: the same calls as of a clip, from any row on, with nothing that grows."""

import sys
from itertools import islice

import pytest
import torch
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


@pytest.mark.parametrize("block", [1, 3])
def test_an_end_may_move_while_no_call_has_felt_it(block):
    """A take that was to be endless can be given an end, and a later one, as long as no frame beyond the sooner one has begun."""
    short, long, endless = (EndlessLevels("pyramid", 6, 2, frames=frames, block=block) for frames in (20, 60, 0))
    for row in (0, 1, *range(8, 42), short.rows_total):
        for window, sink_frames in ((short.in_flight(), 0), (12, 0), (14, 2)):
            first = list(islice(short.rows(window, sink_frames), row))
            for other in (long, endless):
                agrees = all(map(same, first, islice(other.rows(window, sink_frames), row)))
                assert short.continues(other, row, window, sink_frames) == agrees
                assert other.continues(short, row, window, sink_frames) == agrees
    assert not EndlessLevels("pyramid", 6, 2, frames=2).continues(long, 0, 8), "so short a clip has other windows"
    if block == 1:
        assert short.continues(long, 38, 8)
        assert not short.continues(long, 41, 8)


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
