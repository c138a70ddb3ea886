"""The rolling cache against attention over explicit lists of frames, and in constant memory."""

import copy

import pytest
import torch
from pack.modules.temporal.kv_cache import POSITIONS, CacheSettings, KeyValueCache, time_channels, turned
from slow_causal import HEAD, TOKENS, WIDTH, Slow, embedded, fast, weights

BLOCK, BLOCKS = 3, 9


def published(name):
    """Positions as they are written in each system's description, apart from the pack's table."""
    return {
        "absolute": lambda frames, sinks: [float(f) for f in frames],
        "window": lambda frames, sinks: [float(i) for i, _ in enumerate(frames)],
        "adjoining": lambda frames, sinks: [
            float(f) if i >= sinks or len(frames) <= sinks else frames[sinks] - sinks + float(i) for i, f in enumerate(frames)
        ],
    }[name]


def take(call, seed=1, blocks=BLOCKS, passes=3):
    """A take of blocks, each called several times with other contents, as its steps are; the last calls' results."""
    g, made = torch.Generator().manual_seed(seed), []
    for block in range(blocks):
        for _ in range(passes):
            result = call(torch.randn(BLOCK, TOKENS, WIDTH, generator=g), BLOCK * block)
        made.append(result)
    return torch.cat(made)


SYSTEMS = {  # room, sinks, positions
    "Self-Forcing, everything": (0, 0, "absolute"),
    "Self-Forcing, local 9": (9, 0, "absolute"),
    "Self-Forcing, local 9, sink 3": (9, 3, "absolute"),
    "LongLive 1.0": (12, 3, "absolute"),
    "LongLive infinity": (12, 3, "window"),
    "Infinity-RoPE": (6, 1, "window"),
    "sinks before the window": (12, 3, "adjoining"),
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_take_equals_the_slow_reference(system):
    room, sinks, positions = SYSTEMS[system]
    network, cache = weights(), KeyValueCache(CacheSettings(room, sinks, positions))
    slow = Slow(room, sinks, published(positions))
    ours, theirs = take(lambda x, first: fast(network, cache, x, first)), take(lambda x, first: slow(network, x, first))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    if not room:
        return
    for wrong in (Slow(room + 1, sinks, published(positions)), Slow(room, sinks + 1, published(positions))):
        assert (take(lambda x, first, slow=wrong: slow(network, x, first)) - ours).abs().max() > 0.05, (
            "the comparison sees nothing"
        )


@pytest.mark.parametrize("rule", ["window", "adjoining"])
def test_positions_matter_once_frames_have_left(rule):
    network, results = weights(), {}
    for name in ("absolute", rule):
        cache = KeyValueCache(CacheSettings(9, 3, name))
        results[name] = take(lambda x, first, cache=cache: fast(network, cache, x, first))
    assert torch.allclose(results[rule][:9], results["absolute"][:9], atol=1e-4)
    assert (results[rule] - results["absolute"]).abs().max() > 0.05


def test_positions_of_frames_with_a_gap():
    """Sinks 0 to 2, and 20, 21, 30 after a gap: only the rule of the window closes it, only the absolute one leaves sinks behind."""
    frames = [0, 1, 2, 20, 21, 30]
    assert {name: rule(frames, 3) for name, rule in POSITIONS.items()} == {
        "absolute": [0, 1, 2, 20, 21, 30],
        "window": [0, 1, 2, 3, 4, 5],
        "adjoining": [17, 18, 19, 20, 21, 30],
    }


def test_turning_is_embedding_elsewhere():
    keys, at, by = torch.randn(4, TOKENS, 2, HEAD), torch.tensor([0.0, 3, 7, 900]), torch.tensor([5.0, -3, 2.5, 10_000])
    expected = embedded(keys, at + by)
    torch.testing.assert_close(turned(embedded(keys, at).float()[None], by)[0], expected.float(), rtol=1e-5, atol=2e-5)


def test_only_channels_of_time_are_turned():
    keys = torch.randn(1, 2, TOKENS, 2, HEAD)
    result = turned(keys, torch.tensor([3.0, 5.0]))
    count = time_channels(HEAD)
    assert torch.equal(result[..., count:], keys[..., count:]) and not torch.allclose(result[..., :count], keys[..., :count])
    assert time_channels(128) == 44


@pytest.mark.parametrize("frame", [300, 3000])
def test_positions_are_exact_in_half_precision_however_far(frame):
    """Differences of neighbours are those at the start of a take, in bfloat16 as well, where 257 is no number."""
    shifts = []
    for start in (0, frame - frame % BLOCK):
        cache = KeyValueCache(CacheSettings(9))
        cache.frames = list(range(start, start + 6))
        cache.slots = {f: f - start for f in cache.frames}
        cache.places, cache.shots = {f: f % BLOCK for f in cache.frames}, dict.fromkeys(cache.frames, 0)
        cache.begin(range(start + 6, start + 9))
        shifts.append(cache.shifts())
    assert torch.equal(*shifts)


def test_memory_is_flat_and_taken_once():
    cache, network = KeyValueCache(CacheSettings(12, 3)), weights()
    sizes, places = set(), set()
    for block in range(1000):
        fast(network, cache, torch.randn(BLOCK, TOKENS, WIDTH), BLOCK * block)
        sizes.add(cache.size())
        places |= {memory.data_ptr() for memory in cache.keys.values()}
    assert len(sizes) == 1 and len(places) == len(network)
    assert len(cache.frames) == 12 and cache.frames[:3] == [0, 1, 2] and cache.evicted == 3000 - 12


def test_a_call_may_be_repeated_and_conditions_do_not_mix():
    network, one, other = weights(), KeyValueCache(CacheSettings(9, 3)), KeyValueCache(CacheSettings(9, 3))
    x, y = torch.randn(2, BLOCK, TOKENS, WIDTH)
    first = fast(network, one, x, 0)
    fast(network, other, y, 0)
    assert torch.equal(fast(network, one, x, 0), first)
    assert one.frames == [0, 1, 2]


def test_a_take_goes_on_from_its_tensors():
    network = weights()
    whole = KeyValueCache(CacheSettings(9, 3))
    expected = take(lambda x, first: fast(network, whole, x, first))
    cut = KeyValueCache(CacheSettings(9, 3))
    states = []

    def call(x, first):
        if first == 15 and not states:
            kept = cut.parts()
            states.append({f"{part}/{name}": kept[part][name].clone() for part in kept for name in kept[part]})
            fresh.restore(states[0])
        return fast(network, cut if first < 15 else fresh, x, first)

    fresh = KeyValueCache(CacheSettings(9, 3))
    assert torch.equal(take(call), expected)


def test_what_is_not_kept_is_forgotten_and_the_rest_stays():
    network, cache, slow = weights(), KeyValueCache(CacheSettings(9, 1)), Slow(9, 1, published("absolute"))
    g = torch.Generator().manual_seed(3)
    for block in range(4):
        x = torch.randn(BLOCK, TOKENS, WIDTH, generator=g)
        fast(network, cache, x, BLOCK * block), slow(network, x, BLOCK * block)
    kept = [cache.frames[0], *cache.frames[-2:]]
    cache.keep(kept)
    slow.seen = list(kept)
    x = torch.randn(BLOCK, TOKENS, WIDTH, generator=g)
    torch.testing.assert_close(fast(network, cache, x, 12), slow(network, x, 12), rtol=1e-4, atol=1e-4)
    assert cache.frames == [*kept, 12, 13, 14] and sorted(cache.slots.values()) == list(range(6))


def test_a_copy_of_a_host_s_options_holds_the_same_cache():
    cache = KeyValueCache(CacheSettings())
    assert copy.deepcopy({"cache": cache})["cache"] is cache


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"positions": "round"}, "choose one of absolute, window, adjoining"),
        ({"room": -1}, "0 or more"),
        ({"room": 3, "sinks": 3}, "leave room for other frames"),
    ],
)
def test_settings_that_cannot_be(settings, said):
    with pytest.raises(ValueError, match=said):
        CacheSettings(**settings)


def test_calls_that_cannot_be():
    cache = KeyValueCache(CacheSettings(6, 4))
    with pytest.raises(ValueError, match="frame 3 was asked for and 0 comes next"):
        cache.begin(range(3, 6))
    cache.begin(range(4))
    with pytest.raises(ValueError, match="a call of 3 frames does not fit"):
        cache.begin(range(4, 7))
