"""Image prompts on a MODEL: keys and values of pictures in a ModelPatcher of their own, beside each attention to the text.

A call of the model gets transformer options with a replacement for each attention to the text; the MODEL's own options are never
touched, and a replacement of another pack is called in its place and added to.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import comfy.model_management
import comfy.ops
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....modules.checkpoints.image_prompt import ImagePrompt, check_base
from ....modules.control.image_prompt import ImagePromptModel, KeyValue, Mixture, cross_layers
from ....modules.control.keyframe_blend import blended
from ....modules.control.keyframes import Keyframes
from ....modules.control.prompt_settings import PromptSettings
from ....modules.temporal.chunks import ROWS
from ..attached import unet_of
from .attachment import Attachment, hang
from .call_info import UNCOND, CallInfo, Sampling
from .motion import dtype_of_parts
from .vision import check_seen, given, pictures_of, see

__all__ = ["apply_image_prompt", "given", "see"]
KEY = "longtake_image_prompt"  # the attachment, and that of a patcher of keys and values


@dataclass(frozen=True, eq=False)
class Prompted:
    """What a MODEL is shown, and when; an attachment of the patcher of its keys and values.

    Attributes:
        name: of the file.
        tokens: ``k n d``; the last is what stands for no picture.
        settings: how strongly, where and when.
        keyframes: the times of the pictures; None for one that all frames are shown.
    """

    name: str
    tokens: Tensor
    settings: PromptSettings
    keyframes: Keyframes | None = None

    def shares(self, count: int) -> tuple[Tensor, Tensor]:
        """(``f k``, how much of each picture a frame is shown; ``f``, how strongly) for a clip of ``count`` frames."""
        if self.keyframes is None:
            return torch.ones(count, 1), torch.ones(count)
        return blended(self.keyframes, count, self.settings.blend)


@dataclass(frozen=True, eq=False)
class PromptInUNet:
    """An image prompt that is loaded beside a U-Net."""

    model: ImagePromptModel
    prompted: Prompted


@dataclass(eq=False)
class PromptShares:
    """What is computed once for a clip of so many frames."""

    count: int
    known: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def of(self, prompted: Prompted) -> tuple[Tensor, Tensor]:
        """As ``Prompted.shares``."""
        if id(prompted) not in self.known:
            self.known[id(prompted)] = prompted.shares(self.count)
        return self.known[id(prompted)]


def apply_image_prompt(
    model: ModelPatcher,
    prompt: ImagePrompt,
    settings: PromptSettings,
    clip_vision: Any = None,
    images: Tensor | None = None,
    keyframes: Keyframes | None = None,
    encoded: Any = None,
) -> ModelPatcher:
    """A clone of ``model`` that looks at pictures beside its text; what it looked at before stays.

    Args:
        model: of the base of ``prompt``.
        prompt: how to look.
        settings: how strongly, where and when.
        clip_vision: ComfyUI's CLIP_VISION, or None where ``encoded`` says all.
        images: ``k h w c`` in 0..1, which all frames are shown together; or None.
        keyframes: pictures with their times; or None.
        encoded: ComfyUI's CLIP_VISION_OUTPUT of pictures; or None.

    Raises:
        ValueError: the image prompt is for another base model, there are no pictures or several answers to which, or the image encoder
            is missing or another one. One sentence each.
    """
    check_base(prompt, unet_of(model))
    seen, empty = pictures_of(prompt, clip_vision, images, keyframes, encoded)
    check_seen(prompt, seen)
    project = prompt.build().image_proj.float()
    tokens, nothing = (project(part.float().cpu()) for part in (seen, empty))
    if keyframes is None:
        tokens, nothing = tokens.flatten(0, 1)[None], nothing.repeat(1, len(tokens), 1)
    prompted = Prompted(prompt.name, torch.cat([tokens, nothing]), settings, keyframes)
    patched = model.clone()
    patcher = _patcher(prompt)
    patcher.set_attachments(KEY, prompted)
    patched.set_additional_models(KEY, [*patched.get_additional_models_with_key(KEY), patcher])
    hang(patched, PROMPTS)
    return patched


def _patcher(prompt: ImagePrompt) -> ModelPatcher:
    """The keys and values alone, for ComfyUI to load and move; pictures have been projected already."""
    model = prompt.build(comfy.ops.manual_cast)
    del model.image_proj
    return ModelPatcher(
        model.to(dtype_of_parts()).eval(),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


class ImagePrompts(Attachment):
    """The attachment."""

    key = KEY

    def inject(self, patcher: ModelPatcher) -> tuple[PromptInUNet, ...]:
        """The image prompts of ``patcher``."""
        parts = patcher.get_additional_models_with_key(KEY)
        return tuple(PromptInUNet(part.model, shown) for part in parts if (shown := part.get_attachment(KEY)) is not None)

    @contextmanager
    def begin(self, sampling: Sampling) -> Iterator[None]:
        """See ``Attachment``: keyframes that the clip has not are refused."""
        shares = sampling.kept[self.key] = PromptShares(sampling.clip.frames)
        for part in sampling.model.get_additional_models_with_key(KEY):
            shares.of(part.get_attachment(KEY))
        yield

    @contextmanager
    def call(self, info: CallInfo) -> Iterator[None]:
        """See ``Attachment``: in the call's own transformer options every attention to the text looks at the pictures too."""
        kept: PromptShares | None = None if info.sampling is None else info.sampling.kept[self.key]
        shares = kept or PromptShares(int(info.ids.max()) + 1)
        told = [(item, mixture) for item in info.inside[self.key] if (mixture := mixture_of(item.prompted, shares, info))]
        if told:
            info.options.update(with_replacements(info.options, told, info.model.diffusion_model, len(info.sigma)))
        yield


PROMPTS = ImagePrompts()


def mixture_of(prompted: Prompted, known: PromptShares, info: CallInfo) -> Mixture | None:
    """What each row of a call is shown, or None where it is nothing."""
    shares, strength = known.of(prompted)
    ids, device, sigma = info.ids.cpu().clamp(0, len(shares) - 1), info.sigma.device, info.sigma
    settings, sampling = prompted.settings, info.model.model_sampling
    inside = (sigma <= float(sampling.percent_to_sigma(settings.start_percent))) & (
        sigma >= float(sampling.percent_to_sigma(settings.end_percent))
    )
    gain = info.each(strength[ids] * settings.scale).to(device) * inside
    if not bool(gain.any()):
        return None
    shown = torch.cat([shares[ids], torch.zeros(len(ids), 1)], dim=1)
    nothing = torch.zeros_like(shown)
    nothing[:, -1] = 1
    rows = torch.cat([nothing if kind == UNCOND else shown for kind, *_ in info.rows])
    return Mixture(prompted.tokens.to(device), rows.to(device), gain)


def with_replacements(
    options: dict[str, Any], told: Sequence[tuple[PromptInUNet, Mixture]], unet: Any, rows: int
) -> dict[str, Any]:
    """Transformer options with a replacement for each attention to the text that looks at pictures."""
    replaced = options.get("patches_replace", {})
    before = replaced.get("attn2", {})
    found: dict[Any, Callable[..., Tensor]] = dict(before)
    device = told[0][1].gain.device
    for place, layer in enumerate(cross_layers(unet)):
        looks = [
            PromptLayer(item.model.layers()[place], mixture, factor)
            for item, mixture in told
            if (factor := item.prompted.settings.factor(layer.slot))
        ]
        if looks:
            previous = before.get(layer.block) or before.get(layer.block[:2])
            found[layer.block] = Decoupled(tuple(looks), previous)
    return {**options, "patches_replace": {**replaced, "attn2": found}, ROWS: torch.arange(rows, device=device)}


@dataclass(frozen=True, eq=False)
class PromptLayer:
    """One image prompt at one attention."""

    layer: KeyValue
    mixture: Mixture
    factor: float


@dataclass(frozen=True, eq=False)
class Decoupled:
    """An attention to the text that looks at pictures too; ComfyUI's signature of a replacement.

    Attributes:
        looks: at what.
        previous: another pack's replacement, or None for plain attention to the text.
    """

    looks: tuple[PromptLayer, ...]
    previous: Callable[..., Tensor] | None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Decoupled":
        return self

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
            return optimized_attention(q, k, v, heads, attn_precision=extra["attn_precision"], transformer_options=extra)

        heads, rows = extra["n_heads"], extra[ROWS]
        text = attention(q, k, v, heads) if self.previous is None else self.previous(q, k, v, extra)
        if len(rows) != len(q):
            raise RuntimeError(
                f"an attention got {len(q)} rows and the image prompt knows of {len(rows)}: another node cuts the batch up; leave it out"
            )
        for look in self.looks:
            text = text + look.factor * look.mixture.rows(rows).attended(q, look.layer, heads, attention)
        return text
