"""Noise on what a clip is conditioned on, and the level of it told to models that want to know.

A model that continues from its own frames is handed their errors as truth. Noise on the condition hides small errors, and a model
that was trained with it, and is told its level, knows how much to trust what it sees (Cascaded Diffusion, arXiv:2106.15282, Section 4;
Stable Video Diffusion, arXiv:2311.15127, Appendix D). Pictures get their noise in -1..1, as the authors of Stable Video Diffusion do it
(``image + cond_aug * noise`` before the VAE); ComfyUI's own node adds as much in 0..1, which is twice that.

To add a form, write a function and name it in ``FORMS``; to add an input that takes a level, a row in ``LEVEL_INPUTS``.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .seeded import frame_noise

PIXELS = 8  # pixels of a latent's side, of Stable Video Diffusion's VAE
Facts = Mapping[str, Any]  # what a CONDITIONING says beside its tokens
Conditioning = Sequence[Sequence[Any]]


def additive(x: Tensor, noise: Tensor, level: float) -> Tensor:
    """Noise is added on top, as Stable Video Diffusion was trained. ``x``: ``f ...``, ``noise``: ``f ...``. Returns ``f ...``."""
    return x + level * noise


def schedule(x: Tensor, noise: Tensor, level: float) -> Tensor:
    """The picture fades as the noise grows, so that the variance stays; the level is at most 1.

    ``x``: ``f ...``, ``noise``: ``f ...``. Returns ``f ...``.
    """
    return math.sqrt(1 - level**2) * x + level * noise


FORMS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {f.__name__: f for f in (additive, schedule)}


def check_level(level: float, form: str) -> None:
    """Refuse what cannot be done.

    Raises:
        ValueError: one sentence.
    """
    if form not in FORMS:
        raise ValueError(f"the form {form!r} is not known: choose one of {', '.join(FORMS)}")
    if not 0 <= level < math.inf:
        raise ValueError(f"level is {level}: it must be at least 0, and finite")
    if form == "schedule" and level > 1:
        raise ValueError(f"level is {level}: in the form schedule it is at most 1, which is nothing but noise")


def augmented(clip: Tensor, level: float, form: str, seed: int, ids: Sequence[int] | None = None) -> Tensor:
    """A latent with noise on every frame.

    Args:
        clip: ``r ...``, that is ``f c h w``, or ``b c f h w`` of video models.
        level: standard deviation of the noise; at 0 the clip comes back as it is.
        form: a name in ``FORMS``.
        seed: a frame's noise depends on it and the frame's number only.
        ids: numbers of the frames; None for 0, 1, ...

    Returns:
        clip: ``r ...``.

    Raises:
        ValueError: the level is out of range, the clip is no clip or not finite. One sentence.
    """
    check_level(level, form)
    if clip.ndim not in (4, 5):
        raise ValueError(f"the latent has the shape {list(clip.shape)}: it must be frames, channels, height, width, or a video")
    _check_finite(clip, "latent")
    if level == 0:
        return clip
    frames = rearrange(clip, "b c f h w -> f b c h w") if clip.ndim == 5 else clip
    noise = frame_noise(frames.shape[1:], seed, range(len(frames)) if ids is None else ids, "augment").to(frames)
    noisy = FORMS[form](frames, noise, level)
    return rearrange(noisy, "f b c h w -> b c f h w") if clip.ndim == 5 else noisy


def augmented_pictures(pictures: Tensor, level: float, form: str, seed: int) -> Tensor:
    """Pictures with noise of ``level`` in -1..1, that is half as much in 0..1; they are not clipped, as no VAE clips them.

    Args:
        pictures: ``f h w c`` in 0..1.
        level: standard deviation of the noise; at 0 the pictures come back as they are.
        form: a name in ``FORMS``.
        seed: a frame's noise depends on it and the frame's number only.

    Returns:
        pictures: ``f h w c``.

    Raises:
        ValueError: the level is out of range, or the pictures are not finite. One sentence.
    """
    check_level(level, form)
    _check_finite(pictures, "image")
    if level == 0:
        return pictures
    noise = frame_noise(pictures.shape[1:], seed, range(len(pictures)), "augment").to(pictures)
    return FORMS[form](pictures * 2 - 1, noise, level) / 2 + 0.5


def _check_finite(x: Tensor, what: str) -> None:
    bad = ~x.isfinite()
    if bad.any():
        raise ValueError(f"the {what} is not finite (NaN or infinite) in {int(bad.sum())} places: encode or load it again")


def fitted(pictures: Tensor, height: int, width: int) -> Tensor:
    """Pictures of another size, the middle of them where the shape differs, as ComfyUI's nodes for Stable Video Diffusion fit them.

    Args:
        pictures: ``f h w c``.
        height: wanted.
        width: wanted.

    Returns:
        pictures: ``f p q c``.
    """
    tall, wide = pictures.shape[1:3]
    across, down = _left_out(wide, tall, width / height), _left_out(tall, wide, height / width)
    middle = rearrange(pictures[:, down : tall - down, across : wide - across], "f h w c -> f c h w")
    return rearrange(F.interpolate(middle, size=(height, width), mode="bilinear"), "f c h w -> f h w c")


def _left_out(length: int, other: int, aspect: float) -> int:
    """What is cut off at either end of a side, for its ratio to the other to become ``aspect``."""
    return max(0, round((length - length * (aspect / (length / other))) / 2))  # rounded as there


Encode = Callable[[int, int], Tensor]  # (height, width) in pixels -> the noisy pictures as a latent


def tell(conditioning: Conditioning, level: float, encode: Encode | None = None) -> tuple[list[list[Any]], int]:
    """A conditioning in which each condition that takes a level has it.

    Args:
        conditioning: ComfyUI's; it is not changed.
        level: of the noise.
        encode: gives the noisy pictures, for conditions that hold pictures as a latent; None where there are no pictures.

    Returns:
        conditioning, and how many of its conditions have no input for a level.

    Raises:
        ValueError: the level is none that a condition takes, or it needs pictures.
    """
    made, untold = [], 0
    for tokens, facts in conditioning:
        ways = [way for applies, way in LEVEL_INPUTS if applies(facts)]
        untold += not ways
        for way in ways:
            facts = {**facts, **way(facts, level, encode)}
        made.append([tokens, facts])
    return made, untold


def _with_picture(facts: Facts, level: float, encode: Encode | None) -> Facts:
    """Stable Video Diffusion and SV3D: the picture before the VAE has the noise, and the level is embedded beside frame rate and motion."""
    told, latent = {"augmentation_level": level}, facts.get("concat_latent_image")
    if level == 0 or latent is None or not latent.any():  # without a picture: what guidance moves away from
        return told
    if encode is None:
        raise ValueError(
            "the conditioning holds an encoded picture, and noise belongs on the picture before it is encoded: connect the image and the"
            " VAE, too"
        )
    return {**told, "concat_latent_image": encode(latent.shape[-2] * PIXELS, latent.shape[-1] * PIXELS)}


def _by_model(facts: Facts, level: float, encode: Encode | None) -> Facts:  # noqa: ARG001  one signature for all
    """Models that add noise to their picture themselves: Stable Diffusion's upscaler, HunyuanImage's and HunyuanVideo's refiners."""
    return {"noise_augmentation": _share(level)}


def _by_unclip(facts: Facts, level: float, encode: Encode | None) -> Facts:  # noqa: ARG001  one signature for all
    """Models that take a picture's embedding, and add noise to it themselves."""
    return {"unclip_conditioning": [{**one, "noise_augmentation": _share(level)} for one in facts["unclip_conditioning"]]}


def _share(level: float) -> float:
    if level > 1:
        raise ValueError(f"level is {level}: this model adds the noise itself and takes a level from 0 to 1")
    return level


# (has the condition the input, what is told to it)
LEVEL_INPUTS: tuple[tuple[Callable[[Facts], bool], Callable[[Facts, float, Encode | None], Facts]], ...] = (
    (lambda facts: "augmentation_level" in facts or "elevation" in facts, _with_picture),
    (lambda facts: "noise_augmentation" in facts, _by_model),
    (lambda facts: "unclip_conditioning" in facts, _by_unclip),
)
