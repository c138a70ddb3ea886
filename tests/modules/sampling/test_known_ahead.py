"""Frames behind those that move: known ones, and those that wait, in every call whose window has room for them."""

import sys

import pytest
import torch
from conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))
import gauss
from pack.modules.sampling.forcing import Forcing
from pack.modules.sampling.job import Job
from pack.modules.sampling.known_frames import gaps, only_at_the_start
from pack.modules.sampling.level_matrix import planned
from pack.modules.sampling.noise_levels import EndlessLevels, NoiseLevels
from pack.modules.sampling.schedules import ENDLESS, SCHEDULES, SHOWS_WAITING

KNOWN = ([], [0], [0, -1], [0, 9, 20], [5], [3, 4, 17, -1])


def plans(name, *, frames=24, steps=5, lag=2.0, block=1):
    for known in KNOWN:
        yield NoiseLevels.named(name, frames, steps, lag=lag, block=block, known=known, window=16)


@pytest.mark.parametrize("sink_frames", [0, 2])
@pytest.mark.parametrize("spare", [0, 4, 20])
@pytest.mark.parametrize("name", SCHEDULES)
def test_windows_are_full_of_what_there_is(name, spare, sink_frames):
    for plan in plans(name):
        window = plan.in_flight() + sink_frames + spare
        for low, row in zip(plan.shown(window, sink_frames).low.tolist(), plan.rows(window, sink_frames), strict=True):
            ids = row.ids.tolist()
            reach = range(low, min(low + window - sink_frames, plan.frames))
            assert len(ids) <= window and ids == sorted(set(ids))
            moving = row.ids[row.before != row.after].tolist()
            assert set(moving) <= set(ids)
            behind = [i for i in reach if i > max(moving)]
            known = [i for i in behind if plan.known[i]]
            assert set(known) <= set(ids), "known frames that the window reaches"
            if not only_at_the_start(plan.known):  # else a frame is made from the same context however long the clip is
                near = [i for i in range(min(moving)) if plan.known[i] and max(ids) - i < window - sink_frames]
                assert len(ids) == window or set(near) <= set(ids), "and those that it can be moved back to"
            waiting = name in SHOWS_WAITING or name in ("full_sequence", "trapezoid")
            assert not waiting or set(behind) <= set(ids), "and those that have not begun, where the authors show them"
            assert (row.before[torch.isin(row.ids, torch.tensor(known, dtype=torch.int64))] == 0).all()


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"fifo"}))  # whose queue is longer than the gap
def test_a_gap_that_fits_is_made_in_sight_of_both_its_ends(name):
    plan = NoiseLevels.named(
        name, 21, 12, lag=12, known=[0, 10, 20], window=11
    )  # no frame begins before the one before it is done
    window = max(11, plan.in_flight())
    for row in plan.rows(window):
        moving = row.ids[row.before != row.after]
        for first, end in gaps(plan.known):
            if ((moving >= first) & (moving < end)).all():
                assert {first - 1, end} <= set(row.ids.tolist())
    assert plan.out_of_sight(window) == {}


def test_the_last_keyframe_is_in_every_call_from_the_first_on():
    plan = NoiseLevels.named("pyramid", 11, 12, lag=3, known=[0, -1])
    rows = list(plan.rows(11))
    assert len(rows) == 36 and all(row.ids.tolist() == list(range(11)) for row in rows)
    alone = list(plan.rows(11, ahead=False))
    assert alone[0].ids.tolist() == [0, 1] and sum(10 in row.ids for row in alone) == 12


def test_half_of_the_context_is_kept_for_what_was_made():
    """A known frame further on moves the window as far as the last known one or half of the context, and no further."""
    plan = NoiseLevels.named("pyramid", 40, 4, lag=4, known=[0, 30])
    for row in plan.rows(12):
        first = int(row.ids[row.before != row.after][0])
        context = first - int(row.ids[0])
        assert context >= min(5, first)
        assert (30 in row.ids) == (30 - first <= 6 or 30 < first <= 40)


@pytest.mark.parametrize("name", [*SCHEDULES, "ar_diffusion"])
def test_what_is_out_of_sight_is_counted(name):
    for known in KNOWN:
        plan = planned(name, 24, 5, lag=2, known=known)
        for window in (plan.in_flight(), plan.in_flight() + 5, 30):
            counted = {}
            for row in plan.rows(window):
                moving = row.ids[row.before != row.after].tolist()
                for first, end in gaps(plan.known):
                    if end < plan.frames and min(moving) < end and max(moving) >= first:
                        all_rows, blind = counted.get(end, (0, 0))
                        counted[end] = all_rows + 1, blind + (end not in row.ids)
            if name != "ar_diffusion":  # there frames that have begun hold the window open too
                assert plan.out_of_sight(window) == {end: pair for end, pair in counted.items() if pair[1]}
        assert plan.out_of_sight(max(window, plan.frames)) == {}, "a window as long as the clip mends it"


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("ahead", [False, True])
def test_a_take_of_n_frames_makes_the_calls_of_the_clip(name, ahead):
    clip, take = NoiseLevels.named(name, 17, 6, lag=2, block=3, known=2), EndlessLevels(name, 6, 2, 3, 2, 17)
    for ours, theirs in zip(clip.rows(26, 2, ahead=ahead), take.rows(26, 2, ahead=ahead), strict=True):
        assert torch.equal(ours.ids, theirs.ids) and torch.equal(ours.before, theirs.before)


# An exact model of Gaussian clips


def error(name, steps, *, lag=3.0, ahead=True):
    """How far clips of 11 frames between two known ones are from the truth, in mean and covariance; exactly."""
    true, known = gauss.covariance(11, 0.9), torch.zeros(11, dtype=torch.bool)
    known[[0, -1]] = True
    latent, noise = (torch.zeros(11, 13, dtype=torch.float64) for _ in range(2))
    latent[known, :2], noise[:, 2:] = torch.eye(2, dtype=torch.float64), torch.eye(11, dtype=torch.float64)
    plan = NoiseLevels.named(name, 11, steps, lag=lag, known=known)
    job = Job(gauss.exact(0.9), latent, gauss.levels_of(steps), noise, sees_ahead=ahead)
    made = gauss.finish(Forcing(plan, 11)(job))[~known]
    weights = torch.linalg.solve(true[known][:, known], true[known][:, ~known]).T
    spread = true[~known][:, ~known] - weights @ true[known][:, ~known]
    away = made[:, 2:] @ made[:, 2:].T - spread
    return float((made[:, :2] - weights).norm()) + float(away.norm() / spread.norm())


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"full_sequence"}))
def test_with_both_ends_known_every_schedule_comes_to_the_truth(name):
    few, many = error(name, 8), error(name, 64)
    assert many < few / 5 and many < 0.07
    blind = error(name, 64, ahead=False)
    assert name == "trapezoid" or blind > 2 * many, "and does not where the end is out of sight"


def test_it_is_said_where_a_known_frame_leads_nothing(caplog):
    def run(plan, window, **job):
        caplog.clear()
        for _ in Forcing(plan, window)(Job(lambda view: view.x, torch.zeros(plan.frames, 1), torch.linspace(0, 1, 4), **job)):
            pass
        return [record.message for record in caplog.records]

    plan = NoiseLevels.named("pyramid", 30, 3, lag=1, known=[0, 29])
    (sentence,) = run(plan, 8)
    assert sentence.startswith(
        "known frame 29 is out of sight of 25 of the 30 calls that make the frames before it: use the schedule"
    )
    assert run(plan, 30) == run(NoiseLevels.named("trapezoid", 30, 3, lag=1, known=[0, 29]), 30) == []
    (sentence,) = run(plan, 30, sees_ahead=False)
    assert "no frame of this model sees later ones" in sentence
    assert run(NoiseLevels.named("pyramid", 30, 3, lag=1, known=2), 8, sees_ahead=False) == []
