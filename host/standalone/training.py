"""Training in a native model: the same as on ComfyUI, for networks that are there already."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...modules.checkpoints.autoencoder import AutoencoderVae
from ...modules.checkpoints.sparsectrl import SparseControlFile
from ...modules.data.cache import weights_key
from ...modules.nets.gradient_checkpointing import Forward, as_now, recomputed, shadowed
from ...modules.noise.levels import NOISE_SCHEDULES, NoiseSchedule
from ...modules.temporal.gradients import blocks_of
from ...modules.temporal.motion import MotionModel
from ...modules.temporal.slots import empty, widths
from ...modules.train.base import Base, Encoder, only_in_slots, refuse_hints
from ...modules.train.denoising import Added, Network
from ...modules.train.encoded import CONTEXT, NO_BLANK, by_labels
from ...modules.train.native import frozen, native_network
from .models import Model, Vae, device

MODELS = "model"


@contextmanager
def trainable(
    model: Model,
    noise_schedule: str = MODELS,
    *,
    precision: str = "float32",  # noqa: ARG001  the trainer's autocast sees to it
    gradient_checkpointing: bool = True,
    shape: Sequence[int] = (1, 4, 64, 64),  # noqa: ARG001  nothing is to be loaded
) -> Iterator[Base]:
    """While open, something can be trained in a MODEL; afterwards it is as it was, whatever happened. Arguments as on ComfyUI."""
    refuse_hints(model.info)
    if not all(map(only_in_slots, model.motions)):
        raise ValueError(
            "a motion model of this MODEL works on more than its slots: connect the MODEL from before it was applied"
        )
    info = model.info if noise_schedule == MODELS else replace(model.info, noise_schedule=noise_schedule)
    schedule = NoiseSchedule.named(noise_schedule) if noise_schedule in NOISE_SCHEDULES else model.schedule
    unet, own = model.unet, tuple(deepcopy(motion) for motion in model.motions)
    holders: list[Any] = []
    layers = ExitStack()

    def again(inner: Forward) -> Forward:
        return lambda *args, **kwargs: recomputed(inner, *args, again=as_now(holders), **kwargs)

    def network(motions: Sequence[MotionModel], *, clip_norms: bool = False, added: Added | None = None) -> Network:
        if clip_norms:
            raise ValueError(
                "this motion module changes the U-Net's norms too, as AnimateDiff's first generation did: train it in ComfyUI"
            )
        layers.close()
        holders[:] = motions
        made = native_network(info, unet, motions, added=added)
        layers.callback(empty, unet)
        if gradient_checkpointing:
            layers.enter_context(shadowed(blocks_of(unet), again))
        return made

    about = {"widths": widths(unet), "prediction": info.prediction, "weights": weights_key(unet.state_dict())}
    frozen(unet, *own)
    with torch.inference_mode(False), torch.enable_grad():
        try:
            yield Base(
                unet=unet,
                network=network,
                schedule=schedule,
                prediction=info.prediction,
                device=device(),
                motions=own,
                to_model=_as_it_is,
                to_vae=_as_it_is,
                facts={"base": about, "noise_schedule": noise_schedule},
                holders=holders,
            )
        finally:
            layers.close()


def _as_it_is(latents: Tensor) -> Tensor:
    return latents


def clip_encoder(vae: Any) -> Encoder:
    """A VAE as a trainer uses it.

    Raises:
        ValueError: what is given is no VAE.
    """
    if not isinstance(vae, Vae | AutoencoderVae):
        raise ValueError(f"{vae!r} was given for a VAE: connect that of Load Video Model")
    key = f"pixels {vae.patch}" if isinstance(vae, Vae) else weights_key(vae.first_stage_model.state_dict())
    return Encoder(lambda pixels: vae.encode((pixels.movedim(1, -1) + 1) / 2), key)


def text_encoder(model: Model, clip: Any = None, conditioning: Any = None, *, blank: bool = True) -> Encoder:
    """What a model takes of captions: its own words, or the same conditioning for all.

    Args:
        model: any.
        clip: none can be given here.
        conditioning: stands for every caption.
        blank: whether an empty caption is needed beside it, which nothing here can read.

    Raises:
        ValueError: the model takes text, which only ComfyUI can encode.
    """
    info = model.info
    if info.labels:
        return Encoder(by_labels(info), f"labels {' '.join(info.labels)}")
    if info.unet.context_dim is None and not info.unet.label_channels:
        return Encoder(lambda caption: {}, "nothing")
    if clip is not None or conditioning is None or len(conditioning) != 1 or info.unet.context_dim is None:
        raise ValueError(
            "this model takes text, which only ComfyUI can encode: connect one conditioning for all clips, or train in ComfyUI"
        )
    if blank:
        raise ValueError(NO_BLANK)
    tokens = conditioning[0][0][0]
    if tokens.shape[-1] != info.unet.context_dim:
        raise ValueError(
            f"the conditioning has {tokens.shape[-1]} numbers per token and the model takes {info.unet.context_dim}: use one of this model"
        )
    return Encoder(lambda caption: {CONTEXT: tokens}, f"conditioning {weights_key({CONTEXT: tokens})}")


def sparse_control(file: SparseControlFile) -> SparseControlFile:
    """A SparseCtrl file as it is, such as one that was just trained; what applies it refuses."""
    return file
