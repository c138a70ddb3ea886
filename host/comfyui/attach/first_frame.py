"""Given pictures on a MODEL: as channels of an inpainting checkpoint, or as a picture for the motion module that can follow one.

Channels of an inpainting checkpoint replace those that ComfyUI makes of a mask; they hang on the MODEL. What a motion module is told
hangs on its own patcher, so every clone and every GPU has its own. A call is told of the frames that it is about.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import comfy.utils
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....modules.control.first_frame import CHANNELS, FirstFrameSettings, channels_of, slots_of
from ....modules.control.keyframe_blend import nearest_of
from ....modules.control.keyframes import Keyframes
from ..held import HELD, Injected, Traits, unet_of
from ..held import KEY as MOTION
from ..options import CLIPS, call_options, frame_numbers

KEY = "longtake_first_frame"  # attachment, wrappers and transformer option
PIXELS = 8  # of a picture to one of its latents, each way
KEPT = 128  # frames whose features are kept for the next call


@dataclass(frozen=True, eq=False)
class Given:
    """What a network is told of given pictures.

    Attributes:
        mode: a name in ``first_frame.MODES``.
        frames: ``f d h w``: mask and latents for the modes with channels, latents alone for ``animatelcm_i2v``.
        settings: strength and drift.
    """

    mode: str
    frames: Tensor
    settings: FirstFrameSettings

    def __deepcopy__(self, memo: dict[int, Any]) -> "Given":
        return self

    def at(self, ids: Tensor) -> Tensor:
        """For some frames of the clip: ``ids``: ``n``. Returns ``n d h w``."""
        return self.frames[ids.clamp(0, len(self.frames) - 1).to(self.frames.device)]


@dataclass(eq=False)
class Known:
    """Features that were computed in one sampling, by motion model and frames."""

    features: dict[tuple[Any, ...], dict[str, Tensor]] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Known":
        return self

    def of(self, model: Any, given: Given, ids: Tensor, x: Tensor) -> dict[str, Tensor]:
        """The encoder's features of the frames ``ids``: ``f``, where the latents ``x``: ``n c h w`` are."""
        key = id(model), tuple(ids.tolist()), x.device
        if key not in self.features:
            while self.features and sum(len(frames) for _, frames, _ in self.features) + len(ids) > KEPT:
                del self.features[next(iter(self.features))]
            seen = model.picture_encoder(given.at(ids).to(x.device), given.settings.drift)
            self.features[key] = {slot: given.settings.strength * feature for slot, feature in slots_of(seen).items()}
        return self.features[key]


def apply_first_frame(
    model: ModelPatcher, vae: Any, latent: dict[str, Any], keyframes: Keyframes, settings: FirstFrameSettings
) -> ModelPatcher:
    """A clone of ``model`` that is told of given pictures.

    Args:
        model: an inpainting checkpoint, or with a motion module that follows pictures.
        vae: of the model's base.
        latent: ComfyUI's LATENT of the clip that will be sampled; its size and number of frames are looked at.
        keyframes: pictures with their times.
        settings: what is told, and how strongly.

    Raises:
        ValueError: the model cannot be told in this way, or the pictures do not fit the clip. One sentence.
    """
    samples = latent["samples"]
    if samples.ndim != 4:
        raise ValueError(
            f"the latent has the shape {list(samples.shape)}: it must be frames, channels, height, width; use Empty Latent Image"
        )
    settings = replace(settings, mode=mode_for(model, settings.mode))
    at = keyframes.at(len(samples))
    latents = encoded(model, vae, at.images, *samples.shape[-2:])
    given = Given(settings.mode, told(latents, at, len(samples), settings), settings)
    patched = model.clone()
    if settings.mode in CHANNELS:
        patched.set_attachments(KEY, given)
    else:
        part = _able(patched, settings.mode)
        traits: Traits = part.get_attachment(MOTION)
        part.set_attachments(MOTION, replace(traits, picture=given))
    if not patched.get_wrappers(WrappersMP.OUTER_SAMPLE, KEY):
        patched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, around_sampling)
        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, around_call)
    return patched


def told(latents: Tensor, keyframes: Keyframes, count: int, settings: FirstFrameSettings) -> Tensor:
    """What each frame is told: ``latents``: ``k c h w``. Returns ``f d h w``."""
    if settings.mode == "animatelcm_i2v":
        return latents[nearest_of(keyframes, count)]
    return channels_of(latents, keyframes, count, settings)


def mode_for(model: ModelPatcher, mode: str) -> str:
    """The mode that fits a MODEL where it is ``auto``, or ``mode`` itself.

    Raises:
        ValueError: the model cannot be told in this way.
    """
    channels = unet_of(model).in_channels if hasattr(unet_of(model), "in_channels") else 0
    nine = tuple(getattr(model.model, "concat_keys", ())) == ("mask", "masked_image") and channels == 9
    able = {name: _able(model, name) is not None for name in ("pia", "animatelcm_i2v")} | dict.fromkeys(CHANNELS, nine)
    if mode == "auto":
        mode = next((name for name in ("pia", "animatelcm_i2v", "inpaint") if able[name]), "")
        if not mode:
            raise ValueError(
                "the model has no input for a picture: load an inpainting checkpoint of SD1.5 (9 channels), or a motion module that"
                " follows pictures (PIA, AnimateLCM-I2V)"
            )
    if not able[mode]:
        needs = (
            "an inpainting checkpoint with 9 input channels"
            if mode in CHANNELS
            else f"a motion module of {'PIA' if mode == 'pia' else 'AnimateLCM-I2V'}, by Apply Motion Module"
        )
        raise ValueError(f"the mode {mode} needs {needs}, and this model has none: choose auto, or load one")
    return mode


def _able(model: ModelPatcher, mode: str) -> Any:
    """The patcher of the motion module applied last that can be told in a way, or None."""
    attribute = "input_layer" if mode == "pia" else "picture_encoder"
    parts = model.get_additional_models_with_key(MOTION)
    return next((part for part in reversed(parts) if getattr(part.model, attribute) is not None), None)


def encoded(model: ModelPatcher, vae: Any, images: Tensor, height: int, width: int) -> Tensor:
    """Pictures as latents of a size, in the model's numbers: ``images``: ``k h w c``. Returns ``k c p q``."""
    if vae is None:
        raise ValueError("no VAE is connected, and pictures are given as latents: connect the checkpoint's VAE")
    pixels = images[..., :3].movedim(-1, 1)
    pixels = comfy.utils.common_upscale(pixels, width * PIXELS, height * PIXELS, "bilinear", "center").movedim(1, -1)
    return model.model.process_latent_in(vae.encode(pixels))


def around_sampling(executor: Any, noise: Tensor, *args: Any, **kwargs: Any) -> Any:
    """OUTER_SAMPLE: refuse a clip of another size than the pictures were made for, and keep what is computed once."""
    guider = executor.class_obj
    options = guider.model_options.setdefault("transformer_options", {})
    for given in givens(guider.model_patcher):
        check_size(given, noise)
    options[KEY] = guider.model_patcher.get_attachment(KEY), Known()
    try:
        return executor(noise, *args, **kwargs)
    finally:
        options.pop(KEY, None)


def givens(model: ModelPatcher) -> list[Given]:
    """Whatever a MODEL and its motion modules are told of pictures."""
    traits = [part.get_attachment(MOTION) for part in model.get_additional_models_with_key(MOTION)]
    found = [model.get_attachment(KEY), *(item.picture for item in traits)]
    return [given for given in found if given is not None]


def check_size(given: Given, noise: Tensor) -> None:
    """Refuse a clip that the pictures were not prepared for: ``noise``: ``f c h w``."""
    made, wanted = (len(given.frames), *given.frames.shape[-2:]), (len(noise), *noise.shape[-2:])
    if made != wanted:
        size = lambda sizes: f"{sizes[0]} frames of {sizes[2] * PIXELS}x{sizes[1] * PIXELS}"  # noqa: E731
        raise ValueError(
            f"First Frame was given a latent of {size(made)} and the sampler has {size(wanted)}: connect the same latent to both"
        )


def around_call(executor: Any, x: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Any:
    """APPLY_MODEL: tell the network of the pictures in the frames of this call, and forget it afterwards."""
    options = call_options((t, *args), kwargs)
    clips = max(1, len(options.get("cond_or_uncond", ()))) * options.get(CLIPS, 1)
    ids = frame_numbers(options, len(x) // max(1, len(options.get("cond_or_uncond", ()))))[: len(x) // clips].cpu()
    own, known = options.get(KEY) or (None, Known())
    injected: Injected | None = executor.class_obj.diffusion_model.__dict__.get(HELD)
    with ExitStack() as stack:
        for item in () if injected is None else injected.held:
            given: Given | None = item.traits.picture
            if given is not None and given.mode == "pia":
                stack.enter_context(item.model.pictured(given.at(ids).to(x.device), {}))
            elif given is not None:
                stack.enter_context(item.model.pictured(None, known.of(item.model, given, ids, x)))
        if own is not None:
            args, kwargs = with_channels(args, kwargs, own.at(ids).to(x.device).repeat(clips, 1, 1, 1))
        return executor(x, t, *args, **kwargs)


def with_channels(args: tuple[Any, ...], kwargs: dict[str, Any], channels: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The rest of a call, behind its timestep, with other channels beside the latents: ``channels``: ``n d h w``."""
    if args:
        return (channels, *args[1:]), kwargs
    return args, {**kwargs, "c_concat": channels}
