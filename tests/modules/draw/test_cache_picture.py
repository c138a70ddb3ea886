"""What each block sees: worked out by hand for small takes, and seen in the picture."""

import pytest
import torch
from pack.modules.draw.cache_picture import LEFT, LINE, OWN, PAST, SINK, TOP, WIDTH, cache_text, draw_cache
from pack.modules.sampling.causal_seen import seen
from pack.modules.sampling.causal_systems import SYSTEMS, CausalSystem
from pack.modules.temporal.kv_cache import CacheSettings
from pack.nodes.forcing.causal_inputs import LongTakePromptAt as PromptAt
from pack.nodes.forcing.causal_plan import LongTakeCausalPlan as Plan


def parts(cache, frames=18, prompts=()):
    system = CausalSystem(3, (1000.0, 500.0), cache)
    return list(seen(system.plan(frames, prompts=prompts), cache))


def test_blocks_see_sinks_the_newest_and_themselves():
    found = parts(CacheSettings(9, 3))
    assert [part.ids.start for part in found] == [0, 3, 6, 9, 12, 15] and [part.evicted for part in found] == [0, 0, 0, 3, 6, 9]
    assert found[-1].frames == (0, 1, 2, 12, 13, 14, 15, 16, 17) and found[-1].positions == (-15, -14, -13, -3, -2, -1, 0, 1, 2)
    assert parts(CacheSettings(9, 3, "window"))[-1].positions == (-6, -5, -4, -3, -2, -1, 0, 1, 2)


def test_frames_that_are_shown_again_have_a_part_of_their_own():
    found = parts(CacheSettings(9, 3), prompts=[12])
    (again,) = [part for part in found if part.again]
    assert again.ids == range(6, 12) and again.shot == 1 and found.index(again) == 4
    assert not any(part.again for part in parts(CacheSettings(9, 3, switch="flush"), prompts=[12]))


@pytest.mark.parametrize("name", SYSTEMS)
def test_no_position_is_beyond_the_room_but_absolute_sinks(name):
    system = SYSTEMS[name]
    for part in seen(system.plan(60 * system.block), system.cache):
        near = part.positions if system.cache.positions == "window" else part.positions[part.sinks :]
        assert len(part.frames) <= system.cache.room and all(-system.cache.room < position < system.block for position in near)


def test_the_picture_shows_them():
    found = parts(CacheSettings(9, 3))
    image = (draw_cache(found, 18)[0] * 255).round().int()

    def colour(line, frame):
        return tuple(image[TOP + LINE * line + 3, LEFT + (2 * frame + 1) * WIDTH // 36].tolist())

    assert [colour(5, frame) for frame in (0, 12, 16)] == [SINK, PAST, OWN] and colour(5, 5) not in (SINK, PAST, OWN)
    assert colour(0, 0) == OWN and not torch.equal(draw_cache(parts(CacheSettings(9, 3, "window")), 18)[0] * 255, image.float())


def test_the_node_and_its_words():
    prompts = PromptAt.execute([], 3.0).result[0]
    picture, said = Plan.execute(system="LongLive 1.0", frames=60, prompts=prompts).result
    assert picture.shape[0] == 1 and picture.shape[-1] == 3
    assert said.splitlines() == [
        "101 model calls for 60 latent frames, at most 12 frames seen, the furthest said to be 57 frames before the block",
        "48 frames have left the cache at the end, which holds 0-2, 51-59",
        "prompt 2: frames 3 to 11 are shown once more",
    ]
    for wrong, sentence in (
        ({"frames": 61}, "use whole blocks, such as 60"),
        ({"frames": 60, "room": 3, "sink_frames": 1}, "does not fit"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Plan.execute(**wrong)
    assert cache_text(parts(CacheSettings(0)), 9).count("0 frames have left") == 1
