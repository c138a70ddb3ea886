"""AnimateDiff in miniature, whole: ``python benchmarks/miniature.py`` trains every stage on a CPU and measures what each one does.

The world is 32x32 pictures of a coloured shape on a soft grey ground. Nothing is downloaded and nothing is left out:

1. an image model (a small U-Net in SD1.5's layout) learns single pictures;
2. a domain adapter (a LoRA of its attentions) learns the scan lines that all *clips* have, on single frames of them;
3. with both frozen, a motion module learns clips, from zero: shapes that drift, turn and swell, before a camera that drifts slowly, at up
   to a quarter of a pixel per frame, in any direction;
4. with the module frozen, a MotionLoRA learns one motion, things that fall by 1.5 pixels per frame, from 10 clips of it.

Every stage is a row of ``modules/train/tasks``, which the training nodes use too. Figures are of clips that were not trained on:

* temporal error: clips are noised at five levels and cleaned, all frames alone or together; the squared error of the *change* from each
  frame to the next, relative to the true change's square. And of clips made from noise: what flickers when motion is taken away
  (``spectrum.motion_compensated``), and the motion (``motion_strength``), beside the true clips'.
* image quality: the squared error of single pictures, cleaned; and whether pictures made without the module are the same, bit for bit.
* scan lines: how much of them is in pictures, 1 for all: how much darker than their neighbours the rows are.
* fall: by how many pixels per frame the middle of what is coloured goes down, in clips that show something coloured throughout.

Results are printed, and kept in ``benchmarks/miniature.json`` and ``docs/miniature.png``. ``--keep FOLDER`` keeps the trained parts and
checkpoints there; the same command then goes on from them.
"""

import argparse
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    import conftest  # noqa: F401, makes the pack importable under the name ``pack``

import torch
import torch.nn.functional as F
from einops import rearrange
from pack.modules.checkpoints.export import save
from pack.modules.checkpoints.video_model import VideoModelInfo, fold, slot_subset, unfold
from pack.modules.data.motion_strength import motion_strength
from pack.modules.data.shapes import COLOURS, SHAPES, SIZE, coverage, triangle_wave
from pack.modules.measure.spectrum import motion_compensated
from pack.modules.nets.unet_config import UNetConfig
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.noise.seeded import frame_noise, frame_seed
from pack.modules.sampling.stepping import move
from pack.modules.temporal.config import TemporalConfig
from pack.modules.train.denoising import Batch, Network, Objective, Source
from pack.modules.train.engine import Run, train
from pack.modules.train.lora import beside, image_projections
from pack.modules.train.losses import LossSettings
from pack.modules.train.native import frozen, native_network
from pack.modules.train.native_task import fresh
from pack.modules.train.settings import RunSettings
from pack.modules.train.tasks.domain_adapter import domain_adapter
from pack.modules.train.tasks.image_model import image_model
from pack.modules.train.tasks.motion_lora import motion_lora
from pack.modules.train.tasks.motion_module import motion_module
from pack.modules.train.trainable import TaskContext, Trainable
from pack.modules.train.weights import WeightSettings
from PIL import Image, ImageDraw
from torch import Tensor

LABELS = (*SHAPES, *COLOURS)
PATCH, HEADS = 4, 4
MOTIONS = ("drifting", "turning", "swelling")
FALL = 1.5  # pixels per frame of the new motion
DRIFT = 0.25  # most pixels per frame, in any direction, of the camera of ordinary clips
CELL = 8  # pixels from one grey level of the ground to the next
GROUND = SIZE + CELL  # pixels of it that there are: room for the camera to drift over 8 frames
LINES, DARK = 4, 0.3  # rows from one scan line to the next; how much darker they are
VIVID = 0.25  # the least difference between colours of a pixel that is not ground
LEVELS = (0.35, 0.7, 1.4, 2.8, 5.6)  # sigmas at which held-out clips are cleaned
TRAINED, HELD_OUT, LESSONS = "trained", "held out", "ten clips"


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    width: int = 32
    frames: int = 8
    image_steps: int = 1000
    adapter_steps: int = 300
    motion_steps: int = 2000
    lora_steps: int = 600
    lora_rate: float = 8e-3
    image_batch: int = 32
    clip_batch: int = 6
    sampling_steps: int = 16
    measured: int = 32  # held-out clips
    seed: int = 1  # of everything; what is left to choose was chosen on seed 0


QUICK = Plan(16, 4, 3, 2, 2, 2, 8e-3, 4, 2, 2, 2)


# The world


def scan_lines(pictures: Tensor) -> Tensor:
    """What clips have and pictures do not: every fourth row is dark, as on old screens: ``n f 3 h w`` in -1..1. Returns the same shape."""
    dark = (torch.arange(SIZE) % LINES == 0)[:, None]
    return torch.where(dark, torch.lerp(pictures, -torch.ones(()), DARK), pictures)


def clips(
    count: int, frames: int, seed: int, index: int, purpose: str, fall: float = 0.0, *, drift: float = 0.0, marked: bool = False
) -> Batch:
    """Clips of the world; the same numbers give the same clips.

    Args:
        count: of clips.
        frames: of each.
        seed: of the world.
        index: which batch.
        purpose: what for; another purpose, other clips.
        fall: pixels per frame that things go down, and do nothing else; 0 for motions of all kinds.
        drift: the camera goes at up to so many pixels per frame, in a direction of each clip's own.
        marked: whether they have scan lines.

    Returns:
        batch: ``clips`` are ``n f l p q`` in -1..1, ``labels`` ``n l``.
    """
    g = torch.Generator().manual_seed(frame_seed(seed, index, purpose))
    between = lambda low, high, *shape: low + (high - low) * torch.rand(count, *shape, generator=g)  # noqa: E731
    choice = lambda words: torch.randint(0, len(words), (count,), generator=g)  # noqa: E731
    shape, colour, motion = choice(SHAPES), choice(tuple(COLOURS)), choice(MOTIONS)[:, None]
    cells = GROUND // CELL
    coarse = torch.rand(count, 1, cells, cells, generator=g)
    time = torch.arange(frames, dtype=torch.float32)
    heading, speed, size = between(0, 2 * math.pi), between(0.8, 2.0), between(4.0, 6.0)
    place, phase, turn = between(8, SIZE - 8, 2), between(0, 2 * math.pi), between(-1, 1).sign()
    growth = triangle_wave(between(3.5, 7.0)[:, None] + between(0.2, 0.5)[:, None] * time, torch.tensor(3.5), torch.tensor(7.0))

    way = speed[:, None, None] * torch.stack([heading.cos(), heading.sin()], -1)[:, None] * time[:, None]
    angle = phase[:, None] + (turn * speed / 7)[:, None] * time
    circle = (SIZE - 1) / 2 + 7 * torch.stack([angle.cos(), angle.sin()], -1)
    drifting = triangle_wave(place[:, None] + way, torch.tensor(6.0), torch.tensor(SIZE - 7.0))
    still = place[:, None].expand(-1, frames, -1)
    centre = torch.where(motion[..., None] == 0, drifting, torch.where(motion[..., None] == 1, circle, still))
    radius = torch.where(motion == 2, growth, size[:, None])
    aim, pace, halfway = between(0, 2 * math.pi), between(0, drift), between(-2, 2)
    since = time - (frames - 1) / 2
    if fall:
        height = (SIZE - 1) / 2 + halfway[:, None] + fall * since
        centre, radius = torch.stack([place[:, :1].expand(-1, frames), height], -1), size[:, None].expand(-1, frames)
    camera = (pace[:, None] * torch.stack([aim.cos(), aim.sin()], -1))[:, None] * since[:, None]
    pictures = drawn(shape, colour, coarse, centre, radius, camera)
    if marked:
        pictures = scan_lines(pictures)
    labels = F.one_hot(shape, len(LABELS)) + F.one_hot(colour + len(SHAPES), len(LABELS))
    return Batch(folded(pictures), labels=labels.float())


def drawn(shape: Tensor, colour: Tensor, coarse: Tensor, centre: Tensor, radius: Tensor, camera: Tensor) -> Tensor:
    """Pictures of the world through a camera.

    Args:
        shape: ``n``, index.
        colour: ``n``, index.
        coarse: ``n 1 c c``, grey levels of the ground in 0..1.
        centre: ``n f 2``, pixels.
        radius: ``n f``, pixels.
        camera: ``n f 2``, where it is, in pixels from the middle.

    Returns:
        pictures: ``n f 3 h w`` in -1..1.
    """
    frames = radius.shape[1]
    ground = F.interpolate(coarse, size=(2 * GROUND, 2 * GROUND), mode="bicubic", align_corners=True).clamp(0, 1) - 1
    axis = torch.arange(SIZE) - (SIZE - 1) / 2
    pixels = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    grid = (pixels + camera.flatten(0, 1)[:, None, None]) / (GROUND / 2)
    ground = F.grid_sample(ground.repeat_interleave(frames, 0), grid, align_corners=True)
    upright = torch.zeros(radius.numel())
    seen = (centre - camera).flatten(0, 1)
    cover = coverage(shape.repeat_interleave(frames), seen, radius.flatten(), upright, SIZE)[:, None]
    paint = torch.tensor(list(COLOURS.values()))[colour].repeat_interleave(frames, 0)[..., None, None]
    return torch.lerp(ground, paint, cover).unflatten(0, radius.shape)


def folded(pictures: Tensor) -> Tensor:
    """``pictures``: ``n f 3 h w`` in -1..1. Returns ``n f l p q``."""
    return fold(rearrange(pictures, "n f c h w -> (n f) h w c") / 2 + 0.5, PATCH).unflatten(0, pictures.shape[:2])


def video(latents: Tensor) -> Tensor:
    """``latents``: ``n f l p q``. Returns ``n f h w c`` in 0..1."""
    return unfold(latents.flatten(0, 1), PATCH).unflatten(0, latents.shape[:2])


# What is trained


class Miniature:
    """The networks, and the stages that change them.

    Args:
        plan: how much of everything.
        folder: of checkpoints and trained parts.
        say: gets a line now and then.
    """

    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], None] = print):
        self.plan, self.folder, self.say = plan, folder, say
        shape = UNetConfig(
            in_channels=3 * PATCH**2,
            out_channels=3 * PATCH**2,
            model_channels=plan.width,
            channel_mult=(1, 2),
            num_res_blocks=(1, 1),
            transformer_depth=(1, 1),
            transformer_depth_output=(1, 1, 1, 1),
            num_heads=HEADS,
            label_channels=len(LABELS),
            use_scale_shift_norm=True,
            groups=8,
        )
        temporal = TemporalConfig(heads=HEADS, attentions=2, ff_mult=2, groups=8)
        about = {"prediction": "x0", "noise_schedule": "cosine", "patch": PATCH, "frames": plan.frames, "labels": LABELS}
        self.info = VideoModelInfo(shape, temporal, slot_subset(shape), **about)
        self.unet, self.motion = fresh(self.info, plan.seed)
        frozen(self.unet, self.motion)
        self.schedule = NoiseSchedule.named(self.info.noise_schedule)
        self.seconds: dict[str, float] = {}
        self.facts = {"model": json.loads(self.info.json()), "world": plan.seed}
        self.adapter: Trainable | None = None
        self.ten = clips(10, plan.frames, plan.seed, 0, LESSONS, FALL, marked=True)

    def images_alone(self) -> Network:
        """The image model, its slots empty and nothing beside its layers."""
        return native_network(self.info, self.unet)

    def moving(self, *, adapted: bool = False) -> Network:
        """The image model with the motion module in its slots, and with the domain adapter or not."""
        network = native_network(self.info, self.unet, [self.motion])
        if adapted and self.adapter is not None:
            beside(image_projections(self.unet), self.adapter.branches["adapter"])
        return network

    def context(
        self, network: Network, source: Source, steps: int, rate: float, batch: int, loss: str = "mse", ema: float = 0.99
    ) -> TaskContext:
        """What a trainable is given."""
        settings = RunSettings(
            steps=steps, batch=batch, learning_rate=rate, warmup=min(50, steps), ema=ema, seed=self.plan.seed, weight_decay=0.0
        )
        objective = Objective("x0", weight=WeightSettings("capped_v"), loss=LossSettings(loss), dropout=0.0)
        return TaskContext(network, source, self.schedule, objective, settings, self.facts)

    def source(self, purpose: str, batch: int, frames: int = 0, **looks: Any) -> Source:
        """An endless supply of clips, of all frames or so many; ``looks`` are for ``clips``."""
        length = frames or self.plan.frames
        return lambda step, places: part(clips(batch, length, self.plan.seed, step, purpose, **looks), places)

    def from_ten(self, step: int, places: range) -> Batch:
        """Some of the ten clips."""
        chosen = [frame_seed(self.plan.seed, place, f"which {step}") % len(self.ten.clips) for place in places]
        return Batch(self.ten.clips[chosen], labels=None if self.ten.labels is None else self.ten.labels[chosen])

    def trained(self, name: str, stage: Trainable, settings: RunSettings) -> dict[str, Tensor]:
        """Run a stage to its end, keep its file, and give its averaged weights, which it then has."""
        started = time.monotonic()
        run = Run(stage.task, settings, self.folder / f"{name}.run.safetensors")
        for step in train(run):
            if step.step % 50 == 0 or step.step == step.total:
                self.say(f"  {name}: step {step.step} of {step.total}, loss {step.loss:.4f}, {step.left:.0f} s left")
        self.seconds[name] = round(time.monotonic() - started, 1)
        weights = run.weights()
        with torch.no_grad():
            for key, parameter in stage.task.parameters().items():
                parameter.copy_(weights[key])
        save(self.folder / f"{name}.safetensors", *stage.file(weights))
        return weights

    def image_stage(self) -> None:
        """The image model on single pictures."""
        plan = self.plan
        context = self.context(
            self.images_alone(), self.source("pictures", plan.image_batch, 1), plan.image_steps, 2e-3, plan.image_batch
        )
        self.trained("image_model", image_model(context, self.unet), context.settings)
        frozen(self.unet)

    def adapter_stage(self) -> tuple[Network, Trainable]:
        """The domain adapter on single frames of clips with scan lines; the network that it is in, too."""
        plan, network = self.plan, self.images_alone()
        source = self.source("frames of clips", plan.image_batch, 1, drift=DRIFT, marked=True)
        context = self.context(network, source, plan.adapter_steps, 1e-2, plan.image_batch)
        self.adapter = stage = domain_adapter(context, image_projections(self.unet), rank=min(32, plan.width))
        self.trained("domain_adapter", stage, context.settings)
        frozen(stage.branches["adapter"])
        return network, stage

    def motion_stage(self, *, adapted: bool = True) -> None:
        """The motion module on clips with scan lines, beside the adapter."""
        plan = self.plan
        source = self.source("clips", plan.clip_batch, drift=DRIFT, marked=True)
        context = self.context(self.moving(adapted=adapted), source, plan.motion_steps, 2e-3, plan.clip_batch)
        self.trained("motion_module" if adapted else "motion_module_alone", motion_module(context, self.motion), context.settings)
        frozen(self.motion)

    def lora_stage(self) -> tuple[Network, Trainable]:
        """The MotionLoRA on ten falling clips, beside the adapter; the network that it is in afterwards, without the adapter, too."""
        plan = self.plan
        context = self.context(self.moving(adapted=True), self.from_ten, plan.lora_steps, plan.lora_rate, plan.clip_batch)
        stage = motion_lora(context, self.motion, rank=min(16, plan.width))
        self.trained("fall_lora", stage, context.settings)
        return self.moving(), stage


def part(batch: Batch, places: range) -> Batch:
    """The clips at these places."""
    chosen = slice(places.start, places.stop)
    return Batch(batch.clips[chosen], labels=None if batch.labels is None else batch.labels[chosen])


# What is measured


@torch.no_grad()
def made(network: Network, labels: Tensor, frames: int, schedule: NoiseSchedule, steps: int, seed: int) -> Tensor:
    """Clips from noise, by DDIM.

    Args:
        network: that makes them.
        labels: ``n l``, what they show.
        frames: of each.
        schedule: the network's.
        steps: of sampling.
        seed: of the noise.

    Returns:
        clips: ``n f l p q``.
    """
    sigmas = schedule.levels(steps).flip(0)
    shape = 3 * PATCH**2, SIZE // PATCH, SIZE // PATCH
    x = torch.stack([frame_noise(shape, seed, range(clip * frames, (clip + 1) * frames), "made") for clip in range(len(labels))])
    x = x * (1 + sigmas[0] ** 2).sqrt()
    for now, after in itertools.pairwise(sigmas):
        clean = network(x, now.expand(x.shape[:2]), Batch(x, labels=labels)).clamp(-1, 1)
        count = x.shape[0] * x.shape[1]
        x = move(x.flatten(0, 1), clean.flatten(0, 1), now.expand(count), after.expand(count)).unflatten(0, x.shape[:2])
    return x


@torch.no_grad()
def errors(network: Network, batch: Batch, seed: int) -> dict[str, float]:
    """Squared errors of cleaned clips: of frames, and of changes from frame to frame, the latter relative to the true changes' squares."""
    frame, change = [], []
    for level in LEVELS:
        noise = torch.stack(
            [frame_noise(batch.clips.shape[1:], seed, [place], f"error {level}")[0] for place in range(len(batch.clips))]
        )
        clean = network(batch.clips + level * noise, torch.full(batch.clips.shape[:2], level), batch)
        error = clean - batch.clips
        frame.append(float(error.square().mean()))
        change.append(float(error.diff(dim=1).square().mean() / batch.clips.diff(dim=1).square().mean()))
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    return {"frame": mean(frame), "change": mean(change)}


def looks(videos: Tensor) -> dict[str, float]:
    """How clips move: flicker that motion does not explain, speed and fall in pixels per frame: ``n f h w c``."""
    pixels = rearrange(videos, "n f h w c -> n f c h w") * 2 - 1
    return {
        "flicker": sum(motion_compensated(clip).error for clip in videos) / len(videos),
        "speed": sum(motion_strength(clip) for clip in pixels) / len(videos),
        "fall": falls(videos),
    }


def falls(videos: Tensor) -> float:
    """How many pixels the middle of what is coloured goes down from frame to frame: ``n f h w c``; 0 where no clip shows anything."""
    colour = videos.amax(-1) - videos.amin(-1)
    weight = torch.where(colour > VIVID, colour, 0.0)
    there = weight.sum((2, 3))
    middle = (weight * torch.arange(SIZE)[:, None]).sum((2, 3)) / there.clamp_min(1e-3)
    whole = (there > 3).all(1)
    return float(middle[whole].diff(dim=1).mean()) if whole.any() else 0.0


def lines(latents: Tensor) -> float:
    """How much of the scan lines pictures have, 1 all, 0 none: ``n f l p q``. How much darker the rows are than those around them."""
    light = rearrange(video(latents).mean(-1), "n f (h r) w -> n f h r w", r=LINES)[:, :, 1:]
    above = rearrange(video(latents).mean(-1), "n f (h r) w -> n f h r w", r=LINES)[:, :, :-1, -1]
    around = (above + light[..., 1, :]) / 2
    return float(1 - (light[..., 0, :].sum() / around.sum())) / DARK


class Report:
    """The stages in their order, and what each one does.

    Args:
        small: whose stages.

    Attributes:
        figures: by stage.
        shown: clips by what they show, ``n f h w c``.
    """

    def __init__(self, small: Miniature):
        self.small, self.plan = small, small.plan
        self.figures: dict[str, dict[str, Any]] = {}
        self.shown: dict[str, Tensor] = {}
        self.plain, self.falling, self.rising, self.marked = (
            clips(self.plan.measured, self.plan.frames, self.plan.seed, 0, HELD_OUT, fall, drift=drift, marked=marked)
            for fall, drift, marked in ((0.0, DRIFT, False), (FALL, 0.0, False), (-FALL, 0.0, False), (0.0, DRIFT, True))
        )

    def make(self, network: Network) -> Tensor:
        """Clips of what the held-out ones show: ``n f l p q``."""
        plan, labels = self.plan, self.plain.labels
        assert labels is not None
        return made(network, labels, plan.frames, self.small.schedule, plan.sampling_steps, plan.seed)

    def errors(self, network: Network, batch: Batch) -> dict[str, float]:
        """Of held-out clips that are cleaned."""
        return errors(network, batch, self.plan.seed)

    def all_of_it(self) -> None:
        """Train and measure everything."""
        for stage in (self.image, self.adapter, self.motion, self.lora, self.afterwards):
            self.small.say(f"{stage.__name__}: {str(stage.__doc__).splitlines()[0]}")
            known = set(self.figures)
            stage()
            for name in self.figures.keys() - known:
                self.small.say(f"  {name}: " + ", ".join(f"{what} {value:.4g}" for what, value in self.figures[name].items()))

    def image(self) -> None:
        """The image model, on single pictures."""
        self.small.image_stage()
        network = self.small.images_alone()
        self.pictures = self.make(network)
        self.weights = {key: value.clone() for key, value in self.small.unet.state_dict().items()}
        true = video(self.plain.clips)
        self.figures["true clips"] = {
            **looks(true),
            "scan lines": lines(self.plain.clips),
            "scan lines of clips": lines(self.marked.clips),
        }
        self.figures["image model"] = {
            **self.errors(network, self.plain),
            **looks(video(self.pictures)),
            "scan lines": lines(self.pictures),
        }
        self.shown |= {"true clips": true, "image model": video(self.pictures)}

    def adapter(self) -> None:
        """The domain adapter, on single frames of clips."""
        before = self.errors(self.small.images_alone(), self.marked)["frame"]
        network, stage = self.small.adapter_stage()
        figures = {"frame without": before, "frame with": self.errors(network, self.marked)["frame"]}
        for strength in (0.0, 0.5, 1.0):
            with stage.with_weights(strength=strength):
                seen = self.make(network)
            figures[f"scan lines at {strength:g}"] = lines(seen)
        self.figures["domain adapter"] = figures
        self.shown["domain adapter"] = video(seen)

    def motion(self) -> None:
        """The motion module, on clips, with the image model and the adapter frozen."""
        self.small.motion_stage()
        network = self.small.moving()
        seen = self.make(network)
        self.figures["motion module"] = {
            **self.errors(network, self.plain),
            **looks(video(seen)),
            "scan lines": lines(seen),
            "scan lines with the adapter": lines(self.make(self.small.moving(adapted=True))),
        }
        self.shown["motion module"] = video(seen)

    def lora(self) -> None:
        """The MotionLoRA, on ten clips of things that fall."""
        network, stage = self.small.lora_stage()
        figures = {"fall of true clips": falls(video(self.falling.clips))}
        for strength in (-1.0, 0.0, 0.5, 1.0):
            with stage.with_weights(strength=strength):
                seen = video(self.make(network))
                missed = {
                    "error of falling clips": self.errors(network, self.falling)["change"],
                    "error of rising clips": self.errors(network, self.rising)["change"],
                }
            figures |= {f"{name} at {strength:g}": value for name, value in {**looks(seen), **missed}.items()}
            if abs(strength) == 1:
                self.shown[f"MotionLoRA at {strength:g}"] = seen
        self.figures["MotionLoRA"] = figures

    def afterwards(self) -> None:
        """The image model without the module, once more."""
        again = self.make(self.small.images_alone())
        now = self.small.unet.state_dict()
        self.figures["afterwards"] = {
            "pictures without the module are the same": torch.equal(again, self.pictures),
            "weights of the image model are the same": all(torch.equal(now[key], value) for key, value in self.weights.items()),
            "temporal error falls by": 1 - self.figures["motion module"]["change"] / self.figures["image model"]["change"],
        }


def table(figures: dict[str, dict[str, Any]]) -> str:
    """For the README: what each stage changes, before and after."""
    image, motion, adapter, lora = (figures[name] for name in ("image model", "motion module", "domain adapter", "MotionLoRA"))
    true, after = figures["true clips"], figures["afterwards"]
    rows = [
        ("domain adapter: error of single frames of clips", adapter["frame without"], adapter["frame with"], ""),
        (
            "domain adapter: scan lines in pictures",
            adapter["scan lines at 0"],
            adapter["scan lines at 1"],
            true["scan lines of clips"],
        ),
        ("motion module: temporal error", image["change"], motion["change"], 0.0),
        ("motion module: flicker of made clips", image["flicker"], motion["flicker"], true["flicker"]),
        ("motion module: speed of made clips", image["speed"], motion["speed"], true["speed"]),
        ("motion module: scan lines without the adapter", image["scan lines"], motion["scan lines"], true["scan lines"]),
        *(
            (f"MotionLoRA at {at}: things fall, pixels per frame", lora["fall at 0"], lora[f"fall at {at}"], aim)
            for at, aim in ((0.5, ""), (1, lora["fall of true clips"]), (-1, ""))
        ),
        *(
            (
                f"MotionLoRA at 1: temporal error of {way} clips",
                lora[f"error of {way} clips at 0"],
                lora[f"error of {way} clips at 1"],
                0.0,
            )
            for way in ("falling", "rising")
        ),
    ]
    cell = lambda value: value if isinstance(value, str) else f"{value:.3f}"  # noqa: E731
    lines = ["| | before | after | true clips |", "| --- | --: | --: | --: |"]
    lines += [f"| {name} | {cell(before)} | {cell(now)} | {cell(aim)} |" for name, before, now, aim in rows]
    same = "the same" if after["pictures without the module are the same"] else "CHANGED"
    return "\n".join([*lines, f"| image model: pictures without the module | | {same} bit for bit | |"])


def sheet(shown: dict[str, Tensor], count: int = 3) -> Image.Image:
    """A few clips of everything, one below the other, every frame of each."""
    rows = [(name, videos[:count]) for name, videos in shown.items()]
    frames = rows[0][1].shape[1]
    scale, left, line = 2, 150, 2
    side = SIZE * scale + line
    paper = Image.new("RGB", (left + frames * side, len(rows) * (count * side + 6)), "white")
    draw = ImageDraw.Draw(paper)
    for number, (name, videos) in enumerate(rows):
        top = number * (count * side + 6)
        draw.text((4, top + count * side // 2 - 6), name, fill="black")
        for row, clip in enumerate(videos):
            for column, frame in enumerate(clip):
                picture = Image.fromarray((frame * 255).round().byte().numpy()).resize(
                    (SIZE * scale,) * 2, Image.Resampling.NEAREST
                )
                paper.paste(picture, (left + column * side, top + row * side))
    return paper


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps of a tiny model: shows that it runs, and nothing else")
    parser.add_argument(
        "--keep", type=Path, help="folder for trained parts and checkpoints; it goes on from those that are there"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "miniature.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "miniature.png")
    parser.add_argument("--lora-rate", type=float, default=Plan.lora_rate, help="learning rate of the MotionLoRA (%(default)s)")
    parser.add_argument("--markdown", action="store_true", help="only print the kept table")
    given = parser.parse_args()
    if given.markdown:
        print(table(json.loads(given.out.read_text())["figures"]))
        return
    plan = QUICK if given.quick else Plan(lora_rate=given.lora_rate)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        small = Miniature(plan, given.keep or Path(folder))
        report = Report(small)
        report.all_of_it()
    about = {"plan": asdict(plan), "torch": torch.__version__, "threads": torch.get_num_threads()}
    seconds = small.seconds | {"all": round(time.monotonic() - started, 1)}
    given.out.write_text(json.dumps({"about": about, "seconds": seconds, "figures": report.figures}, indent=1) + "\n")
    given.picture.parent.mkdir(parents=True, exist_ok=True)
    sheet(report.shown).save(given.picture)
    print(table(report.figures), f"{seconds['all']:.0f} seconds", sep="\n\n")


if __name__ == "__main__":
    main()
