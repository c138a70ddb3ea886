"""A native model's training put together from what a user chooses, the same in the graph and from a terminal."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..checkpoints.video_model import VideoModelInfo, unfold
from ..data.clips import ClipDataset
from ..data.shapes import LABELS
from .base import Encoder
from .native_task import NativeChoices, NativeTask
from .recipes import small_video_model
from .session import Manner, Place, Training
from .settings import RunSettings
from .sources import FromClips, FromShapes, caption_words

VAE_SIDE = 8  # pixels of a latent of image models

# what the bundled model was trained with
DEFAULTS = RunSettings(steps=5000, batch=8, learning_rate=2e-3, warmup=200)


@dataclass(frozen=True)
class Architecture:
    """The model.

    Attributes:
        temporal: what sits in its slots, a name in ``recipes.TEMPORAL``.
        width: channels of its first level.
        prediction: a name in ``noise.PREDICTIONS``.
        qk_norm: a name in ``normalise.QK_NORMS``, or empty.
        skip_scale: see ``UNetConfig``.
    """

    temporal: str = "transformer"
    width: int = 64
    prediction: str = "x0"
    qk_norm: str = ""
    skip_scale: float = 1.0

    def for_shapes(self) -> VideoModelInfo:
        """The model of the procedural shapes."""
        return small_video_model(
            self.width, self.temporal, labels=LABELS, prediction=self.prediction, qk_norm=self.qk_norm, skip_scale=self.skip_scale
        )

    def for_clips(self, dataset: ClipDataset, channels: int = 0, scale: float = 1.0) -> VideoModelInfo:
        """A model of a data set's clips, with the words of its captions.

        Args:
            dataset: the clips.
            channels: of a VAE's latents; 0 for a model that works on pixels.
            scale: what latents are multiplied with.
        """
        size = dataset.sizes[0]
        latents = {"patch": 0, "channels": channels} if channels else {}
        info = small_video_model(
            self.width,
            self.temporal,
            labels=caption_words(dataset.captions),
            frames=dataset.settings.frames,
            size=(size.height, size.width),
            prediction=self.prediction,
            qk_norm=self.qk_norm,
            skip_scale=self.skip_scale,
            **latents,
        )
        return replace(info, latent_scale=scale)


@dataclass(frozen=True)
class PictureSide:
    """A VAE, for models that work on its latents.

    Attributes:
        encoder: pixels to latents.
        decode: latents ``f c h w`` to pictures ``f h w c`` in 0..1.
    """

    encoder: Encoder
    decode: Callable[[Tensor], Tensor]

    def measured(self, dataset: ClipDataset) -> tuple[int, float]:
        """Channels of its latents, and what brings those of the first clip to a standard deviation of 1.

        Raises:
            ValueError: its latents are not of an image model's size.
        """
        pixels = dataset.clip(0).pixels
        latents = self.encoder.encode(pixels)
        ratio = pixels.shape[-1] / latents.shape[-1]
        if ratio != VAE_SIDE:
            raise ValueError(
                f"this VAE makes one latent of {ratio:g} pixels in a row, and {VAE_SIDE} are needed: connect the VAE of an image model, or"
                " none to train on pixels"
            )
        return latents.shape[1], round(1 / max(1e-3, float(latents.float().std())), 5)


def native_training(
    architecture: Architecture,
    choices: NativeChoices,
    settings: RunSettings,
    place: Place,
    manner: Manner,
    *,
    dataset: ClipDataset | None = None,
    vae: PictureSide | None = None,
    device: torch.device | str = "cpu",
) -> Training:
    """A training, ready to go on from where it was left.

    Args:
        architecture: of the model.
        choices: what is asked of it.
        settings: of the run.
        place: of its files.
        manner: how it is shown and kept.
        dataset: clips; None for the procedural shapes.
        vae: for a model of its latents; None for one of pixels.
        device: where to train.

    Raises:
        ValueError: something that was chosen cannot be, alone or together.
    """
    if dataset is None:
        if vae is not None:
            raise ValueError(
                "a VAE is given and there are no clips: connect clips too, or leave out the VAE; the shapes are trained on pixels"
            )
        info = architecture.for_shapes()
        source = FromShapes(info, settings.batch, settings.seed, choices.images, choices.wrong_outlines)
        return Training(NativeTask(info, choices, settings, source, device), place, manner, _unfolded(info), device)
    if choices.wrong_outlines:
        raise ValueError(
            "wrong_outlines is for the procedural shapes, whose outlines are known: set it to 0, or leave out the clips"
        )
    if vae is None:
        info = architecture.for_clips(dataset)
        source, pixels = FromClips(dataset, info, settings.batch, choices.images), _unfolded(info)
    else:
        info, decode = architecture.for_clips(dataset, *vae.measured(dataset)), vae.decode
        cache = place.folder / "latents" if dataset.settings.variants else None
        encoder = vae.encoder
        source = FromClips(dataset, info, settings.batch, choices.images, encode=encoder.encode, cache=cache, encoder=encoder.key)
        pixels = lambda latents: decode(latents / info.latent_scale)  # noqa: E731
    return Training(NativeTask(info, choices, settings, source, device), place, manner, pixels, device)


def _unfolded(info: VideoModelInfo) -> Callable[[Tensor], Tensor]:
    return lambda latents: unfold(latents, info.patch)
