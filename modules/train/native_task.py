"""A native video model as a task for the engine: any temporal module, any method, from random weights or from a file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints.video_model import (
    VideoModel,
    VideoModelInfo,
    load_video_model,
    new_networks,
    taking_hints,
    with_hints,
    with_training,
)
from ..nets.unet import ResBlock, SpatialTransformer, UNet
from ..noise.levels import NoiseSchedule
from ..noise.seeded import frame_seed
from ..temporal.motion import MotionModel
from ..temporal.slots import fill
from .denoising import Objective
from .hinted import WithHints, pinning
from .losses import LossSettings
from .methods import METHODS
from .native import named_parameters, native_network, with_past_mask
from .settings import RunSettings
from .sigma_reparam import Reparametrised, SigmaReparam, folded, with_length
from .sources import ClipsToTrainOn
from .task import Denoising
from .weights import WeightSettings

PARTS = ("unet", "temporal")
PAST = ("causal", "block_causal", "local_causal")


@dataclass(frozen=True)
class NativeChoices:
    """What is asked of a native model in training; the defaults are those of the bundled one.

    Attributes:
        method: a name in ``methods.METHODS``.
        levels: a name in ``levels.LEVELS``; empty for the method's.
        weight: how much errors count by noise level.
        loss: what the error of a clip costs.
        images: single pictures beside each clip, isolated from it.
        noise_offset: see ``Objective``.
        dropout: share of clips that are shown without their labels.
        sigma_reparam: whether temporal attention weights have lengths of their own while training (``sigma_reparam.py``).
        recompute: whether layers compute again when gradients come back: less memory, a third slower, the same gradients.
        start: a video model file whose weights the run starts from; empty for random weights.
        own_guesses: share of the clips whose noisy frames are made of the model's own guesses (``own_guesses.py``).
        wrong_outlines: share of the procedural shapes' clips that are shown with another shape's outline, wholly or partly, and that
            count more where the shapes are; the words say which is meant.
        hints: how the model is told of keyframes among the frames, a name in ``interpolate.LAYOUTS``; empty for not at all.
        hint_factor: frames from one keyframe to the next.
        pinned: share of the clips whose keyframes are clean.
    """

    method: str = "forcing"
    levels: str = ""
    weight: WeightSettings = field(default_factory=lambda: WeightSettings("capped_v"))
    loss: LossSettings = field(default_factory=LossSettings)
    images: int = 0
    noise_offset: float = 0.0
    dropout: float = 0.1
    sigma_reparam: bool = False
    recompute: bool = False
    start: str = ""
    own_guesses: float = 0.0
    wrong_outlines: float = 0.0
    hints: str = ""
    hint_factor: int = 4
    pinned: float = 0.5

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"the method {self.method!r} is not known: choose one of {', '.join(METHODS)}")
        for name in ("own_guesses", "wrong_outlines"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must lie between 0 and 1")
        if self.own_guesses and (METHODS[self.method].beside or self.hints):
            raise ValueError(
                f"own_guesses is {self.own_guesses:g} with {'hints' if self.hints else f'the method {self.method}'}, which is shown true"
                " frames: set own_guesses to 0"
            )
        if not 0 <= self.images <= 256:
            raise ValueError(f"images is {self.images}: it must be from 0, clips alone, to 256")
        if self.images and METHODS[self.method].beside:
            raise ValueError(
                f"images is {self.images} and the method {self.method} shows the true past, which single pictures do not have: set images"
                " to 0, or use another method"
            )

    def objective(self, info: VideoModelInfo) -> Objective:
        """What is asked of a model."""
        levels = self.levels or METHODS[self.method].levels
        loss = self.loss
        if loss.kind != "mse" and levels != "shared" and not loss.space:
            loss = replace(loss, space="x0")  # differences of frames at different noise levels mean something only there
        weight = replace(self.weight, causal=info.temporal.mask in PAST)
        return Objective(info.prediction, levels, weight, loss, self.noise_offset, self.dropout, self.own_guesses)


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


class NativeTask(Reparametrised):
    """Train all of a native video model.

    Args:
        info: the model; its temporal mask is set by the method, where its modules can see more than the past.
        choices: what is asked.
        settings: of the run.
        source: of clips.
        device: where to train.

    Attributes:
        info: with the mask that the method gives.
        unet: with the temporal modules in its slots.
        motion: the temporal modules.

    Raises:
        ValueError: the file to start from is another architecture's, or there is no attention to reparametrise.
    """

    def __init__(
        self,
        info: VideoModelInfo,
        choices: NativeChoices,
        settings: RunSettings,
        source: ClipsToTrainOn,
        device: torch.device | str = "cpu",
    ):
        method = METHODS[choices.method]
        if choices.hints:
            info = taking_hints(info)
            source = WithHints(source, choices.hints, choices.hint_factor, choices.pinned, settings.seed)
        self.info, self.choices, self.settings, self.source = with_past_mask(info, method.mask), choices, settings, source
        self.unet, self.motion = fresh(self.info, settings.seed)
        if choices.start:
            self._start_from(Path(choices.start))
        self.unet.to(device), self.motion.to(device)
        reparam = SigmaReparam(with_length(self.motion)) if choices.sigma_reparam else None
        network = native_network(self.info, self.unet, [self.motion], beside=method.beside, recompute=choices.recompute)
        self.denoising = Denoising(
            pinning(network) if choices.hints else network,
            named_parameters(unet=self.unet, temporal=self.motion),
            source,
            choices.objective(self.info),
            NoiseSchedule.named(self.info.noise_schedule),
            settings,
            self._facts(),
        )
        super().__init__(self.denoising, reparam)

    def model(self, weights: Mapping[str, Tensor], done: int) -> VideoModel:
        """A video model of these weights, by parameter name, after so many steps; reparametrised ones are folded."""
        unet, temporal = (
            {**_buffers(network), **_of(part, weights)} for part, network in zip(PARTS, self._networks(), strict=True)
        )
        temporal = folded(temporal, dict(self.motion.named_buffers()))
        facts = {**asdict(self.settings), **asdict(self.choices), "steps_done": done, **self.source.facts()}
        return VideoModel(with_training(self.info, **facts), unet, temporal)

    def hints(self) -> Tensor:
        """What the first clip of all is told, for samples. Returns ``f d h w``."""
        return self.source(0, range(1)).extra["hints"][0]

    def _networks(self) -> tuple[UNet, MotionModel]:
        return self.unet, self.motion

    def _facts(self) -> dict[str, Any]:
        info = json.loads(self.info.json())
        info.pop("trained")
        told = {name: getattr(self.choices, name) for name in ("method", "images", "sigma_reparam", "start")}
        return {**info, **told, "data": self.source.facts()}

    def _start_from(self, path: Path) -> None:
        video = load_video_model(path)
        if self.info.hints and not video.info.hints:
            video = with_hints(video)
        masked = replace(video.info, temporal=replace(video.info.temporal, mask=self.info.temporal.mask))  # no weight hangs on it
        wrong = [name for name in ("unet", "temporal", "slots") if getattr(masked, name) != getattr(self.info, name)]
        if wrong:
            raise ValueError(f"{path.name} cannot start this run: its {' and '.join(wrong)} differ from the model to train")
        self.unet.load_state_dict(video.unet)
        self.motion.load_state_dict(video.temporal)


def _of(part: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}."): value for name, value in weights.items() if name.startswith(f"{part}.")}


def _buffers(network: nn.Module) -> dict[str, Tensor]:
    """What a network's state holds that is no parameter, but for what reparametrised weights keep."""
    known = dict(network.named_parameters())
    state = network.state_dict()
    return {name: value.clone() for name, value in state.items() if name not in known and ".parametrizations." not in name}
