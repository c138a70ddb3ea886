"""What a step of training waits for its clips: ``python benchmarks/read_ahead.py [VIDEO ...]``, one JSON line.

A native model trains on pixels of videos of 640x360, cut to 16 frames of 64x64 anew at every step, once with clips that are read when they
are asked for and once with two threads that read those of coming steps. Losses are compared first: they are the same, bit for bit, and so
they are where a run goes on from its middle. ``waited`` is the share of a step in which nothing but reading happens, without and with
threads, the promise is below 0.05 with them; ``step_ratio`` is the time of a step without over that with. Without videos of yours, four
H.264 files of noise that moves are made first.
"""

import json
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests")]

import conftest  # noqa: F401, makes the pack importable under the name ``pack``
import torch
from pack.modules.data.ahead import ReadAhead
from pack.modules.data.clips import ClipDataset
from pack.modules.data.find import find_clips
from pack.modules.data.settings import ClipSettings
from pack.modules.train.engine import Run
from pack.modules.train.native_models import Architecture
from pack.modules.train.native_task import NativeChoices
from pack.modules.train.options import BasicSettings, Options
from pack.modules.train.tasks.video_model import make

SIDE, FRAMES, STEPS, LEAST = 64, 16, 8, 0.05
THREADS = 2


def write_videos(folder: Path, count: int = 4, seconds: int = 8) -> None:
    """Videos of 640x360, 30 frames per second, H.264 with B-frames and a key frame every 250 frames, as encoders have it."""
    import av

    numbers = torch.Generator().manual_seed(0)
    for video in range(count):
        ground = torch.rand(3, 12, 20, generator=numbers)
        ground = torch.nn.functional.interpolate(ground[None], size=(720, 1280), mode="bicubic")[0].clamp(0, 1)
        ground = (0.85 * ground + 0.15 * torch.rand(ground.shape, generator=numbers)) * 255
        with av.open(str(folder / f"{video}.mp4"), "w") as file:
            stream = file.add_stream("libx264", rate=30, options={"crf": "20", "preset": "fast"})
            stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
            for frame in range(30 * seconds):
                shown = ground[:, frame : frame + 360, 2 * frame : 2 * frame + 640].byte().permute(1, 2, 0).contiguous()
                file.mux(stream.encode(av.VideoFrame.from_ndarray(shown.numpy(), format="rgb24")))
            file.mux(stream.encode())


def run_of(dataset: ClipDataset, folder: Path, threads: int, path: Path | None = None) -> Run:
    """A training of a small model on pixels."""
    options = Options(batch=2, micro_batch=0, read_ahead=threads, watch_every=0, ema=0.0, precision="float32")
    settings = options.run(BasicSettings(steps=STEPS, learning_rate=1e-4))
    architecture = Architecture(width=64)
    made = make(options, settings, folder, architecture, NativeChoices(), dataset=dataset)
    return Run(made.task, settings, path)


def timed(run: Run) -> tuple[list[float], float, float]:
    """Losses, seconds per step, and seconds of it that the step waited for clips, the first step left out."""
    waits, each = [0.0], ReadAhead.each

    def measured(self: ReadAhead, step: int, batch: int, places: range) -> list:
        began = time.perf_counter()
        try:
            return each(self, step, batch, places)
        finally:
            waits[-1] += time.perf_counter() - began

    ReadAhead.each = measured
    try:
        ends, losses = [], []
        for step in run.steps():
            ends.append(time.perf_counter())
            losses.append(step.loss)
            waits.append(0.0)
    finally:
        ReadAhead.each = each
    return losses, mean(later - before for before, later in pairwise(ends)), mean(waits[1:-1])


def main(given: Sequence[str]) -> int:
    """Print the line. Gives 1 if the promise is not kept."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for number, video in enumerate(given):
            (folder / f"{number}{Path(video).suffix}").symlink_to(Path(video).resolve())
        if not given:
            write_videos(folder)
        cut = {"sizes": "crop", "crop": "random", "short": "leave out", "missing_captions": "train without"}
        settings = ClipSettings(frames=FRAMES, stride=4, width=SIDE, height=SIDE, **cut)
        dataset = ClipDataset(find_clips(folder), settings)
        plain, ahead = timed(run_of(dataset, folder, 0)), timed(run_of(dataset, folder, THREADS))
        assert plain[0] == ahead[0], "reading ahead changed what is trained on"
        first = run_of(dataset, folder, THREADS, folder / "half.run.safetensors")
        for step in first.steps():
            if step.step == STEPS // 2:
                first.save()
                break
        rest = run_of(dataset, folder, THREADS, folder / "half.run.safetensors")
        assert [step.loss for step in rest.steps()] == plain[0][STEPS // 2 :], "a resumed run saw other clips"
    line = {
        "case": "read_ahead",
        "waited": [round(waited / step, 4) for _, step, waited in (plain, ahead)],
        "step_ratio": round(plain[1] / ahead[1], 2),
        "step_ms": [round(step * 1e3) for _, step, _ in (plain, ahead)],
        "clips": len(dataset),
        "torch": torch.__version__,
        "device": platform.machine(),
    }
    print(json.dumps(line), flush=True)
    return int(line["waited"][1] >= LEAST)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
