"""One training step's loss, whatever the network: noise a batch of clips, let the network undo it, weigh what it got wrong.

The network is a function from noisy frames to clean ones in the coordinates ``x = clean + sigma * noise``, so a LongTake video model
and any ComfyUI model train alike; the error is taken of what the network itself predicts (``eps``, ``v`` or ``x0``).

What is drawn for a clip depends on the seed, the step and the clip's place in the batch, so a batch may be cut up and spread.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..noise.levels import NoiseSchedule
from ..noise.seeded import broadcast, frame_seed
from .levels import LEVELS
from .losses import LossSettings, clip_losses, converted, start_frames
from .own_guesses import from_guesses
from .weights import WeightSettings, loss_weights


@dataclass(frozen=True)
class Batch:
    """Clips of a step, or some of them.

    Attributes:
        clips: ``n f c h w``, clean latents.
        images: how many of the last frames are single pictures that belong to no clip.
        context: ``n k d``, or ``n f k d`` for one per frame: text tokens; None for none.
        labels: ``n l``, or ``n f l``: label vectors; None for none.
        extra: tensors by name for tasks of their own, ``n ...`` each, such as keyframes. ``shown``: what noise is put on instead of
            the clips, which are still what is asked for; ``area``: how much each number of a clip counts, 1 on average.
    """

    clips: Tensor
    images: int = 0
    context: Tensor | None = None
    labels: Tensor | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> "Batch":
        """The same on another device."""
        move = lambda value: None if value is None else value.to(device)  # noqa: E731
        return Batch(
            self.clips.to(device),
            self.images,
            move(self.context),
            move(self.labels),
            {key: value.to(device) for key, value in self.extra.items()},
        )


Network = Callable[[Tensor, Tensor, Batch], Tensor]  # (noisy ``n f c h w``, sigma ``n f``, batch) -> clean ``n f c h w``
Source = Callable[[int, range], Batch]  # (step, places) -> the clips at those places of the step's batch
Added = Callable[
    [Tensor, Batch], list[Tensor]
]  # (sigma ``n f``, batch) -> ``(n f) c h w`` for each skip of a U-Net, then its middle


@dataclass(frozen=True)
class Objective:
    """What is asked of the network.

    Attributes:
        prediction: what its own output means, a name in ``noise.PREDICTIONS``.
        levels: how noisy each frame is, a name in ``levels.LEVELS``.
        weight: how much errors count by noise level.
        loss: what the error of a clip costs.
        noise_offset: standard deviation of noise that is the same at every pixel of a channel, so that brightness is learned, too.
        dropout: share of clips that are shown without their conditions.
        own_guesses: share of clips whose noisy frames are made of the network's own guesses, as those of a rollout are.
    """

    prediction: str = "eps"
    levels: str = "shared"
    weight: WeightSettings = field(default_factory=lambda: WeightSettings("uniform"))
    loss: LossSettings = field(default_factory=LossSettings)
    noise_offset: float = 0.0
    dropout: float = 0.1
    own_guesses: float = 0.0

    def __post_init__(self) -> None:
        if self.levels not in LEVELS:
            raise ValueError(f"levels is {self.levels!r}: choose one of {', '.join(LEVELS)}")
        for name in ("noise_offset", "dropout", "own_guesses"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must lie between 0 and 1")

    def facts(self) -> dict[str, Any]:
        """As JSON wants it."""
        return asdict(self)


def losses(
    network: Network,
    batch: Batch,
    objective: Objective,
    schedule: NoiseSchedule,
    *,
    seed: int,
    step: int,
    places: range,
    total: int,
) -> Tensor:
    """The loss of each clip.

    Args:
        network: what is trained, or what it is part of.
        batch: the clips at ``places``.
        objective: what is asked.
        schedule: noise of the network's timesteps.
        seed: of the run.
        step: counted from 0.
        places: of these clips in the batch.
        total: clips in the whole batch.

    Returns:
        loss: ``n``.
    """
    clips = batch.clips
    n, f = clips.shape[:2]
    g = torch.Generator().manual_seed(frame_seed(seed, step, "batch"))
    chosen = slice(places.start, places.stop)
    levels = LEVELS[objective.levels](total, f - batch.images, len(schedule.sigmas), g)[chosen]
    alone = torch.randint(0, len(schedule.sigmas), (total, batch.images), generator=g)[chosen]
    start = start_frames(total, f - batch.images, g)[chosen]
    kept = (torch.rand(total, generator=g) >= objective.dropout)[chosen]
    timesteps = torch.cat([levels, alone], dim=1)
    sigma = schedule.sigmas[timesteps].to(clips.device)
    noise = clip_noise(clips, objective.noise_offset, seed, step, places)
    wide = broadcast(sigma.flatten(), clips.flatten(0, 1)).unflatten(0, (n, f))
    told = without_conditions(batch, kept.to(clips.device))
    # without its conditions a clip is shown as it is: nothing else says what is meant
    shown = torch.where(kept.to(clips.device)[:, None, None, None, None], batch.extra.get("shown", clips), clips)
    noisy = shown + wide * noise
    if objective.own_guesses:
        noisy = from_guesses(
            lambda x, sigma, conditioned: network(x, sigma, without_conditions(told, conditioned)),
            *(noisy, shown, timesteps, schedule),
            share=objective.own_guesses,
            seed=seed,
            step=step,
            places=places,
        )
    clean = network(noisy, sigma, told)
    spread = objective.loss.space or objective.prediction
    error = converted(clean - clips, sigma, given="x0", wanted=spread)
    if "area" in batch.extra:
        error = error * batch.extra["area"].sqrt()
    of_clip = loss_weights(sigma[:, : f - batch.images], spread, objective.weight)
    of_pictures = loss_weights(sigma[:, f - batch.images :].reshape(-1, 1), spread, objective.weight)  # which have no neighbours
    weight = torch.cat([of_clip, of_pictures.view(n, batch.images)], dim=1).to(error)
    return clip_losses(error, weight, start.to(clips.device), objective.loss, batch.images)


def clip_noise(clips: Tensor, offset: float, seed: int, step: int, places: range) -> Tensor:
    """The noise of each clip, drawn on the CPU.

    Args:
        clips: ``n f c h w``.
        offset: see ``Objective``.
        seed: of the run.
        step: counted from 0.
        places: of the clips in the batch.

    Returns:
        noise: ``n f c h w``.
    """
    drawn = []
    for place in places:
        g = torch.Generator().manual_seed(frame_seed(seed, place, f"noise {step}"))
        noise = torch.randn(clips.shape[1:], generator=g)
        drawn.append(noise + offset * torch.randn(*clips.shape[1:3], 1, 1, generator=g) if offset else noise)
    return torch.stack(drawn).to(clips)


def without_conditions(batch: Batch, kept: Tensor) -> Batch:
    """The batch with the conditions of some clips at zero: ``kept``: ``n``, bool. A task may know a better "nothing" than zero."""
    if bool(kept.all()):
        return batch
    drop = lambda value: None if value is None else value * kept.reshape(-1, *(1,) * (value.ndim - 1)).to(value)  # noqa: E731

    def without(value: Tensor | None, empty: Tensor | None) -> Tensor | None:
        if value is None or empty is None:
            return drop(value)
        return torch.where(kept.reshape(-1, *(1,) * (value.ndim - 1)), value, empty)

    # what an empty prompt is: its tokens, ``n k d``, and its label vector, ``n l``
    context, labels = batch.extra.get("no_context"), batch.extra.get("no_labels")
    return replace(batch, context=without(batch.context, context), labels=without(batch.labels, labels))
