"""A causal take on a network of a few numbers, with two pictures or more of each latent frame that hang on those before it."""

import torch
from causal_loops import SIGMAS, told
from pack.modules.sampling.causal import CausalTake
from pack.modules.sampling.causal_systems import CausalSystem
from pack.modules.sampling.job import Job
from pack.modules.temporal.kv_cache import CacheSettings, KeyValueCache
from slow_causal import TOKENS, WIDTH, fast, weights

SYSTEM = CausalSystem(3, (1000.0, 937.5, 833.3, 625.0), CacheSettings(9, 3))


class OneCondition:
    """The cache of a model with one condition, as a host has it."""

    def __init__(self, settings):
        self.cache = KeyValueCache(settings)

    def tensors(self):
        return {}

    def parts(self):
        return self.cache.parts()

    def restore(self, tensors):
        self.cache.restore(tensors)


class Pieces:
    """A decoder as Wan's: one picture of the first latent, two of each other, which come two at a time and hang on a running mean."""

    carries = True

    def __init__(self):
        self.restore({})

    def pictures(self, frames, *, last=False):
        behind = max(0, frames - 1)
        return 1 + 2 * (behind if last else behind // 2 * 2) if frames else 0

    def __call__(self, latents, *, last=False):
        given, made = torch.cat([self.waiting, latents], 2), []
        while given.shape[2]:
            size = 2 if self.begun else 1
            if given.shape[2] < size and not last:
                break
            portion, given = given[:, :, :size], given[:, :, size:]
            for latent in portion.unbind(2):
                self.mean = 0.7 * self.mean + latent
                made += [self.mean] * (2 if self.begun else 1)
            self.begun = True
        self.waiting = given
        pictures = [item[0, :1].expand(3, -1, -1).sigmoid().movedim(0, -1) for item in made]
        return torch.stack(pictures) if pictures else torch.zeros(0, TOKENS, WIDTH, 3)

    def tensors(self):
        return {"waiting": self.waiting, "mean": self.mean} | ({"begun": torch.ones(1)} if self.begun else {})

    def restore(self, tensors):
        self.begun = "begun" in tensors
        self.waiting = tensors.get("waiting", torch.zeros(1, 1, 0, TOKENS, WIDTH))
        self.mean = tensors.get("mean", torch.zeros(1, 1, TOKENS, WIDTH))


def causal(frames, switch=(), system=SYSTEM, network=weights()):
    """A sampler and its job: frames of ``1 1 s c`` each."""
    memory = OneCondition(system.cache)

    def denoise(view):
        x, cache = view.x[:, 0, 0], memory.cache
        seen = fast(network, cache, told(x, view.sigma, view.shot), int(view.ids[0]), view.shot)
        return view.x - view.sigma.view(-1, 1, 1, 1, 1) * seen[:, None, None]

    latent = torch.zeros(frames, 1, 1, TOKENS, WIDTH)
    job = Job(denoise, latent, SIGMAS, seed=5, coordinates="flow", memory=memory, to_latent=lambda x: x.movedim(0, 2))
    return CausalTake.of(system.plan(frames, prompts=switch)), job
