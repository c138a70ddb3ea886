"""The frame-difference article answered: ``python benchmarks/frame_difference.py``.

jfischoff (2023) fine-tuned a motion module on the *differences* between frames instead of the frames, got more motion, and saw training
diverge with collapsing attention in "up-block 1". Here the same motion module is trained, from the same weights on the same clips with the
same noise, at several learning rates, under

* mse: every frame by itself;
* chain: one random frame and the differences from there on, as the article has it;
* blend: half squared error, half differences, divided by four, so that no error weighs more than under mse (``losses.blend``).

The base is the image model of ``benchmarks/miniature.py``, trained here on single pictures and then frozen. Measured, on clips that were
not trained on:

* sharpness: the largest curvature of the loss in the module's weights, by power iteration on Hessian-vector products, relative to mse's at
  the same weights; gradient descent diverges where the learning rate passes 2 over it.
* threshold: the lowest learning rate with which training diverges. With plain gradient descent, to which curvature alone matters: the loss
  grows fourfold, or is no number. With AdamW, which divides by the size of gradients: the module ends up worse than none at all, in
  squared error, or the loss is no number. Nothing is clipped.
* entropy in up-block 1, before and after, normalised (``monitor.py``); the lowest of the run.
* error: of cleaned clips by temporal frequency (their cosine transform): the constant part, the alternating part, all.
* made clips: motion (amplitudes of the motion spectrum), the share of high frequencies, flicker once motion is taken away.

Results are printed as a table, and kept in ``benchmarks/frame_difference.json`` and ``docs/frame_difference.png``.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    import conftest  # noqa: F401, makes the pack importable under the name ``pack``

import torch
from miniature import HELD_OUT, QUICK, Miniature, Plan, clips, made, video
from pack.modules.draw.pictures import curves
from pack.modules.measure.attention import watching
from pack.modules.measure.spectrum import motion_compensated, motion_spectrum
from pack.modules.noise.seeded import frame_noise
from pack.modules.train.engine import Diverged, Run
from pack.modules.train.losses import LossSettings
from pack.modules.train.settings import RunSettings
from pack.modules.train.tasks.motion_module import motion_module
from pack.modules.train.trainable import Trainable
from PIL import Image
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

LOSSES = ("mse", "chain", "blend")
UP_BLOCK = "up.1."
BATCHES = 2  # of gradient descent
LEVELS = (0.7, 2.8)  # sigmas at which held-out clips are cleaned


@dataclass(frozen=True)
class Scale:
    """How much of everything.

    Attributes:
        plan: of the image model and the clips.
        started: steps of squared error that all runs start from.
        steps: of each run with AdamW.
        rates: of AdamW.
        descent: steps of gradient descent.
        factors: rates of gradient descent, as parts of what mse's sharpness allows.
        powers: of the Hessian.
    """

    plan: Plan = field(default_factory=lambda: Plan(image_steps=700, clip_batch=4, measured=8, sampling_steps=12, seed=0))
    started: int = 60
    steps: int = 40
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    descent: int = 20
    factors: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
    powers: int = 12


SMALL = Scale(replace(QUICK, frames=4), 2, 2, (1e-3, 1.0), 2, (1e-3, 1e9), 2)


class Trials:
    """Runs of one motion module on one frozen image model, all from the same weights.

    Args:
        scale: how much of everything.
        folder: of the image model's checkpoint.
    """

    def __init__(self, scale: Scale, folder: Path):
        self.scale, self.small = scale, Miniature(scale.plan, folder)
        self.small.image_stage()
        self.network, plan = self.small.moving(), scale.plan
        self.held = clips(plan.measured, plan.frames, plan.seed, 0, HELD_OUT)
        first = self.stage("mse")
        self.alone = self.errors()["all"]  # the module is the identity so far
        list(Run(first.task, self.settings(2e-3, scale.started)).steps())
        self.start = {key: value.detach().clone() for key, value in self.small.motion.state_dict().items()}

    def settings(self, rate: float, steps: int) -> RunSettings:
        """Of a run without clipping and without averaged weights, its rate constant after a short rise."""
        plan = self.scale.plan
        return RunSettings(
            steps=steps,
            batch=plan.clip_batch,
            learning_rate=rate,
            warmup=min(10, steps),
            decay="constant",
            ema=0.0,
            clip_norm=1e6,
            weight_decay=0.0,
            seed=plan.seed,
        )

    def stage(self, loss: str, start: dict[str, Tensor] | None = None) -> Trainable:
        """The module, with weights or from zero, to be trained under a loss."""
        batch = self.scale.plan.clip_batch
        context = self.small.context(self.network, self.small.source("clips", batch), 1, 1e-3, batch)
        return motion_module(
            replace(context, objective=replace(context.objective, loss=LossSettings(loss))), self.small.motion, start=start
        )

    # What is measured

    def sharpness(self, loss: str) -> float:
        """The largest curvature of the loss of a batch at the weights that all runs start from."""
        task = self.stage(loss, self.start).task
        parameters = list(task.parameters().values())
        with sdpa_kernel(SDPBackend.MATH):  # the one whose gradient has a gradient
            value = task.losses(10**6, range(self.scale.plan.clip_batch)).mean()
            gradient = torch.cat([part.flatten() for part in torch.autograd.grad(value, parameters, create_graph=True)])
            found, v = 0.0, frame_noise(gradient.shape, 0, [0], "curvature")[0]
            for _ in range(self.scale.powers):
                v = v / v.norm()
                product = torch.autograd.grad(gradient @ v, parameters, retain_graph=True)
                w = torch.cat([part.flatten() for part in product])
                found, v = float(v @ w), w
        return found

    @torch.no_grad()
    def errors(self) -> dict[str, float]:
        """Squared errors of held-out clips that are cleaned: by temporal frequency, and all; the mean over levels."""
        clip = self.held.clips
        basis = cosines(clip.shape[1])
        powers = []
        for level in LEVELS:
            noise = frame_noise(clip.shape, 0, [0], f"noise {level}")[0]
            error = self.network(clip + level * noise, torch.full(clip.shape[:2], level), self.held) - clip
            powers.append(torch.einsum("kf,nfchw->nkchw", basis, error).square().mean((0, 2, 3, 4)))
        by_frequency = torch.stack(powers).mean(0)
        named = {"all": float(by_frequency.mean()), "constant": float(by_frequency[0]), "alternating": float(by_frequency[-1])}
        return named | {f"frequency {k}": float(value) for k, value in enumerate(by_frequency)}

    @torch.no_grad()
    def entropy(self) -> float:
        """Of the attentions of up-block 1, on held-out clips."""
        with watching(self.small.motion) as watch:
            for level in LEVELS:
                self.network(self.held.clips, torch.full(self.held.clips.shape[:2], level), self.held)
            found = [reading.mean for reading in watch.readings() if reading.block.startswith(UP_BLOCK)]
        return sum(found) / len(found)

    def looks(self) -> dict[str, float]:
        """How clips made from noise move."""
        plan = self.scale.plan
        assert self.held.labels is not None
        return motion_of(
            video(made(self.network, self.held.labels, plan.frames, self.small.schedule, plan.sampling_steps, plan.seed))
        )

    # What is run

    def adam(self, loss: str, rate: float) -> dict[str, Any]:
        """A run with AdamW, and everything about it."""
        run = Run(self.stage(loss, self.start).task, self.settings(rate, self.scale.steps))
        entropies, broken = [self.entropy()], False
        try:
            for step in run.steps():
                if step.step % max(1, step.total // 4) == 0:
                    entropies.append(self.entropy())
        except Diverged:
            broken = True
        errors = self.errors()
        broken = broken or not errors["all"] <= self.alone
        result = {"loss": loss, "rate": rate, "diverged": broken, "entropies": entropies, **errors}
        return result if broken else result | self.looks()

    def descent(self, loss: str, rate: float) -> bool:
        """Whether gradient descent diverges: the loss of one of the few batches grows fourfold, or is no number."""
        task = self.stage(loss, self.start).task
        parameters = list(task.parameters().values())
        first: dict[int, float] = {}
        for step in range(self.scale.descent):
            value = task.losses(step % BATCHES, range(self.scale.plan.clip_batch)).mean()
            gradients = torch.autograd.grad(value, parameters)
            now = float(value.detach())
            if not now <= 4 * first.setdefault(step % BATCHES, now):
                return True
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter -= rate * gradient
        return False


def cosines(frames: int) -> Tensor:
    """The eigenvectors of squared differences, orthonormal: row ``k`` has ``k`` half periods. Returns ``k f``."""
    f = torch.arange(frames) + 0.5
    rows = torch.cos(math.pi * torch.arange(frames)[:, None] * f / frames) * math.sqrt(2 / frames)
    rows[0] /= math.sqrt(2)
    return rows


def motion_of(videos: Tensor) -> dict[str, Any]:
    """Means over clips: ``n f h w c``."""
    spectra = [motion_spectrum(clip) for clip in videos]
    mean = lambda values: sum(values) / len(videos)  # noqa: E731
    return {
        "amplitudes": [mean(row) for row in zip(*(one.amplitudes for one in spectra), strict=True)],
        "motion": mean(one.total for one in spectra),
        "high share": mean(one.high_share for one in spectra),
        "flicker": mean(motion_compensated(clip).error for clip in videos),
    }


def answered(scale: Scale, folder: Path, say: Callable[[str], None] = print) -> dict[str, Any]:
    """All figures: what all runs start from, every run, and what comes of each loss."""
    trials = Trials(scale, folder)
    start = {**trials.errors(), "alone": trials.alone, "entropy": trials.entropy(), **trials.looks()}
    say(f"squared error without the module {trials.alone:.4g}, with the one that all runs start from {start['all']:.4g}")
    sharp = {loss: trials.sharpness(loss) for loss in LOSSES}
    say("sharpness: " + ", ".join(f"{loss} {value:.3g}" for loss, value in sharp.items()))
    runs, results = [], {}
    for loss in LOSSES:
        mine = []
        for rate in scale.rates:
            mine.append(trials.adam(loss, rate))
            say(
                f"  {loss}, AdamW at {rate:g}: squared error {mine[-1]['all']:.4g}, lowest entropy {min(mine[-1]['entropies']):.3f}"
            )
        plain = [2 / sharp["mse"] * factor for factor in scale.factors]
        reached = next((rate for rate in plain if trials.descent(loss, rate)), None)
        say(f"  {loss}, gradient descent at {plain[0]:.3g} to {plain[-1]:.3g}: diverges from {reached}")
        best = min((run for run in mine if not run["diverged"]), key=lambda run: run["all"], default=None)
        results[loss] = {
            "sharpness": sharp[loss] / sharp["mse"],
            "threshold of gradient descent": reached,
            "threshold of AdamW": next((run["rate"] for run in mine if run["diverged"]), None),
            "best rate": None if best is None else best["rate"],
            "best": best,
        }
        runs += mine
    true = motion_of(video(trials.held.clips))
    return {"true": true, "start": start, "losses": results, "runs": runs}


def table(figures: dict[str, Any]) -> str:
    """For the README."""
    head = [
        "sharpness",
        "descent diverges at",
        "AdamW diverges at",
        "entropy",
        "error",
        "constant",
        "alternating",
        "motion",
        "high",
        "flicker",
    ]
    lines = ["| | " + " | ".join(head) + " |", "| --- |" + " --: |" * len(head)]
    true, start = figures["true"], figures["start"]
    rate = lambda found: "none tried" if found is None else f"{found:.2g}"  # noqa: E731
    looks = lambda row: [f"{row[name]:.3f}" for name in ("motion", "high share")] + [f"{row['flicker']:.4f}"]  # noqa: E731
    errors = lambda row: [f"{row[name]:.4f}" for name in ("all", "constant", "alternating")]  # noqa: E731
    lines.append("| " + " | ".join(["true clips", *[""] * 7, *looks(true)]) + " |")
    lines.append("| " + " | ".join(["before", *[""] * 3, f"{start['entropy']:.2f}", *errors(start), *looks(start)]) + " |")
    for loss, row in figures["losses"].items():
        best = row["best"]
        cells = [
            loss,
            f"{row['sharpness']:.2f}",
            rate(row["threshold of gradient descent"]),
            rate(row["threshold of AdamW"]),
        ]
        if best is not None:
            cells += [f"{best['entropies'][-1]:.2f}", *errors(best), *looks(best)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture(figures: dict[str, Any]) -> Tensor:
    """Four panels. Returns ``1 h w 3``."""
    of = lambda loss: [run for run in figures["runs"] if run["loss"] == loss]  # noqa: E731
    rates = ", ".join(f"{run['rate']:g}" for run in of(LOSSES[0]))
    best = {loss: figures["losses"][loss]["best"] for loss in LOSSES if figures["losses"][loss]["best"] is not None}
    frames = sum(name.startswith("frequency") for name in figures["start"])
    by_frequency = lambda row: [row[f"frequency {k}"] for k in range(frames)]  # noqa: E731
    panels = [
        curves({loss: [run["all"] for run in of(loss)] for loss in LOSSES}, title=f"squared error after AdamW at {rates}"),
        curves(
            {loss: [min(run["entropies"]) for run in of(loss)] for loss in LOSSES},
            title="lowest entropy in up-block 1, at the same rates",
            logarithmic=False,
        ),
        curves(
            {"before": by_frequency(figures["start"])} | {loss: by_frequency(row) for loss, row in best.items()},
            title="squared error at the best rate, by temporal frequency, constant to alternating",
        ),
        curves(
            {"true": figures["true"]["amplitudes"]} | {loss: row["amplitudes"] for loss, row in best.items()},
            title="motion spectrum of made clips at the best rate, 1 period per clip to alternating",
        ),
    ]
    return torch.cat([torch.cat(panels[:2], dim=2), torch.cat(panels[2:], dim=2)], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps of a tiny model: shows that it runs, and nothing else")
    parser.add_argument("--keep", type=Path, help="folder of the image model's checkpoint, which is gone on from")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "frame_difference.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "frame_difference.png")
    parser.add_argument("--markdown", action="store_true", help="only print the kept table")
    given = parser.parse_args()
    if given.markdown:
        print(table(json.loads(given.out.read_text())["figures"]))
        return
    scale, started = SMALL if given.quick else Scale(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        figures = answered(scale, given.keep or Path(folder))
    about = {"scale": asdict(scale), "torch": torch.__version__, "seconds": round(time.monotonic() - started, 1)}
    given.out.write_text(json.dumps({"about": about, "figures": figures}, indent=1) + "\n")
    given.picture.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((picture(figures)[0] * 255).round().byte().numpy()).save(given.picture)
    print(table(figures))


if __name__ == "__main__":
    main()
