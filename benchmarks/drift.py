"""Does the take hold? Diffusion Forcing against two baselines, at equal model calls per frame: ``python benchmarks/drift.py``.

Three models of one architecture, trained alike (same data, seed, number of steps and computation per step; models/README.md has the
commands) but for the method, continue the same clips of the procedural world from 4 true frames to 160, ten times the trained length:

* forcing: a noise level per frame; pyramid schedule, finished frames stabilised.
* teacher: next frame given the past, trained on the true past; one frame after the other.
* full: all frames at one level; a window of 8 known and 8 new frames, the known ones replaced by noised copies at every step.

bundled is the model that comes with the pack: forcing, trained for longer; guided is the same with classifier-free guidance of 2, whose
second network call is counted. Prints one table and keeps it in ``benchmarks/drift.json``;
with ``--rows`` only those rows are made anew. Every seed has its own test clips and noise.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch
from einops import rearrange
from torch import Tensor

from modules.checkpoints.video_model import clean_prediction, fold, load_video_model, unfold
from modules.data.shapes import Clips, clips
from modules.measure.shapes_metrics import BUCKETS, quality
from modules.noise.levels import NoiseSchedule
from modules.noise.seeded import broadcast, frame_noise
from modules.sampling.context_noise import ContextNoise
from modules.sampling.forcing import Forcing
from modules.sampling.job import Job
from modules.sampling.model_view import Denoise, View
from modules.sampling.noise_levels import NoiseLevels
from modules.sampling.stepping import move

KNOWN, FRAMES, WINDOW = 4, 160, 16
STABILISE, CFG = 0.2, 2.0
MODELS = {name: ROOT / "benchmarks" / "baselines" / f"{name}.safetensors" for name in ("forcing", "teacher", "full")}
MODELS["bundled"] = ROOT / "models" / "longtake_shapes.safetensors"


def replacement(denoise: Denoise, latent: Tensor, *, sigmas: Tensor, known: int, seed: int, new: int = 8) -> Tensor:
    """Extend a clip chunk by chunk with a model of one level per clip, overwriting known frames by noised copies at every step.

    Ho et al., arXiv:2204.03458, Section 3.1 (what they improve on). ``latent``: ``f c h w``; returns the same shape.
    """
    clip = latent.clone()
    while known < len(clip):
        low, high = max(0, known - (WINDOW - new)), min(len(clip), known + new)
        ids = range(low, high)
        start = frame_noise(clip.shape[1:], seed, ids, "start")
        copies = frame_noise(clip.shape[1:], seed, ids, "replace")
        x = start * (1 + sigmas[-1] ** 2).sqrt()
        given = torch.arange(low, high) < known
        for level in range(len(sigmas) - 1, 0, -1):
            now, after = (sigmas[number].expand(len(x)) for number in (level, level - 1))
            x = torch.where(broadcast(given, x).bool(), clip[low:high] + broadcast(now, x) * copies, x)
            shown = View(x, now, torch.arange(low, high), torch.zeros(high - low, dtype=torch.bool))
            x = move(x, denoise(shown), now, after)
        clip[known:high] = x[known - low :]
        known = high
    return clip


@cache
def model(name: str) -> tuple:
    video = load_video_model(MODELS[name])
    return video.info, *video.build()


def guided(conditional: Denoise, free: Denoise, cfg: float) -> Denoise:
    """Classifier-free guidance; counts as two model calls."""

    def denoise(view: View) -> Tensor:
        base = free(view)
        return base + cfg * (conditional(view) - base)

    return denoise


def denoiser(name: str, label: Tensor, counter: list[int]) -> Denoise:
    info, unet, motion = model(name)
    schedule = NoiseSchedule.named(info.noise_schedule)

    def denoise(view: View) -> Tensor:
        counter[0] += 1
        y = label.expand(len(view.x), -1)
        with motion.during(motion.frames_for(view.ids)):
            return clean_prediction(unet, view.x, view.sigma, schedule, info.prediction, y=y)

    return denoise


def by_rollout(
    denoise: Denoise,
    latent: Tensor,
    seed: int,
    table: Callable[[int], Tensor],
    *,
    schedule: str,
    steps: int,
    lag: float,
    sigma: float,
) -> Tensor:
    levels = NoiseLevels.named(schedule, FRAMES, steps, lag=lag, known=KNOWN)
    sampler = Forcing(levels, WINDOW, context_noise=ContextNoise(sigma))(Job(denoise, latent, table(steps), seed=seed))
    while True:
        try:
            next(sampler)
        except StopIteration as end:
            return end.value


def by_replacement(denoise: Denoise, latent: Tensor, seed: int, table: Callable[[int], Tensor], *, steps: int) -> Tensor:
    return replacement(denoise, latent, sigmas=table(steps), known=KNOWN, seed=seed)


# name in the table: (model, sampler)
ROWS: dict[str, tuple[str, Callable[..., Tensor]]] = {}
for _calls, _steps, _lag in ((1, 8, 1), (3, 12, 3), (8, 16, 8)):
    for _name in ("bundled", "forcing"):
        ROWS[f"{_name} {_calls}"] = (_name, partial(by_rollout, schedule="pyramid", steps=_steps, lag=_lag, sigma=STABILISE))
    if _calls > 1:
        ROWS[f"guided {_calls}"] = (
            "bundled",
            partial(by_rollout, schedule="pyramid", steps=12, lag=_calls / 2, sigma=STABILISE),
        )
    ROWS[f"teacher {_calls}"] = ("teacher", partial(by_rollout, schedule="autoregressive", steps=_calls, lag=1, sigma=0.0))
    ROWS[f"full {_calls}"] = ("full", partial(by_replacement, steps=8 * _calls))


@torch.inference_mode()
def take(row: str, seed: int, index: int) -> tuple[Tensor, float]:
    """One clip of one row: ``f 3 h w`` in -1..1 and model calls per new frame."""
    torch.set_num_threads(1)
    name, sampler = ROWS[row]
    info = model(name)[0]
    truth = clips(1, FRAMES, 10_000 + seed, index)
    latent = fold(rearrange(truth.frames, "1 f c h w -> f h w c") / 2 + 0.5, info.patch)
    latent[KNOWN:] = 0
    counter = [0]
    schedule = NoiseSchedule.named(info.noise_schedule)
    denoise = denoiser(name, truth.labels, counter)
    if row.startswith("guided"):
        denoise = guided(denoise, denoiser(name, torch.zeros_like(truth.labels), counter), CFG)
    clip = sampler(denoise, latent, seed * 1000 + index, schedule.levels)
    return rearrange(unfold(clip, info.patch), "f h w c -> f c h w") * 2 - 1, counter[0] / (FRAMES - KNOWN)


def test_clips(seed: int, count: int) -> Clips:
    drawn = [clips(1, FRAMES, 10_000 + seed, index) for index in range(count)]
    return Clips(**{name: torch.cat([getattr(clip, name) for clip in drawn]) for name in Clips.__dataclass_fields__})


def collect(rows: list[str], seeds: int, count: int, processes: int | None) -> dict:
    """Per row and bucket: mean of each measure over seeds, and the spread between seeds."""
    results: dict[str, dict] = {}
    with ProcessPoolExecutor(processes) as pool:
        jobs = {(row, seed, i): pool.submit(take, row, seed, i) for row in rows for seed in range(seeds) for i in range(count)}
        truths = {seed: test_clips(seed, count) for seed in range(seeds)}
        results["truth"] = summary([quality(truth.frames, truth) for truth in truths.values()], 0.0)
        for row in rows:
            taken = {seed: [jobs[row, seed, i].result() for i in range(count)] for seed in range(seeds)}
            measured = [quality(torch.stack([clip for clip, _ in taken[seed]]), truths[seed]) for seed in range(seeds)]
            results[row] = summary(measured, taken[0][0][1])
            show(row, results[row])
    return results


def summary(measured: list[dict], calls: float) -> dict:
    buckets = {}
    for bucket in measured[0]:
        buckets[bucket] = {
            name: (statistics.mean(m[bucket][name] for m in measured), statistics.pstdev([m[bucket][name] for m in measured]))
            for name in measured[0][bucket]
        }
    return {"calls": calls, "buckets": buckets}


def show(row: str, result: dict) -> None:
    for bucket, values in result["buckets"].items():
        cells = "  ".join(f"{mean:6.3f} ±{spread:.3f}" for mean, spread in values.values())
        print(f"{row:10}  {result['calls']:5.2f}  {bucket:>7}  {cells}", flush=True)


def markdown(results: dict) -> str:
    """The README's table: the first and the last bucket of every row, mean over seeds."""
    first, last = (f"{low}-{high}" for low, high in (BUCKETS[0], BUCKETS[-1]))
    names = list(results["truth"]["buckets"][first])
    lines = [
        f"| model, calls per frame | {' | '.join(names)} |",
        f"| --- {'| --: ' * len(names)}|",
    ]
    for row in ["truth", *(row for row in ROWS if row in results)]:
        early, late = (results[row]["buckets"][bucket] for bucket in (first, last))
        cells = " | ".join(f"{early[name][0]:.2f} → {late[name][0]:.2f}" for name in names)
        lines.append(f"| {row} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=2, help="test clips per seed")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "drift.json")
    parser.add_argument("--markdown", action="store_true", help="only print the kept table for the README")
    given = parser.parse_args()
    if given.markdown:
        print(markdown(json.loads(given.out.read_text())["rows"]))
        return
    missing = [MODELS[ROWS[row][0]] for row in given.rows if not MODELS[ROWS[row][0]].is_file()]
    if missing:
        sys.exit(f"{missing[0]} is missing: models/README.md says how the three models are trained")
    print("row         calls   frames  valid          kept           speed          drift          contrast", flush=True)
    results = collect(given.rows, given.seeds, given.clips, given.processes)
    show("truth", results["truth"])
    about = {
        "seeds": given.seeds,
        "clips_per_seed": given.clips,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    if given.out.is_file():
        kept = json.loads(given.out.read_text())
        if all(kept["about"][name] == about[name] for name in ("seeds", "clips_per_seed")):
            results = kept["rows"] | results
    given.out.write_text(json.dumps({"about": about, "rows": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
