"""Does the edit of one frame reach all others? ``python benchmarks/edit.py``.

Clips of the procedural world of 16 frames, whose first frame is recoloured and given; the bundled model that sees both ways makes the other
15, without words. The table is over where sampling starts (denoise) and how:

* original: from the unedited clip under noise; only the first frame says what changes.
* kept noise: each step's noise is what takes the unedited clip from level to level (Huberman-Spiegelglas et al., arXiv:2304.06140).
* difference: the clip moves by what the model says with the edited and with the unedited frame (FlowEdit, arXiv:2412.08629, Equation 8).
* carried: from the clip that the edit was carried through (``modules/control/edit_propagation.py``), under noise; at denoise 0 that clip.

Printed, and kept in ``benchmarks/edit.json``: of how many of 15 frames the object has the new colour, on average and in the worst clip; the
share that show the clip's own shape; how far the object is from its path, in pixels, on average and at most; and how much the picture
changes away from the object, in grey levels of -1..1.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch
from einops import rearrange
from torch import Tensor

from modules.checkpoints.video_model import clean_prediction, fold, load_video_model, unfold
from modules.control.edit_propagation import EditPropagation
from modules.data.shapes import COLOURS, Clips, clips, coverage
from modules.disk.atomic import replacing
from modules.measure.shapes_metrics import recognise
from modules.noise.levels import NoiseSchedule
from modules.noise.seeded import frame_noise

MODEL = ROOT / "models" / "longtake_shapes_both_ways.safetensors"
RESULTS = ROOT / "benchmarks" / "edit.json"
FRAMES, AWAY = 16, 3  # pixels around the object that are not counted as background
PALETTE = torch.tensor(list(COLOURS.values()))


class Case:
    """Test clips of one seed, the same recoloured, and the model."""

    def __init__(self, seed: int, count: int, steps: int):
        self.truth, self.seed, self.steps = clips(count, FRAMES, 30_000 + seed), seed, steps
        self.colour = (self.truth.colour + 1) % len(COLOURS)
        video = load_video_model(MODEL)
        self.info, self.schedule = video.info, NoiseSchedule.named(video.info.noise_schedule)
        self.unet, self.motion = video.build()
        self.edited = recoloured(self.truth, self.colour)
        self.before, self.after = self.latent(self.truth.frames), self.latent(self.edited)

    def latent(self, frames: Tensor) -> Tensor:
        """``b f 3 h w`` in -1..1. Returns ``b f c p q``."""
        folded = fold(rearrange(frames, "b f c h w -> (b f) h w c") / 2 + 0.5, self.info.patch)
        return rearrange(folded, "(b f) c h w -> b f c h w", f=FRAMES)

    def pictures(self, latent: Tensor) -> Tensor:
        """The way back: ``b f c p q``. Returns ``b f 3 h w``."""
        frames = unfold(rearrange(latent, "b f c h w -> (b f) c h w"), self.info.patch)
        return rearrange(frames, "(b f) h w c -> b f c h w", f=FRAMES) * 2 - 1

    def clean(self, x: Tensor, sigma: Tensor, first: Tensor) -> Tensor:
        """The model's guess without words of ``x``: ``b f c h w``, at ``sigma``: ``()``, first frame of ``first``: ``b f c h w``."""
        x, levels = x.clone(), sigma.expand(*x.shape[:2]).clone()
        x[:, 0], levels[:, 0] = first[:, 0], 0
        words = torch.zeros(levels.numel(), len(self.info.labels))
        with self.motion.during(self.motion.frames_for(torch.arange(FRAMES))):
            flat = clean_prediction(
                lambda scaled, t, y: self.unet(scaled, t, None, y),
                x.flatten(0, 1),
                levels.flatten(),
                self.schedule,
                self.info.prediction,
                y=words,
            )
        return flat.view_as(x)

    def noise(self, purpose: str) -> Tensor:
        """As ``before``: ``b f c h w``, the same for a frame of each clip whatever else is drawn."""
        shape = self.before.shape
        return torch.stack(
            [frame_noise(shape[2:], self.seed * 1000 + clip, range(FRAMES), purpose) for clip in range(len(self.before))]
        )

    def levels(self, denoise: float) -> Tensor:
        """Sigmas from the start of sampling down to 0: ``l``."""
        levels = self.schedule.levels(self.steps).flip(0)
        return levels[round(self.steps * (1 - denoise)) :]


def recoloured(truth: Clips, colour: Tensor) -> Tensor:
    """The clips with their objects in another colour: ``colour``: ``b``. Returns ``b f 3 h w``."""
    ground = truth.background[:, None, None]
    old, new = (PALETTE[chosen][:, None, :, None, None] for chosen in (truth.colour, colour))
    cover = ((truth.frames - ground) / (old - ground)).mean(2, keepdim=True).clamp(0, 1)
    return ground * (1 - cover) + new * cover


def sampled(case: Case, start: Tensor, denoise: float) -> Tensor:
    """DDIM from a clip under noise: ``start``: ``b f c h w``. Returns ``b f c h w``."""
    sigmas = case.levels(denoise)
    x = start + sigmas[0] * case.noise("start")
    for now, after in zip(sigmas[:-1], sigmas[1:], strict=True):
        clean = case.clean(x, now, case.after)
        x = clean + (x - clean) * after / now
    return x


def original(case: Case, denoise: float) -> Tensor:
    """Returns ``b f c h w``."""
    return sampled(case, case.before, denoise)


def kept_noise(case: Case, denoise: float) -> Tensor:
    """Returns ``b f c h w``."""
    sigmas = case.levels(denoise)
    path = [case.before + sigma * case.noise(f"level {place}") for place, sigma in enumerate(sigmas)]

    def mean(x: Tensor, place: int, first: Tensor) -> Tensor:
        clean = case.clean(x, sigmas[place], first)
        return clean + (x - clean) * (sigmas[place + 1] / sigmas[place]) ** 2

    x = path[0]
    for place in range(len(sigmas) - 1):
        x = mean(x, place, case.after) + path[place + 1] - mean(path[place], place, case.before)
    return x


def difference(case: Case, denoise: float) -> Tensor:
    """Returns ``b f c h w``."""
    sigmas, z = case.levels(denoise), case.before.clone()
    for place, (now, after) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        noisy = case.before + now * case.noise(f"level {place}")
        moved = z + noisy - case.before
        apart = case.clean(moved, now, case.after) - case.clean(noisy, now, case.before)
        z = z + (z - case.before - apart) * (after - now) / now
    return z


def carried(case: Case, denoise: float) -> Tensor:
    """Returns ``b f c h w``."""
    pairs = [
        (rearrange(frames, "f c h w -> f h w c") / 2 + 0.5 for frames in pair)
        for pair in zip(case.truth.frames, case.edited, strict=True)
    ]
    moved = [EditPropagation().carried(clip, edited[:1], [0])[0] for clip, edited in pairs]
    start = case.latent(rearrange(torch.stack(moved), "b f h w c -> b f c h w") * 2 - 1)
    return sampled(case, start, denoise) if denoise else start


METHODS: dict[str, Callable[[Case, float], Tensor]] = {
    "original": original,
    "kept noise": kept_noise,
    "difference": difference,
    "carried": carried,
}


def measured(case: Case, latent: Tensor) -> dict[str, float]:
    """What the table says of a result: ``latent``: ``b f c h w``."""
    latent = latent.clone()
    latent[:, 0] = case.after[:, 0]
    truth, frames = case.truth, case.pictures(latent)
    seen = recognise(frames)
    took = ((seen.colour == case.colour[:, None]) & seen.valid)[:, 1:].sum(1).float()
    path = (seen.centre - truth.centre).norm(dim=-1)[:, 1:]
    disks, still = torch.zeros(truth.radius.numel(), dtype=torch.long), torch.zeros(truth.radius.numel())
    near = coverage(disks, truth.centre.flatten(0, 1), truth.radius.flatten() + AWAY, still)
    ground = (near == 0).view(*truth.radius.shape, 1, *near.shape[1:]).expand_as(frames)
    return {
        "took": took.mean().item(),
        "worst clip": took.min().item(),
        "shape": (seen.shape == truth.shape[:, None])[:, 1:].float().mean().item(),
        "path": path.mean().item(),
        "path at most": path.max().item(),
        "elsewhere": (frames - truth.frames).abs()[ground].mean().item(),
    }


WORST: dict[str, Callable[[list[float]], float]] = {"worst clip": min, "path at most": max}


@torch.inference_mode()
def row(method: str, denoise: float, cases: list[Case]) -> dict[str, float]:
    """Over all seeds: means, and the worst of what is a worst."""
    found = [measured(case, METHODS[method](case, denoise)) for case in cases]
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    return {name: WORST.get(name, mean)([one[name] for one in found]) for name in found[0]}


def markdown(rows: Mapping[str, Mapping[str, float]]) -> str:
    """The table of the docs."""
    names = list(next(iter(rows.values())))
    lines = ["| start, denoise | " + " | ".join(names) + " |", "| --- " + "| --: " * len(names) + "|"]
    return "\n".join(
        [*lines, *(f"| {title} | " + " | ".join(f"{value:.3g}" for value in one.values()) + " |" for title, one in rows.items())]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=4, help="of each seed")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--denoise", type=float, nargs="+", default=[0.3, 0.5, 0.7, 1.0])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--markdown", action="store_true", help="only print the kept table")
    given = parser.parse_args()
    if given.markdown:
        print(markdown(json.loads(given.out.read_text())["rows"]))
        return
    torch.set_num_threads(1)
    cases = [Case(seed, given.clips, given.steps) for seed in range(given.seeds)]
    about = {name: getattr(given, name) for name in ("clips", "seeds", "steps")} | {"torch": torch.__version__}
    kept = json.loads(given.out.read_text()) if given.out.is_file() else {"about": about, "rows": {}}
    rows = kept["rows"] if kept["about"] == about else {}
    for method in given.methods:
        for denoise in [0.0, *given.denoise] if method == "carried" else given.denoise:
            rows[f"{method}, {denoise:g}"] = found = row(method, denoise, cases)
            print(f"{method:11} {denoise:3g}  " + "  ".join(f"{name} {value:.3f}" for name, value in found.items()), flush=True)
    with replacing(given.out) as partial:
        partial.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
