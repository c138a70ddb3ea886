"""What a call of the model says of itself in its transformer options: which frames it is about, and at which step."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...modules.noise.levels import steps_before

CLIP = "longtake_clip"  # in transformer options: a ``Clip``, what is sampled
IDS = "longtake_frame_ids"  # in transformer options: ``f``, absolute frame numbers of what a sampler shows; absent for all of the clip
SHOWN = "longtake_shown"  # in transformer options: ``f``, the same once windows are taken into account (``parts/telling.py``)
TIMES = "longtake_frame_times"  # in transformer options: ``f``, when the motion models are told each of them is; absent for their numbers
CLIPS = "longtake_clips"  # in transformer options: how many variants of the same frames a call holds, one after the other; absent for 1
NAMES = "longtake_names"  # in transformer options: the names of the variants; absent for their numbers
ALONE = "longtake_alone"  # in transformer options: whether something needs every variant in a call of its own
WHOLE = "longtake_whole"  # in transformer options: a ``windows.Whole``, the clip that a window of the whole model is cut out of
WINDOW = "longtake_window"  # name of the wrapper that says how many frames there are in a call
GRADIENT_CHECKPOINTING = (
    "longtake_gradient_checkpointing"  # in transformer options: layers keep their input only and compute again
)
CACHES = "longtake_caches"  # in transformer options: what a causal model has seen of the present take, a ``causal.Caches``
SAMPLING = "longtake_sampling"  # in transformer options: an ``call_info.Sampling``, what is known for the length of one sampling
OWN_UUIDS = (
    "longtake_uuids"  # in transformer options: what ComfyUI calls the conditions that got a name of their own for this call
)
CONTEXT_WINDOW = "context_window"  # ComfyUI's: the window that a call is about
SAME_LEVEL = 1e-4  # relative difference of sigmas that rounding may make


class Clip(NamedTuple):
    """What is sampled: latents of so many frames."""

    frames: int
    height: int
    width: int

    @classmethod
    def of(cls, latent: Tensor) -> "Clip":
        """That of a latent, ``f c h w`` or ``b c f h w``: ``latent``: ``...``."""
        return cls(latent.shape[2 if latent.ndim == 5 else 0], latent.shape[-2], latent.shape[-1])


def step_of(options: dict[str, Any], sigma: Tensor, sampling: Any = None) -> int:
    """Which step of the sampler's a call belongs to, by the noisiest frame's level: ``sigma``: ``n``.

    Between two levels, as second-order samplers ask there, it is still the step before. A sampler that takes over where another stopped
    (start_at_step of KSamplerAdvanced) goes on counting, if it is told the model's ``sampling``.
    """
    sigmas = options.get("sample_sigmas")
    if sigmas is None or len(sigmas) < 2:
        return 0
    begun = sigmas[:-1].to(sigma.device) >= sigma.max() * (1 - SAME_LEVEL)
    before = 0 if sampling is None else steps_before(sigmas, sampling.sigma_max, sampling.timestep)
    return before + max(0, int(begun.sum()) - 1)


def call_options(args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The transformer options among what follows ``x`` in a call of the model or of its U-Net: the fifth in both."""
    return kwargs["transformer_options"] if "transformer_options" in kwargs else args[4] if len(args) > 4 else {}


def with_options(
    args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The rest of a call, behind its timestep, with other transformer options."""
    if "transformer_options" in kwargs or len(args) < 4:
        return args, {**kwargs, "transformer_options": options}
    return (*args[:3], options, *args[4:]), kwargs


def known_frames(options: dict[str, Any], axis: int = 0) -> Tensor | None:
    """Which frames of the clip a call is about, where it says so: ``f``, int64, on the CPU; None where nothing is said.

    Args:
        options: transformer options.
        axis: where frames lie: 0, or 2 for models with a time axis of their own.
    """
    if SHOWN in options:
        return options[SHOWN]
    ids, window = options.get(IDS), options.get(CONTEXT_WINDOW)
    if window is None or getattr(window, "dim", None) != axis:
        return None if ids is None else ids.cpu()
    anchor = getattr(window, "causal_anchor_index", None)  # newer versions put a frame before the window
    index = torch.tensor([*([] if anchor is None or anchor < 0 else [anchor]), *window.index_list])
    return index if ids is None else ids.cpu()[index]


def frame_numbers(options: dict[str, Any], count: int, axis: int = 0) -> Tensor:
    """Which frames of the clip a call of ``count`` frames is about: ``f``, int64, on the CPU; see ``known_frames``."""
    ids = known_frames(options, axis)
    return torch.arange(count) if ids is None else ids
