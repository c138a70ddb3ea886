"""Image prompts on a MODEL: keys and values of pictures in a ModelPatcher of their own, beside each attention to the text.

A call of the model gets a copy of its transformer options with a replacement for each attention to the text; the MODEL's own options are
never touched, and a replacement of another pack is called in its place and added to. What replaces is taken from the U-Net, where the
patcher in hand has put it while it is loaded, so several GPUs and clones each have their own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import comfy.model_management
import comfy.ops
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import PatcherInjection, WrappersMP
from torch import Tensor

from ....modules.checkpoints.image_prompt import ImagePrompt, check_base
from ....modules.control.image_prompt import KINDS, ImagePromptModel, KeyValue, Mixture, cross_layers
from ....modules.control.keyframe_blend import blended
from ....modules.control.keyframes import Keyframes
from ....modules.control.prompt_settings import PromptSettings
from ....modules.temporal.chunks import ROWS
from ..held import unet_of
from ..options import CLIPS, call_options, frame_numbers
from ..sampling.frame_levels import with_options
from .motion import dtype_of_parts

KEY = "longtake_image_prompt"  # additional models, attachment, injection, wrappers; in transformer options: frames of the clip
HELD = "_longtake_image_prompts"  # on the U-Net while it is injected
UNCOND = 1  # ComfyUI's number for the negative condition


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

    def __deepcopy__(self, memo: dict[int, Any]) -> "Prompted":
        return self

    def shares(self, count: int) -> tuple[Tensor, Tensor]:
        """(``f k``, how much of each picture a frame is shown; ``f``, how strongly) for a clip of ``count`` frames."""
        if self.keyframes is None:
            return torch.ones(count, 1), torch.ones(count)
        return blended(self.keyframes, count, self.settings.blend)


@dataclass(frozen=True, eq=False)
class Held:
    """An image prompt that is loaded beside a U-Net."""

    model: ImagePromptModel
    prompted: Prompted


@dataclass(eq=False)
class Clip:
    """A sampling: how many frames its clip has, and what is computed from that once."""

    count: int
    known: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Clip":
        return self

    def shares(self, prompted: Prompted) -> tuple[Tensor, Tensor]:
        """As ``Prompted.shares`` of this clip."""
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
    if not patched.get_injections(KEY):
        patched.set_injections(KEY, [PatcherInjection(inject, eject)])
        patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, around_sampling)
        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, around_call)
    return patched


def pictures_of(
    prompt: ImagePrompt, clip_vision: Any, images: Tensor | None, keyframes: Keyframes | None, encoded: Any
) -> tuple[Tensor, Tensor]:
    """(``k ... e``, the pictures as the image prompt looks at them; ``1 ... e``, no picture)."""
    named = {"images": images, "keyframes": keyframes, "clip_vision_output": encoded}
    connected = [name for name, value in named.items() if value is not None]
    if connected not in (["images"], ["keyframes"], ["clip_vision_output"], ["keyframes", "clip_vision_output"]):
        said = "no picture is connected" if not connected else f"{' and '.join(connected)} are both connected"
        raise ValueError(f"{said}: connect images for all frames, keyframes for pictures with times, or a clip_vision_output")
    kind = prompt.shape.kind
    if clip_vision is None and (encoded is None or kind != "plain"):
        what = (
            "pictures are looked at through an image encoder"
            if encoded is None
            else f"a {kind} image prompt needs it for no picture"
        )
        raise ValueError(f"no CLIP vision model is connected, and {what}: connect Load CLIP Vision to clip_vision")
    if encoded is None:
        pictures = images if keyframes is None else keyframes.images
        assert pictures is not None
        return see(clip_vision, pictures, kind)
    seen = given(encoded, kind)
    if keyframes is not None and len(seen) != len(keyframes):
        raise ValueError(f"{len(keyframes)} keyframes and {len(seen)} encoded pictures were given: each keyframe needs its own")
    return seen, torch.zeros_like(seen[:1]) if kind == "plain" else see(clip_vision, torch.zeros(1, 8, 8, 3), kind)[1]


def check_seen(prompt: ImagePrompt, seen: Tensor) -> None:
    """Refuse what another image encoder gave."""
    if seen.shape[-1] != prompt.shape.clip:
        raise ValueError(
            f"{prompt.name} was trained with an image encoder that gives {prompt.shape.clip} features and this one gives"
            f" {seen.shape[-1]}: load the CLIP vision model that its authors name, CLIP-ViT-H-14 for most"
        )
    if not bool(torch.isfinite(seen).all()):
        raise ValueError("what the image encoder gave is not finite (NaN or infinite): encode the picture again")


def _patcher(prompt: ImagePrompt) -> ModelPatcher:
    """The keys and values alone, for ComfyUI to load and move; pictures have been projected already."""
    model = prompt.build(comfy.ops.manual_cast)
    del model.image_proj
    return ModelPatcher(
        model.to(dtype_of_parts()).eval(),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


def see(clip_vision: Any, images: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Pictures, and no picture, as an image encoder of ComfyUI gives them to a kind of image prompt.

    No picture is zero for a plain one, and for the others what the encoder makes of a picture of its mean colour, which is zero after
    its own normalisation: as IP-Adapter was trained.

    Args:
        clip_vision: CLIP_VISION.
        images: ``k h w c`` in 0..1.
        kind: a name in ``KINDS``.
    """
    seen = given(clip_vision.encode_image(images[..., :3]), kind)
    if kind == "plain":
        return seen, torch.zeros_like(seen[:1])
    mean = torch.tensor(getattr(clip_vision, "image_mean", (0.48145466, 0.4578275, 0.40821073)))
    return seen, given(clip_vision.encode_image(mean.expand(1, 224, 224, 3).clone()), kind)


def given(output: Any, kind: str) -> Tensor:
    """What a kind of image prompt looks at in ComfyUI's CLIP_VISION_OUTPUT: ``k ... e``.

    Raises:
        ValueError: it is not there.
    """
    seen = getattr(output, KINDS[kind], None)
    if not isinstance(seen, Tensor):
        raise ValueError(f"the CLIP vision output has no {KINDS[kind]}, which a {kind} image prompt looks at: use CLIP-ViT-H-14")
    return seen


def inject(patcher: ModelPatcher) -> None:
    """Let the U-Net have the image prompts of ``patcher``."""
    held = tuple(
        Held(part.model, prompted)
        for part in patcher.get_additional_models_with_key(KEY)
        if (prompted := part.get_attachment(KEY)) is not None
    )
    unet_of(patcher).__dict__[HELD] = held


def eject(patcher: ModelPatcher) -> None:
    """Leave no trace in the U-Net; whether anything was there does not matter."""
    unet_of(patcher).__dict__.pop(HELD, None)


def around_sampling(executor: Any, noise: Tensor, *args: Any, **kwargs: Any) -> Any:
    """OUTER_SAMPLE: refuse keyframes that the clip has not, and keep how long it is."""
    guider = executor.class_obj
    clip = Clip(noise.shape[0])
    for part in guider.model_patcher.get_additional_models_with_key(KEY):
        clip.shares(part.get_attachment(KEY))
    options = guider.model_options.setdefault("transformer_options", {})
    options[KEY] = clip
    try:
        return executor(noise, *args, **kwargs)
    finally:
        options.pop(KEY, None)


def around_call(executor: Any, x: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Any:
    """APPLY_MODEL: the call's own transformer options, in which every attention to the text looks at the pictures too."""
    base = executor.class_obj
    options = call_options((t, *args), kwargs)
    held: tuple[Held, ...] | None = base.diffusion_model.__dict__.get(HELD)
    if held is None:
        raise RuntimeError("the image prompts are not in the model although it is being sampled: another node has removed them")
    told = [(item, mixture) for item in held if (mixture := mixture_of(item.prompted, options, x, t, base.model_sampling))]
    if not told:
        return executor(x, t, *args, **kwargs)
    args, kwargs = with_options(args, kwargs, with_replacements(options, told, base.diffusion_model, len(x)))
    return executor(x, t, *args, **kwargs)


def mixture_of(prompted: Prompted, options: dict[str, Any], x: Tensor, t: Tensor, sampling: Any) -> Mixture | None:
    """What each row of a call is shown, or None where it is nothing: ``x``: ``(conds clips f) c h w``, ``t``: ``(conds clips f)``."""
    kinds = options.get("cond_or_uncond") or [0]
    clips = options.get(CLIPS, 1)
    count = len(x) // (len(kinds) * clips)
    ids = frame_numbers(options, count * clips)[:count].cpu()
    clip: Clip = options.get(KEY) or Clip(int(ids.max()) + 1)
    shares, strength = clip.shares(prompted)
    ids = ids.clamp(0, len(shares) - 1)
    settings = prompted.settings
    inside = (t <= float(sampling.percent_to_sigma(settings.start_percent))) & (
        t >= float(sampling.percent_to_sigma(settings.end_percent))
    )
    gain = (strength[ids] * settings.scale).repeat(len(kinds) * clips).to(x.device) * inside.expand(len(x)).to(x.device)
    if not bool(gain.any()):
        return None
    shown = torch.cat([shares[ids], torch.zeros(count, 1)], dim=1)
    nothing = torch.zeros_like(shown)
    nothing[:, -1] = 1
    rows = torch.cat([(nothing if kind == UNCOND else shown).repeat(clips, 1) for kind in kinds])
    return Mixture(prompted.tokens.to(x.device), rows.to(x.device), gain)


def with_replacements(options: dict[str, Any], told: Sequence[tuple[Held, Mixture]], unet: Any, rows: int) -> dict[str, Any]:
    """Transformer options with a replacement for each attention to the text that looks at pictures."""
    replaced = options.get("patches_replace", {})
    before = replaced.get("attn2", {})
    found: dict[Any, Callable[..., Tensor]] = dict(before)
    device = told[0][1].gain.device
    for place, layer in enumerate(cross_layers(unet)):
        looks = [
            Look(item.model.layers()[place], mixture, factor)
            for item, mixture in told
            if (factor := item.prompted.settings.factor(layer.slot))
        ]
        if looks:
            previous = before.get(layer.block) or before.get(layer.block[:2])
            found[layer.block] = Decoupled(tuple(looks), previous)
    return {**options, "patches_replace": {**replaced, "attn2": found}, ROWS: torch.arange(rows, device=device)}


@dataclass(frozen=True, eq=False)
class Look:
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

    looks: tuple[Look, ...]
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
