"""What a video model file says about itself, as JSON under ``longtake`` in its metadata."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..nets.autoencoder import AutoencoderConfig
from ..nets.unet_config import LATER as UNET_LATER
from ..nets.unet_config import UNetConfig
from ..noise.levels import NOISE_SCHEDULES, PREDICTIONS
from ..temporal.config import LATER, TemporalConfig
from ..temporal.kinds import class_of
from .schema import json_object, made, shown

# 1 knows nothing of what is LATER in the configurations of the U-Net and the temporal modules, 2 nothing of what is here
NEWEST: dict[int, dict[str, Any]] = {
    3: {"hints": False, "latent_scale": 1.0},
    4: {"autoencoder": None},
    5: {"context_noise": 0.2},
}
VERSION = max(NEWEST)
VAE_SIDE = 8  # pixels of a latent of image models


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
    autoencoder: AutoencoderConfig | None = (
        None  # what makes latents of pictures, in the same file; its latents are scaled already
    )
    context_noise: float = 0.2  # sigma that finished frames are shown with, where the user says nothing else

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
        if not 0 <= self.context_noise < math.inf:
            raise ValueError(f"context_noise is {self.context_noise}: it must be a number of at least 0")
        if self.autoencoder is not None and (self.patch or self.autoencoder.latent != self.latent_channels):
            raise ValueError(
                f"the autoencoder makes latents of {self.autoencoder.latent} channels and the model takes {self.latent_channels} in"
                f" patches of {self.patch}: they must agree, and patch be 0"
            )
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

    @property
    def side(self) -> int:
        """Pixels to a side for each number of a latent's side."""
        return self.patch or (self.autoencoder.ratio if self.autoencoder else VAE_SIDE)

    def json(self) -> str:
        """The description as text. A later version is written only where it takes one to read it."""
        unet, temporal = self.unet.facts(), self.temporal.facts()
        version = 2 if LATER.keys() & temporal.keys() or UNET_LATER.keys() & unet.keys() else 1
        facts = {**asdict(self), "unet": unet, "temporal": temporal}
        for later, fields in NEWEST.items():
            for name, usual in fields.items():
                if facts[name] == usual:
                    facts.pop(name)
                else:
                    version = later
        return json.dumps({"version": version, **facts}, sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> "VideoModelInfo":
        """Read what ``json`` wrote.

        Raises:
            ValueError: the text is of a later version of this pack, or broken.
        """
        values = json_object(text, "the description of the video model")
        version = values.pop("version", None)
        if type(version) is not int or version < 1:
            raise ValueError(
                f"the description of the video model is broken: its version is {shown(version)}; download the file again"
            )
        if version > VERSION:
            raise ValueError(f"written by a later version of this pack (format {version}, this one reads {VERSION}): update it")
        return made(cls, values, "the description of the video model")

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
