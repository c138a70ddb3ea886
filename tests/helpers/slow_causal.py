"""A small causal network in two versions: with the cache, and slowly, over explicit lists of frames with explicit positions.

The slow one knows nothing of memory, slots or turning: keys are kept unembedded and embedded by complex numbers in float64 where they are
read, each at the position that the published systems give it.
"""

import torch
from pack.modules.temporal.kv_cache import time_channels

HEADS, HEAD, TOKENS, LAYERS = 2, 24, 3, 3
WIDTH = HEADS * HEAD


def weights(seed=0):
    g = torch.Generator().manual_seed(seed)
    return [{name: torch.randn(WIDTH, WIDTH, generator=g) * 1.6 / WIDTH**0.5 for name in "qkvo"} for _ in range(LAYERS)]


def embedded(x, positions):
    """Keys or queries in time: ``f s n d`` at ``f`` positions."""
    count = time_channels(x.shape[-1])
    angles = positions.double()[:, None] / 10000 ** (torch.arange(0, count, 2).double() / count)
    pairs = torch.view_as_complex(x[..., :count].double().unflatten(-1, (-1, 2)).contiguous())
    return torch.cat(
        [
            torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)[:, None, None]).flatten(-2),
            x[..., count:].double(),
        ],
        -1,
    )


def attention(q, k, v):
    """``f s n d`` over ``g s n d``, all frames seeing all."""
    q, k, v = (x.flatten(0, 1).transpose(0, 1).double() for x in (q, k, v))
    return (torch.softmax(q @ k.mT / HEAD**0.5, -1) @ v).transpose(0, 1)


def projected(x, layer):
    """Queries, keys and values of tokens ``f s c``."""
    normed = torch.nn.functional.layer_norm(x, (WIDTH,))
    return [(normed @ layer[name]).unflatten(-1, (HEADS, HEAD)) for name in "qkv"]


def fast(network, cache, x, first, shot=0):
    """The network on one block: ``x``: ``f s c``, through the cache."""
    cache.begin(range(first, first + len(x)), shot)
    for number, layer in enumerate(network):
        q, k, v = projected(x, layer)
        places = torch.arange(len(x))
        keys, values = cache.attend(number, embedded(k, places).to(k)[None], v[None])
        seen = attention(embedded(q, places), keys[0], values[0])
        x = x + seen.to(x).reshape(x.shape) @ layer["o"]
    return x


class Slow:
    """The same by lists. ``positions``: ``(frames seen, sinks) -> positions``, as each system is published."""

    def __init__(self, room, sinks, positions):
        self.room, self.sinks, self.positions = room, sinks, positions
        self.seen, self.kept = [], {}

    def __call__(self, network, x, first, silent=0):
        """``silent``: how many frames, the first, are shown and leave nothing in the lists."""
        now = list(range(first, first + len(x)))
        new = [] if silent else [frame for frame in now if frame not in self.seen]
        while self.room and len(self.seen) + len(new) > self.room:
            del self.seen[self.sinks]
        self.seen += new
        at = dict(zip(self.seen, self.positions(self.seen, self.sinks), strict=True))
        for number, layer in enumerate(network):
            q, k, v = projected(x, layer)
            self.kept |= {(number, frame): (k[place], v[place]) for place, frame in enumerate(now) if place >= silent}
            keys, values = (torch.stack([self.kept[number, frame][part] for frame in self.seen]) for part in (0, 1))
            every = torch.tensor([at[frame] for frame in self.seen])
            seen = attention(embedded(q, torch.tensor([at.get(frame, 0.0) for frame in now])), embedded(keys, every), values)
            x = x + seen.to(x).reshape(x.shape) @ layer["o"]
        return x
