"""A video model as one file: U-Net, temporal modules, and what they mean.

safetensors with the U-Net under ``model.diffusion_model.`` (as in any Stable Diffusion checkpoint), the temporal modules under
``temporal.``, the autoencoder of its latents, where it has one of its own, under ``autoencoder.``, and one JSON text, ``longtake``, in
the metadata: architecture, prediction type, noise schedule, labels, patch size, what it was trained on. The weights may be stored in half
precision; they are read as float32.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from einops import rearrange
from torch import Tensor, nn

from ..disk.tensor_file import save_tensors
from ..nets.autoencoder import Autoencoder
from ..nets.unet import UNet
from ..nets.unet_config import UNetConfig
from ..nets.unfilled import unfilled
from ..noise.levels import PREDICTIONS, NoiseSchedule
from ..noise.seeded import broadcast
from ..temporal.motion import MotionModel
from ..temporal.slots import fill, widths
from .autoencoder import AUTOENCODER, AutoencoderVae, built
from .files import kind, read_state
from .sound import check_weights
from .video_info import VideoModelInfo

UNET, TEMPORAL = "model.diffusion_model.", "temporal."


@dataclass(frozen=True)
class VideoModel:
    """A file's contents: the description, and the networks' state dicts (float32); the last is empty where there is no autoencoder."""

    info: VideoModelInfo
    unet: Mapping[str, Tensor]
    temporal: Mapping[str, Tensor]
    autoencoder: Mapping[str, Tensor] = field(default_factory=dict)

    def build(
        self, ops: Any = nn, attention: Callable[..., Tensor] = torch.nn.functional.scaled_dot_product_attention
    ) -> tuple[UNet, MotionModel]:
        """The two networks with these weights, the second in the first's slots, ready to run."""
        unet, motion = new_networks(self.info, ops, attention)
        unet.load_state_dict(self.unet)
        motion.load_state_dict(self.temporal)
        fill(unet, motion.slot_functions())
        return unet.eval().requires_grad_(False), motion.eval().requires_grad_(False)

    def state(self) -> dict[str, Tensor]:
        """The weights as a file has them."""
        parts = {UNET: self.unet, TEMPORAL: self.temporal, AUTOENCODER: self.autoencoder}
        return {prefix + key: value for prefix, part in parts.items() for key, value in part.items()}

    def metadata(self) -> dict[str, str]:
        """The description as a file has it."""
        return {"longtake": self.info.json()}

    def save(self, path: Path, dtype: torch.dtype | None = None) -> None:
        """Write the file under a temporary name, then rename it: there is never half a file under ``path``."""
        save_tensors(path, self.state(), self.metadata(), dtype)

    def vae(self, device: torch.device | str = "cpu") -> AutoencoderVae | None:
        """What makes pictures of its latents, there; None where the file has nothing of its own."""
        return AutoencoderVae(built(self.info.autoencoder, self.autoencoder).to(device)) if self.info.autoencoder else None


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
    state, metadata = read_state(path)
    if "longtake" not in metadata:
        what = kind(state, metadata)
        said = f"it is {what}" if what else f"its first keys are {', '.join(list(state)[:3]) or 'none'}"
        raise ValueError(f"{path.name} is no LongTake video model: {said}; use one that Train Video Model made")
    info = VideoModelInfo.parse(metadata["longtake"])
    with unfilled():
        networks: dict[str, nn.Module] = dict(zip((UNET, TEMPORAL), new_networks(info), strict=True))
        if info.autoencoder:
            networks[AUTOENCODER] = Autoencoder(info.autoencoder)
    wanted = {
        prefix: {key: tuple(value.shape) for key, value in network.state_dict().items()} for prefix, network in networks.items()
    }
    check_weights(state, {prefix + key: shape for prefix, part in wanted.items() for key, shape in part.items()}, path.name)
    return VideoModel(info, *({key: state[prefix + key].float() for key in part} for prefix, part in wanted.items()))


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
    return replace(video, info=taking_hints(video.info), unet={**video.unet, "input_blocks.0.0.weight": wide})


def slot_subset(info_unet: UNetConfig, leave_out: Sequence[str] = ()) -> tuple[str, ...]:
    """The names of all slots of an architecture but those left out."""
    with unfilled():
        names = widths(UNet(info_unet))
    return tuple(name for name in names if name not in leave_out)
