"""Causal models of Wan's family (Self-Forcing and its like) on ComfyUI's plain Wan network: keys and values kept from block to block.

All of it is an attention around each layer's own, on a copy of a call's transformer options: it writes what the layer made of the present
block into the cache of its condition, and attends to all that is cached. The network is always called at position 0
(``modules/temporal/kv_cache.py``). Caches belong to one sampling; what other packs have put in the override's place is called from here.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....modules.control.timed_prompts import SHOT
from ....modules.sampling.causal import BlockLevels
from ....modules.temporal.kv_cache import CacheSettings, KeyValueCache
from ..options import CACHES, CLIPS, call_options, frame_numbers, with_options
from ..parts.frame_levels import check_frame_levels, check_no_more_frames
from .call_info import conditions
from .wan_blocks import Around, Attention, around_blocks, with_self_attention

KEY = "longtake_causal"


def apply_causal(model: ModelPatcher, settings: CacheSettings) -> ModelPatcher:
    """A clone of ``model`` that is sampled block by block and keeps keys and values; what an earlier call said is replaced.

    Args:
        model: a Wan model.
        settings: what it sees of the past.

    Raises:
        ValueError: it is no such model. One sentence.
    """
    check_frame_levels(model)
    patched = model.clone()
    causal = Causal(settings)
    for kind, wrapper in ((WrappersMP.OUTER_SAMPLE, causal.around_sampling), (WrappersMP.DIFFUSION_MODEL, causal.around_network)):
        patched.remove_wrappers_with_key(kind, KEY)
        patched.add_wrapper_with_key(kind, KEY, wrapper)
    patched.set_attachments(KEY, settings)
    return patched


def cache_settings(model: ModelPatcher) -> CacheSettings | None:
    """What ``apply_causal`` was told of a MODEL; None for others."""
    return model.get_attachment(KEY)


def ring_bytes(model: ModelPatcher, shape: Sequence[int], room: int, conditions: int) -> int:
    """What the caches of a take come to when they are full.

    Args:
        model: a Wan model.
        shape: of the latent, ``(batch, channels, frames, height, width)``.
        room: frames in a cache; 0 for all of the take's.
        conditions: that have a cache each.
    """
    network = model.model.diffusion_model
    tokens = math.prod(-(-size // patch) for size, patch in zip(shape[3:], network.patch_size[1:], strict=True))
    element = comfy.model_management.dtype_size(model.model.manual_cast_dtype or model.model.get_dtype())
    each = 2 * len(network.blocks) * network.dim * tokens * element
    return conditions * shape[0] * (room or shape[2]) * each


def ring_frames(model: ModelPatcher, shape: Sequence[int], conditions: int) -> int:
    """How many more frames in a call ComfyUI would reckon with for the caches of a MODEL; 0 for one that keeps none."""
    settings = cache_settings(model)
    if settings is None:
        return 0
    one = model.model.memory_required([conditions * shape[0], shape[1], 1, *shape[3:]])
    return math.ceil(ring_bytes(model, shape, settings.room, conditions) / one)


class Caches:
    """The caches of one sampling, one for each condition."""

    def __init__(self, settings: CacheSettings):
        self.settings = settings
        self.each: dict[tuple[int, int], KeyValueCache] = {}
        self.numbers: dict[tuple[int, Hashable], int] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "Caches":
        return self  # some versions copy model options deeply; these are one sampling's, whoever holds them

    def of(self, kind: int, name: Hashable) -> KeyValueCache:
        """That of a condition: ``kind`` 0 for positive ones, ``name`` as ComfyUI calls it in this run."""
        others = sum(kind == other for other, _ in self.numbers)
        number = self.numbers.setdefault((kind, name), others)
        return self.each.setdefault((kind, number), KeyValueCache(self.settings))

    def tensors(self) -> dict[str, Tensor]:
        """None beside the parts."""
        return {}

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """All that is cached, a part for each frame of each condition; see ``KeyValueCache.parts``."""
        named = ((f"{kind}.{number}", cache) for (kind, number), cache in self.each.items())
        return {f"{whose}.{name}": part for whose, cache in named for name, part in cache.parts().items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Hold what ``parts`` gave, perhaps in another run of ComfyUI, and nothing else."""
        self.each.clear()
        own: dict[tuple[int, int], dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            kind, number, rest = name.split(".", 2)
            own.setdefault((int(kind), int(number)), {})[rest] = tensor
        for whose, kept in own.items():
            self.each[whose] = KeyValueCache(self.settings)
            self.each[whose].restore(kept)


@dataclass(frozen=True, eq=False)
class Causal:
    """The wrappers.

    Attributes:
        settings: see ``apply_causal``.
    """

    settings: CacheSettings

    def __deepcopy__(self, memo: dict[int, Any]) -> "Causal":
        return self  # nothing here ever changes

    def around_sampling(
        self, executor: Any, noise: Tensor, latent_image: Tensor, sampler: Any, *args: Any, **kwargs: Any
    ) -> Tensor:
        """OUTER_SAMPLE: caches that begin empty and end with the sampling; ``noise``: ``b c f h w``. Returns the same."""
        plan = getattr(getattr(sampler, "algorithm", None), "plan", None)
        if not isinstance(plan, BlockLevels):
            raise ValueError(
                "the model keeps keys and values from block to block, and this sampler shows it the whole clip at once: use Causal Take,"
                " or leave out Causal Video"
            )
        check_fits(plan, self.settings)
        options = executor.class_obj.model_options.setdefault("transformer_options", {})
        options[CACHES] = Caches(self.settings)
        try:
            return executor(noise, latent_image, sampler, *args, **kwargs)
        finally:
            options.pop(CACHES, None)

    def around_network(self, executor: Any, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """DIFFUSION_MODEL: ``x``: ``n c f h w``, ``timestep``: ``n`` or ``n f``. Returns ``n c f h w``."""
        network, given = executor.class_obj, call_options((timestep, *args), kwargs)
        caches: Caches | None = given.get(CACHES)
        if caches is None:
            raise RuntimeError(
                "a causal model was called outside of a sampling: another node calls the network on its own; leave it out"
            )
        check_no_more_frames(network, args, kwargs, "a causal cache")
        if given.get(CLIPS, 1) > 1:
            raise ValueError(
                "variants of the same frames in one call do not go with a causal cache, which keeps one past per condition: remove History"
                " Guidance"
            )
        ids = frame_numbers(given, x.shape[2], axis=2)
        now = range(int(ids[0]), int(ids[0]) + len(ids))
        each = [caches.of(kind, name) for kind, name in conditions(given)]
        for cache in each:
            cache.begin(now, given.get(SHOT, 0))

        def change(layer: int, block: dict[str, Any]) -> dict[str, Any]:
            return with_self_attention(block, remembering(each, layer, len(now), network.num_heads))

        args, kwargs = with_options(args, kwargs, around_blocks(given, len(network.blocks), change))
        return executor(x, timestep, *args, **kwargs)


def check_fits(plan: BlockLevels, settings: CacheSettings) -> None:
    """Refuse blocks that a cache has no room for, before anything is computed.

    Raises:
        ValueError: one sentence.
    """
    room = settings.room - settings.sinks
    if settings.room and plan.block > room:
        raise ValueError(
            f"a block has {plan.block} frames and the cache has room for {room} beside its {settings.sinks} sink frames: set room to"
            f" {plan.block + settings.sinks} or more"
        )


def remembering(caches: list[KeyValueCache], layer: int, frames: int, heads: int) -> Around:
    """An attention over all that is cached, for one layer in one call of the network.

    Args:
        caches: of the call's conditions, in the order of the batch.
        layer: of the network.
        frames: of the call.
        heads: of an attention.
    """

    def around(attention: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        made = []
        for place, cache in enumerate(caches):
            rows = slice(place * len(q) // len(caches), (place + 1) * len(q) // len(caches))
            apart = [x[rows].view(-1, frames, x.shape[1] // frames, heads, x.shape[2] // heads) for x in (k, v)]
            keys, values = (x.flatten(1, 2).flatten(2) for x in cache.attend(layer, *apart))
            made.append(attention(q[rows], keys.contiguous(), values.contiguous()))
        return torch.cat(made)

    return around
