"""Reference attention on a MODEL: in each call the references go through the U-Net once, at the call's noise levels and without motion, and
every self-attention of the clip's frames looks at what they were there.

The references' pass is kept for the other calls of a step, such as the windows of a clip, so it costs one row per reference, condition and
noise level of a step. A call gets patches in its own transformer options; the MODEL's are never touched.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....modules.control.image_prompt import cross_layers
from ....modules.control.keyframe_blend import nearest_of
from ....modules.control.keyframes import Keyframes
from ....modules.control.reference import PURPOSE, ReferenceRows, ReferenceSettings, places_of, renormalised
from ....modules.noise.seeded import frame_noise
from ....modules.temporal.chunks import ROWS
from ..attached import unet_of
from .attachment import Attachment, attachments, hang
from .call_info import UNCOND, CallInfo, Sampling
from .first_frame import encoded

KEY = "longtake_reference"  # the attachment, and that of a MODEL
Block = tuple[str, int, int]


@dataclass(frozen=True, eq=False)
class Reference:
    """What a MODEL looks at.

    Attributes:
        latents: ``k c h w``, of the pictures, in the model's numbers.
        settings: how strongly, where and when.
        keyframes: the times of the pictures, of which a frame sees the nearest; None where each frame sees all.
        slots: of each self-attention AnimateDiff's name for the place that it is in.
    """

    latents: Tensor
    settings: ReferenceSettings
    keyframes: Keyframes | None
    slots: Mapping[Block, str]

    def pictures(self, ids: Tensor, count: int) -> Tensor:
        """Which pictures frames of a clip of ``count`` see: ``ids``: ``f``. Returns ``f k``."""
        if self.keyframes is None:
            return torch.arange(len(self.latents)).expand(len(ids), -1)
        return nearest_of(self.keyframes, count)[ids.cpu().clamp(0, count - 1)][:, None]


@dataclass(eq=False)
class Pass:
    """What self-attentions got of the references in one pass: of which step, conditions and levels, and ``r t c`` by place."""

    key: Any = None
    features: dict[Block, Tensor] = field(default_factory=dict)


def apply_reference(
    model: ModelPatcher,
    vae: Any,
    latent: dict[str, Any],
    images: Tensor | None,
    keyframes: Keyframes | None,
    settings: ReferenceSettings,
) -> ModelPatcher:
    """A clone of ``model`` whose frames look at references.

    Args:
        model: of Stable Diffusion's family.
        vae: of the model.
        latent: ComfyUI's LATENT of the clip that will be sampled, whose size the references get.
        images: ``k h w c`` in 0..1, all of which each frame looks at; or None.
        keyframes: pictures with their times, of which a frame looks at the nearest; or None.
        settings: how strongly, where and when.

    Raises:
        ValueError: the model is none of this family or looks at references already, or there are no pictures. One sentence each.
    """
    if KEY in [attachment.key for attachment in attachments(model)]:
        raise ValueError(
            "this model looks at references already: give all pictures to one Reference Attention, with Batch Images"
        )
    layers = cross_layers(unet_of(model))
    samples = latent["samples"]
    if samples.ndim != 4:
        raise ValueError(
            f"the latent has the shape {list(samples.shape)}: it must be frames, channels, height, width; use Empty Latent Image"
        )
    at = None if keyframes is None else keyframes.at(len(samples))
    given = images if at is None else at.images
    if given is None or (images is not None and keyframes is not None):
        raise ValueError(
            f"{'nothing' if given is None else 'images and keyframes'} is connected: connect images or keyframes, one of them"
        )
    latents = encoded(model, vae, given, *samples.shape[-2:])
    patched = model.clone()
    patched.set_attachments(KEY, Reference(latents, settings, at, {layer.block: layer.slot for layer in layers}))
    hang(patched, REFERENCES)
    return patched


class References(Attachment):
    """The attachment. It comes first in a call: the references go through a U-Net whose motion modules rest."""

    key = KEY
    first = True

    def inject(self, patcher: ModelPatcher) -> Reference:
        """See ``Attachment``."""
        return patcher.get_attachment(KEY)

    @contextmanager
    def begin(self, sampling: Sampling) -> Iterator[None]:
        """See ``Attachment``."""
        sampling.kept[self.key] = Pass()
        yield

    @contextmanager
    def call(self, info: CallInfo) -> Iterator[None]:
        """See ``Attachment``: in the call's own transformer options each self-attention looks at the references."""
        reference: Reference = info.inside[self.key]
        strength = strength_of(reference.settings, info)
        if bool(strength.any()):
            kept = Pass() if info.sampling is None else info.sampling.kept[self.key]
            levels, numbers = info.sigma.unique(return_inverse=True)
            key = info.step, info.kinds, info.names, tuple(levels.tolist())
            if kept.key != key:
                kept.features.clear()
                kept.features.update(passed(reference, info, levels))
                kept.key = key
            rows = rows_of(reference, info, numbers, len(levels), strength)
            info.options.update(with_patches(info.options, Looking(kept.features, rows, reference)))
        yield


REFERENCES = References()


def strength_of(settings: ReferenceSettings, info: CallInfo) -> Tensor:
    """How strongly each row of a call looks, before blocks count: ``n``."""
    sampling = info.model.model_sampling
    inside = (info.sigma <= float(sampling.percent_to_sigma(settings.start_percent))) & (
        info.sigma >= float(sampling.percent_to_sigma(settings.end_percent))
    )
    frames = settings.of_frames(info.ids)
    each = [frames * (settings.negative_strength if kind == UNCOND else settings.strength) for kind, *_ in info.rows]
    return torch.cat(each).to(info.sigma) * inside


def rows_of(reference: Reference, info: CallInfo, levels: Tensor, count: int, strength: Tensor) -> ReferenceRows:
    """What each row of a call looks at: ``levels``: ``n``, the number of its noise level among ``count``; ``strength``: ``n``."""
    clip = len(info.ids) if info.clip is None else info.clip.frames
    per = len(info.variants) * len(info.ids)
    conds = [row // per % len(info.kinds) for row in range(len(info.sigma))]
    pictures = reference.pictures(info.ids, clip).repeat(info.clips, 1)
    places = places_of(conds, levels.tolist(), pictures, (count, len(reference.latents)))
    return ReferenceRows(places.to(strength.device), strength)


def passed(reference: Reference, info: CallInfo, levels: Tensor) -> dict[Block, Tensor]:
    """What each self-attention gets of the references: ``levels``: ``l``, noise levels. Returns ``(conds l k) t c`` by place."""
    model, count, device = info.model, len(reference.latents), levels.device
    latents = reference.latents.to(device=device, dtype=torch.float32)
    noise = frame_noise(latents.shape[1:], reference.settings.seed, range(count), PURPOSE).to(latents)
    sigma = levels.repeat_interleave(count)
    noisy = model.model_sampling.noise_scaling(sigma, noise.repeat(len(levels), 1, 1, 1), latents.repeat(len(levels), 1, 1, 1))
    conds, rows = len(info.kinds), len(info.sigma)
    first = torch.arange(conds, device=device) * (len(info.variants) * len(info.ids))
    each = first.repeat_interleave(len(sigma))
    given = {
        name: value[each] if isinstance(value, Tensor) and value.ndim and len(value) == rows else value
        for name, value in info.given.items()
    }
    seen: dict[Block, Tensor] = {}

    def keep(n: Tensor, context: Tensor, value: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        seen[place_of(extra)] = n
        return n, context, value

    options = {"patches": {"attn1_patch": [keep]}, "cond_or_uncond": list(info.kinds), "sigmas": sigma}
    model._apply_model(noisy.repeat(conds, 1, 1, 1), sigma.repeat(conds), transformer_options=options, **given)
    return seen


def place_of(extra: Mapping[str, Any]) -> Block:
    """Which self-attention ComfyUI's hooks are called for."""
    return (*extra["block"], extra["block_index"])


def with_patches(options: dict[str, Any], looking: "Looking") -> dict[str, Any]:
    """Transformer options with the references beside each frame's own features, and a strength where that is not 1 throughout."""
    patches, replaced = options.get("patches", {}), options.get("patches_replace", {})
    before = replaced.get("attn1", {})
    mixing = {block: Mixing(looking, before.get(block) or before.get(block[:2])) for block in looking.partial}
    return {
        **options,
        "patches": {**patches, "attn1_patch": [*patches.get("attn1_patch", []), looking]},
        "patches_replace": {**replaced, "attn1": {**before, **mixing}},
        ROWS: torch.arange(len(looking.rows.strength), device=looking.rows.strength.device),
    }


@dataclass(frozen=True, eq=False)
class Looking:
    """Keys and values of the references beside a frame's own; ComfyUI's signature of an ``attn1_patch``.

    Attributes:
        features: of the references' pass, by place.
        rows: what each row of the call looks at.
        reference: how.
    """

    features: Mapping[Block, Tensor]
    rows: ReferenceRows
    reference: Reference

    def __deepcopy__(self, memo: dict[int, Any]) -> "Looking":
        return self

    def strength(self, block: Block) -> Tensor:
        """How strongly each row looks in a place: ``n``."""
        return self.rows.strength * self.reference.settings.factor(self.reference.slots[block])

    @property
    def partial(self) -> list[Block]:
        """The places in which some row looks with a strength other than 1."""
        return [block for block in self.features if not bool((self.strength(block) == 1).all())]

    def of(self, extra: Mapping[str, Any], count: int) -> tuple[ReferenceRows, Tensor]:
        """The rows of a layer's call, and how strongly they look there: ``m``.

        Raises:
            RuntimeError: another node cuts the batch up.
        """
        rows = extra[ROWS]
        if len(rows) != count:
            raise RuntimeError(
                f"a self-attention got {count} rows and Reference Attention knows of {len(rows)}: another node cuts the batch up; leave it"
                " out"
            )
        return self.rows.rows(rows), self.strength(place_of(extra))[rows]

    def __call__(self, n: Tensor, context: Tensor, value: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        mine, strength = self.of(extra, len(n))
        if not bool(strength.any()):
            return n, context, value
        seen = mine.tokens(self.features[place_of(extra)]).to(n)
        if self.reference.settings.adain:
            same = value is context
            n, context = renormalised(n, seen, strength), renormalised(context, seen, strength)
            value = context if same else value
        return n, torch.cat([context, seen], dim=1), torch.cat([value, seen], dim=1)


@dataclass(frozen=True, eq=False)
class Mixing:
    """Attention with the references and without them, in each row's share; ComfyUI's signature of a replacement.

    Attributes:
        looking: at what.
        previous: another pack's replacement, or None for plain attention.
    """

    looking: Looking
    previous: Any

    def __deepcopy__(self, memo: dict[int, Any]) -> "Mixing":
        return self

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        def attention(k: Tensor, v: Tensor) -> Tensor:
            if self.previous is not None:
                return self.previous(q, k, v, extra)
            heads, precision = extra["n_heads"], extra["attn_precision"]
            return optimized_attention(q, k, v, heads, attn_precision=precision, transformer_options=extra)

        mine, strength = self.looking.of(extra, len(q))
        if not bool(strength.any()):
            return attention(k, v)
        own = k.shape[1] - mine.places.shape[1] * self.looking.features[place_of(extra)].shape[1]
        return torch.lerp(attention(k[:, :own], v[:, :own]), attention(k, v), strength.to(q)[:, None, None])
