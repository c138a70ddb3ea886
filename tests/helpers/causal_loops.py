"""A take of blocks by the pack's loop and cache, and by the loop that is published, over explicit lists of frames."""

import torch
from pack.modules.noise.seeded import frame_noise
from pack.modules.sampling.context_noise import ContextNoise
from pack.modules.sampling.job import Job
from pack.modules.sampling.rollout import Rollout, collected, rollout
from pack.modules.sampling.stepping import level_noise
from pack.modules.temporal.kv_cache import POSITIONS, KeyValueCache
from slow_causal import TOKENS, WIDTH, Slow, fast, weights

SIGMAS = torch.tensor([0.0, 0.625, 0.8333, 0.9375, 1.0])
SEED = 5


def told(x, sigma, shot=0):
    """Tokens of a flow network's input, which knows its time and its prompt."""
    return x + torch.sin(3.0 * sigma.view(-1, 1, 1) + torch.arange(WIDTH) / 7) + shot * torch.cos(torch.arange(WIDTH) / 3)


def ours(plan, settings, clip, context=0.0):
    """A take as the pack makes it, and its calls: ids and level."""
    network, cache = weights(), KeyValueCache(settings)
    calls = []

    def seen(view):
        return fast(network, cache, told(view.x, view.sigma, view.shot), int(view.ids[0]), view.shot)

    def denoise(view):
        calls.append((view.ids.tolist(), view.sigma[0].item()))
        return view.x - view.sigma.view(-1, 1, 1) * seen(view)

    how = Rollout(plan, window=plan.block, order="renoise", context_noise=ContextNoise(context, "label"))
    job = Job(denoise, clip, SIGMAS, seed=SEED, coordinates="flow")
    steps = collected(job, rollout(job, how), clip)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value, calls


def published(block, settings, frames, levels=(4, 3, 2, 1), first=(), given=None, context=0.0, prompts=()):
    """Self-Forcing's inference, as it is described, with this pack's noise; prompts switched at ``prompts`` as LongLive does."""
    network, slow, shot = weights(), Slow(settings.room, settings.sinks, POSITIONS[settings.positions]), 0

    def guess(x, sigma, p, silent=0):
        sigmas = torch.full((len(x),), sigma)
        return x - sigma * slow(network, told(x, sigmas, shot), p, silent)

    def switch(p):
        past = torch.cat(made)
        if settings.switch == "flush":
            slow.seen = [slow.seen[0], *slow.seen[-2:]]
        if settings.switch in ("recache", "renew"):
            n = min(settings.room, p)
            slow.seen = slow.seen if settings.switch == "recache" else []
            guess(past[p - n : p], context, p - n, settings.sinks if settings.switch == "recache" else 0)

    made = [] if given is None else list(given.split(block))
    for number, part in enumerate(made):
        assert not prompts
        guess(part, context, number * block)
    for p in range(sum(map(len, made)), frames, block):
        if p in prompts:
            shot += 1
            switch(p)
        ids = list(range(p, p + block))
        x = frame_noise((TOKENS, WIDTH), SEED, ids)
        path = first if first and len(made) == (0 if given is None else len(given) // block) else levels
        for level, following in zip(path, (*path[1:], 0), strict=True):
            clean = guess(x, float(SIGMAS[level]), p)
            if following:
                sigma = SIGMAS[following]
                x = (1 - sigma) * clean + sigma * level_noise(x, SEED, ids, [level] * block)
        made.append(clean)
        guess(clean, context, p)
    return torch.cat(made)
