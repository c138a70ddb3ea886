"""Do postcards show what they should? ``python benchmarks/postcards.py --autoencoder FILE`` or ``--model FILE``.

The truth, what an autoencoder makes of it, and with ``--model`` takes of a video model that is told the same words, from nothing to
``--frames`` frames: whether the traveller is recognised, in its colour, before its scene at its time of day, how fast the land moves,
how unsteadily, and how sharp the pictures are (``modules/measure/postcard_metrics.py``). A row for the first 16 frames and one for the
last; the mean over ``--seeds`` postcards, which no training has seen. ``--switch`` adds takes that are told another postcard half way:
what is seen of the new one from two windows after the switch on, and of the old one from four on. With both files the takes are decoded
by that autoencoder instead of the model's. Prints the table and keeps it in ``benchmarks/postcards.json``.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch
from PIL import Image
from torch import Tensor

from modules.checkpoints.autoencoder import AutoencoderVae, load_autoencoder
from modules.checkpoints.video_model import VideoModel, load_video_model
from modules.data.postcard_scenes import SCENES, TIMES
from modules.data.postcard_travellers import COLOURS, TRAVELLERS
from modules.data.postcards import Postcard, drawn
from modules.draw.pictures import contact_sheet
from modules.measure.postcard_metrics import recognise, scroll_speed, sharpness
from modules.noise.levels import NoiseSchedule
from modules.sampling.context_noise import ContextNoise
from modules.sampling.forcing import Forcing
from modules.sampling.job import Job
from modules.sampling.noise_levels import NoiseLevels
from modules.train.tasks.video_model import denoiser

UNSEEN = 999_000_007  # seed of the postcards that are asked for
PART = 16  # frames that a row is about, as many as a window
OBEYED, FORGOTTEN = 2, 4  # windows after which a new prompt is obeyed, and nothing is left of the old one
SWITCHED = (FORGOTTEN + 1) * PART  # frames before a switch of the prompt, and after it


@dataclass(frozen=True)
class Measured:
    """What is seen in some frames: shares of them, pixels per frame, and root mean squares."""

    traveller: float
    colour: float
    scene: float
    time: float
    speed: float
    unsteady: float
    sharp: float


def measured(images: Tensor, card: Postcard) -> Measured:
    """Frames against what they should show: ``images``: ``f h w 3`` in 0..1."""
    seen, speed = recognise(images), scroll_speed(images)
    there = seen.valid & (seen.traveller == list(TRAVELLERS).index(card.traveller))
    wanted = ((seen.colour, COLOURS, card.colour), (seen.scene, SCENES, card.scene), (seen.time, TIMES, card.time))
    colour, scene, when = (found == list(names).index(name) for found, names, name in wanted)
    shares = [float(each.float().mean()) for each in (there, there & colour, scene, when)]
    return Measured(*shares, float(speed.median()), float(speed.std()), float(sharpness(images).mean()))


def mean(rows: list[Measured]) -> Measured:
    """Of several."""
    return Measured(*(statistics.mean(values) for values in zip(*map(astuple, rows), strict=True)))


def true_frames(card: Postcard, ids: range) -> Tensor:
    """What the world shows: ``f h w 3`` in 0..1."""
    return torch.stack([torch.tensor(card.draw(frame)) for frame in ids]).float() / 255


@torch.inference_mode()
def take(video: VideoModel, prompt: str | Sequence[str], frames: int, seed: int, given: argparse.Namespace) -> Tensor:
    """Latents of a take from nothing, told one prompt or one for each frame: ``f c h w``."""
    info, noise = video.info, NoiseSchedule.named(video.info.noise_schedule)
    latent = torch.zeros(frames, info.latent_channels, info.size[0] // info.side, info.size[1] // info.side)
    levels = NoiseLevels.named("pyramid", frames, given.steps, lag=given.lag)
    job = Job(denoiser(video, prompt, given.cfg, "cpu"), latent, noise.levels(given.steps), seed=seed)
    steps = Forcing(levels, info.frames, eta=given.eta, context_noise=ContextNoise(given.context_noise))(job)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--autoencoder", type=Path, help="file of modules.train.train_autoencoder")
    add("--model", type=Path, help="file of modules.train with an autoencoder of its own")
    add("--frames", type=int, default=160, help="of a take")
    add("--switch", action="store_true", help=f"measure switches of the prompt too, in takes of {2 * SWITCHED} frames")
    add("--seeds", type=int, default=8)
    add("--first", type=int, default=0, help="number of the first postcard: choose settings on others than those shown")
    add("--steps", type=int, default=12)
    add("--lag", type=float, default=1.0)
    add("--cfg", type=float, default=2.0)
    add("--eta", type=float, default=0.0)
    add("--context-noise", type=float, default=0.2)
    add("--threads", type=int, default=torch.get_num_threads())
    add("--sheet", type=Path, help="picture of a true clip, its round trip and a take of each postcard, a row each")
    add("--out", type=Path, default=ROOT / "benchmarks" / "postcards.json")
    given = parser.parse_args()
    if given.model is None and given.autoencoder is None:
        parser.error("nothing is named to be measured: give --autoencoder or --model")
    if given.frames < PART:
        parser.error(f"--frames {given.frames} is shorter than a row is about: give {PART} or more")
    return given


def other_than(card: Postcard, number: int) -> Postcard:
    """A postcard of another scene, at another time of day, with another traveller in another colour."""
    names = ("scene", "time", "traveller", "colour")
    others = (drawn(UNSEEN + 1, number + 1000 * turn) for turn in itertools.count())
    return next(other for other in others if all(getattr(other, name) != getattr(card, name) for name in names))


def switched(
    card: Postcard, number: int, video: VideoModel, vae: AutoencoderVae, given: argparse.Namespace
) -> dict[str, tuple[Tensor, Postcard]]:
    """Frames of a take that is told another postcard half way, and the postcard that they are measured against."""
    other = other_than(card, number)
    made = vae.decode(take(video, [card.prompt] * SWITCHED + [other.prompt] * SWITCHED, 2 * SWITCHED, number, given))[SWITCHED:]
    near, far = OBEYED * PART, FORGOTTEN * PART
    return {
        "the old one, in truth of the new": (true_frames(other, range(PART)), card),
        f"switch, frames {near}-{near + PART} after": (made[near : near + PART], other),
        f"switch, frames {far}-{far + PART} after": (made[far : far + PART], other),
        f"the old one, frames {far}-{far + PART} after": (made[far : far + PART], card),
    }


def clips_of(
    card: Postcard, number: int, video: VideoModel | None, vae: AutoencoderVae, given: argparse.Namespace
) -> dict[str, Tensor]:
    """What is measured of a postcard, by the name of its row: ``f h w 3`` each."""
    true = true_frames(card, range(PART))
    clips = {"truth": true, "round trip": vae.decode(vae.encode(true))}
    if video is None:
        return clips
    made = vae.decode(take(video, card.prompt, given.frames, number, given))
    return clips | {f"take, frames 0-{PART}": made[:PART], f"take, frames {given.frames - PART}-{given.frames}": made[-PART:]}


def printed(table: dict[str, Measured]) -> str:
    """The table as Markdown."""
    names = [field.name for field in fields(Measured)]
    lines = [f"| | {' | '.join(names)} |", f"| --- {'| --: ' * len(names)}|"]
    return "\n".join(
        [*lines, *(f"| {row} | {' | '.join(f'{value:.3f}' for value in astuple(values))} |" for row, values in table.items())]
    )


def main() -> None:
    """Measure, print the table, keep it."""
    given = arguments()
    torch.set_num_threads(given.threads)
    video = None if given.model is None else load_video_model(given.model)
    vae = AutoencoderVae(load_autoencoder(given.autoencoder)) if given.autoencoder else video and video.vae()
    if vae is None:
        sys.exit("the model has no autoencoder of its own: name one with --autoencoder")
    began, rows, shown = time.monotonic(), {}, []
    for number in range(given.first, given.first + given.seeds):
        card = drawn(UNSEEN, number)
        clips = clips_of(card, number, video, vae, given)
        for row, images in clips.items():
            rows.setdefault(row, []).append(measured(images, card))
            shown.append(images[::2])
        if given.switch and video is not None:
            for row, (images, told) in switched(card, number, video, vae, given).items():
                rows.setdefault(row, []).append(measured(images, told))
    table = {row: mean(values) for row, values in rows.items()}
    print(printed(table), f"{time.monotonic() - began:.0f} s", sep="\n")
    if given.sheet is not None:
        sheet = contact_sheet(torch.cat(shown), columns=PART // 2, count=len(shown) * PART // 2)[0]
        Image.fromarray((sheet * 255).round().byte().numpy()).save(given.sheet)
    about = {
        name: getattr(given, name)
        for name in ("frames", "seeds", "first", "steps", "lag", "cfg", "eta", "context_noise", "switch")
    }
    given.out.write_text(
        json.dumps({"about": about, "rows": {row: vars(values) for row, values in table.items()}}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
