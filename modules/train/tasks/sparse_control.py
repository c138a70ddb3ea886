"""Training a SparseCtrl encoder on a frozen model: clips are shown to it by a few of their frames (arXiv:2311.16933, Section 3.3).

How many frames, and then which, is drawn anew for each clip, so that one encoder learns to animate, to fill in and to go on. Any network on
a U-Net of Stable Diffusion's family will do, this pack's own or a host's::

    control = new_encoder(config, unet, motion, seed)
    network = base.network(base.motions, added=residuals_of(control, base.schedule))
    trainable = sparse_control(TaskContext(network, source, base.schedule, objective, settings, facts), control, RGB)
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoints.sparsectrl import MOST, RGB, SCRIBBLE, base_config, saved_state
from ...checkpoints.video_model import VideoModelInfo
from ...control.sparse_pictures import PREPARED
from ...control.sparsectrl import STEM, SparseConfig, SparseControl
from ...data.cache import EncodedClips
from ...nets.gradient_checkpointing import Forward, as_now, recomputed
from ...noise.levels import NoiseSchedule
from ...noise.seeded import frame_seed
from ...temporal.motion import MotionModel
from ...temporal.slots import BlockedUNet
from ..denoising import Added, Batch, Source
from ..in_base import Setup
from ..native import named_parameters, per_frame
from ..trainable import State, TaskContext, Trainable, Weights
from .row import Row

CONDITION = "condition"  # in a batch's ``extra``: ``n f d p q``, what the encoder is shown, the mask last
PICTURES = "pictures"  # in a source's ``extra``: ``n f c p q``, what is shown instead of the clips' own latents
CONTROL = "control"  # what names of parameters begin with
GREY = (0.299, 0.587, 0.114)  # shares of red, green and blue in what looks as bright (ITU-R BT.601)


def sparse_config(info: VideoModelInfo) -> SparseConfig:
    """The encoder for a native model: it takes latents, as the model does, and looks both ways, whatever the model does."""
    temporal = replace(info.temporal, kind="transformer", hidden=0, mask="full", mask_frames=0)
    return SparseConfig(info.unet, info.latent_channels, temporal=temporal)


def image_config(unet: BlockedUNet, pictures: str = RGB) -> SparseConfig:
    """The encoder for an image model that a motion module moves: the authors' own (arXiv:2311.16933, Section 3.2).

    Args:
        unet: of the model.
        pictures: what it is shown, a name in ``checkpoints.sparsectrl.PICTURES``.

    Raises:
        ValueError: the model is not built as SD1.5, which is all that such files are for.
    """
    config = base_config(unet)
    return config if pictures == RGB else replace(config, condition=3, stem=STEM)


def new_encoder(config: SparseConfig, unet: nn.Module, motion: MotionModel, seed: int) -> SparseControl:
    """An encoder as training starts with it: a copy of what it will guide that has no effect yet, in float32.

    Args:
        config: of the encoder.
        unet: of the model.
        motion: of the model.
        seed: of the weights that are not copied.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SparseControl(config).started(unet, motion)


def with_keyframes(source: Source, seed: int) -> Source:
    """The same clips, each with some of its frames shown at random: first how many, evenly from one to all, then which.

    Args:
        source: of clips, with ``PICTURES`` where something else than their latents is shown.
        seed: of the run.
    """

    def keyed(step: int, places: range) -> Batch:
        batch = source(step, places)
        return led_by(batch, drawn(batch.clips.shape[1], seed, step, places))

    return keyed


def led_by(batch: Batch, keyframes: Tensor) -> Batch:
    """A batch with what the encoder is shown of it: ``keyframes``: ``n f``, 1 for frames that it is shown, else 0."""
    extra = {name: value for name, value in batch.extra.items() if name != PICTURES}
    return replace(batch, extra={**extra, CONDITION: conditions(batch.extra.get(PICTURES, batch.clips), keyframes)})


def led_at(batch: Batch, frames: Sequence[int]) -> Batch:
    """A batch whose clips are shown by these frames, which may count from the end."""
    keyframes = torch.zeros(batch.clips.shape[:2])
    keyframes[:, list(frames)] = 1
    return led_by(batch, keyframes)


def drawn(frames: int, seed: int, step: int, places: range) -> Tensor:
    """Which frames are shown, for the clips at these places of a step's batch. Returns ``n frames``, 1 or 0."""
    rows = []
    for place in places:
        g = torch.Generator().manual_seed(frame_seed(seed, place, f"keyframes {step}"))
        count = 1 + int(torch.randint(0, frames, (), generator=g))
        row = torch.zeros(frames)
        row[torch.randperm(frames, generator=g)[:count]] = 1
        rows.append(row)
    return torch.stack(rows)


def conditions(clips: Tensor, keyframes: Tensor) -> Tensor:
    """What the encoder is shown: keyframes and a mask, zeros elsewhere.

    Args:
        clips: ``n f c h w``.
        keyframes: ``n f``, 1 or 0.

    Returns:
        condition: ``n f d h w``, the mask last.
    """
    mask = keyframes.to(clips)[:, :, None, None, None]
    return torch.cat([clips * mask, mask.expand(-1, -1, 1, *clips.shape[-2:])], dim=2)


def as_maps(pixels: Tensor) -> Tensor:
    """Pictures of depth or strokes, as they are kept: ``pixels``: ``f c h w`` in -1..1. Returns ``f 1 h w``, uint8."""
    return ((pixels.mean(dim=1, keepdim=True) + 1) * 127.5).round().byte()


def scribbles(pixels: Tensor) -> Tensor:
    """Outlines of pictures, bright on dark, for an encoder of scribbles: Sobel's gradient of how bright they are.

    Args:
        pixels: ``f c h w`` in -1..1.

    Returns:
        strokes: ``f 1 h w``, uint8.
    """
    grey = torch.einsum("fchw,c->fhw", pixels[:, :3], pixels.new_tensor(GREY))[:, None]
    slope = pixels.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    padded = nn.functional.pad(grey, (1, 1, 1, 1), mode="replicate")
    both = nn.functional.conv2d(padded, torch.stack([slope, slope.T])[:, None])
    return as_maps(PREPARED[SCRIBBLE](both.norm(dim=1, keepdim=True)) * 2 - 1)


def shown_maps(maps: Tensor, pictures: str) -> Tensor:
    """What an encoder is shown of maps: ``maps``: ``n f 1 h w``, uint8. Returns ``n f c h w`` in 0..1, of three channels."""
    grey = PREPARED[pictures](maps.flatten(0, 1).float() / 255)
    return grey.expand(-1, 3, -1, -1).unflatten(0, maps.shape[:2])


def residuals_of(control: SparseControl, schedule: NoiseSchedule, *, gradient_checkpointing: bool = False) -> Added:
    """What an encoder adds to the model that it leads, for a batch with ``CONDITION``.

    Args:
        control: the encoder.
        schedule: of the model.
        gradient_checkpointing: its layers compute again when gradients come back, instead of keeping what they computed.
    """
    if gradient_checkpointing:
        for layer in (*control.input_blocks[1:], control.middle_block, *map(control.motion.at, control.motion.names)):
            layer.__dict__["forward"] = _again(layer.forward, control)

    def residuals(sigma: Tensor, batch: Batch) -> list[Tensor]:
        count = sigma.shape[1]
        labels = batch.labels if control.config.label_channels else None
        return control(
            batch.extra[CONDITION].flatten(0, 1),
            schedule.timestep(sigma.flatten()),
            per_frame(batch.context, count, 3),
            per_frame(labels, count, 2),
            frames=control.motion.frames_for(torch.arange(count, device=sigma.device)),
        )

    return residuals


def _again(inner: Forward, control: SparseControl) -> Forward:
    return lambda *args, **kwargs: recomputed(inner, *args, again=as_now([control.motion]), **kwargs)


def sparse_control(context: TaskContext, control: SparseControl, pictures: str = RGB, frames: int = MOST) -> Trainable:
    """Train an encoder; the model that it leads stays as it is.

    Args:
        context: whose network adds ``residuals_of`` the encoder, and whose source has ``PICTURES`` where it is not shown latents.
        control: what is trained.
        pictures: what it is shown, a name in ``checkpoints.sparsectrl.PICTURES``.
        frames: the most that its file says it knows times for.
    """
    keyed = replace(context, source=with_keyframes(context.source, context.settings.seed))
    config = control.sparse
    task = keyed.task(
        named_parameters(**{CONTROL: control}), trains="sparse control", encoder=config.facts(), pictures=pictures, frames=frames
    )

    def write(weights: Weights, _format: str, _: Mapping[str, Any]) -> State:
        state = {name.removeprefix(f"{CONTROL}."): value for name, value in weights.items()}
        return saved_state(config, state, pictures, frames)

    return Trainable("sparse_control", task, context.settings, write, ("SparseCtrl",))


def make(setup: Setup, config: SparseConfig, pictures: str = RGB, shown: EncodedClips | None = None) -> Trainable:
    """A SparseCtrl encoder for a base.

    Args:
        setup: what is at hand; the base has motion models of its own.
        config: of the encoder.
        pictures: what the encoder is shown, a name in ``checkpoints.sparsectrl.PICTURES``.
        shown: maps of each clip, ``f 1 h w``, uint8; None for its latents.

    Raises:
        ValueError: nothing moves in the base.
    """
    base, settings = setup.base, setup.settings
    if not base.motions:
        raise ValueError("SparseCtrl leads a clip, and nothing moves in this model: connect it from behind Apply Motion Module")
    control = new_encoder(config, base.unet, base.motions[-1], settings.seed).to(base.device)
    added = residuals_of(control, base.schedule, gradient_checkpointing=setup.options.gradient_checkpointing)
    network = base.network(base.motions, added=added)
    context, first = setup.context(network, base.motions), setup.source(1)
    if shown is not None:
        context = replace(context, source=_with_maps(context.source, shown, settings.batch, pictures))
        first = _with_maps(first, shown, 1, pictures)
    frames = max(MOST, setup.clips.dataset.settings.frames)
    trainable = sparse_control(context, control, pictures, frames)
    return setup.finished(trainable, network, lambda: led_at(first(0, range(1)), (0, -1)))


def _with_maps(source: Source, maps: EncodedClips, batch: int, pictures: str) -> Source:
    """The same clips with what the encoder is shown of them."""

    def beside(step: int, places: range) -> Batch:
        some = source(step, places)
        return replace(some, extra={**some.extra, PICTURES: shown_maps(maps.batch(step, batch, places).latents, pictures)})

    return beside


ROW = Row("controlnets", make)
