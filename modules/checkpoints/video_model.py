"""A video model as one file: U-Net, temporal modules, and what they mean.

safetensors with the U-Net under ``model.diffusion_model.`` (as in any Stable Diffusion checkpoint), the temporal modules under
``temporal.``, and one JSON text, ``longtake``, in the metadata: architecture, prediction type, noise schedule, labels, patch size,
what it was trained on. The weights may be stored in half precision; they are read as float32.
"""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from einops import rearrange
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..nets.unet import LATER as UNET_LATER
from ..nets.unet import UNet, UNetConfig
from ..noise.levels import NOISE_SCHEDULES, PREDICTIONS, NoiseSchedule
from ..noise.seeded import broadcast
from ..temporal.config import LATER, TemporalConfig
from ..temporal.kinds import class_of
from ..temporal.motion import MotionModel
from ..temporal.slots import fill, widths

VERSION = (
    3  # 1 knows nothing of what is LATER in the configurations of the U-Net and the temporal modules, 2 nothing of what is NEWEST
)
NEWEST = {"hints": False, "latent_scale": 1.0}  # what version 3 knows
UNET, TEMPORAL = "model.diffusion_model.", "temporal."


@dataclass(frozen=True)
class VideoModelInfo:
    """What a video model file says about itself; everything a host needs beside the weights."""

    unet: UNetConfig
    temporal: TemporalConfig
    slots: tuple[str, ...]  # which slots hold temporal modules
    prediction: str = "v"  # a name in noise.PREDICTIONS
    noise_schedule: str = "cosine"  # a name in noise.NOISE_SCHEDULES
    patch: int = 1  # a pixel-space model's latent is the picture folded into patches of this side; 0: latents of a VAE
    frames: int = 16  # trained clip length
    size: tuple[int, int] = (32, 32)  # trained height and width of the picture
    labels: tuple[str, ...] = ()  # words of the label vector, in order
    trained: Mapping[str, Any] = field(default_factory=dict)  # free: data, command, seed, steps
    hints: bool = False  # the U-Net takes a mask and the latents of keyframes beside the noisy ones, as inpainting checkpoints do
    latent_scale: float = 1.0  # what a VAE's latents are multiplied with before the model sees them

    def __post_init__(self) -> None:
        for name, table in (("prediction", PREDICTIONS), ("noise_schedule", NOISE_SCHEDULES)):
            if getattr(self, name) not in table:
                raise ValueError(f"{name} is {getattr(self, name)!r}: this pack knows {', '.join(table)}")
        class_of(self.temporal)
        if len(self.labels) != (self.unet.label_channels or 0):
            raise ValueError(
                f"{len(self.labels)} labels are named and the U-Net takes {self.unet.label_channels or 0}: they must agree"
            )
        if not 0 < self.latent_scale < math.inf:
            raise ValueError(f"latent_scale is {self.latent_scale}: it must be a number above 0")
        wanted = self.latent_channels + (self.latent_channels + 1 if self.hints else 0)
        if self.unet.in_channels != wanted:
            raise ValueError(
                f"the U-Net takes {self.unet.in_channels} channels and gives {self.latent_channels}: a video model"
                f" {'with' if self.hints else 'without'} hints takes {wanted}"
            )

    @property
    def latent_channels(self) -> int:
        """Channels of a latent; the U-Net may take more beside it."""
        return self.unet.out_channels

    def json(self) -> str:
        """The description as text. A later version is written only where it takes one to read it."""
        unet, temporal = self.unet.facts(), self.temporal.facts()
        version = 2 if LATER.keys() & temporal.keys() or UNET_LATER.keys() & unet.keys() else 1
        facts = {**asdict(self), "unet": unet, "temporal": temporal}
        for name, usual in NEWEST.items():
            if facts[name] == usual:
                facts.pop(name)
            else:
                version = VERSION
        return json.dumps({"version": version, **facts}, sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> "VideoModelInfo":
        """Read what ``json`` wrote.

        Raises:
            ValueError: the text is of a later version of this pack, or broken.
        """
        try:
            values = json.loads(text)
            version = values.pop("version")
            if version > VERSION:
                raise ValueError(
                    f"written by a later version of this pack (format {version}, this one reads {VERSION}): update it"
                )
            unet, temporal = UNetConfig(**values.pop("unet")), TemporalConfig(**values.pop("temporal"))
            sequences = {name: tuple(values.pop(name)) for name in ("slots", "size", "labels")}
            return cls(unet, temporal, **sequences, **values)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"the description of the video model is broken: {error!r}") from error

    def label_vector(self, prompt: str) -> Tensor:
        """The label vector of a prompt: words of ``labels``, ``word:weight`` for other than 1, anything between as separator.

        Returns:
            y: ``l``; all zeros for an empty prompt, which is what the model was shown for "anything".

        Raises:
            ValueError: a word is not one of the labels.
        """
        y = torch.zeros(len(self.labels))
        for item in prompt.replace(",", " ").lower().split():
            word, _, weight = item.partition(":")
            if word not in self.labels:
                raise ValueError(f"the model does not know the word {word!r}: it knows {', '.join(self.labels) or 'no words'}")
            try:
                value = float(weight) if weight else 1.0
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                raise ValueError(f"the weight in {item!r} is not a number: write it as {word}:0.5")
            y[self.labels.index(word)] = value
        return y


@dataclass(frozen=True)
class VideoModel:
    """A file's contents: the description, and two state dicts (float32)."""

    info: VideoModelInfo
    unet: Mapping[str, Tensor]
    temporal: Mapping[str, Tensor]

    def build(
        self, ops: Any = nn, attention: Callable[..., Tensor] = torch.nn.functional.scaled_dot_product_attention
    ) -> tuple[UNet, MotionModel]:
        """The two networks with these weights, the second in the first's slots, ready to run."""
        unet, motion = new_networks(self.info, ops, attention)
        unet.load_state_dict(self.unet)
        motion.load_state_dict(self.temporal)
        fill(unet, motion.slot_functions())
        return unet.eval().requires_grad_(False), motion.eval().requires_grad_(False)

    def save(self, path: Path, dtype: torch.dtype | None = None) -> None:
        """Write the file under a temporary name, then rename it: there is never half a file under ``path``."""
        state = {UNET + key: value for key, value in self.unet.items()}
        state |= {TEMPORAL + key: value for key, value in self.temporal.items()}
        state = {key: value.detach().to("cpu", dtype or value.dtype).contiguous() for key, value in state.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            save_file(state, partial, metadata={"longtake": self.info.json()})
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def new_networks(
    info: VideoModelInfo, ops: Any = nn, attention: Callable[..., Tensor] = torch.nn.functional.scaled_dot_product_attention
) -> tuple[UNet, MotionModel]:
    """The two networks of a description with fresh weights, not yet joined."""
    unet = UNet(info.unet, ops, attention)
    available = widths(unet)
    nowhere = [name for name in info.slots if name not in available]
    if nowhere:
        raise ValueError(f"the description names the slot {nowhere[0]}: this U-Net has {', '.join(available)}")
    return unet, MotionModel({name: available[name] for name in info.slots}, info.temporal, ops, attention)


def load_video_model(path: Path) -> VideoModel:
    """Read a video model file.

    Raises:
        ValueError: there is no such file, it is cut short or no safetensors, or it holds something else. One sentence each.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("longtake")
            if text is None:
                raise ValueError(
                    f"{path.name} is no LongTake video model (its metadata has no 'longtake' entry); "
                    f"first keys: {list(file.keys())[:3]}"
                )
            info = VideoModelInfo.parse(text)
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118  not a dict
    except SafetensorError as error:
        raise ValueError(f"{path.name} cannot be read: it is cut short or no safetensors file ({error})") from error
    model = VideoModel(
        info,
        {key.removeprefix(UNET): value for key, value in state.items() if key.startswith(UNET)},
        {key.removeprefix(TEMPORAL): value for key, value in state.items() if key.startswith(TEMPORAL)},
    )
    _check_complete(model, path.name)
    return model


def _check_complete(model: VideoModel, name: str) -> None:
    with torch.device("meta"):
        networks = new_networks(model.info)
    for network, state in zip(networks, (model.unet, model.temporal), strict=True):
        wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        given = {key: tuple(value.shape) for key, value in state.items()}
        wrong = sorted(key for key in wanted if given.get(key) != wanted[key]) + sorted(set(given) - set(wanted))
        if wrong:
            raise ValueError(
                f"{name} does not fit its own description: "
                f"{len(wrong)} weights are missing, extra or of another shape, first {wrong[0]}"
            )


def clean_prediction(
    network: Callable[..., Tensor],
    x: Tensor,
    sigma: Tensor,
    schedule: NoiseSchedule,
    prediction: str,
    beside: Tensor | None = None,
    **conditions: Tensor | None,
) -> Tensor:
    """What the network takes the clean frames to be.

    Args:
        network: ``(scaled x, t, **conditions) -> output``.
        x: ``n c h w``, ``clean + sigma * noise``.
        sigma: ``n``, one per frame; frames at 0 come back as they are unless the model predicts ``x0``.
        schedule: the model's.
        prediction: a name in ``noise.PREDICTIONS``.
        beside: ``n d h w``, further channels of the input that are not scaled, such as hints; or None.
        conditions: handed on to the network.

    Returns:
        clean: ``n c h w``.
    """
    s = broadcast(sigma, x)
    scaled = x / (s**2 + 1).sqrt()
    scaled = scaled if beside is None else torch.cat([scaled, beside.to(scaled)], dim=1)
    output = network(scaled, schedule.timestep(sigma), **conditions)
    return PREDICTIONS[prediction].clean(x, output, s)


def fold(pictures: Tensor, patch: int) -> Tensor:
    """Pixels to the latents of a pixel-space model.

    Args:
        pictures: ``f h w c`` in 0..1 (ComfyUI's IMAGE).
        patch: side of a patch in pixels.

    Returns:
        latents: ``f l p q`` in -1..1, where ``l`` is channels times patch area.

    Raises:
        ValueError: the picture's sides are no multiples of the patch.
    """
    if pictures.shape[1] % patch or pictures.shape[2] % patch:
        raise ValueError(
            f"pictures are {pictures.shape[2]}x{pictures.shape[1]}: this model needs sides that are multiples of {patch}"
        )
    return rearrange(pictures * 2 - 1, "f (h p) (w q) c -> f (c p q) h w", p=patch, q=patch)


def unfold(latents: Tensor, patch: int) -> Tensor:
    """The way back: ``latents``: ``f l p q``. Returns ``f h w c`` in 0..1."""
    return (rearrange(latents, "f (c p q) h w -> f (h p) (w q) c", p=patch, q=patch) / 2 + 0.5).clamp(0, 1)


class NoVae:
    """What stands for the VAE of a model that comes without one: whoever uses it is told which to take.

    Args:
        name: of the model.
    """

    def __init__(self, name: str):
        self.name = name

    def encode(self, pixels: Tensor) -> NoReturn:  # noqa: ARG002  a VAE's
        """Refuse ``pixels``: ``f h w c``."""
        raise ValueError(self._sentence())

    def decode(self, latents: Tensor) -> NoReturn:  # noqa: ARG002  a VAE's
        """Refuse ``latents``: ``f l p q``."""
        raise ValueError(self._sentence())

    def _sentence(self) -> str:
        return f"{self.name} has no VAE here: connect that of Stable Diffusion 1.5 (Load VAE, or Load Checkpoint) instead"


def with_training(info: VideoModelInfo, **facts: Any) -> VideoModelInfo:
    """The same description with more said of the training."""
    return replace(info, trained={**info.trained, **facts})


def taking_hints(info: VideoModelInfo) -> VideoModelInfo:
    """The description of the same architecture with a mask and keyframes beside the noisy frames."""
    return replace(info, unet=replace(info.unet, in_channels=2 * info.latent_channels + 1), hints=True)


def with_hints(video: VideoModel) -> VideoModel:
    """The same model with room for a mask and keyframes beside the noisy frames; until it is trained on, they change nothing.

    Raises:
        ValueError: it has that already.
    """
    if video.info.hints:
        raise ValueError("this video model takes hints already: train on from it as it is")
    channels = video.info.latent_channels
    first = video.unet["input_blocks.0.0.weight"]
    wide = torch.cat([first, first.new_zeros(len(first), channels + 1, *first.shape[2:])], dim=1)
    return VideoModel(taking_hints(video.info), {**video.unet, "input_blocks.0.0.weight": wide}, video.temporal)


def slot_subset(info_unet: UNetConfig, leave_out: Sequence[str] = ()) -> tuple[str, ...]:
    """The names of all slots of an architecture but those left out."""
    with torch.device("meta"):
        names = widths(UNet(info_unet))
    return tuple(name for name in names if name not in leave_out)
