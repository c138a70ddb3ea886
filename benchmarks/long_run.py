"""A hundred times the trained length: does the bundled model's take hold? ``python benchmarks/long_run.py``.

Clips of the procedural world of 1,600 frames, from a model that was trained on 16. Some rows know the label all along and nothing else;
the others know the first frames and nothing else, so that what was to be shown must be carried along: by the window alone, by the first
frames staying in it (sink frames), or by history guidance. One row has known frames all along the take.

Printed, and kept in ``benchmarks/long_run.json`` after every row: share of frames that show a valid shape, over the whole take; share
that show the shape and the colour that were asked for, in the whole take and in its last tenth; speed, drift and contrast of the last
tenth (``modules/measure/shapes_metrics.py``); model calls per frame; the largest difference of known frames from what was given.

With ``--set`` one more row is made: ``--set label=false sink_frames=4 lag=2 history="all:1.5, none:-0.5"``.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch
from einops import rearrange, repeat
from torch import Tensor

from modules.checkpoints.video_model import VideoModel, clean_prediction, fold, load_video_model, unfold
from modules.data.shapes import Clips, clips
from modules.disk.atomic import replacing
from modules.guidance.branches import read_branches
from modules.guidance.history import HistoryGuidance
from modules.measure.shapes_metrics import quality
from modules.noise.levels import NoiseSchedule
from modules.sampling.context_noise import ContextNoise
from modules.sampling.forcing import Forcing
from modules.sampling.job import Job
from modules.sampling.model_view import Denoise, View, plain
from modules.sampling.noise_levels import NoiseLevels

MODEL = ROOT / "models" / "longtake_shapes_long.safetensors"
RESULTS = ROOT / "benchmarks" / "long_run.json"


@dataclass(frozen=True)
class Setting:
    """One row of the table.

    Attributes:
        label: whether the model is told what to show.
        known: frames at the start that are given.
        every: a known frame after so many; 0 for none.
        cfg: away from the guess without label.
        history: branches of history guidance; empty for none.
        schedule, steps, lag, window, eta, sink_frames: of the rollout.
        context_noise: sigma that finished frames are shown with.
    """

    label: bool = True
    known: int = 4
    every: int = 0
    cfg: float = 1.0
    history: str = ""
    schedule: str = "pyramid"
    steps: int = 12
    lag: float = 1.0
    window: int = 16
    eta: float = 1.0
    sink_frames: int = 0
    context_noise: float = 0.6

    def given(self, frames: int) -> list[int]:
        """The numbers of the known frames."""
        later = range(self.every, frames, self.every) if self.every else ()
        return sorted({*range(self.known), *later})


ROWS: dict[str, Setting] = {
    "label": Setting(),
    "first frames": Setting(label=False, known=4),
    "first frames, sink frames": Setting(label=False, known=4, sink_frames=4),
    "first frames, history": Setting(label=False, known=4, history="all:1.5, none:-0.5"),
    "label, keyframes": Setting(known=4, every=160),
    "label, cfg 2": Setting(cfg=2.0),
}


@dataclass(frozen=True)
class World:
    """Test clips of one seed, and the model that is to continue them."""

    video: VideoModel
    truth: Clips
    seed: int
    schedule: NoiseSchedule = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", NoiseSchedule.named(self.video.info.noise_schedule))

    def latent(self) -> Tensor:
        """The true clips as the model has them: ``f b c h w``."""
        frames = rearrange(self.truth.frames, "b f c h w -> (f b) h w c") / 2 + 0.5
        return rearrange(fold(frames, self.video.info.patch), "(f b) c h w -> f b c h w", b=len(self.truth.labels))

    def pictures(self, latent: Tensor) -> Tensor:
        """The way back: ``f b c h w`` to ``b f 3 h w`` in -1..1."""
        pictures = unfold(rearrange(latent, "f b c h w -> (f b) c h w"), self.video.info.patch)
        return rearrange(pictures, "(f b) h w c -> b f c h w", b=len(self.truth.labels)) * 2 - 1


def test_clips(seed: int, count: int, frames: int) -> Clips:
    """Other clips than the training's, in which every shape and colour comes up as evenly as the count allows."""
    found: dict[tuple[int, int], Clips] = {}
    for index in range(1000):
        drawn = clips(1, frames, 20_000 + seed, index)
        key = int(drawn.shape), int(drawn.colour)
        wanted = {(place % 4, (place + place // 4 + seed) % 4) for place in range(count)}
        if key in wanted:
            found.setdefault(key, drawn)
        if len(found) == len(wanted):
            break
    rows = list(found.values())
    return Clips(**{name: torch.cat([getattr(row, name) for row in rows]) for name in Clips.__dataclass_fields__})


def denoiser(world: World, labels: Tensor, cfg: float, counter: list[int]) -> Denoise:
    """The model on all clips at once: a frame holds them all, ``b c h w``."""
    unet, motion = world.video.build()
    wanted = [labels, torch.zeros_like(labels)] if cfg != 1 else [labels]

    def denoise(view: View) -> Tensor:
        counter[0] += view.clips * len(wanted)
        frames, kinds = len(view.ids), len(wanted)
        x = repeat(view.x, "(k f) b c h w -> (g k b f) c h w", g=kinds, f=frames)
        sigma = repeat(view.sigma, "(k f) -> (g k b f)", g=kinds, f=frames, b=len(labels))
        y = torch.cat([repeat(y, "b l -> (k b f) l", k=view.clips, f=frames) for y in wanted])
        with motion.during(motion.frames_for(view.ids if view.times is None else view.times)):
            clean = clean_prediction(
                lambda scaled, t, y: unet(scaled, t, None, y), x, sigma, world.schedule, world.video.info.prediction, y=y
            )
        guesses = rearrange(clean, "(g k b f) c h w -> g (k f) b c h w", g=kinds, f=frames, k=view.clips)
        return guesses[0] if kinds == 1 else guesses[1] + cfg * (guesses[0] - guesses[1])

    return denoise


@torch.inference_mode()
def take(world: World, setting: Setting, say: Any = None) -> tuple[Tensor, float, float]:
    """One row's clips, ``b f 3 h w`` in -1..1, network evaluations per new frame, and how far known frames are from what was given."""
    latent, counter = world.latent(), [0]
    frames, known = len(latent), setting.given(len(latent))
    levels = NoiseLevels.named(setting.schedule, frames, setting.steps, lag=setting.lag, known=known)
    labels = world.truth.labels if setting.label else torch.zeros_like(world.truth.labels)
    guide = HistoryGuidance(read_branches(setting.history)).on(world.schedule.at_level) if setting.history else plain
    given = latent.clone()
    given[~levels.known] = 0
    shown_with = ContextNoise(setting.context_noise)
    denoise, sigmas = denoiser(world, labels, setting.cfg, counter), world.schedule.levels(setting.steps)
    sampler = Forcing(levels, setting.window, setting.eta, context_noise=shown_with, sink_frames=setting.sink_frames)(
        Job(denoise, given, sigmas, seed=world.seed, guide=guide)
    )
    while True:
        try:
            step = next(sampler)
        except StopIteration as end:
            clip = end.value
            break
        if say is not None:
            say(step.row, step.total)
    apart = (clip - latent)[levels.known].abs().max().item() if known else 0.0
    return world.pictures(clip), counter[0] / (frames - len(known)), apart


def measures(pictures: Tensor, truth: Clips) -> dict[str, float]:
    """Of the whole take, and of its last tenth."""
    frames = pictures.shape[1]
    last = frames - frames // 10, frames
    found = quality(pictures, truth, ((0, frames), last))
    whole, end = (found[f"{low}-{high}"] for low, high in ((0, frames), last))
    return {
        "valid": whole["valid"],
        "valid at the end": end["valid"],
        "kept": whole["kept"],
        "kept at the end": end["kept"],
        **{name: end[name] for name in ("speed", "drift", "contrast")},
    }


def row_of(setting: Setting, given: argparse.Namespace, name: str) -> dict[str, Any]:
    """Means over the seeds, and what each of them gave."""
    parts, began = [], time.monotonic()
    for seed in seeds_of(given):
        world = World(load_video_model(given.model), test_clips(seed, given.clips, given.frames), seed)
        pictures, calls, apart = take(world, setting, partial(progress, f"{name}, seed {seed}"))
        parts.append({**measures(pictures, world.truth), "calls per frame": calls, "known frames off by": apart})
    means = {measure: sum(part[measure] for part in parts) / len(parts) for measure in parts[0]}
    return {"setting": asdict(setting), "means": means, "seeds": parts, "seconds": round(time.monotonic() - began)}


def truth_row(given: argparse.Namespace) -> dict[str, Any]:
    """The same measures of the true clips."""
    parts = [measures(truth.frames, truth) for truth in (test_clips(seed, given.clips, given.frames) for seed in seeds_of(given))]
    return {"means": {measure: sum(part[measure] for part in parts) / len(parts) for measure in parts[0]}, "seeds": parts}


def seeds_of(given: argparse.Namespace) -> range:
    """Of clips and sampling."""
    return range(given.first_seed, given.first_seed + given.seeds)


def progress(name: str, row: int, total: int) -> None:
    if sys.stderr.isatty() and (row % 10 == 0 or row == total):
        print(f"\r{name}: {row} of {total} ", end="" if row < total else "\n", file=sys.stderr, flush=True)


def show(name: str, means: Mapping[str, float]) -> None:
    print(f"{name:24}" + "  ".join(f"{measure} {value:.3f}" for measure, value in means.items()), flush=True)


def markdown(results: Mapping[str, Any]) -> str:
    """The README's table."""
    measures = [*results["truth"]["means"], "calls per frame", "known frames off by"]
    lines = ["| row | " + " | ".join(measures) + " |", "| --- " + "| --: " * len(measures) + "|"]
    for name, row in results.items():
        cells = [f"{row['means'][measure]:.3f}" if measure in row["means"] else "" for measure in measures]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def changed(pairs: list[str]) -> Setting:
    """A setting from ``name=value`` pairs.

    Raises:
        ValueError: there is no such setting, or the value is of another kind. One sentence.
    """
    kinds = {item.name: type(item.default) for item in fields(Setting)}
    values: dict[str, Any] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name not in kinds:
            raise ValueError(f"there is no setting {name!r}: choose from {', '.join(kinds)}")
        values[name] = value.lower() in ("true", "1", "yes") if kinds[name] is bool else kinds[name](value)
    return replace(Setting(), **values)


def keep(path: Path, about: Mapping[str, Any], rows: Mapping[str, Any]) -> None:
    """Write the results, under a temporary name first."""
    with replacing(path) as partial_file:
        partial_file.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1600)
    parser.add_argument("--clips", type=int, default=4, help="test clips per seed, up to 16")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=1, help="settings were chosen on 0")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), help="only these; the others stay as they are in the file")
    parser.add_argument("--set", nargs="+", metavar="NAME=VALUE", help="instead of the rows one with these settings")
    parser.add_argument("--name", default="own", help="of the row that --set makes")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--markdown", action="store_true", help="only print the kept table for the README")
    given = parser.parse_args()
    if given.markdown:
        print(markdown(json.loads(given.out.read_text())["rows"]))
        return
    torch.set_num_threads(given.threads)
    about = {
        **{name: getattr(given, name) for name in ("frames", "clips", "seeds", "first_seed")},
        "model": given.model.name,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    kept = json.loads(given.out.read_text()) if given.out.is_file() else None
    same = kept is not None and all(
        kept["about"].get(name) == about[name] for name in ("frames", "clips", "seeds", "first_seed", "model")
    )
    rows = kept["rows"] if kept is not None and same else {"truth": truth_row(given)}
    show("truth", rows["truth"]["means"])
    wanted = {given.name: changed(given.set)} if given.set else {name: ROWS[name] for name in given.rows or ROWS}
    for name, setting in wanted.items():
        rows[name] = row_of(setting, given, name)
        show(name, rows[name]["means"])
        keep(given.out, about, rows)


if __name__ == "__main__":
    main()
