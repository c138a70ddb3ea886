"""Given pictures on a MODEL: as channels of an inpainting checkpoint, or as a picture for the motion module that can follow one.

Channels of an inpainting checkpoint replace those that ComfyUI makes of a mask; they lie on the MODEL. What a motion module is told
lies on its own patcher, so every clone and every GPU has its own. A call is told of the frames that it is about.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import comfy.utils
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....modules.control.first_frame import CHANNELS, FirstFrameSettings, channels_of, slots_of
from ....modules.control.keyframe_blend import nearest_of
from ....modules.control.keyframes import Keyframes
from ....modules.temporal.picture_part import PicturePart
from ..attached import KEY as MOTION
from ..attached import InUNet, MotionInfo, unet_of
from ..options import Clip
from .attachment import Attachment, hang
from .call_info import CallInfo, Sampling

KEY = "longtake_first_frame"  # the attachment, and that of a MODEL's patcher
PIXELS = 8  # of a picture to one of its latents, each way
KEPT = 128  # frames whose features are kept for the next call


@dataclass(frozen=True, eq=False)
class PictureInput:
    """What a network is told of given pictures.

    Attributes:
        mode: a name in ``first_frame.MODES``.
        frames: ``f d h w``: mask and latents for the modes with channels, latents alone for ``animatelcm_i2v``.
        settings: strength and drift.
    """

    mode: str
    frames: Tensor
    settings: FirstFrameSettings

    def at(self, ids: Tensor, part: PicturePart | None = None) -> Tensor:
        """For some frames of the clip, or a part of their picture: ``ids``: ``n``. Returns ``n d h w``."""
        frames = self.frames[ids.clamp(0, len(self.frames) - 1).to(self.frames.device)]
        return frames if part is None else part.cut(frames)


@dataclass(eq=False)
class CachedFeatures:
    """Features that were computed in one sampling, by motion model and frames."""

    features: dict[tuple[Any, ...], dict[str, Tensor]] = field(default_factory=dict)

    def of(self, model: Any, given: PictureInput, ids: Tensor) -> dict[str, Tensor]:
        """The encoder's features of the frames ``ids``: ``f``, where these are."""
        key = id(model), tuple(ids.tolist()), ids.device
        if key not in self.features:
            while self.features and sum(len(frames) for _, frames, _ in self.features) + len(ids) > KEPT:
                del self.features[next(iter(self.features))]
            seen = model.picture_encoder(given.at(ids).to(ids.device), given.settings.drift)
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
    given = PictureInput(settings.mode, told(latents, at, len(samples), settings), settings)
    patched = model.clone()
    if settings.mode in CHANNELS:
        patched.set_attachments(KEY, given)
    else:
        part = _able(patched, settings.mode)
        about: MotionInfo = part.get_attachment(MOTION)
        part.set_attachments(MOTION, replace(about, picture=given))
    hang(patched, FIRST_FRAME)
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


def inputs_of(model: ModelPatcher) -> list[PictureInput]:
    """All that a MODEL and its motion modules are told of pictures."""
    motions = [part.get_attachment(MOTION) for part in model.get_additional_models_with_key(MOTION)]
    found = [model.get_attachment(KEY), *(about.picture for about in motions)]
    return [given for given in found if given is not None]


def check_size(given: PictureInput, clip: Clip) -> None:
    """Refuse a clip that the pictures were not prepared for."""
    made, wanted = (len(given.frames), *given.frames.shape[-2:]), tuple(clip)
    if made != wanted:
        size = lambda sizes: f"{sizes[0]} frames of {sizes[2] * PIXELS}x{sizes[1] * PIXELS}"  # noqa: E731
        raise ValueError(
            f"First Frame was given a latent of {size(made)} and the sampler has {size(wanted)}: connect the same latent to both"
        )


class FirstFrame(Attachment):
    """The attachment."""

    key = KEY

    def inject(self, patcher: ModelPatcher) -> PictureInput | None:
        """Channels for the U-Net of ``patcher``, if that is told by channels."""
        return patcher.get_attachment(KEY)

    @contextmanager
    def begin(self, sampling: Sampling) -> Iterator[None]:
        """See ``Attachment``."""
        for given in inputs_of(sampling.model):
            check_size(given, sampling.clip)
        sampling.kept[self.key] = CachedFeatures()
        yield

    @contextmanager
    def call(self, info: CallInfo) -> Iterator[None]:
        """See ``Attachment``."""
        part = info.part("First Frame")
        own: PictureInput | None = info.inside[self.key]
        cached = CachedFeatures() if info.sampling is None else info.sampling.kept[self.key]
        motions: InUNet | None = info.inside.get(MOTION)
        with ExitStack() as stack:
            for motion in () if motions is None else motions.motions:
                given: PictureInput | None = motion.about.picture
                if given is not None and given.mode == "pia":
                    stack.enter_context(motion.model.pictured(given.at(info.ids, part).to(info.ids.device), {}))
                elif given is not None:
                    features = cached.of(motion.model, given, info.ids)
                    cut = features if part is None else {slot: part.cut(feature) for slot, feature in features.items()}
                    stack.enter_context(motion.model.pictured(None, cut))
            if own is not None:
                info.inputs["c_concat"] = info.each(own.at(info.ids, part).to(info.ids.device))
            yield


FIRST_FRAME = FirstFrame()
