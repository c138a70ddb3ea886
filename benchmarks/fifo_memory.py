"""FIFO's memory over a long clip: ``python benchmarks/fifo_memory.py [--frames 2000]``.

A tiny model makes the clip frame by frame and nobody keeps them. One line per 200 frames: memory of the process, and of all tensors that
are alive. Gives 1 if either grows by more than 2 MiB once the queue is full. Reads /proc, so it is for Linux.
"""

import argparse
import gc
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from forcing_share import tiny
from torch import Tensor

from modules.checkpoints.video_model import clean_prediction
from modules.noise.levels import NoiseSchedule
from modules.sampling.context_noise import ContextNoise
from modules.sampling.fifo import Queue
from modules.sampling.job import Job
from modules.sampling.model_view import View
from modules.sampling.rollout import Rollout, rollout

SHAPE, EVERY, ALLOWED = (48, 4, 4), 200, 2.0  # MiB; what the allocator keeps varies that much
PAGE = 4096


def resident() -> float:
    """Memory of this process in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


def tensors() -> float:
    """Memory of all tensors that Python knows of, in MiB."""
    gc.collect()
    stores = {
        item.untyped_storage().data_ptr(): item.untyped_storage().nbytes() for item in gc.get_objects() if type(item) is Tensor
    }
    return sum(stores.values()) / 2**20


def main() -> int:
    """Print the lines. Gives 1 if memory grows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=2000)
    frames = parser.parse_args().frames
    torch.set_num_threads(1)
    queue, (unet, motion) = Queue(frames, partitions=1, window=8, lookahead=True), tiny()
    schedule = NoiseSchedule.named("cosine")
    sigmas = schedule.levels(queue.steps)

    def denoise(view: View) -> Tensor:
        with motion.during(motion.frames_for(view.ids)):
            return clean_prediction(unet, view.x, view.sigma, schedule, "v")

    job = Job(denoise, torch.zeros(1, *SHAPE), sigmas)  # frames behind the latent begin from its last one
    how = Rollout(queue, queue.window, eta=1.0, context_noise=ContextNoise(float(sigmas[1])))
    first, began = None, time.perf_counter()
    print("frames  process MiB  tensors MiB  seconds", flush=True)
    with torch.inference_mode():
        for step in rollout(job, how):
            done = 0 if step.ids is None or not len(step.ids) else int(step.ids) + 1
            if done and done % EVERY == 0:
                now = resident(), tensors()
                first = first or now
                print(f"{done:6}  {now[0]:11.1f}  {now[1]:11.2f}  {time.perf_counter() - began:7.0f}", flush=True)
    grown = [late - early for late, early in zip(now, first, strict=True)]
    print(f"from frame {EVERY} on: process {grown[0]:+.1f} MiB, tensors {grown[1]:+.2f} MiB")
    return int(max(grown) > ALLOWED)


if __name__ == "__main__":
    raise SystemExit(main())
