"""A native video model as a task for the engine: any temporal module, any method, from random weights or from a file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
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
from ..control.hints import LAYOUTS
from ..fields.setting import check, documented, setting
from ..nets.unet import ResBlock, SpatialTransformer, UNet
from ..noise.levels import NoiseSchedule
from ..noise.seeded import frame_seed
from ..temporal.motion import MotionModel
from ..temporal.slots import fill
from .denoising import Objective
from .hinted import WithHints, pinning
from .native import named_parameters, native_network, with_past_mask
from .native_methods import METHODS
from .native_models import NONE
from .options import Options
from .settings import RunSettings
from .sigma_reparam import Reparametrised, SigmaReparam, folded, with_length
from .sources import ClipsToTrainOn
from .task import Denoising

PARTS = ("unet", "temporal")
PAST = ("causal", "block_causal", "local_causal")


@documented
@dataclass(frozen=True)
class NativeChoices:
    """What is asked of a native model beside ``Options``; the defaults are those of the bundled one.

    Attributes:
        start: a video model file whose weights the run starts from; empty for random weights.
        wrong_outlines: share of the procedural clips that are shown with another shape's outline, or another traveller and often at
            another time of day, wholly or partly, and that count more where these are; the words say which is meant.
        pinned: share of the clips whose keyframes are clean, with ``hints``.
    """

    method: str = setting(
        "forcing",
        "The method says which noise levels frames have and who sees whom.",
        menu={
            "forcing": "Each frame has a noise level of its own (Diffusion Forcing).",
            "both_ways": "The same, and frames look both ways in time.",
            "teacher": "The next frame is made of the true past.",
            "full": "All frames have one level.",
        },
    )
    images: int = setting(
        0,
        "So many single pictures stand beside each clip, which neither see it nor are seen (joint image-video training); 4 to 8 steady the"
        " looks.",
        least=0,
        most=256,
    )
    own_guesses: float = setting(
        0.0,
        "This share of clips has noisy frames that are made of the model's own guesses, so that it learns to undo its mistakes: long"
        " rollouts hold better. 0.5 is good for models that have learned the clips; a sixth slower.",
        least=0.0,
        most=1.0,
        step=0.05,
    )
    hints: str = setting(
        NONE,
        "Hints train a model that fills in between keyframes, for Hint Latents: every hint_factor-th frame of each clip stands beside the"
        " noisy ones, in the layout that is chosen. Use them with the method full.",
        menu=(NONE, *LAYOUTS),
    )
    hint_factor: int = setting(4, "The hint factor counts frames from one keyframe to the next, with hints.", least=2, most=1024)
    start: str = ""
    wrong_outlines: float = 0.0
    pinned: float = 0.5

    def __post_init__(self) -> None:
        check(self)
        if not 0 <= self.wrong_outlines <= 1:
            raise ValueError(f"wrong_outlines is {self.wrong_outlines}: it must lie between 0 and 1")
        if self.own_guesses and (METHODS[self.method].beside or self.hinted):
            raise ValueError(
                f"own_guesses is {self.own_guesses:g} with {'hints' if self.hinted else f'the method {self.method}'}, which is shown true"
                " frames: set own_guesses to 0"
            )
        if self.images and METHODS[self.method].beside:
            raise ValueError(
                f"images is {self.images} and the method {self.method} shows the true past, which single pictures do not have: set images"
                " to 0, or use another method"
            )

    @property
    def hinted(self) -> bool:
        """Whether the model is told of keyframes."""
        return self.hints != NONE

    def objective(self, info: VideoModelInfo, options: Options) -> Objective:
        """What is asked of a model."""
        usual, causal = METHODS[self.method].levels, info.temporal.mask in PAST
        asked = options.objective(info.prediction, levels=usual, weight="capped_v", causal=causal)
        loss = asked.loss
        if loss.kind != "mse" and asked.levels != "shared" and not loss.space:
            loss = replace(loss, space="x0")  # differences of frames at different noise levels mean something only there
        return replace(asked, loss=loss, own_guesses=self.own_guesses)


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
        options: how; those of the run itself, such as ``batch``, are in ``settings``.
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
        options: Options,
        settings: RunSettings,
        source: ClipsToTrainOn,
        device: torch.device | str = "cpu",
    ):
        method = METHODS[choices.method]
        if choices.hinted:
            info = taking_hints(info)
            source = WithHints(source, choices.hints, choices.hint_factor, choices.pinned, settings.seed)
        self.info, self.source = with_past_mask(info, method.mask), source
        self.choices, self.options, self.settings = choices, options, settings
        self.unet, self.motion = fresh(self.info, settings.seed)
        if choices.start:
            self._start_from(Path(choices.start))
        self.unet.to(device), self.motion.to(device)
        reparam = SigmaReparam(with_length(self.motion)) if options.sigma_reparam else None
        network = native_network(
            self.info, self.unet, [self.motion], beside=method.beside, gradient_checkpointing=options.gradient_checkpointing
        )
        self.denoising = Denoising(
            pinning(network) if choices.hinted else network,
            named_parameters(unet=self.unet, temporal=self.motion),
            source,
            choices.objective(self.info, options),
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
        objective = asdict(self.denoising.objective)
        facts = {**asdict(self.settings), **asdict(self.choices), **objective, "steps_done": done, **self.source.facts()}
        return VideoModel(with_training(self.info, **facts), unet, temporal)

    def hints(self) -> Tensor:
        """What the first clip of all is told, for samples. Returns ``f d h w``."""
        return self.source(0, range(1)).extra["hints"][0]

    def _networks(self) -> tuple[UNet, MotionModel]:
        return self.unet, self.motion

    def _facts(self) -> dict[str, Any]:
        info = json.loads(self.info.json())
        info.pop("trained")
        told = {name: getattr(self.choices, name) for name in ("method", "images", "start")}
        return {**info, **told, "sigma_reparam": self.options.sigma_reparam, "data": self.source.facts()}

    def _start_from(self, path: Path) -> None:
        video = load_video_model(path)
        if self.info.hints and not video.info.hints:
            video = with_hints(video)
        masked = replace(video.info, temporal=replace(video.info.temporal, mask=self.info.temporal.mask))  # no weight hangs on it
        wrong = [name for name in ("unet", "temporal", "slots", "labels") if getattr(masked, name) != getattr(self.info, name)]
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
