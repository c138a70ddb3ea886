"""Who fills in best between keyframes? ``python benchmarks/interpolation.py``, one table of each part; nothing else is needed.

Clips of the procedural world that nobody was trained on: 17 frames, every fourth of which is given, at three frame rates (time from frame
to frame 1, 0.5 and 0.25, so that things move up to 6, 3 or 1.5 pixels from one keyframe to the next). No model is told the words.

* hold, nearest, blend: pictures alone, no model.
* hints: the bundled model with hints (``models/README.md``), 8 steps, keyframes known; "made again": keyframes under noise like all
  others, as in the article, and only told by the hints.
* trapezoid: the bundled model that looks both ways, both ends of each gap lead (workflow ``inbetween``); guidance: the same model, all
  new frames at one level, keyframes replaced, with and without reconstruction guidance.

``chain`` is the article's plan, 5 frames to 17 to 65, against blends of the same 5. ``attention`` is its second half, 17 to 65, with
attention over all 65 frames, over a window of 5, over that and the first frame, and over as
many frames as the model was trained on, with which ``chain`` works.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch
from einops import rearrange
from torch import Tensor

from modules.checkpoints.video_model import clean_prediction, load_video_model, unfold
from modules.control.hint_tables import hold, linear, nearest
from modules.control.hints import LAYOUTS, every, grown, mixed, told
from modules.data.shapes import Clips, clips
from modules.guidance.reconstruction import Known, ReconstructionGuidance
from modules.measure.shapes_metrics import recognise
from modules.noise.levels import NoiseSchedule
from modules.sampling.forcing import Forcing
from modules.sampling.job import Job
from modules.sampling.model_view import Denoise, View, plain
from modules.sampling.noise_levels import NoiseLevels
from modules.sampling.vdm import VdmSampler
from modules.train.engine import train
from modules.train.hinted import HintedRun, HintTraining, pictures_to_latents
from modules.train.settings import RunSettings

HINTED, BOTH_WAYS = (ROOT / "models" / f"longtake_shapes_{name}.safetensors" for name in ("hints", "both_ways"))
SEED, FACTOR, STEPS = 20_000, 4, 8  # of the clips; no training run has it
RATES = (1.0, 0.5, 0.25)
Fill = Callable[[Tensor, int], Tensor]  # (latents of the keyframes ``k c h w``, seed) -> clip ``f c h w``


class Model:
    """A bundled model as samplers see it, and how long its calls took."""

    def __init__(self, path: Path):
        video = load_video_model(path)
        self.info, (self.unet, self.motion) = video.info, video.build()
        self.schedule = NoiseSchedule.named(video.info.noise_schedule)
        self.calls, self.seconds = 0, 0.0

    def denoiser(self, beside: Tensor | None = None) -> Denoise:
        """``beside``: ``f d h w``, hints of the whole clip, or None."""

        def denoise(view: View) -> Tensor:
            began = time.process_time()
            y = torch.zeros(len(view.x), len(self.info.labels))
            hints = None if beside is None else beside[view.ids]
            with self.motion.during(self.motion.frames_for(view.ids)):
                clean = clean_prediction(self.unet, view.x, view.sigma, self.schedule, self.info.prediction, hints, y=y)
            self.calls, self.seconds = self.calls + 1, self.seconds + time.process_time() - began
            return clean

        return denoise


def finished(steps) -> Tensor:
    """What a sampler returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def by_hints(model: Model, keys: Tensor, seed: int, *, pinned: bool = True, steps: int = STEPS) -> Tensor:
    """One pass of the model with hints."""
    layout = LAYOUTS[model.info.trained["layout"]]
    at, count = every(len(keys), FACTOR), grown(len(keys), FACTOR)
    given = told(keys, at, count, layout)
    levels = NoiseLevels.named("full_sequence", count, steps, known=at if pinned else ())
    latent = given.clip if pinned else torch.zeros_like(given.clip)
    return finished(
        Forcing(levels, count)(Job(model.denoiser(given.hints.joined()), latent, model.schedule.levels(steps), seed=seed))
    )


def by_trapezoid(model: Model, keys: Tensor, seed: int, *, steps: int = 12, lag: float = 2.0) -> Tensor:
    """Frames next to keyframes lead, the middle of each gap follows."""
    at, count = every(len(keys), FACTOR), grown(len(keys), FACTOR)
    levels = NoiseLevels.named("trapezoid", count, steps, lag=lag, known=at)
    latent = told(keys, at, count, LAYOUTS["article"]).clip
    return finished(Forcing(levels, count)(Job(model.denoiser(), latent, model.schedule.levels(steps), seed=seed)))


def by_guidance(model: Model, keys: Tensor, seed: int, *, weight: float, steps: int = STEPS) -> Tensor:
    """Keyframes replaced under noise, and others guided to where the model makes the keyframes out of them."""
    at, count = every(len(keys), FACTOR), grown(len(keys), FACTOR)
    latent = told(keys, at, count, LAYOUTS["article"]).clip
    known = torch.zeros(count, dtype=torch.bool)
    known[list(at)] = True
    guide = ReconstructionGuidance(weight, Known(at, latent[known])) if weight else plain
    job = Job(model.denoiser(), latent, model.schedule.levels(steps), known=known, seed=seed, guide=guide, trained=count)
    return finished(VdmSampler(replacement="fresh")(job))


def without_model(shares: Callable, keys: Tensor, seed: int) -> Tensor:  # noqa: ARG001  all fill alike
    """Mixtures of keyframes."""
    at = every(len(keys), FACTOR)
    return mixed(keys, shares(at, grown(len(keys), FACTOR)))


@dataclass
class Row:
    """Sums over clips of what a way to fill in has made."""

    error: float = 0.0  # squared, of pixels in 0..1
    frames: int = 0
    shown: float = 0.0  # frames that show one whole shape
    apart: list[float] = None  # type: ignore[assignment]  pixels between the shape and where it should be
    seconds: float = 0.0  # of one core

    def add(self, made: Tensor, truth: Clips, between: Tensor, seconds: float) -> None:
        """One clip: ``made``: ``f 3 h w`` in -1..1, ``between``: ``f``, bool, which frames count."""
        seen = recognise(made[None])
        right = truth.frames[0]
        self.apart = self.apart or []
        self.error += ((made - right)[between] / 2).square().mean((1, 2, 3)).sum().item()
        self.frames += int(between.sum())
        self.shown += seen.valid[0][between].sum().item()
        self.apart += (seen.centre[0] - truth.centre[0]).norm(dim=-1)[between].tolist()
        self.seconds += seconds

    def result(self, count: int) -> dict[str, float]:
        """Means."""
        mean = self.error / self.frames
        return {
            "rmse": mean**0.5,
            "shown": self.shown / self.frames,
            "apart": sum(self.apart) / len(self.apart),
            "seconds": self.seconds / count,
        }


def pictures(latents: Tensor, patch: int) -> Tensor:
    """``latents``: ``f l p q``. Returns ``f 3 h w`` in -1..1."""
    return rearrange(unfold(latents, patch), "f h w c -> f c h w") * 2 - 1


def compared(ways: dict[str, Fill], patch: int, *, count: int, rate: float, keyframes: int, factor: int) -> dict[str, dict]:
    """Each way to fill in on the same clips of one frame rate."""
    rows = {name: Row() for name in ways}
    frames = grown(keyframes, factor)
    between = torch.ones(frames, dtype=torch.bool)
    between[::factor] = False
    for index in range(count):
        truth = clips(1, frames, SEED, index, rate)
        keys = pictures_to_latents(truth.frames[0], patch)[::factor]
        for name, fill in ways.items():
            began = time.process_time()
            made = fill(keys, index)
            rows[name].add(pictures(made, patch), truth, between, time.process_time() - began)
    return {name: row.result(count) for name, row in rows.items()}


def table(count: int) -> dict[str, dict]:
    """Every way, at every rate: one gap of three frames between two keyframes, five times."""
    hinted, both = Model(HINTED), Model(BOTH_WAYS)
    ways: dict[str, Fill] = {
        "hold": partial(without_model, hold),
        "nearest": partial(without_model, nearest),
        "blend": partial(without_model, linear),
        "hints": partial(by_hints, hinted),
        "hints, made again": partial(by_hints, hinted, pinned=False),
        "trapezoid": partial(by_trapezoid, both),
        "replacement": partial(by_guidance, both, weight=0.0),
        "guidance": partial(by_guidance, both, weight=2.0),
    }
    return {f"{rate:g}": compared(ways, hinted.info.patch, count=count, rate=rate, keyframes=5, factor=FACTOR) for rate in RATES}


def chain(count: int) -> dict[str, dict]:
    """5 to 17 to 65 with the model, and by blends."""
    hinted = Model(HINTED)
    hinted.motion.looking(17)  # the length that it was trained on

    def twice(one: Fill) -> Fill:
        return lambda keys, seed: one(one(keys, seed), seed + 1)

    ways: dict[str, Fill] = {"blend": twice(partial(without_model, linear)), "hints": twice(partial(by_hints, hinted))}
    return {"0.25": compared(ways, hinted.info.patch, count=count, rate=0.25, keyframes=5, factor=FACTOR**2)}


def attention(count: int) -> dict[str, dict]:
    """17 to 65 with other views of the temporal modules."""
    hinted = Model(HINTED)

    def seeing(window: int, *, first: bool = False) -> Fill:
        def fill(keys: Tensor, seed: int) -> Tensor:
            hinted.motion.looking(window, first=first)
            try:
                return by_hints(hinted, keys, seed)
            finally:
                hinted.motion.looking()

        return fill

    ways: dict[str, Fill] = {
        "blend": partial(without_model, linear),
        "all 65": seeing(0),
        "window 5": seeing(5),
        "window 5 and first": seeing(5, first=True),
        "window 17": seeing(17),
    }
    return {"0.25": compared(ways, hinted.info.patch, count=count, rate=0.25, keyframes=17, factor=FACTOR)}


def train_hints(out: Path) -> None:
    """The bundled model with hints, trained on from the one that looks both ways; goes on where it was stopped."""
    settings = RunSettings(steps=800, batch=4, learning_rate=5e-4, warmup=50, ema=0.99, seed=4)
    run = HintedRun(load_video_model(BOTH_WAYS), HintTraining(), settings, out.with_suffix(".run.safetensors"))
    for step in train(run, 100):
        if step.step % 20 == 0:
            print(f"step {step.step} of {step.total}: loss {step.loss:.4f}, {time.process_time():.0f} s of one core", flush=True)
    run.model().save(out, torch.float16)


PARTS: dict[str, Callable[[int], dict[str, dict]]] = {"table": table, "chain": chain, "attention": attention}


def show(part: str, results: dict[str, dict]) -> None:
    """As Markdown."""
    print(f"\n{part}\n\n| rate | way | rmse | shape whole | pixels off | s per clip |\n| --- | --- | --: | --: | --: | --: |")
    for rate, rows in results.items():
        for name, row in rows.items():
            print(f"| {rate} | {name} | {row['rmse']:.4f} | {row['shown']:.2f} | {row['apart']:.2f} | {row['seconds']:.2f} |")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--clips", type=int, default=8, help="held-out clips per rate")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "interpolation.json")
    parser.add_argument("--train", type=Path, help="train the model with hints and write it here, instead of measuring")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.train is not None:
        train_hints(given.train)
        return
    if not HINTED.is_file():
        sys.exit(f"{HINTED} is missing: models/README.md says how it is trained")
    kept = json.loads(given.out.read_text()) if given.out.is_file() else {}
    for part in given.parts:
        with torch.no_grad():
            results = PARTS[part](given.clips)
        show(part, results)
        kept[part] = {"clips": given.clips, "torch": torch.__version__, "machine": platform.machine(), "rates": results}
        given.out.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
