"""A causal take on ComfyUI's plain Wan network, through its guider, against the network called over explicit lists of frames.

The slow way embeds every frame at its own number (ComfyUI's ``t_start``), keeps keys as they are, and drops what the settings say has
left: nothing is turned, and nothing of the pack's cache is used.
"""

import pytest
import torch
from pack.modules.noise.seeded import frame_noise
from pack.modules.sampling.causal import CausalTake
from pack.modules.sampling.causal_systems import FOUR, TWO, CausalSystem
from pack.modules.sampling.stepping import level_noise
from pack.modules.temporal.kv_cache import CacheSettings
from tiny_wan import text, wan_model

pytestmark = pytest.mark.comfy
BLOCK, BLOCKS, SEED, SIZE = 2, 5, 5, (4, 6)
SINKS = CausalSystem(BLOCK, FOUR, CacheSettings(6, 1))


def causal_model(system, seed=0):
    from pack.host.comfyui.attach.causal import apply_causal

    model = wan_model(seed=seed)
    with torch.no_grad():  # with the usual weights attention is nearly flat, and every cache agrees with every other
        for name, weight in model.model.diffusion_model.named_parameters():
            if "self_attn" in name and weight.ndim > 1:
                weight.mul_(1.5)
            if "norm_q" in name or "norm_k" in name:
                weight.mul_(1.5)
    return apply_causal(model, system.cache)


def taken(model, system, *, cfg=1.0, frames=BLOCK * BLOCKS, latent=None, known=0, context=0.0, prompts=()):
    from pack import host
    from pack.modules.control.timed_prompts import TimedPrompt, joined

    latent = torch.zeros(1, 16, frames, *SIZE) if latent is None else latent
    algorithm = CausalTake.of(system.plan(latent.shape[2], known, list(prompts)), context)
    positive = joined(text(3), [TimedPrompt(start, text(prompt)) for start, prompt in prompts.items()]) if prompts else text(3)
    made = host.sample(model, positive, text(4), cfg=cfg, latent=latent, algorithm=algorithm, seed=SEED, sigmas=system.sigmas())
    return model.model.process_latent_in(made)


class Slow:
    """One condition: the network on a block, seeing lists of frames."""

    def __init__(self, model, cond, cache):
        self.network, self.cond, self.cache = model.model.diffusion_model, cond[0][0], cache
        self.seen, self.kept = [], {}

    def __call__(self, x, sigma, first, silent=0):
        """``silent``: how many frames, the first, are shown and leave nothing in the lists."""
        now = list(range(first, first + x.shape[2]))
        new = [] if silent else [frame for frame in now if frame not in self.seen]
        while self.cache.room and len(self.seen) + len(new) > self.cache.room:
            del self.seen[self.cache.sinks]
        self.seen += new
        calls = {}

        def override(function, q, k, v, *args, **kwargs):
            number = calls["n"] = calls.get("n", -1) + 1
            if number % 2:
                return function(q, k, v, *args, **kwargs)
            layer, tokens = number // 2, k.shape[1] // len(now)
            for place, frame in list(enumerate(now))[silent:]:
                self.kept[layer, frame] = [t[:, place * tokens : (place + 1) * tokens] for t in (k, v)]
            keys, values = (torch.cat([self.kept[layer, frame][part] for frame in self.seen], 1) for part in (0, 1))
            return function(q, keys, values, *args, **kwargs)

        own = type(self.network).rope_encode
        self.network.rope_encode = lambda *args, **kwargs: own(self.network, *args, **{**kwargs, "t_start": first})
        try:
            with torch.inference_mode():
                told = {"transformer_options": {"optimized_attention_override": override}}
                return x - sigma * self.network(x, torch.tensor([1000.0 * sigma]), self.cond, **told)
        finally:
            del self.network.rope_encode


def by_lists(model, system, *, cfg=1.0, frames=BLOCK * BLOCKS, given=None, context=0.0, cache=None, prompts=None):
    """``prompts``: frame -> number of the text from there on; the negative one's cache is switched with the other."""
    one, other = (Slow(model, text(number), cache or system.cache) for number in (3, 4))

    def guess(x, sigma, first, silent=0):
        positive = one(x, sigma, first, silent)
        return positive if cfg == 1 else other(x, sigma, first, silent).lerp(positive, cfg)

    def switch(first):
        one.cond = text(prompts[first])[0][0]
        how, count = one.cache.switch, min(one.cache.room, first)
        for each in (one, other):
            each.seen = {"flush": [*each.seen[:1], *each.seen[-2:]], "renew": []}.get(how, each.seen)
        if how in ("recache", "renew"):
            past = torch.cat(blocks, 2)[:, :, first - count : first]
            guess(past, context, first - count, one.cache.sinks if how == "recache" else 0)

    blocks = [] if given is None else list(given.split(BLOCK, 2))
    for place, block in enumerate(blocks):
        guess(block, context, place * BLOCK)
    for first in range(BLOCK * len(blocks), frames, BLOCK):
        if first in (prompts or {}):
            switch(first)
        ids = list(range(first, first + BLOCK))
        x = frame_noise((1, 16, *SIZE), SEED, ids)
        levels = {time: number for number, time in enumerate(sorted({*system.times, *system.first}), 1)}
        times = system.first if system.first and first == 0 else system.times
        for time, following in zip(times, (*times[1:], 0), strict=True):
            clean = guess(x.permute(1, 2, 0, 3, 4), time / 1000, first)
            if following:
                noise = level_noise(x, SEED, ids, [levels[time]] * BLOCK)
                x = (1 - following / 1000) * clean.permute(2, 0, 1, 3, 4) + following / 1000 * noise
        blocks.append(clean)
        guess(clean, context, first)
    return torch.cat(blocks, 2)


def far(a, b):
    return float((a - b).abs().max())


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize(
    "system",
    [CausalSystem(BLOCK, FOUR, CacheSettings(0)), CausalSystem(BLOCK, FOUR, CacheSettings(6)), SINKS],
    ids=["all", "room", "sinks"],
)
def test_a_take_is_that_of_explicit_lists(system, cfg):
    model = causal_model(system)
    made, true = taken(model, system, cfg=cfg), by_lists(model, system, cfg=cfg)
    assert far(made, true) < 2e-5 * float(true.abs().max()) + 1e-5
    if system.cache.room:
        wrong = CacheSettings(system.cache.room + 2, system.cache.sinks)
        assert far(by_lists(model, system, cfg=cfg, cache=wrong), true) > 1e-2, "the comparison sees nothing"


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("switch", ["recache", "renew", "flush", "none"])
def test_prompts_switch_as_over_lists(switch, cfg):
    system = CausalSystem(BLOCK, TWO, CacheSettings(6, 1, switch=switch))
    model, prompts = causal_model(system), {4: 5, 8: 6}
    made, true = taken(model, system, cfg=cfg, prompts=prompts), by_lists(model, system, cfg=cfg, prompts=prompts)
    assert far(made, true) < 2e-5 * float(true.abs().max()) + 1e-5
    never, other = by_lists(model, system, cfg=cfg), CacheSettings(6, 1, switch="none" if switch == "renew" else "renew")
    assert far(true[:, :, :4], never[:, :, :4]) == 0 and far(true, never) > 1e-2
    assert far(by_lists(model, system, cfg=cfg, prompts=prompts, cache=other), true) > 1e-3, "the comparison sees nothing"


def test_a_finished_take_goes_on_as_if_it_had_not_ended():
    model = causal_model(SINKS)
    whole = taken(model, SINKS, frames=12)
    start = torch.cat([model.model.process_latent_out(whole[:, :, :8]), torch.zeros(1, 16, 4, *SIZE)], 2)
    assert far(taken(model, SINKS, latent=start, known=8), whole) < 1e-4
    last = torch.cat([model.model.process_latent_out(whole[:, :, 4:8]), torch.zeros(1, 16, 4, *SIZE)], 2)
    assert far(taken(model, SINKS, latent=last, known=4)[:, :, 4:], whole[:, :, 8:]) > 1e-2, "a part of it is another take"


def test_conditions_in_two_calls_are_those_in_one(monkeypatch):
    model = causal_model(SINKS)
    together = taken(model, SINKS, cfg=3.0)
    plain = type(model.model).memory_required

    def much(self, shape, *args, **kwargs):
        return 1e18 if shape[0] > 1 else plain(self, shape, *args, **kwargs)

    monkeypatch.setattr(type(model.model), "memory_required", much)
    assert far(taken(causal_model(SINKS), SINKS, cfg=3.0), together) < 1e-5


def test_fewer_steps_behind_the_first_block_and_context_noise():
    system = CausalSystem(BLOCK, TWO, CacheSettings(6, 1), first=FOUR)
    model = causal_model(system)
    assert far(taken(model, system, context=0.1), by_lists(model, system, context=0.1)) < 1e-4
    assert far(taken(model, system), by_lists(model, system, context=0.1)) > 1e-3


def test_given_frames_are_cached_and_come_back_as_they_were():
    model = causal_model(SINKS)
    given = torch.randn(1, 16, 4, *SIZE, generator=torch.Generator().manual_seed(1))
    latent = torch.cat([model.model.process_latent_out(given), torch.zeros(1, 16, 4, *SIZE)], 2)
    made = taken(model, SINKS, latent=latent, known=4)
    assert far(made[:, :, :4], given) < 1e-5
    assert far(made, by_lists(model, SINKS, frames=8, given=given)) < 1e-4


def test_a_beginning_does_not_depend_on_the_length():
    model = causal_model(SINKS)
    assert torch.equal(taken(model, SINKS, frames=8), taken(model, SINKS, frames=12)[:, :, :8])


def test_memory_is_flat_and_each_sampling_begins_anew(monkeypatch):
    from pack.host.comfyui.attach import causal

    model, sizes = causal_model(SINKS), []
    begin = causal.KeyValueCache.begin
    monkeypatch.setattr(causal.KeyValueCache, "begin", lambda self, *now: (sizes.append(self.size()), begin(self, *now))[1])
    first = taken(model, SINKS, frames=24)
    assert len(set(sizes[1:])) == 1 and sizes[0] == 0
    assert torch.equal(first, taken(model, SINKS, frames=24))
    assert "longtake_caches" not in model.model_options.get("transformer_options", {})


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_comfyui_is_told_what_the_caches_take(monkeypatch, cfg):
    import comfy.sampler_helpers
    from pack.host.comfyui.attach import causal
    from pack.host.comfyui.attach.causal import ring_bytes

    model, caches, reckoned = causal_model(SINKS), [], []
    attend = causal.KeyValueCache.attend
    monkeypatch.setattr(causal.KeyValueCache, "attend", lambda self, *given: (caches.append(self), attend(self, *given))[1])
    own = comfy.sampler_helpers._prepare_sampling
    monkeypatch.setattr(
        comfy.sampler_helpers,
        "_prepare_sampling",
        lambda model, shape, *rest, **more: (reckoned.append(shape), own(model, shape, *rest, **more))[1],
    )
    taken(model, SINKS, cfg=cfg)
    taken_up = sum(cache.size() for cache in {id(cache): cache for cache in caches}.values())
    conditions = 1 if cfg == 1 else 2
    assert taken_up == ring_bytes(model, (1, 16, 10, *SIZE), 6, conditions)
    bare = [conditions, 16, BLOCK, *SIZE]
    assert model.model.memory_required([conditions, *reckoned[0][1:]]) >= model.model.memory_required(bare) + taken_up


def test_other_samplers_and_blocks_without_room_are_refused():
    import comfy.sample
    import comfy.samplers

    model = causal_model(SINKS)
    latent = torch.zeros(1, 16, 4, *SIZE)
    with pytest.raises(ValueError, match="keeps keys and values from block to block"):
        comfy.sample.sample(model, latent, 2, 1.0, "euler", "simple", text(3), text(4), latent, seed=0, disable_pbar=True)
    with pytest.raises(ValueError, match="set room to 3 or more"):
        taken(causal_model(CausalSystem(BLOCK, FOUR, CacheSettings(2, 1))), SINKS)


def test_a_model_of_another_kind_is_refused():
    from pack.host.comfyui.attach.causal import apply_causal
    from tiny_motion import image_model

    with pytest.raises(ValueError, match="takes one timestep for the whole clip"):
        apply_causal(image_model(), CacheSettings())
