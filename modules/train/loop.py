"""Training as a generator of steps that can be killed at any moment.

Data, noise and label dropout of step ``i`` depend on ``(seed, i)`` only, so a checkpoint needs no random state: a resumed run gives
the weights of an unbroken one, bit for bit on a CPU. Checkpoints are one safetensors file, written under a temporary name first.
"""

import json
import math
import os
import time
from collections.abc import Generator, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..noise import NoiseSchedule, frame_seed
from ..temporal.kinds import class_of
from ..temporal.motion import MotionModel
from ..temporal.slots import fill
from ..unet import ResBlock, SpatialTransformer, UNet
from ..video_model import VideoModel, VideoModelInfo, fold, load_video_model, new_networks, with_training
from . import shapes
from .objective import METHODS, clip_loss


@dataclass(frozen=True)
class TrainSettings:
    """What a run does; two runs with equal settings give equal weights."""

    method: str = "forcing"  # a name in objective.METHODS
    steps: int = 5000
    batch: int = 8
    learning_rate: float = 2e-3
    warmup: int = 200  # steps of rising learning rate; after them it falls along a cosine to zero
    label_dropout: float = 0.1
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema: float = 0.999
    seed: int = 0
    start: str = ""  # a video model file whose weights the run starts from; empty: random weights

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"the method {self.method!r} is not known: choose one of {', '.join(METHODS)}")
        for name, least, most in (
            ("steps", 1, 10**9),
            ("batch", 1, 4096),
            ("learning_rate", 1e-8, 1.0),
            ("label_dropout", 0, 1),
            ("ema", 0, 0.999999),
            ("clip_norm", 1e-6, 1e6),
        ):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be from {least} to {most}")

    def rate(self, step: int) -> float:
        """Learning rate of step ``step``, counted from 0."""
        return (
            self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup)) * (0.5 + 0.5 * math.cos(math.pi * step / self.steps))
        )


@dataclass(frozen=True)
class TrainStep:
    """What the trainer yields after each step."""

    step: int  # steps done
    total: int
    loss: float
    grad_norm: float
    seconds: float  # spent in this process


class Diverged(ValueError):
    """The loss is no longer a number; the last good checkpoint stands."""


def fresh(info: VideoModelInfo, seed: int) -> tuple[UNet, MotionModel]:
    """New networks joined, every residual branch starting at zero, their random weights set by ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(frame_seed(seed, 0, "weights"))
        unet, motion = new_networks(info)
    motion.zero()
    last: list[Any] = [unet.out[2]]
    for module in unet.modules():
        if isinstance(module, ResBlock):
            last.append(module.out_layers[3])
        elif isinstance(module, SpatialTransformer):
            last.append(module.proj_out)
    for layer in last:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    fill(unet, motion.slot_functions())
    return unet, motion


class Run:
    """A training run on the procedural world: its networks, optimizer, averaged weights and history.

    Args:
        info: the model to train; its temporal mask is set by the method, where its modules can see more than the past.
        settings: what the run does.
        checkpoint: file to resume from if it exists, and to save to; None keeps everything in memory.

    Raises:
        ValueError: the checkpoint belongs to another architecture or other settings, or is broken.
    """

    def __init__(self, info: VideoModelInfo, settings: TrainSettings, checkpoint: Path | None = None):
        method = METHODS[settings.method]
        mask = "causal" if class_of(info.temporal).past_only else method.mask
        self.info = replace(info, temporal=replace(info.temporal, mask=mask))
        self.settings, self.checkpoint = settings, checkpoint
        self.schedule = NoiseSchedule.named(info.noise_schedule)
        self.unet, self.motion = fresh(self.info, settings.seed)
        if settings.start:
            self._start_from(Path(settings.start))
        self.parameters: dict[str, nn.Parameter] = {
            **{f"unet.{name}": p for name, p in self.unet.named_parameters()},
            **{f"temporal.{name}": p for name, p in self.motion.named_parameters()},
        }
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay
        )
        self.done = 0
        self.losses: list[float] = []
        if checkpoint is not None and checkpoint.exists():
            self._resume(checkpoint)

    def steps(self) -> Generator[TrainStep, None, None]:
        """Train to the end, one step at a time.

        Raises:
            Diverged: the loss or a gradient is not finite. The weights are those before the step.
        """
        started = time.monotonic()
        while self.done < self.settings.steps:
            loss, norm = self._step()
            self.done += 1
            self.losses.append(loss)
            yield TrainStep(self.done, self.settings.steps, loss, norm, time.monotonic() - started)

    def _step(self) -> tuple[float, float]:
        settings, step = self.settings, self.done
        g = torch.Generator().manual_seed(frame_seed(settings.seed, step, "train"))
        batch = shapes.clips(settings.batch, self.info.frames, settings.seed, step)
        latents = fold(rearrange(batch.frames, "b f c h w -> (b f) h w c") / 2 + 0.5, self.info.patch)
        clips = rearrange(latents, "(b f) l h w -> b f l h w", f=self.info.frames)
        keep = torch.rand(settings.batch, 1, generator=g) >= settings.label_dropout
        for group in self.optimizer.param_groups:
            group["lr"] = settings.rate(step)
        self.optimizer.zero_grad(set_to_none=True)
        loss = clip_loss(
            self.unet,
            self.motion,
            clips,
            batch.labels * keep,
            method=METHODS[settings.method],
            schedule=self.schedule,
            prediction=self.info.prediction,
            g=g,
        )
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), settings.clip_norm)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise Diverged(
                f"training diverged at step {step + 1}: the loss is {loss.item()}; the last checkpoint stands, "
                f"resume with a learning rate below {settings.learning_rate}"
            )
        self.optimizer.step()
        decay = min(settings.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                self.average[name].lerp_(parameter, 1 - decay)
        return loss.item(), float(norm)

    def model(self) -> VideoModel:
        """The averaged weights as a video model."""
        facts = {"data": "procedural shapes", "steps_done": self.done, **asdict(self.settings)}
        parts = {
            part: {
                name.removeprefix(part + "."): value.clone()
                for name, value in self.average.items()
                if name.startswith(part + ".")
            }
            for part in ("unet", "temporal")
        }
        return VideoModel(with_training(self.info, **facts), parts["unet"], parts["temporal"])

    def save(self) -> None:
        """Write the checkpoint; the one before it stays until this one is whole."""
        if self.checkpoint is None:
            return
        state: dict[str, Tensor] = {"losses": torch.tensor(self.losses, dtype=torch.float64)}
        for name, parameter in self.parameters.items():
            moments = self.optimizer.state[parameter]
            state |= {
                f"now/{name}": parameter.detach(),
                f"average/{name}": self.average[name],
                f"first/{name}": moments["exp_avg"],
                f"second/{name}": moments["exp_avg_sq"],
            }
        about = json.dumps({"info": self.info.json(), "settings": asdict(self.settings), "done": self.done})
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint.with_name(f".{self.checkpoint.name}.{os.getpid()}.partial")
        try:
            save_file({key: value.contiguous() for key, value in state.items()}, partial, metadata={"longtake_run": about})
            partial.replace(self.checkpoint)
        finally:
            partial.unlink(missing_ok=True)

    def _start_from(self, path: Path) -> None:
        video = load_video_model(path)
        masked = replace(video.info, temporal=replace(video.info.temporal, mask=self.info.temporal.mask))  # no weight hangs on it
        wrong = [name for name in ("unet", "temporal", "slots") if getattr(masked, name) != getattr(self.info, name)]
        if wrong:
            raise ValueError(f"{path.name} cannot start this run: its {' and '.join(wrong)} differ from the model to train")
        self.unet.load_state_dict(video.unet)
        self.motion.load_state_dict(video.temporal)

    def _resume(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {}).get("longtake_run", "null"))
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a dict
        except SafetensorError as error:
            raise ValueError(f"{path.name} cannot be read: it is cut short or no safetensors file ({error})") from error
        if about is None:
            raise ValueError(f"{path.name} is no training checkpoint: give another name, or the checkpoint of this run")
        differing = _differences(about, self.info, self.settings)
        if differing:
            raise ValueError(
                f"{path.name} belongs to another run ({', '.join(differing)} differ): give this run a checkpoint of its own"
            )
        self._restore(state, about["done"])

    def _restore(self, state: Mapping[str, Tensor], done: int) -> None:
        self.done, self.losses = done, state["losses"].tolist()
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state[f"now/{name}"])
                self.average[name].copy_(state[f"average/{name}"])
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(float(done)),
                    "exp_avg": state[f"first/{name}"].clone(),
                    "exp_avg_sq": state[f"second/{name}"].clone(),
                }


def _differences(about: Mapping, info: VideoModelInfo, settings: TrainSettings) -> list[str]:
    now = {**json.loads(info.json()), **asdict(settings)}
    then = {
        **json.loads(VideoModelInfo.parse(about["info"]).json()),  # with what the file is too old to say
        **asdict(TrainSettings()),
        **about["settings"],
    }  # settings newer than the file: their defaults
    return sorted(key for key in now if now[key] != then.get(key))


def train(run: Run, every: int = 500) -> Iterable[TrainStep]:
    """The run's steps, saving every ``every`` of them and at the end, also when the caller stops in between."""
    try:
        for step in run.steps():
            if step.step % every == 0:
                run.save()
            yield step
    finally:
        if run.losses:
            run.save()
