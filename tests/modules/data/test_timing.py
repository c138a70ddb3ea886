"""Which frames a clip takes, by their times: against looking through all frames for the nearest."""

import numpy as np
import pytest
from pack.modules.data.lengths import SHORT, Pace, measured_rate
from pack.modules.data.timing import Timing, even


def shaken(seed, count=60):
    """Frames at all distances from 5 to 80 ms, some with a pause of half a second behind them."""
    numbers = np.random.default_rng(seed)
    steps = numbers.uniform(0.005, 0.08, count)
    steps[numbers.random(count) < 0.05] += 0.5
    return Timing(np.concatenate([[0.3], 0.3 + np.cumsum(steps[:-1])]), 0.3 + float(steps.sum()))


def nearest(times, moment):
    """The obvious way."""
    return int(np.abs(times - moment).argmin())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("fps", [3, 8, 12.5])
def test_a_clip_takes_the_frames_nearest_to_the_moments_asked_for(seed, fps):
    timing, pace = shaken(seed), Pace(frames=6, stride=1, fps=fps)
    starts = set(pace.starts(timing).tolist())
    for start in range(timing.count):
        asked = timing.times[start] + np.arange(6) / fps
        taken = [nearest(timing.times, moment) for moment in asked]
        there = asked[-1] <= timing.times[-1] + timing.interval / 2
        assert (start in starts) == (there and len(set(taken)) == 6), "every frame is there, and none comes twice"
        if start in starts:
            assert list(pace.taken(timing, start)) == taken
            steps = np.diff(timing.times, append=timing.end)
            for frame, moment in zip(taken, asked, strict=True):
                around = max(steps[frame], steps[max(0, frame - 1)])
                assert abs(timing.times[frame] - moment) <= around / 2 + 1e-6, "within half a frame of the source"
    assert starts or seed, "something is tested"


def test_ntsc_at_half_its_rate_takes_every_second_frame():
    timing = even(2000, 30000 / 1001)
    assert np.diff(Pace(frames=900, stride=1, fps=15).taken(timing, 0)).tolist().count(2) >= 897


@pytest.mark.parametrize(("fps", "wanted"), [(24000 / 1001, 24), (30000 / 1001, 30)])
def test_a_rate_that_is_hardly_less_is_taken_as_it_is(fps, wanted):
    """Over 2,000 frames the two clocks are two frames apart, and still none is repeated."""
    timing, pace = even(2001, fps), Pace(frames=2000, stride=1, fps=wanted)
    assert pace.taken(timing, 1) == tuple(range(1, 2001))
    assert pace.rate(timing) == pytest.approx(fps)


def test_pauses_do_not_count_for_the_rate():
    held = Timing(np.arange(12) / 10, 1.1 + 3.0)
    assert held.fps == pytest.approx(10)
    paused = Timing(np.concatenate([np.arange(10) / 10, 5 + np.arange(10) / 10]), 6.0)
    assert paused.fps == pytest.approx(10)
    assert (paused.uneven, held.uneven) == (True, False)
    starts = Pace(frames=5, stride=1, fps=10).starts(paused)
    assert starts.tolist() == [*range(6), *range(10, 16)], "no clip runs over the pause"


def test_damaged_frames_are_in_no_clip():
    timing = Timing(even(40, 10.0).times, 4.0, np.array([7, 22]))
    for pace in (Pace(frames=4, stride=3), Pace(frames=4, stride=1, fps=10 / 3)):
        starts = pace.starts(timing).tolist()
        expected = [start for start in range(40 - 9) if not {7, 22} & set(range(start, start + 10, 3))]
        assert starts == expected


@pytest.mark.parametrize(
    ("start", "end", "frames"),
    [(0, 0, (0, 10)), (0.2, 0.6, (1, 3)), (0.24, 0.36, (1, 2)), (0.26, 0.6, (1, 3)), (0.31, 0.6, (2, 3)), (1.75, 9, (9, 10))],
)
def test_a_stretch_begins_and_ends_at_the_nearest_edge_between_frames(start, end, frames):
    assert even(10, 5.0).between(start, end or 2.0) == frames


def test_what_a_stretch_is():
    timing = Timing(np.array([0.0, 0.1, 0.5, 0.6]), 0.7, np.array([1, 3]))
    part = timing.part(1, 3)
    assert (part.times.tolist(), part.end, part.bad.tolist()) == ([0.1, 0.5], 0.6, [0])
    assert timing.part(2, 4).end == 0.7


def test_a_long_source_of_many_frames_is_looked_through_in_little_memory():
    """An hour of uneven video and clips of 4,096 frames: not every place is tried, and those found are right."""
    times = np.arange(108_000) / 30 + np.random.default_rng(0).uniform(0, 0.01, 108_000)
    pace = Pace(frames=4096, stride=1, fps=10)
    starts = pace.starts(Timing(times, 3600.1))
    assert 100 < len(starts) < 2000
    assert starts[0] < 200
    assert starts[-1] > 108_000 - 3 * 4096 - 400


@pytest.mark.parametrize("way", ["squeeze", "back and forth"])
@pytest.mark.parametrize("fps", [0, 10])
def test_short_sources_by_stride_and_by_times_agree_where_frames_are_even(way, fps):
    for count in (1, 2, 5):
        pace, timing = Pace(frames=9, stride=1, fps=fps), even(count, 10.0)
        taken = pace.shortened(timing, way)
        walk = SHORT[way](count - 1, 9, 1)
        assert np.abs(np.array(taken) - walk).max() <= (1 if way == "squeeze" else 1e-9)
        assert pace.too_short(timing) and not len(pace.starts(timing))


def test_the_measured_rate():
    timing = Timing(np.array([0.0, 0.1, 0.3, 0.4]), 0.5)
    assert measured_rate(timing, (0, 1, 2, 3, 2)) == pytest.approx(4 / 0.5)
    assert measured_rate(timing, (2, 2)) == timing.fps
