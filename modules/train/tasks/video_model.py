"""A native video model, from random weights or from a file: the same in the graph and from a terminal."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...checkpoints.autoencoder import AutoencoderVae
from ...checkpoints.video_info import VAE_SIDE
from ...checkpoints.video_model import VideoModel, VideoModelInfo, clean_prediction, load_video_model, unfold
from ...data.cache import weights_key
from ...data.clips import ClipDataset
from ...nets.autoencoder import Autoencoder
from ...noise.levels import NoiseSchedule
from ...sampling.model_view import Denoise, View
from ..base import Encoder
from ..native_methods import METHODS
from ..native_models import Architecture
from ..native_task import NativeChoices, NativeTask
from ..options import Options
from ..samples import sample_clip
from ..settings import RunSettings
from ..sources import FromClips, FromShapes, Otherwise
from ..trainable import OWN, State, Trainable, Weights, known_of
from .row import Row

Pixels = Callable[[Tensor], Tensor]  # latents ``f c h w`` to pictures ``f h w c`` in 0..1

# what the bundled model was trained with
DEFAULTS = Options(
    batch=8, micro_batch=0, warmup=200, gradient_checkpointing=False, watch_every=0, precision="float32", sample_cfg=1.0
)
STEPS, LEARNING_RATE = 5000, 2e-3


@dataclass(frozen=True)
class PictureSide:
    """A VAE, for models that work on its latents.

    Attributes:
        encoder: pixels to latents.
        decode: latents ``f c h w`` to pictures ``f h w c`` in 0..1.
        own: this pack's own autoencoder, which goes into the model's file; None for another's.
    """

    encoder: Encoder
    decode: Callable[[Tensor], Tensor]
    own: Autoencoder | None = None

    @classmethod
    def of(cls, vae: AutoencoderVae) -> "PictureSide":
        """This pack's own autoencoder."""
        network = vae.first_stage_model
        return cls(
            Encoder(lambda pixels: vae.encode((pixels.movedim(1, -1) + 1) / 2), weights_key(network.state_dict())),
            vae.decode,
            network,
        )

    def model_of(self, dataset: ClipDataset, architecture: Architecture, known: Sequence[str]) -> VideoModelInfo:
        """The model of a data set's latents; ``known`` are words of the model that it is trained on from.

        Raises:
            ValueError: its latents are not of an image model's size.
        """
        if self.own is None:
            return architecture.for_clips(dataset, *self.measured(dataset), known)
        return replace(architecture.for_clips(dataset, self.own.config.latent, known=known), autoencoder=self.own.config)

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


def video_model(
    task: NativeTask, pixels: Pixels, device: torch.device | str = "cpu", autoencoder: Mapping[str, Tensor] | None = None
) -> Trainable:
    """Train a native model whole.

    Args:
        task: what is trained.
        pixels: what makes pictures of its latents, for samples.
        device: where samples are made.
        autoencoder: weights of the model's own one, which its file holds too; None where it has none.
    """

    def write(weights: Weights, _format: str, about: Mapping[str, Any]) -> State:
        video = replace(task.model(weights, about.get("steps", task.settings.steps)), autoencoder=autoencoder or {})
        return video.state(), video.metadata()

    def sampled(weights: Weights) -> Tensor:
        latents = sample_of(task, task.model(weights, 0), device)
        with torch.no_grad():
            return pixels(latents)

    watched = task.motion if task.options.watch_every else None
    return Trainable("video_model", task, task.settings, write, (OWN,), watched=watched, sampled=sampled, data=task.source.report)


def sample_of(task: NativeTask, video: VideoModel, device: torch.device | str) -> Tensor:
    """A clip of a model by the schedule of its method, always from the same noise. Returns ``f c h w``, on the CPU."""
    info, options = video.info, task.options
    hints = task.hints().to(device) if info.hints else None
    denoise = denoiser(video, options.sample_prompt, options.sample_cfg, device, hints)
    count = info.frames if hints is None else len(hints)
    like = torch.zeros(count, info.latent_channels, info.size[0] // info.side, info.size[1] // info.side, device=device)
    schedule = METHODS[task.choices.method].samples
    noise = NoiseSchedule.named(info.noise_schedule)
    return sample_clip(denoise, like, noise, schedule=schedule, steps=options.sample_steps).cpu()


def denoiser(
    video: VideoModel, prompt: str | Sequence[str], cfg: float, device: torch.device | str, hints: Tensor | None = None
) -> Denoise:
    """A native model as samplers call it.

    Args:
        video: the model.
        prompt: words of its labels, of all frames or of each; empty for anything.
        cfg: guidance scale; 1 for none.
        device: where to run it.
        hints: ``f d h w``, what a model that fills in between keyframes is told of them.

    Raises:
        ValueError: the prompt has words that the model does not know.
    """
    info, noise = video.info, NoiseSchedule.named(video.info.noise_schedule)
    each = not isinstance(prompt, str)
    words = list(prompt) if each else [prompt]
    y = torch.stack([info.label_vector(text) for text in words]).to(device) if info.labels else None
    unet, motion = video.build()
    unet.to(device), motion.to(device)

    def clean(view: View, labels: Tensor | None) -> Tensor:
        told = None if hints is None else hints.to(view.x)[view.ids]
        y = None if labels is None else labels[view.ids] if each else labels.expand(len(view.x), -1)
        return clean_prediction(unet, view.x, view.sigma, noise, info.prediction, told, y=y)

    def denoise(view: View) -> Tensor:
        with motion.during(motion.frames_for(view.ids)):
            asked = clean(view, y)
            if cfg == 1 or y is None or not bool(y.any()):
                return asked
            blank = clean(view, torch.zeros_like(y))
            return blank + cfg * (asked - blank)

    return denoise


def make(
    options: Options,
    settings: RunSettings,
    folder: Path,
    architecture: Architecture,
    choices: NativeChoices,
    *,
    dataset: ClipDataset | None = None,
    vae: PictureSide | None = None,
    device: torch.device | str = "cpu",
) -> Trainable:
    """Put a native model together, ready to be trained.

    Args:
        options: how.
        settings: of the run.
        folder: of caches.
        architecture: the model.
        choices: what is asked of it.
        dataset: clips; None for the procedural shapes.
        vae: for a model of its latents; None for one of pixels.
        device: where to train.

    Raises:
        ValueError: something that was chosen cannot be, alone or together.
    """
    known = load_video_model(Path(choices.start)).info.labels if choices.start else ()
    if dataset is None:
        if vae is not None:
            raise ValueError(
                "a VAE is given and there are no clips: connect clips too, or leave out the VAE; the shapes are trained on pixels"
            )
        info, pixels = architecture.for_shapes(), None
        source = FromShapes(info, settings.batch, settings.seed, choices.images, choices.wrong_outlines)
    elif vae is None:
        info, pixels = architecture.for_clips(dataset, known=known), None
        made_by = lambda clips: FromClips(clips, info, settings.batch, choices.images, options=options)  # noqa: E731
        source = of_clips(dataset, choices, settings, made_by)
    else:
        info, decode = vae.model_of(dataset, architecture, known), vae.decode
        cache = folder / "cache" if dataset.settings.variants else None
        how = {"encode": vae.encoder.encode, "cache": cache, "encoder": vae.encoder.key, "options": options}
        pixels = lambda latents: decode(latents / info.latent_scale)  # noqa: E731
        source = of_clips(dataset, choices, settings, lambda clips: FromClips(clips, info, settings.batch, choices.images, **how))
    info.label_vector(options.sample_prompt)  # refuses words that the model does not know
    task = NativeTask(info, choices, options, settings, source, device)
    own = None if vae is None or vae.own is None else {key: value.cpu() for key, value in vae.own.state_dict().items()}
    made = video_model(task, pixels or unfolded(info), device, own)
    return made if dataset is None else replace(made, known=known_of(dataset))


def of_clips(
    dataset: ClipDataset, choices: NativeChoices, settings: RunSettings, source: Callable[[ClipDataset], FromClips]
) -> FromClips | Otherwise:
    """Where clips come from; some of them are shown with something else in them, if that is asked for.

    Raises:
        ValueError: it is, and nobody knows what else could be in these clips.
    """
    if not choices.wrong_outlines:
        return source(dataset)
    others = dataset.otherwise()
    if others is None:
        raise ValueError(
            f"wrong_outlines is {choices.wrong_outlines:g} with clips of yours, and only of procedural shapes and postcards it is known"
            " what else could be in them: set it to 0"
        )
    return Otherwise(source(dataset), source(others), choices.wrong_outlines, settings.seed)


def unfolded(info: VideoModelInfo) -> Pixels:
    """What makes pictures of the latents of a pixel-space model."""
    return lambda latents: unfold(latents, info.patch)


ROW = Row("video_models", make, sigma_reparam=True)
