"""FIFO's memory over a long clip: ``python benchmarks/fifo_memory.py [--frames 1000] [--collected]``.

FIFO Sampler in ComfyUI's SamplerCustomAdvanced, on a small SD1.5-like model with a motion module, its frames decoded and written by Record
to Disk. One line per 200 frames: memory of the process, and of all tensors that are alive. Gives 1 if either grows by more than 2 MiB
from there on. ``--collected`` is for comparison: without a recording ComfyUI holds the latent, its noise and the result. Needs ComfyUI
(``COMFYUI_PATH``), and Linux, as it reads /proc.
"""

import argparse
import gc
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "helpers")]
import conftest  # noqa: F401  makes the pack importable under the name ``pack``
import torch
from pack import host
from torch import Tensor

EVERY, ALLOWED = 200, 2.0  # MiB; what the allocator keeps varies that much
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
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--collected", action="store_true", help="without a recording, the whole clip in memory")
    given = parser.parse_args()
    if host.name != "comfyui":
        raise SystemExit("FIFO Sampler runs in ComfyUI, which was not found: set COMFYUI_PATH")
    from custom import advanced, scheduler_sigmas
    from pack.nodes.forcing.fifo import LongTakeFifoSampler
    from pack.nodes.forcing.recording import LongTakeRecord
    from recorded import animated
    from tiny_motion import text

    torch.set_num_threads(1)
    seen: list[tuple[float, float]] = []
    began = time.perf_counter()

    def note(done: int) -> None:
        if done % EVERY == 0:
            seen.append((resident(), tensors()))
            print(f"{done:6}  {seen[-1][0]:11.1f}  {seen[-1][1]:11.2f}  {time.perf_counter() - began:7.0f}", flush=True)

    model, vae = animated()

    class Counting:
        """The VAE, which sees all frames in batches of eight."""

        done = 0

        def decode(self, latents: Tensor) -> Tensor:
            type(self).done += len(latents)
            note(self.done)
            return vae.decode(latents)

    print("frames  process MiB  tensors MiB  seconds", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        host.output_directory = lambda: Path(folder)  # type: ignore[attr-defined]
        recording = None if given.collected else LongTakeRecord.execute(vae=Counting(), decode_batch=8, preview=False).args[0]
        sampler = LongTakeFifoSampler.execute(partitions=1, window=4, recording=recording, frames=given.frames).args[0]
        latent = torch.zeros(given.frames if given.collected else 1, 4, 8, 8)
        note(0)
        clip = advanced(model, sampler, latent, scheduler_sigmas(model, 4), positive=text(3))
        written = len(list(Path(folder).glob("*/*.png")))
    if given.collected:
        note(0)
    grown = [late - early for late, early in zip(seen[-1], seen[0 if given.collected else 1], strict=True)]
    print(f"{len(clip)} frames in memory, {written} on disk; process {grown[0]:+.1f} MiB, tensors {grown[1]:+.2f} MiB")
    return int(max(grown) > ALLOWED)


if __name__ == "__main__":
    raise SystemExit(main())
