"""What a causal take costs and keeps: ``python benchmarks/causal.py``, one JSON line per question, without ComfyUI or weights.

- ``flat``: a take of 3,000 latent frames by the pack's loop and cache, with a small network: calls of each block and bytes of keys and
  values, counted as it goes, and frames that the loop itself keeps.
- ``positions``: by how much the embedding in time is off at latent frames 300 and 3,000: differences of a block's own times where their
  numbers are made in bfloat16, as networks with positions in their own precision make them, and here.
- ``cost``: frames that go through the network for a take of 27, with the cache and where a window of 9 is computed anew in every call.
- ``memory``: arithmetic: keys and values of Wan 2.1 1.3B at 480x832 in 16 bit, for a minute: a cache for 12 frames, and one that grows.
"""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests")]

import conftest  # noqa: F401  makes the pack importable
import torch
from causal_loops import SIGMAS, told
from pack.modules.sampling.causal import BlockLevels
from pack.modules.sampling.causal_systems import FOUR, CausalSystem
from pack.modules.sampling.job import Job
from pack.modules.sampling.rollout import Rollout, rollout
from pack.modules.temporal.kv_cache import CacheSettings, KeyValueCache, turned
from slow_causal import TOKENS, WIDTH, fast, weights

BLOCK, HEAD = 3, 128
LAYERS, DIM, CELLS, MINUTE = 30, 1536, 1560, 241  # Wan 2.1 1.3B at 480x832, and latent frames of a minute


def flat(frames: int) -> dict[str, Any]:
    """A long take, counted."""
    network, cache = weights(), KeyValueCache(CacheSettings(12, 3))
    calls: Counter[int] = Counter()
    sizes, kept = set(), 0

    def denoise(view: Any) -> torch.Tensor:
        calls[int(view.ids[0]) // BLOCK] += 1
        return view.x - view.sigma.view(-1, 1, 1) * fast(network, cache, told(view.x, view.sigma), int(view.ids[0]))

    plan = BlockLevels((4, 3, 2, 1), BLOCK, 4, frames)
    how = Rollout(plan, window=BLOCK, order="renoise")
    began = time.perf_counter()
    with torch.no_grad():
        for step in rollout(Job(denoise, torch.zeros(1, TOKENS, WIDTH), SIGMAS, coordinates="flow"), how):
            sizes.add(cache.size())
            kept = max(kept, 0 if step.state is None else len(step.state.ids))
    return {
        "frames": frames,
        "calls": sum(calls.values()),
        "calls_of_a_block": sorted(set(calls.values())),
        "cache_bytes": sorted(sizes),
        "frames_kept_by_the_loop": kept,
        "evicted": cache.evicted,
        "seconds": round(time.perf_counter() - began, 1),
    }


def positions(frame: int) -> dict[str, Any]:
    """Neighbours' differences in time, embedded: what attention between two frames of a block can tell of it."""
    start = frame - frame % BLOCK
    keys = torch.randn(1, BLOCK, 1, 1, HEAD, generator=torch.Generator().manual_seed(0))
    true = turned(keys, torch.arange(BLOCK))
    rounded = torch.arange(start, start + BLOCK, dtype=torch.float64).bfloat16().double()
    theirs = turned(keys, rounded - start)
    cache = KeyValueCache(CacheSettings(12))
    for first in range(0, start + 1, BLOCK):
        cache.begin(range(first, first + BLOCK))
    at = torch.tensor(cache.positions()[-BLOCK:])
    return {
        "frame": frame,
        "told_in_bfloat16": rounded.tolist(),
        "off_in_bfloat16": round(float((theirs - true).abs().max() / keys.abs().max()), 3),
        "told_here": at.tolist(),
        "off_here": float((turned(keys, at) - true).abs().max()),
    }


def cost(frames: int, window: int) -> dict[str, Any]:
    """Frames that go through the network, counted over the plan's calls."""
    system = CausalSystem(BLOCK, FOUR, CacheSettings(window))
    rows = list(system.plan(frames).rows(BLOCK))
    return {
        "frames": frames,
        "calls": len(rows),
        "frame_passes_with_the_cache": sum(len(row.ids) for row in rows),
        f"frame_passes_of_a_window_of_{window}": sum(min(window, int(row.ids[-1]) + 1) for row in rows),
    }


def memory() -> dict[str, Any]:
    """Gigabytes, by arithmetic."""
    frame = 2 * LAYERS * DIM * CELLS * 2 / 1e9
    return {"GB_a_frame": round(frame, 3), "cache_for_12": round(12 * frame, 2), "grows_in_a_minute_to": round(MINUTE * frame, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--frames", type=int, default=3000, help="latent frames of the long take")
    frames = parser.parse_args().frames
    for name, result in (
        ("flat", flat(frames)),
        *(("positions", positions(frame)) for frame in (300, 3000)),
        ("cost", cost(27, 9)),
        ("memory", memory()),
    ):
        print(json.dumps({"question": name, **result}))


if __name__ == "__main__":
    main()
