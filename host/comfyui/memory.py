"""The memory plan of a clip on a MODEL: what there is, what the motion modules' clip takes of it, and what ComfyUI is told of that."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher

from ...modules.temporal.frames import Frames
from ...modules.temporal.memory import MemoryPlan, choose, estimate
from ...modules.temporal.memory_moments import Call
from .attached import Attached, MotionSampling, attached_to, frames_in_call, unet_of, windows_of

PLAN = "longtake_memory"  # in transformer_options: the plan of the sampling under way
GUIDED = 2  # conditions per step where nothing is known of them: guidance has a positive and a negative one
BATCHED = 1.5  # ComfyUI batches conditions when their estimate times this is free
KEPT = 0.9  # share of the free memory to plan with; the rest goes to gaps between blocks and to the libraries' own workspaces

Conds = Mapping[str, Sequence[Mapping[str, Any]] | None]


def device() -> torch.device:
    """Where networks run."""
    return comfy.model_management.get_torch_device()


def plan_for(model: ModelPatcher, shape: Sequence[int], conds: Conds | None = None, variants: int = 1) -> MemoryPlan:
    """How many frames go through a layer at once when a clip is sampled on ``model``, and what that takes.

    Args:
        model: with motion modules.
        shape: of the latent, ``(frames, channels, height, width)``.
        conds: the guider's conditions by name, or None if they are not known yet.
        variants: of the same frames that a call holds.

    Raises:
        ValueError: the model is no U-Net of Stable Diffusion's family.
    """
    free = int(free_bytes(model) * KEPT)
    motions = attached_to(model)
    frames, channels, height, width = shape
    frames = frames_in_call(model.model_options.get("context_handler"), frames)
    call = Call(
        *(frames, height, width),
        conds=variants * _together(model, (variants * frames, channels, height, width), _count(conds), free),
        element=comfy.model_management.dtype_size(model.model.manual_cast_dtype or model.model.get_dtype()),
        channels=channels,
        context=_context(model, conds),
        windows=_widest(model, motions, frames),
        heads=motions[0].model.config.heads,
        controlled=any("control" in cond for cond in _all(conds)),
        clip_norms=any(item.about.clip_norms for item in motions),
        device=model.load_device.type,
    )
    if any(item.model.inside for item in motions):  # all frames go through each layer together
        return estimate(unet_of(model), (), call)
    return choose(unet_of(model), {name for item in motions for name in item.model.names}, call, free)


def memory_text(model: ModelPatcher, latent: Mapping[str, Any]) -> str:
    """What a clip takes of the memory, in plain words.

    Args:
        model: as it goes into the sampler.
        latent: ComfyUI's LATENT; ``samples`` is ``f c h w``.
    """
    if not attached_to(model):
        return "memory: the model has no motion module, so ComfyUI plans it"
    return f"memory: {plan_for(model, latent['samples'].shape).text()}"


def free_bytes(model: ModelPatcher) -> int:
    """What sampling finds free on the model's device: now, and what ComfyUI takes back from other models, less weights still to come."""
    device = model.load_device
    mine = [model, *model.get_nested_additional_models()]
    back = 0 if device.type == "cpu" else sum(item.model_loaded_memory() for item in _others(mine) if item.device == device)
    to_come = sum(max(0, patcher.model_size() - patcher.loaded_size()) for patcher in mine if patcher.offload_device != device)
    free = comfy.model_management.get_free_memory(device) + back - to_come - comfy.model_management.extra_reserved_memory()
    return max(0, int(free))


def prepare_sampling(
    executor: Callable[..., Any], model: ModelPatcher, noise_shape: Sequence[int], conds: Any, *args: Any, **kwargs: Any
) -> Any:
    """PREPARE_SAMPLING: let ComfyUI make room for what the plan takes, not for all frames at once, for which it would unload weights."""
    options = kwargs.get("model_options", args[0] if args else None) or {}
    plan: MemoryPlan | None = options.get("transformer_options", {}).get(PLAN)
    shape = noise_shape if plan is None else shape_for(model, noise_shape, plan.bytes)
    return executor(model, shape, conds, *args, **kwargs)


def shape_for(model: ModelPatcher, shape: Sequence[int], wanted: int) -> list[int]:
    """``shape`` with as many frames as ComfyUI reckons ``wanted`` bytes for, at least one and never more than there are.

    ComfyUI asks for twice the frames, a positive and a negative condition.
    """
    one = model.model.memory_required([GUIDED, *shape[1:]])
    return [max(1, min(shape[0], math.ceil(wanted / one))), *shape[1:]]


def _others(mine: Sequence[ModelPatcher]) -> list[Any]:
    """Loaded models that are not ``mine``; clones share their weights, so they count as mine."""
    weights = {id(patcher.model) for patcher in mine}
    loaded = comfy.model_management.current_loaded_models
    return [item for item in loaded if item.model is not None and id(item.model.model) not in weights]


def _all(conds: Conds | None) -> list[Mapping[str, Any]]:
    return [cond for several in (conds or {}).values() for cond in several or ()]


def _count(conds: Conds | None) -> int:
    return GUIDED if conds is None else max(1, len(_all(conds)))


def _together(model: ModelPatcher, shape: Sequence[int], count: int, free: int) -> int:
    """How many of ``count`` conditions ComfyUI will put into one call: its own rule, on what will be free."""
    for amount in (count // share for share in range(1, count + 1)):
        if model.model.memory_required([amount * shape[0], *shape[1:]]) * BATCHED < free:
            return amount
    return 1


def _context(model: ModelPatcher, conds: Conds | None) -> int:
    """Numbers of one frame's text; 77 tokens where it is not known yet."""
    texts = [cond["cross_attn"].shape[1:] for cond in _all(conds) if torch.is_tensor(cond.get("cross_attn"))]
    width = model.model.model_config.unet_config.get("context_dim")
    return max(map(math.prod, texts), default=77 * width if isinstance(width, int) else 0)


def _widest(model: ModelPatcher, motions: Sequence[Attached], count: int) -> Frames | None:
    """What the motion model sees whose windows hold the most, or None without windows."""
    mode, plan = windows_of(model) or ("whole", None)
    if plan is None or mode == "whole":
        return None
    seen = [MotionSampling(plan).frames(0, item, torch.arange(count), 0) for item in motions]
    return max(seen, key=lambda frames: sum(group.index.numel() for group in frames.groups))
