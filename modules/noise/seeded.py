"""Noise of each frame, by a seed and the frame's number alone: not by window, chunk, batch or device."""

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Sequence
from itertools import repeat

import torch
from torch import Tensor

_first_eight_bytes = struct.Struct(">Q").unpack_from


def broadcast(values: Tensor, like: Tensor) -> Tensor:
    """One number per frame, ready to multiply frames: ``values``: ``n``, ``like``: ``n ...``. Returns ``n ...``."""
    return values.reshape(-1, *([1] * (like.ndim - 1))).to(like)


def frame_seed(seed: int, frame: int, purpose: str) -> int:
    """A seed for one frame's noise that depends on these three and nothing else: not on window, chunk, order or device."""
    return _first_eight_bytes(hashlib.sha256(f"{seed}/{frame}/{purpose}".encode()).digest())[0] >> 1


def frame_noise(shape: Sequence[int], seed: int, frames: Sequence[int], purpose: str | Sequence[str] = "start") -> Tensor:
    """Standard normal noise of the given frames, drawn on the CPU.

    Args:
        shape: of one frame.
        seed: the user's.
        frames: absolute frame numbers.
        purpose: what the noise is for, of all frames or of each; different purposes are independent.

    Returns:
        noise: ``n ...``, float32.
    """
    noise, generator = torch.empty(len(frames), *shape), torch.Generator()
    purposes = repeat(purpose, len(frames)) if isinstance(purpose, str) else purpose
    seeds = [frame_seed(seed, frame, what) for frame, what in zip(frames, purposes, strict=True)]
    for row, own in zip(noise.unbind(), seeds, strict=True):
        row.normal_(generator=generator.manual_seed(own))
    return noise


class KeptNoise:
    """``frame_noise`` for samplers: what it drew it keeps while the frame is in the window, since the same is needed at every call.

    It keeps four times as many frames as the longest request has; those that were asked for longest ago go first.
    """

    def __init__(self):
        self.kept: OrderedDict[tuple[int, int, str], Tensor] = OrderedDict()
        self.most = 0

    def __call__(self, like: Tensor, seed: int, frames: Sequence[int], purpose: str) -> Tensor:
        """Noise of the given frames, of the kind and on the device of ``like``: ``n ...``. Returns ``f ...``."""
        keys = [(seed, frame, purpose) for frame in frames]
        missing = [key for key in keys if key not in self.kept or not _alike(self.kept[key], like[0])]
        drawn = frame_noise(like.shape[1:], seed, [key[1] for key in missing], purpose).to(like)
        self.kept.update(zip(missing, drawn, strict=True))
        for key in keys:
            self.kept.move_to_end(key)
        wanted = torch.stack([self.kept[key] for key in keys]) if keys else drawn
        self.most = max(self.most, 4 * len(keys))
        while len(self.kept) > self.most:
            self.kept.popitem(last=False)
        return wanted


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.device == other.device
