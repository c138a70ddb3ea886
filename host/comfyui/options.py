"""What a call of the model says of itself in its transformer options: which frames it is about, and at which step."""

from typing import Any

import torch
from torch import Tensor

IDS = "longtake_frame_ids"  # in transformer_options: ``n``, absolute frame numbers of this call, repeated for each variant
TIMES = "longtake_frame_times"  # in transformer options: ``f``, when the motion models are told each of them is; absent for their numbers
CLIPS = "longtake_clips"  # in transformer options: how many variants of the same frames a call holds, one after the other; absent for 1
NAMES = "longtake_names"  # in transformer options: the names of the variants; absent for their numbers
SAME_LEVEL = 1e-4  # relative difference of sigmas that rounding may make
WHOLE = "longtake_whole"  # in transformer_options: a ``windows.Whole``, the clip that a window of the whole model is cut out of
WINDOW = "longtake_window"  # name of the wrapper that says how many frames there are in a call
RECOMPUTE = "longtake_recompute"  # in transformer_options: whether layers keep their input only and compute again for gradients
SAMPLING = "longtake_sampling"  # in transformer_options: what is known for the length of one sampling


def step_of(options: dict[str, Any], sigma: Tensor) -> int:
    """Which step of the sampler's a call belongs to, by the noisiest frame's level: ``sigma``: ``f``.

    Between two levels, as second-order samplers ask there, it is still the step before.
    """
    sigmas = options.get("sample_sigmas")
    if sigmas is None or len(sigmas) < 2:
        return 0
    begun = sigmas[:-1].to(sigma.device) >= sigma.max() * (1 - SAME_LEVEL)
    return max(0, int(begun.sum()) - 1)


def call_options(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The transformer options among what follows ``x`` in a call of the model or of its U-Net: the fifth in both."""
    return kwargs["transformer_options"] if "transformer_options" in kwargs else args[4] if len(args) > 4 else {}


def clips_of(options: dict[str, Any], clips: int) -> list[tuple[Any, ...]]:
    """Whose each clip of a call is: of which condition, and which of the ``clips`` variants; the same in every call of a sampling.

    ComfyUI may run conditions together or one by one, in any order. Each has a name of its own beside its being positive or negative.
    """
    kinds = options.get("cond_or_uncond") or [0]
    names = options.get("uuids") or []
    names = names if len(names) == len(kinds) else range(len(kinds))  # another pack may have changed only one of them
    variants = options.get(NAMES, range(clips))
    return [(kind, name, variant) for kind, name in zip(kinds, names, strict=True) for variant in variants]


def frame_numbers(options: dict[str, Any], count: int) -> Tensor:
    """Which frames of the clip a call of ``count`` frames is about: ``n``, int64, from its transformer options."""
    ids, window = options.get(IDS), options.get("context_window")
    if window is not None and getattr(window, "dim", None) == 0:  # ComfyUI's own context windows, over the batch axis
        anchor = getattr(window, "causal_anchor_index", None)  # newer versions put a frame before the window
        index = torch.tensor([*([] if anchor is None or anchor < 0 else [anchor]), *window.index_list])
        return index if ids is None else ids.cpu()[index]
    return torch.arange(count) if ids is None else ids
