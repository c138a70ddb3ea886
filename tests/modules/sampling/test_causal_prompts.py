"""Prompts that change in the middle of a take: the cache is switched as published, and the loop shows frames once more."""

from itertools import islice

import pytest
import torch
from causal_loops import ours, published
from pack.modules.control.timed_prompts import SHOT, TimedPrompt, joined, starts
from pack.modules.sampling.causal import BlockLevels
from pack.modules.sampling.causal_systems import SYSTEMS
from pack.modules.temporal.kv_cache import SWITCHES, CacheSettings
from slow_causal import TOKENS, WIDTH

FRAMES, AT = 21, (6, 15)  # once while the cache is not full, once when it is


def plan(settings, at=AT, frames=FRAMES, block=3):
    return BlockLevels((4, 3, 2, 1), block, 4, frames, shots=tuple((start, settings.shown_again(start)) for start in at))


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("cache", [(12, 3, "absolute"), (9, 1, "window"), (9, 0, "absolute")], ids=str)
def test_a_switch_is_the_published_one(cache, switch):
    settings = CacheSettings(*cache, switch)
    clip = torch.zeros(FRAMES, TOKENS, WIDTH)
    made, calls = ours(plan(settings), settings, clip)
    true = published(3, settings, FRAMES, prompts=AT)
    torch.testing.assert_close(made, true, rtol=1e-3, atol=1e-3)
    assert len(calls) == plan(settings).rows_total
    for other in SWITCHES:
        if other != switch and not (cache[1] == 0 and {other, switch} == {"recache", "renew"}):  # without sinks these are one
            wrong = published(3, CacheSettings(*cache, other), FRAMES, prompts=AT)
            assert (wrong - made).abs().max() > 0.02, f"{other} cannot be told from {switch}"


def test_what_is_shown_again():
    def again(*settings):
        return [list(CacheSettings(*settings).shown_again(start)) for start in (3, 6, 18)]

    assert again(12, 3, "absolute", "recache") == [[], [3, 4, 5], list(range(9, 18))]
    assert again(12, 3, "absolute", "renew") == [[0, 1, 2], [0, 1, 2, 3, 4, 5], list(range(6, 18))]
    assert again(0, 3, "absolute", "recache")[2] == list(range(3, 18))
    assert again(12, 3, "absolute", "flush") == again(12, 3, "absolute", "none") == [[], [], []]


def test_a_take_before_the_switch_does_not_know_of_it():
    settings, clip = CacheSettings(12, 3), torch.zeros(FRAMES, TOKENS, WIDTH)
    with_it, without = (ours(plan(settings, at), settings, clip)[0] for at in ((15,), ()))
    assert torch.equal(with_it[:15], without[:15]) and (with_it[15:] - without[15:]).abs().max() > 0.1


@pytest.mark.parametrize("row", [25, 26, 27, 30])
def test_rows_from_the_middle_are_those_of_the_whole(row):
    """Around the second switch, at call 26."""
    whole, part = plan(CacheSettings(12, 3)).rows(3), plan(CacheSettings(12, 3)).rows(3, start=row)
    for a, b in zip(islice(whole, row, None), part, strict=True):
        assert torch.equal(a.ids, b.ids) and torch.equal(a.before, b.before) and (a.keep, a.shot) == (b.keep, b.shot)


def test_prompts_that_do_not_begin_with_a_block():
    for at in ((4,), (6, 6), (0,), (9, 6)):
        with pytest.raises(ValueError, match="each at a block's first frame"):
            plan(CacheSettings(12, 3), at)


@pytest.mark.parametrize(
    ("seconds", "fps", "block", "frame"),
    [(0.05, 16, 1, 1), (1 / 16, 16, 1, 1), (4 / 16, 16, 1, 1), (5 / 16, 16, 1, 2), (1, 16, 3, 6), (1, 24, 8, 8), (10, 16, 3, 42)],
)
def test_a_prompt_begins_with_a_block_and_not_before_its_time(seconds, fps, block, frame):
    assert starts([TimedPrompt(seconds, [])], fps, block) == [frame]


def test_prompts_in_one_block_or_behind_the_end_are_refused():
    def at(*seconds, frames=0):
        return starts([TimedPrompt(when, []) for when in seconds], 16, 3, frames)

    assert at(1, 2, frames=12) == [6, 9]
    with pytest.raises(ValueError, match="2.2 seconds begins in the same block of 3 latent frames .* 0.75 seconds long"):
        at(2.1, 2.2)
    with pytest.raises(ValueError, match="begins at 3 seconds and the take ends at 2.812"):
        at(3, frames=12)
    with pytest.raises(ValueError, match="later prompts begin after 0"):
        at(0)


def test_joined_prompts_say_which_they_are():
    one, other = [["a", {"mask": 1}]], [["b", {"x": 2}]]
    assert joined(one, [TimedPrompt(1, other)]) == [["a", {"mask": 1}], ["b", {"x": 2, SHOT: 1}]]
    with pytest.raises(ValueError, match="combined of 2 conditionings and the first prompt of 1"):
        joined(one, [TimedPrompt(1, other * 2)])


def test_systems_switch_as_published():
    assert SYSTEMS["LongLive 1.0"].cache.switch == "recache" and SYSTEMS["Infinity-RoPE"].cache.switch == "flush"
