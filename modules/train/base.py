"""A model that something is trained in, as a host hands it over: frozen, called with noisy clips, and gradients go through it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ..checkpoints.video_model import VideoModelInfo
from ..noise.levels import NoiseSchedule
from ..temporal.motion import MotionModel
from .denoising import Added, Network


class WithMotion(Protocol):
    """Puts motion models into the slots of the base and gives the network that they make together."""

    def __call__(self, motions: Sequence[MotionModel], *, clip_norms: bool = False, added: Added | None = None) -> Network:
        """``motions`` may be none, so that each frame is by itself; ``clip_norms``: the base's norms run over whole clips; ``added``: what
        a control adds to skips and middle.

        What was in the slots before, and low-rank changes of the base, are taken out first.
        """
        ...


@dataclass(frozen=True)
class Base:
    """The frozen model.

    Attributes:
        unet: of Stable Diffusion's family; its slots are filled by ``network``.
        network: see ``WithMotion``.
        schedule: noise of the model's timesteps while it is trained on.
        prediction: what the network itself predicts, a name in ``noise.PREDICTIONS``.
        device: where noisy clips and trained weights have to be.
        motions: copies of the model's own temporal networks, in float32, in their order.
        to_model: from a VAE's latents, ``n c h w``, to the numbers that the network works with.
        to_vae: the way back.
        facts: what a checkpoint must agree with; JSON-able.
        holders: what is told things for the length of a call, so that layers which are computed again find it as it was.
    """

    unet: Any
    network: WithMotion
    schedule: NoiseSchedule
    prediction: str
    device: torch.device
    motions: tuple[MotionModel, ...]
    to_model: Callable[[Tensor], Tensor]
    to_vae: Callable[[Tensor], Tensor]
    facts: Mapping[str, Any]
    holders: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Encoder:
    """Clips to latents, or captions to what a network takes of them.

    Attributes:
        encode: from pixels ``f c h w`` in -1..1 to latents ``f c h w``; or from a caption to ``context``, ``k d``, and ``labels``, ``l``,
            those of them that the network takes.
        key: tells it from any other, for a cache.
    """

    encode: Callable[[Any], Any]
    key: str


def only_in_slots(motion: MotionModel) -> bool:
    """Whether a motion model is nothing but modules in the slots of a U-Net, looking at what they were trained to look at."""
    further = (motion.camera, motion.input_layer, motion.picture_encoder, motion.reach)
    return not motion.inside and not motion.first_seen and all(item is None for item in further)


def refuse_hints(info: VideoModelInfo | None) -> None:
    """Refuse a video model that is told keyframes beside its noisy frames.

    Raises:
        ValueError: it is one.
    """
    if info is not None and info.hints:
        raise ValueError(
            "this video model fills in between keyframes, which clips here come without: train it with Train Video Model"
        )
