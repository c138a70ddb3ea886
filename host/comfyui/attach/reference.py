"""Reference attention on a MODEL: in each call the references go through the U-Net once, at the call's noise levels and without motion, and
every self-attention of the clip's frames looks at what they were there.

The references' pass is kept for the other calls of a step, such as the windows of a clip, so it costs one row per reference, prompt and
noise level of a step; where frames have prompts of their own, windows have passes of their own. A call gets patches in its own
transformer options (``reference_patches.py``); the MODEL's are never touched.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....modules.control.image_prompt import cross_layers
from ....modules.control.keyframe_blend import nearest_of
from ....modules.control.keyframes import Keyframes
from ....modules.control.reference import PURPOSE, ReferenceRows, ReferenceSettings
from ....modules.noise.seeded import frame_noise
from ..attached import unet_of
from .attachment import Attachment, attachments, hang
from .call_info import UNCOND, CallInfo, Sampling
from .first_frame import encoded
from .reference_patches import Block, Looking, place_of, with_patches

KEY = "longtake_reference"  # the attachment, and that of a MODEL


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


@dataclass(frozen=True, eq=False)
class Alike:
    """Rows of a call with the same noise level, prompt and other inputs: one row of the references' pass serves them.

    Attributes:
        kinds: ``r d``, what each kind of row is given, and at which level.
        group: ``n``, the kind of each row of the call.
        first: ``r``, a row of each kind.
    """

    kinds: Tensor
    group: Tensor
    first: Tensor

    @classmethod
    def of(cls, info: CallInfo) -> "Alike":
        """Those of a call."""
        given = [value.flatten(1).float() for value in info.given.values() if of_rows(value, info)]
        kinds, group = torch.cat([info.sigma.float()[:, None], *given], dim=1).unique(dim=0, return_inverse=True)
        first = torch.stack([(group == kind).nonzero()[0, 0] for kind in range(len(kinds))])
        return cls(kinds, group, first)

    def same(self, other: "Alike") -> bool:
        """Whether a pass for one serves the other."""
        return self.kinds.shape == other.kinds.shape and torch.equal(self.kinds, other.kinds)


def of_rows(value: Any, info: CallInfo) -> bool:
    """Whether an input of the model has one entry for each row of the batch."""
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == len(info.sigma)


@dataclass(eq=False)
class Pass:
    """What self-attentions got of the references in one pass: of which step, conditions and kinds of rows, and ``p t c`` by place."""

    call: Any = None
    alike: Alike | None = None
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
            alike = Alike.of(info)
            call = info.step, info.names  # conditions with other hooks, which change weights, come in other calls
            if kept.call != call or kept.alike is None or not kept.alike.same(alike):
                kept.features.clear()
                kept.features.update(passed(reference, info, alike))
                kept.call, kept.alike = call, alike
            info.options.update(
                with_patches(
                    info.options,
                    Looking(kept.features, rows_of(reference, info, alike, strength), reference.settings, reference.slots),
                )
            )
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


def rows_of(reference: Reference, info: CallInfo, alike: Alike, strength: Tensor) -> ReferenceRows:
    """What each row of a call looks at, ``strength``: ``n``, how strongly."""
    pictures = reference.pictures(info.ids, len(info.ids) if info.clip is None else info.clip.frames)
    places = alike.group[:, None] * len(reference.latents) + info.each(pictures).to(strength.device)
    return ReferenceRows(places, strength)


def passed(reference: Reference, info: CallInfo, alike: Alike) -> dict[Block, Tensor]:
    """What each self-attention gets of the references, for each kind of row and each picture. Returns ``(r k) t c`` by place."""
    model, count, sigma = info.model, len(reference.latents), info.sigma[alike.first]
    latents = reference.latents.to(device=sigma.device, dtype=torch.float32)
    noise = frame_noise(latents.shape[1:], reference.settings.seed, range(count), PURPOSE).to(latents)
    kinds = len(alike.first)
    sigma = sigma.repeat_interleave(count)
    noisy = model.model_sampling.noise_scaling(sigma, noise.repeat(kinds, 1, 1, 1), latents.repeat(kinds, 1, 1, 1))
    each = alike.first.repeat_interleave(count)
    given = {name: value[each] if of_rows(value, info) else value for name, value in info.given.items()}
    seen: dict[Block, list[Tensor]] = {}  # in parts where layers take a few rows at a time

    def keep(n: Tensor, context: Tensor, value: Tensor, extra: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        seen.setdefault(place_of(extra), []).append(n)
        return n, context, value

    model._apply_model(noisy, sigma, transformer_options={"patches": {"attn1_patch": [keep]}, "sigmas": sigma}, **given)
    return {place: torch.cat(parts) for place, parts in seen.items()}
