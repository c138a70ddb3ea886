"""An autoencoder of pictures, from random weights: what a video model works on instead of pixels."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...checkpoints.autoencoder import ABOUT, AUTOENCODER, about_autoencoder, built, load_autoencoder
from ...data.clips import ClipDataset
from ...data.postcard_clips import with_traveller
from ...data.postcards import drawn
from ...fields.setting import check, documented, setting
from ...nets.autoencoder import Autoencoder, AutoencoderConfig, new_autoencoder
from ...noise.seeded import frame_seed
from ..autoencoder import AutoencoderTask, Pictures
from ..options import Options
from ..settings import RunSettings
from ..trainable import OWN, State, Trainable, Weights
from .row import Row

# what the bundled one was trained with
DEFAULTS = Options(
    batch=16, micro_batch=0, warmup=100, gradient_checkpointing=False, watch_every=0, precision="float32", weight_decay=0.0
)
STEPS, LEARNING_RATE = 3000, 1.5e-3
MEASURED = 256  # pictures whose latents are scaled to spread by one
SHOWN = 16  # pictures of a sample
MARKED = 4.0  # what a pixel counts more that training should look at most
MOMENTS = 4096  # frames of a postcard that pictures are taken of


@documented
@dataclass(frozen=True)
class AutoencoderChoices:
    """The autoencoder's shape.

    Attributes:
        start: an autoencoder file whose weights the run starts from; empty for random weights.
        decoder_only: whether its encoder stays as it is, so that video models of its latents stay good.
        contrast: what it counts that edges are as strong as the true ones, beside the errors of pixels.
    """

    latent: int = setting(16, "A latent has so many channels, each an eighth of a picture's height and width.", least=1, most=256)
    width: int = setting(
        48, "The width is the number of channels at half a picture's size; deeper ones have more.", least=8, most=1024, step=8
    )

    start: str = ""
    decoder_only: bool = False
    contrast: float = 0.0

    def __post_init__(self) -> None:
        check(self)
        if self.decoder_only and not self.start:
            raise ValueError("decoder_only trains on with the encoder of a file, and none is given: name one as start")
        if not 0 <= self.contrast <= 100:
            raise ValueError(f"contrast is {self.contrast:g}: it must lie between 0 and 100; 1 is good")

    def config(self) -> AutoencoderConfig:
        """All of it."""
        return AutoencoderConfig(self.latent, (self.width, 2 * self.width, _eights(8 * self.width / 3)))


def _eights(width: float) -> int:
    """The nearest width that groups of 8 divide."""
    return max(8, 8 * round(width / 8))


def of_postcards(seed: int) -> Pictures:
    """Pictures of postcards, another one each, whose travellers count more than the land."""

    def pictures(step: int, places: range, batch: int) -> tuple[Tensor, Tensor]:
        cards = [drawn(seed, step * batch + place) for place in places]
        made = [with_traveller(card, frame_seed(card.seed, step, "moment") % MOMENTS) for card in cards]
        shown, marked = (torch.stack(each) for each in zip(*made, strict=True))
        return shown.movedim(-1, 1) * 2 - 1, 1 + MARKED * marked[:, None]

    return pictures


def of_clips(dataset: ClipDataset) -> Pictures:
    """Single frames of clips; where it is known what in them to look at most, that counts more."""

    def pictures(step: int, places: range, batch: int) -> tuple[Tensor, Tensor]:
        found = [dataset.pictures(step, batch, dataset.read, place=place, count=1)[0] for place in places]
        shown = torch.stack([clip.pixels[0] for clip in found])
        marked = [torch.zeros_like(clip.pixels[0, :1]) if clip.marked is None else clip.marked[0] for clip in found]
        return shown, 1 + MARKED * torch.stack(marked)

    return pictures


def measured(network: Autoencoder, pictures: Pictures) -> float:
    """What brings latents of some pictures to a standard deviation of 1."""
    with torch.no_grad():
        parts = [network.moments(pictures(0, range(start, start + 16), MEASURED)[0])[0] for start in range(0, MEASURED, 16)]
    return round(1 / max(1e-3, float(torch.cat(parts).std())), 5)


def autoencoder(task: AutoencoderTask, settings: RunSettings) -> Trainable:
    """Train an autoencoder whole.

    Args:
        task: what is trained, and on which pictures.
        settings: of the run.
    """

    def whole(weights: Weights) -> Weights:
        kept = {key: value.detach() for key, value in task.network.state_dict().items() if key not in weights}
        return {**kept, **weights}

    def write(weights: Weights, _format: str, about: Mapping[str, Any]) -> State:
        own, config = whole(weights), task.network.config
        if not task.decoder_only:
            config = replace(config, scale=measured(built(config, own), task.pictures))
        facts = {"steps_done": about.get("steps", settings.steps), **task.about}
        return {AUTOENCODER + key: value for key, value in own.items()}, {ABOUT: about_autoencoder(config, facts)}

    def sampled(weights: Weights) -> Tensor:
        true = task.pictures(1, range(SHOWN), SHOWN)[0].movedim(1, -1) / 2 + 0.5
        network = built(task.network.config, whole(weights))
        return torch.cat([true, network.decode(network.encode(true))], dim=2)

    return Trainable("autoencoder", task, settings, write, (OWN,), sampled=sampled)


def started(choices: AutoencoderChoices, seed: int) -> Autoencoder:
    """The network that a run begins with.

    Raises:
        ValueError: the file to start from is another's.
    """
    network = new_autoencoder(choices.config(), seed)
    if choices.start:
        before = load_autoencoder(Path(choices.start))
        if replace(before.config, scale=1.0) != network.config:
            raise ValueError(
                f"{choices.start} cannot start this run: it is of another shape, {before.config}; give its latent and width"
            )
        network.load_state_dict(before.state_dict())
        if choices.decoder_only:
            network.config = before.config  # whose latents they are, scale and all
    return network


def make(
    options: Options,  # noqa: ARG001  rows of one table share a signature
    settings: RunSettings,
    choices: AutoencoderChoices,
    *,
    dataset: ClipDataset | None = None,
    device: torch.device | str = "cpu",
) -> Trainable:
    """Put an autoencoder together, ready to be trained.

    Args:
        options: how.
        settings: of the run.
        choices: its shape.
        dataset: clips whose frames it learns; None for postcards.
        device: where to train.

    Raises:
        ValueError: the file to start from is another's.
    """
    pictures = of_postcards(settings.seed) if dataset is None else of_clips(dataset)
    about = {"clips": "postcards" if dataset is None else dataset.fingerprint()} | (
        {"start": choices.start} if choices.start else {}
    )
    network = started(choices, settings.seed).to(device)
    how = {"contrast": choices.contrast, "decoder_only": choices.decoder_only}
    task = AutoencoderTask(network, pictures, settings.batch, settings.seed, about, **how)
    return autoencoder(task, settings)


ROW = Row("autoencoders", make)
