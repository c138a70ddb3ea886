"""Blocks through the cache against the published loop over explicit lists of frames."""

from itertools import islice

import pytest
import torch
from causal_loops import ours, published
from pack.modules.sampling.causal import BlockLevels
from pack.modules.sampling.causal_systems import SYSTEMS, CausalSystem
from pack.modules.temporal.kv_cache import CacheSettings
from slow_causal import TOKENS, WIDTH

LONGLIVE = CacheSettings(12, 3)


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        (CacheSettings(0), {}),
        (LONGLIVE, {}),
        (CacheSettings(6, 1, "window"), {}),
        (LONGLIVE, {"levels": (4, 2), "first": (4, 3, 2, 1)}),
        (LONGLIVE, {"levels": (4,), "first": (4, 3, 2, 1)}),
        (LONGLIVE, {"block": 1}),
        (LONGLIVE, {"context": 0.1}),
    ],
    ids=str,
)
def test_a_take_equals_the_published_loop(settings, change):
    block, levels, first = change.get("block", 3), change.get("levels", (4, 3, 2, 1)), change.get("first", ())
    plan = BlockLevels(levels, block, 4, frames=24, first=first)
    clip, calls = ours(plan, settings, torch.zeros(24, TOKENS, WIDTH), change.get("context", 0.0))
    true = published(block, settings, 24, levels, first, context=change.get("context", 0.0))
    torch.testing.assert_close(clip, true, rtol=1e-3, atol=1e-3)
    assert len(calls) == plan.rows_total
    if settings.room:
        wrong = published(block, CacheSettings(settings.room + 1, settings.sinks, settings.positions), 24, levels, first)
        assert (wrong - clip).abs().max() > 0.02, "the comparison sees nothing"


def test_given_frames_are_shown_once_and_stay():
    given = torch.randn(6, TOKENS, WIDTH, generator=torch.Generator().manual_seed(2))
    clip = torch.cat([given, torch.zeros(12, TOKENS, WIDTH)])
    plan = BlockLevels((4, 3, 2, 1), 3, 4, frames=18, known=6)
    result, calls = ours(plan, LONGLIVE, clip)
    assert torch.equal(result[:6], given) and calls[:2] == [([0, 1, 2], 0.0), ([3, 4, 5], 0.0)]
    torch.testing.assert_close(result, published(3, LONGLIVE, 18, given=given), rtol=1e-3, atol=1e-3)


def test_the_beginning_does_not_depend_on_the_length():
    short, long = (
        ours(BlockLevels((4, 2), 3, 4, frames=count), LONGLIVE, torch.zeros(count, TOKENS, WIDTH))[0] for count in (9, 21)
    )
    assert torch.equal(short, long[:9])


def test_calls_per_frame_are_constant_without_an_end():
    plan = BlockLevels((4, 3, 2, 1), 3, 4, first=(4, 3))
    assert plan.rows_total == 0
    row = next(plan.rows(3, start=3 + 5 * 2000))
    assert (row.ids.tolist(), row.before[0], row.after[0]) == ([6003, 6004, 6005], 4, 3)
    numbers = [(int(row.ids[0]) // 3, int(row.before[0]), int(row.after[0])) for row in islice(plan.rows(3), 13)]
    each = [(4, 3), (3, 2), (2, 1), (1, 0), (0, 0)]
    assert numbers == [(0, 4, 3), (0, 3, 0), (0, 0, 0), *[(block, *pair) for block in (1, 2) for pair in each]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"block": 0}, "at least 1 frame"),
        ({"levels": (3, 2)}, "they fall from 4, pure noise, to 1"),
        ({"levels": (4, 4, 1)}, "they fall from 4"),
        ({"levels": ()}, "none: they fall"),
        ({"first": (4, 0)}, "they fall from 4"),
        ({"frames": 22}, "use whole blocks, such as 21"),
        ({"known": 1}, "use whole blocks, such as 3"),
        ({"known": 24}, "nothing is left to make"),
    ],
)
def test_plans_that_cannot_be(change, said):
    with pytest.raises(ValueError, match=said):
        BlockLevels(**{"levels": (4, 3, 2, 1), "block": 3, "steps": 4, "frames": 24} | change)


def test_a_window_shorter_than_a_block_or_with_sinks_is_refused():
    plan = BlockLevels((4,), 3, 4)
    with pytest.raises(ValueError, match="use a window of 3"):
        plan.rows(2)
    with pytest.raises(ValueError, match="sink frames are in its cache"):
        plan.rows(3, 1)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_can_be_planned(name):
    system = SYSTEMS[name]
    plan, sigmas = system.plan(7 * system.block * 3), system.sigmas()
    assert len(sigmas) == plan.steps + 1 and sigmas[-1] == 1
    told = [1000 * float(sigmas[int(row.before[0])]) for row in plan.rows(plan.block)]
    first, each = system.first or system.times, system.times
    expected = [*first, 0, *([*each, 0] * (plan.frames // plan.block - 1))]
    assert told == pytest.approx(expected, abs=1e-3)


def test_times_are_those_of_the_warped_list():
    warped = [5 * u / (1 + 4 * u) * 1000 for u in (1, 0.75, 0.5, 0.25)]
    assert list(SYSTEMS["Self-Forcing"].times) == pytest.approx(warped)


@pytest.mark.parametrize("times", [(), (900.0,), (1000.0, 0.0), (1000.0, 500.0, 600.0), (1000.0, 500.0, 500.0)])
def test_times_that_cannot_be(times):
    with pytest.raises(ValueError, match="never made|they fall from 1000"):
        CausalSystem(3, times, CacheSettings())
