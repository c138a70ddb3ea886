"""A take that is written to disk while ComfyUI samples it: what tells it from others, and the model's place in memory."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import comfy.sampler_helpers
import comfy.samplers
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....modules.disk.decoding import Decoder
from ....modules.disk.fingerprint import fingerprint
from ....modules.disk.recorder import Recorder
from ....modules.disk.recording import Recording
from ....modules.sampling.job import Algorithm, Job
from .guiding import Guider

DRAWN = ("uuid", "model_conds")  # of a condition: its name in this run, and what ComfyUI makes of it


def recorder(recording: Recording, algorithm: Algorithm, job: Job, guider: Any, shape: torch.Size) -> Recorder:
    """What makes a take and writes it, in the middle of a sampling.

    Args:
        recording: where finished frames go.
        algorithm: the sampler.
        job: what it is given.
        guider: ComfyUI's.
        shape: of the latent.
    """
    again = partial(reloaded, guider, shape)
    pieces = None if recording.pieces is None else partial(_staying_pieces, recording.pieces, again)
    staying = replace(recording, decode=_staying(recording.decode, again), pieces=pieces)
    return Recorder(staying, algorithm, job, partial(told_by, guider))


@contextmanager
def reloaded(guider: Any, shape: torch.Size) -> Iterator[None]:
    """Around a VAE that may take the memory that the model is in: afterwards it is there again."""
    models = [guider.model_patcher, *guider.loaded_models]
    sizes = [model.loaded_size() for model in models]
    yield
    if any(model.loaded_size() < size for model, size in zip(models, sizes, strict=True)):
        comfy.sampler_helpers.prepare_sampling(guider.model_patcher, shape, guider.conds, guider.model_options)


Again = Callable[[], AbstractContextManager[None]]


def _staying(decode: Callable[[Tensor], Tensor], again: Again) -> Callable[[Tensor], Tensor]:
    def decoded(latents: Tensor) -> Tensor:
        with again():
            return decode(latents)

    return decoded


def _staying_pieces(pieces: Callable[[], Decoder], again: Again) -> Decoder:
    return Staying(pieces(), again)


@dataclass(frozen=True)
class Staying:
    """A ``Decoder`` with something around each of its calls.

    Attributes:
        decoder: it.
        again: gives what is around.
    """

    decoder: Decoder
    again: Again

    @property
    def carries(self) -> bool:
        """As the decoder."""
        return self.decoder.carries

    def __call__(self, latents: Tensor, *, last: bool = False) -> Tensor:
        """As the decoder: ``latents``: ``1 c f h w``. Returns ``n h w 3``."""
        with self.again():
            return self.decoder(latents, last=last)

    def pictures(self, frames: int, *, last: bool = False) -> int:
        """As the decoder."""
        return self.decoder.pictures(frames, last=last)

    def tensors(self) -> dict[str, Tensor]:
        """As the decoder."""
        return self.decoder.tensors()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """As the decoder."""
        self.decoder.restore(tensors)


def told_by(guider: Any) -> dict[str, Any]:
    """What frames hang on of a GUIDER: its model, conditions and numbers, by name and in short."""
    plain = type(guider) in (Guider, comfy.samplers.CFGGuider)
    unread = ("negative",) if plain and math.isclose(guider.cfg, 1.0) else ()
    told: dict[str, Any] = {name: value for name, value in vars(guider).items() if isinstance(value, int | float | str)}
    told |= {
        name: identity([{key: value for key, value in item.items() if key not in DRAWN} for item in conditions])
        for name, conditions in guider.original_conds.items()
        if name not in unread
    }
    return told | {"guider": type(guider).__name__, "model": identity(guider.model_patcher)}


def identity(value: Any) -> str:
    """What tells a MODEL, a VAE, conditions and anything else from others: a short text, the same in another process."""
    return fingerprint(value, _parts)


def _parts(value: Any) -> Any:
    if isinstance(value, ModelPatcher):
        return parts_of_model(value)
    if isinstance(value, comfy.sd.VAE):
        return {"kind": type(value.first_stage_model).__name__, "weights": value.first_stage_model.state_dict()}
    if isinstance(value, comfy.sd.CLIP):
        return {"model": value.patcher, "layer": value.layer_idx}
    return value


def parts_of_model(model: ModelPatcher) -> Mapping[str, Any]:
    """A model as nodes have made it, wherever it is loaded and whatever is patched into it now."""
    network = model.model
    weights = {
        name: model.backup[name].weight if name in model.backup else value
        for name, value in network.state_dict().items()
        if not name.startswith(("model_sampling.", *(f"{item}." for item in model.object_patches)))
    }
    sampling = model.get_model_object("model_sampling") if hasattr(network, "model_sampling") else None
    return {
        "kind": type(network).__name__,
        "weights": weights,
        "sampling": None if sampling is None else (type(sampling).__mro__[1:], sampling),
        "patches": model.patches,
        "objects": model.object_patches,
        "wrapped weights": model.weight_wrapper_patches,
        "options": model.model_options,
        "attachments": model.attachments,
        "additional models": model.additional_models,
        "injections": model.injections,
        "wrappers": model.wrappers,
        "callbacks": model.callbacks,
        "hooks": model.hook_patches,
    }
