"""Does SparseCtrl lead a clip by a few frames? ``python benchmarks/sparse_miniature.py``: training, one table and a contact sheet.

An encoder (``modules/control/sparsectrl.py``) is trained with ``modules/train/sparse.py``, as Train Sparse Control does, on the
bundled model that looks both ways (``models/longtake_shapes_both_ways.safetensors``), which stays as it is. Then clips that
nobody was trained on are made with the same noise and words, led by none, one, two or four of their frames.

* error at keyframes: mean square, pictures in 0..1, over the frames that are keyframes with ``0, 15``. Without control the
model draws   another scene of the same words, so this is mostly chance.
* error: over all frames. Frames far from a keyframe may rightly move otherwise.
* forward: of frames between the first and the last keyframe, how many moved on along the line from one to the other, against
the frame   before (0.3 pixels back count as standing). Only clips whose true path does so are counted.
* off the path: distance of the shape's centre from its true place, in pixels.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from modules.checkpoints.video_model import VideoModelInfo, load_video_model, unfold
from modules.control.sparsectrl import SparseControl
from modules.data.shapes import Clips, clips
from modules.draw.pictures import contact_sheet
from modules.measure.shapes_metrics import recognise
from modules.nets.unet import UNet
from modules.noise.levels import NoiseSchedule
from modules.sampling.forcing import Forcing
from modules.sampling.job import Job
from modules.sampling.model_view import View
from modules.sampling.noise_levels import NoiseLevels
from modules.temporal.motion import MotionModel
from modules.train.denoising import Batch, Network, Objective
from modules.train.engine import Run, train
from modules.train.native import frozen, native_network
from modules.train.settings import RunSettings
from modules.train.sources import FromShapes, folded
from modules.train.tasks.sparse_control import CONTROL, led_at, new_encoder, residuals_of, sparse_config, sparse_control
from modules.train.trainable import TaskContext
from modules.train.weights import WeightSettings

BASE = ROOT / "models" / "longtake_shapes_both_ways.safetensors"
SEED = 30_000  # of the clips that are tried; no training run has it
STEPS, STILL = 12, 0.3
LED_BY: Mapping[str, tuple[int, ...]] = {"none": (), "0": (0,), "0, 15": (0, 15), "0, 5, 10, 15": (0, 5, 10, 15)}


def trained(
    info: VideoModelInfo, parts: tuple[UNet, MotionModel], settings: RunSettings, keep: Path | None
) -> tuple[SparseControl, float]:
    """The encoder and the processor seconds that it took; read instead if ``keep`` is there."""
    unet, motion = parts
    control = new_encoder(sparse_config(info), unet, motion, settings.seed)
    if keep is not None and keep.exists():
        control.load_state_dict(load_file(keep))
        return control.eval().requires_grad_(False), 0.0
    began = time.process_time()
    frozen(unet, motion)
    source, schedule = FromShapes(info, settings.batch, settings.seed), NoiseSchedule.named(info.noise_schedule)
    objective = Objective(info.prediction, weight=WeightSettings("capped_v", causal=False))
    context = TaskContext(led_network(info, unet, motion, control), source, schedule, objective, settings)
    run = Run(sparse_control(context, control).task, settings, None if keep is None else keep.with_suffix(".run"))
    for step in train(run, every=50):
        if step.step % 50 == 0 or step.step == step.total:
            recent = run.losses[-50:]
            print(f"step {step.step} of {step.total}: loss {sum(recent) / len(recent):.4f}", file=sys.stderr, flush=True)
    control.load_state_dict({key.removeprefix(f"{CONTROL}."): value for key, value in run.weights().items()})
    if keep is not None:
        save_file(control.state_dict(), keep)
    return control.eval().requires_grad_(False), time.process_time() - began


def led_network(info: VideoModelInfo, unet: UNet, motion: MotionModel, control: SparseControl) -> Network:
    """The model led by an encoder."""
    return native_network(info, unet, [motion], added=residuals_of(control, NoiseSchedule.named(info.noise_schedule)))


def made(info: VideoModelInfo, network: Network, latents: Tensor, labels: Tensor, keyed: tuple[int, ...], seed: int) -> Tensor:
    """A clip by 12 steps at one noise level: ``latents``: ``f c h w`` hold the keyframes, ``labels``: ``l``. Returns ``f c h w``."""
    batch = led_at(Batch(latents[None], labels=labels[None]), keyed)

    def denoise(view: View) -> Tensor:
        return network(view.x[None], view.sigma[None], batch)[0]

    schedule = NoiseSchedule.named(info.noise_schedule)
    levels = NoiseLevels.named("full_sequence", len(latents), STEPS)
    steps = Forcing(levels, len(latents))(Job(denoise, torch.zeros_like(latents), schedule.levels(STEPS), seed=seed))
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def forward(centre: Tensor) -> Tensor:
    """Which steps of a path go on along the line from its first to its last place: ``centre``: ``f 2``. Returns ``s``, bool."""
    line = centre[-1] - centre[0]
    return ((centre @ (line / line.norm().clamp_min(1e-6))).diff()) > -STILL


def straight(world: Clips, clip: int) -> bool:
    """Whether a clip's true path goes on from its first place to its last, and far enough to tell."""
    path = world.centre[clip]
    return bool(forward(path).all()) and float((path[-1] - path[0]).norm()) > 4


def measured(world: Clips, results: Tensor, clip: int) -> dict[str, float]:
    """What a clip is worth: ``results``: ``f c h w`` pictures in -1..1."""
    truth, seen = world.frames[clip], recognise(results[None])
    error = ((results - truth) / 2).square().mean(dim=(1, 2, 3))
    row = {
        "error at keyframes": float(error[[0, -1]].mean()),
        "error": float(error.mean()),
        "off the path": float((seen.centre[0] - world.centre[clip]).norm(dim=-1).mean()),
        "one shape": float(seen.valid.float().mean()),
    }
    return row | ({"forward": float(forward(seen.centre[0]).float().mean())} if straight(world, clip) else {})


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """Over the clips that have each number."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: sum(row[name] for row in rows if name in row) / sum(name in row for row in rows) for name in names}


def tried(
    info: VideoModelInfo, parts: tuple[UNet, MotionModel], control: SparseControl, count: int
) -> tuple[dict[str, dict[str, float]], Tensor]:
    """The table, by what leads, and the rows of the contact sheet: ``r c h w``, of each of two clips its truth and what was made of it."""
    world = clips(count, info.frames, SEED)
    latents = folded(world.frames, info.patch)
    with torch.no_grad():
        networks = [led_network(info, *parts, which) for which in (SparseControl(sparse_config(info)).zero().eval(), control)]
        results = {
            name: [
                unfold(made(info, networks[bool(keyed)], latents[clip], world.labels[clip], keyed, 100 + clip), info.patch)
                for clip in range(count)
            ]
            for name, keyed in LED_BY.items()
        }
    table = {
        name: mean([measured(world, clip.movedim(-1, 1) * 2 - 1, place) for place, clip in enumerate(of)])
        for name, of in results.items()
    }
    shown = [
        [world.frames[clip].movedim(1, -1) / 2 + 0.5, *(of[clip] for of in results.values())] for clip in range(min(2, count))
    ]
    return table, torch.cat([pictures for clip in shown for pictures in clip]).clamp(0, 1)


def main() -> None:
    """Train, try, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="training steps (default 200)")
    parser.add_argument("--batch", type=int, default=3, help="clips per step (default 3)")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--clips", type=int, default=8, help="clips to try (default 8)")
    parser.add_argument("--keep", type=Path, help="file for the encoder; one that is there is tried without training")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    parser.add_argument("--picture", type=Path, help="PNG file for the contact sheet")
    given = parser.parse_args()
    torch.set_num_threads(1)
    video = load_video_model(BASE)
    parts = video.build()
    settings = RunSettings(
        steps=given.steps,
        batch=given.batch,
        learning_rate=given.learning_rate,
        warmup=min(50, given.steps // 4),
        ema=0.99,
        seed=5,
    )
    control, seconds = trained(video.info, parts, settings, given.keep)
    table, shown = tried(video.info, parts, control, given.clips)
    for name, row in table.items():
        print(f"{name:>13}: " + ", ".join(f"{key} {value:.4f}" for key, value in row.items()))
    ratio = table["none"]["error at keyframes"] / table["0, 15"]["error at keyframes"]
    print(f"error at keyframes 0, 15: {ratio:.1f} times lower than without control; {seconds:.0f} s of training on one core")
    if given.out:
        facts = {"table": table, "ratio": ratio, "train_seconds": round(seconds), "steps": given.steps, "batch": given.batch}
        facts |= {"clips": given.clips, "torch": torch.__version__, "machine": platform.machine()}
        given.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    if given.picture:
        sheet = contact_sheet(shown, columns=video.info.frames, count=len(shown))[0]
        large = sheet.repeat_interleave(2, 0).repeat_interleave(2, 1)
        Image.fromarray((large * 255).round().byte().numpy()).save(given.picture)


if __name__ == "__main__":
    main()
