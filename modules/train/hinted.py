"""A native model that fills in between keyframes: it is shown hints (``interpolate.py``) beside the noisy frames while it is trained.

The clips are of the procedural world, at several frame rates, so that one model goes from 5 frames to 17 and from those to 65. All new
frames have one noise level. In some clips the keyframes are noisy, too, and are made again, as in the article; in the others they are
clean, as where a sampler knows them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ..checkpoints.video_model import VideoModel, VideoModelInfo, fold, with_hints, with_training
from ..control.hints import every, grown, layout_named
from ..data import shapes
from ..nets.unet import UNet
from ..noise.levels import NoiseSchedule
from ..noise.seeded import frame_seed
from ..temporal.motion import MotionModel
from .denoising import Batch, Network, Objective, Source
from .engine import Run
from .native import named_parameters, native_network
from .settings import RunSettings
from .sources import ClipsToTrainOn
from .task import Denoising
from .weights import WeightSettings


@dataclass(frozen=True)
class HintTraining:
    """What a model that fills in is shown.

    Attributes:
        layout: a name in ``interpolate.LAYOUTS``.
        keyframes: of a clip, at least 2.
        factor: frames from one keyframe to the next.
        rates: time from frame to frame of the clips, in frames of the procedural world.
        pinned: share of the clips whose keyframes are clean.
    """

    layout: str = "article"
    keyframes: int = 5
    factor: int = 4
    rates: tuple[float, ...] = (1.0, 0.5, 0.25)
    pinned: float = 0.5

    def __post_init__(self) -> None:
        layout_named(self.layout)
        grown(self.keyframes, self.factor)
        if not self.rates or min(self.rates) <= 0:
            raise ValueError(f"rates is {self.rates}: give at least one time from frame to frame, above 0")
        if not 0 <= self.pinned <= 1:
            raise ValueError(f"pinned is {self.pinned}: it must lie between 0, no keyframe is clean, and 1, all are")

    @property
    def frames(self) -> int:
        """Of a clip; with a layout that goes on from a keyframe before it that one is not counted."""
        return grown(self.keyframes, self.factor) - layout_named(self.layout).before


def shapes_source(info: VideoModelInfo, training: HintTraining, seed: int, batch: int) -> Source:
    """Clips of the procedural world with their hints, as ``denoising.losses`` wants them.

    Args:
        info: of the model, which takes hints.
        training: what it is shown.
        seed: of the clips.
        batch: clips per step.
    """

    def source(step: int, places: range) -> Batch:
        clips, labels, hints, known = [], [], [], []
        for place in places:
            g = torch.Generator().manual_seed(frame_seed(seed, step * batch + place, "hints"))
            rate = training.rates[int(torch.randint(0, len(training.rates), (), generator=g))]
            clip = shapes.clips(1, grown(training.keyframes, training.factor), seed, step * batch + place, rate)
            latents = pictures_to_latents(clip.frames[0], info.patch)
            told = hints_of_clip(latents, training)
            clips.append(latents[-training.frames :])
            labels.append(clip.labels[0])
            hints.append(told.joined())
            known.append(told.known & (torch.rand((), generator=g) < training.pinned))
        extra = {"hints": torch.stack(hints), "known": torch.stack(known)}
        return Batch(torch.stack(clips), labels=torch.stack(labels), extra=extra)

    return source


def pictures_to_latents(frames: Tensor, patch: int) -> Tensor:
    """``frames``: ``f 3 h w`` in -1..1. Returns ``f l p q``."""
    return fold(rearrange(frames, "f c h w -> f h w c") / 2 + 0.5, patch)


def hints_of_clip(latents: Tensor, training: HintTraining) -> Any:
    """What a model is told of a clip whose frames are all known: ``latents``: ``f c h w``; gives ``interpolate.Hints``."""
    layout, count = layout_named(training.layout), len(latents)
    frames = (0,) if layout.before else every(training.keyframes, training.factor)
    return layout.hints(latents[list(frames)], frames, count)


class WithHints:
    """Clips of any source, told of every so many of their own frames.

    Args:
        source: of the clips, which must have no single pictures behind them.
        layout: how they are told, a name in ``interpolate.LAYOUTS``.
        factor: frames from one keyframe to the next.
        pinned: share of the clips whose keyframes are clean.
        seed: of the run.

    Raises:
        ValueError: a number is out of range, or the layout is not known.
    """

    def __init__(self, source: ClipsToTrainOn, layout: str, factor: int, pinned: float, seed: int):
        self.training = HintTraining(layout, 2, factor, pinned=pinned)
        self.source, self.seed = source, seed

    def __call__(self, step: int, places: range) -> Batch:
        """See ``ClipsToTrainOn``.

        Raises:
            ValueError: there are single pictures, or the clips are too short for a second keyframe or a frame after the first.
        """
        batch, layout = self.source(step, places), layout_named(self.training.layout)
        frames = batch.clips.shape[1]
        if batch.images:
            raise ValueError("single pictures have no keyframes: set images per clip to 0, or leave hints out")
        if frames < 2 or (not layout.before and frames <= self.training.factor):
            raise ValueError(
                f"clips of {frames} frames have no two keyframes {self.training.factor} apart: use longer clips, or a smaller factor"
            )
        at = (0,) if layout.before else tuple(range(0, frames, self.training.factor))
        told = [layout.hints(clip[list(at)], at, frames) for clip in batch.clips]
        draws = [torch.Generator().manual_seed(frame_seed(self.seed, place, f"pinned {step}")) for place in places]
        pinned = torch.tensor([bool(torch.rand((), generator=g) < self.training.pinned) for g in draws])
        known = torch.stack([hints.known for hints in told]) & pinned[:, None]
        extra = {**batch.extra, "hints": torch.stack([hints.joined() for hints in told]), "known": known.to(batch.clips.device)}
        return replace(batch, clips=batch.clips[:, int(layout.before) :], extra=extra)

    def facts(self) -> dict[str, Any]:
        """See ``ClipsToTrainOn``."""
        named = {name: getattr(self.training, name) for name in ("layout", "factor", "pinned")}
        return {**self.source.facts(), "hints": named}

    def report(self) -> str:
        """See ``ClipsToTrainOn``."""
        return self.source.report()


def pinning(network: Network) -> Network:
    """A network that sees those keyframes clean that the batch's extra tensor ``known``, ``n f``, names."""

    def pinned(x: Tensor, sigma: Tensor, batch: Batch) -> Tensor:
        known = batch.extra["known"]
        given = batch.extra["hints"][:, :, 1:]
        x = torch.where(known[..., None, None, None], given, x)
        clean = network(x, sigma.masked_fill(known, 0), batch)
        return torch.where(known[..., None, None, None], batch.clips, clean)  # what is known is no error

    return pinned


class HintedRun(Run):
    """A run that trains a native model to fill in, and the model that it has made.

    Args:
        start: the model to begin with; one without hints is given room for them. Its temporal modules see all frames from here on.
        training: what it is shown.
        settings: how it is trained.
        path: of the checkpoint, or None.
        dropout: share of clips without their labels.

    Raises:
        ValueError: the checkpoint is of another run, or the model works on the latents of a VAE.
    """

    def __init__(
        self, start: VideoModel, training: HintTraining, settings: RunSettings, path: Path | None = None, dropout: float = 0.5
    ):
        if not start.info.patch:
            raise ValueError(
                "this model works on the latents of a VAE, and the procedural world is pixels: start from a pixel-space model"
            )
        video = start if start.info.hints else with_hints(start)
        temporal = replace(video.info.temporal, mask="full")
        self.info = replace(video.info, temporal=temporal, frames=training.frames)
        self.training = training
        self.unet, self.motion = replace(video, info=self.info).build()
        self.unet.train().requires_grad_(True)
        self.motion.train().requires_grad_(True)
        task = hinted_task(self.info, self.unet, self.motion, training, settings, dropout)
        super().__init__(task, settings, path)  # type: ignore[arg-type]  a function in the place of the method after_step

    def model(self) -> VideoModel:
        """The averaged weights as a video model."""
        weights = self.weights()
        parts = {
            part: {name.removeprefix(part + "."): value for name, value in weights.items() if name.startswith(part + ".")}
            for part in ("unet", "temporal")
        }
        facts: Mapping[str, Any] = {
            **asdict(self.training),
            "data": "procedural shapes",
            "hint_steps_done": self.done,
            "hint_batch": self.settings.batch,
            "hint_learning_rate": self.settings.learning_rate,
            "hint_seed": self.settings.seed,
        }
        return VideoModel(with_training(self.info, **facts), parts["unet"], parts["temporal"])


def hinted_task(
    info: VideoModelInfo, unet: UNet, motion: MotionModel, training: HintTraining, settings: RunSettings, dropout: float
) -> Denoising:
    """The task of a model that fills in, for the engine.

    Args:
        info: of the model.
        unet: which is trained.
        motion: which is trained, too.
        training: what it is shown.
        settings: seed and batch are read.
        dropout: share of clips without their labels.
    """
    objective = Objective(
        prediction=info.prediction, levels="shared", weight=WeightSettings("capped_v", cap=5.0, causal=False), dropout=dropout
    )
    return Denoising(
        pinning(native_network(info, unet, [motion])),
        named_parameters(unet=unet, temporal=motion),
        shapes_source(info, training, settings.seed, settings.batch),
        objective,
        NoiseSchedule.named(info.noise_schedule),
        settings,
        {"hints": asdict(training), "model": info.json()},
    )
