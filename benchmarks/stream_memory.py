"""Memory of an endless take: ``python benchmarks/stream_memory.py``, one JSON line per length, then how far they are apart.

Each take runs in a process of its own, through the node, with its frames decoded and written as PNG to a temporary folder. ``peak_mb`` is
the most memory that the process ever had (its resident set), ``now_mb`` what it has at some frames on the way. ``--model bundled`` takes
the model that comes along instead of a tiny one with random weights; the host is ComfyUI where it is found (``COMFYUI_PATH``).
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1] / "tests"
MARKS = (50, 200, 1000, 2000, 5000, 10_000)  # frames at which memory is looked at
SETTINGS: dict[str, dict[str, Any]] = {
    "tiny": {"steps": 4, "lag": 1.0},
    "bundled": {"steps": 12, "lag": 3.0},
}


def resident_mb() -> float:
    """What the process has now, in megabytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this system does not tell the size of a process")


def measure(frames: int, name: str) -> dict[str, Any]:
    """One take, in this process."""
    sys.path[:0] = [str(TESTS)]
    import conftest  # noqa: F401, makes the pack importable under the name ``pack``
    import torch
    from pack import host
    from pack.modules.checkpoints.video_model import load_video_model
    from pack.nodes.forcing import stream
    from tiny import video_model

    torch.set_num_threads(1)
    video = video_model() if name == "tiny" else load_video_model(host.file("video_models", "longtake_shapes.safetensors"))
    model, now = host.video_model(video), {}
    vae = host.vae(video.info)

    class Watched:
        """The VAE, which sees every batch of frames."""

        frames = 0

        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            for mark in MARKS:
                if self.frames < mark <= self.frames + len(latents):
                    now[mark] = round(resident_mb(), 1)
            self.frames += len(latents)
            return vae.decode(latents)

    with tempfile.TemporaryDirectory() as folder:
        host.output_directory = lambda: Path(folder)  # type: ignore[attr-defined]
        began = time.perf_counter()
        stream.LongTakeStream.execute(model=model, vae=Watched(), frames=frames, preview=False, **SETTINGS[name])
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        written = sum(1 for path in Path(folder, "endless_take").iterdir() if path.suffix == ".png")
    about = {"model": name, "host": host.name, "frames": frames, "written": written, "seconds": round(seconds, 1)}
    return about | {"peak_mb": round(peak, 1), "now_mb": now}


def main() -> int:
    """Run each length and print the figures."""
    parser = argparse.ArgumentParser(description="Memory of an endless take.")
    parser.add_argument("--frames", type=int, nargs="+", default=[200, 10_000])
    parser.add_argument("--model", choices=tuple(SETTINGS), default="tiny")
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print("\n" + json.dumps(measure(options.alone, options.model)))
        return 0
    peaks = []
    for frames in options.frames:
        command = [sys.executable, __file__, "--alone", str(frames), "--model", options.model]
        line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        print(line, flush=True)
        peaks.append(json.loads(line)["peak_mb"])
    print(json.dumps({"more_mb": round(peaks[-1] - peaks[0], 1), "of": peaks[0]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
