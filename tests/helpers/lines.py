"""The smallest thing to train: a line."""

import torch
from pack.modules.noise.seeded import frame_seed
from pack.modules.train.settings import RunSettings
from torch import nn

SHORT = RunSettings(steps=6, batch=4, learning_rate=0.05, warmup=2, ema=0.9)


class Line:
    """Fit a matrix to noisy pairs; the pair of a step and place is always the same."""

    def __init__(self, size=3, breaks_at=None):
        self.weight = nn.Parameter(torch.full((size, size), 0.1))
        self.bias = nn.Parameter(torch.zeros(size))
        self.size, self.breaks_at, self.seen = size, breaks_at, []

    def parameters(self):
        return {"weight": self.weight, "bias": self.bias}

    def losses(self, step, places):
        self.seen.append((step, list(places)))
        x = torch.stack([self._drawn(step, place) for place in places])
        loss = ((x @ self.weight + self.bias - 2 * x) ** 2).mean(dim=1)
        return loss * float("nan") if step == self.breaks_at else loss

    def _drawn(self, step, place):
        return torch.randn(self.size, generator=torch.Generator().manual_seed(frame_seed(step, place, "pair")))

    def description(self):
        return {"size": self.size}

    def after_step(self, step):
        pass
