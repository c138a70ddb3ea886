"""What makes latents, embeddings and features of clips for a trainer: ComfyUI's VAE, CLIP and CLIP vision."""

import logging
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...modules.data.cache import weights_key
from ...modules.data.tensor_cache import Tensors
from ...modules.temporal.gradients import normal
from ...modules.train.base import Encoder
from ...modules.train.encoded import CONTEXT, LABELS, NO_BLANK, NOTHING, by_labels
from .attach.image_prompt import given, see
from .attach.video import video_info
from .sampling.recording import identity

log = logging.getLogger("longtake")
MOST_TOKENS = 3 * 77  # of a caption: three of CLIP's pieces, as trainers of Stable Diffusion have it


def clip_encoder(vae: Any) -> Encoder:
    """A VAE as a trainer uses it.

    Raises:
        ValueError: what is given is no VAE.
    """
    network = getattr(vae, "first_stage_model", None)
    if network is None and not hasattr(vae, "patch"):
        raise ValueError(f"{vae!r} was given for a VAE: connect Load VAE, the checkpoint's VAE, or that of Load Video Model")
    key = f"pixels {vae.patch}" if network is None else f"{weights_key(network.state_dict())} {vae.vae_dtype}"

    def encode(pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            latents = vae.encode((pixels.movedim(1, -1) + 1) / 2)
        if latents.ndim != 4 or len(latents) != len(pixels):
            raise ValueError(
                f"this VAE makes latents of the shape {list(latents.shape)} from {len(pixels)} frames, and an image model takes them frame"
                " by frame: connect the VAE of the image model"
            )
        return normal(latents).float().cpu()

    return Encoder(encode, key)


def image_encoder(clip_vision: Any, kind: str) -> tuple[Encoder, Tensor]:
    """(an image encoder as a trainer uses it: pixels ``f c h w`` in -1..1 to ``f ... e``; ``... e``, what it sees of no picture).

    Args:
        clip_vision: ComfyUI's CLIP_VISION.
        kind: of image prompt, a name in ``image_prompt.KINDS``.

    Raises:
        ValueError: what is given is no image encoder, or does not give what this kind looks at.
    """
    if not hasattr(clip_vision, "encode_image"):
        raise ValueError(f"{clip_vision!r} was given for a CLIP vision model: connect Load CLIP Vision")
    network = getattr(clip_vision, "model", None)
    key = "" if network is None else f"{weights_key(network.state_dict())} {kind}"  # without one it cannot be told from others

    def encode(pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            seen = given(clip_vision.encode_image((pixels.movedim(1, -1) + 1) / 2), kind)
        return normal(seen).half().cpu()

    with torch.inference_mode():
        nothing = see(clip_vision, torch.zeros(1, 8, 8, 3), kind)[1]
    return Encoder(encode, key), normal(nothing)[0].float().cpu()


def text_encoder(model: ModelPatcher, clip: Any = None, conditioning: Any = None, *, blank: bool = True) -> Encoder:
    """What a MODEL takes of captions, by its own words, by a CLIP, or the same conditioning for all.

    Args:
        model: any.
        clip: reads captions, and the empty one, which is what sampling takes for no text.
        conditioning: stands for every caption.
        blank: whether it is needed what no text is: to drop captions, or to guide samples.

    Raises:
        ValueError: what is needed is not given, or of another size.
    """
    info = video_info(model)
    if info is not None and info.labels:
        return Encoder(by_labels(info), f"labels {' '.join(info.labels)}")
    takes = model.model.model_config.unet_config.get("context_dim")
    if takes is None and not model.model.adm_channels:
        return Encoder(lambda caption: {}, "nothing")
    if clip is None and conditioning is None:
        raise ValueError(
            "this model takes text and there is none: connect the checkpoint's CLIP for the captions, or one conditioning for all clips"
        )
    if clip is None and blank:
        raise ValueError(NO_BLANK)
    read = None if clip is None else _read_by(model, clip)
    return read if read is not None and conditioning is None else _constant(model, conditioning, read)


def _read_by(model: ModelPatcher, clip: Any) -> Encoder:
    """A CLIP as a trainer uses it: brackets in captions are brackets, where in prompts they are weights."""
    key = f"{identity(clip.patcher)} {clip.layer_idx} {MOST_TOKENS}"  # LoRAs by their weights: their names are drawn anew at each start

    def encode(caption: str | None) -> Tensors:
        with torch.inference_mode():
            tokens, pooled = clip.encode_from_tokens(clip.tokenize(caption or "", disable_weights=True), return_pooled=True)
        if tokens.shape[1] > MOST_TOKENS:
            log.warning("a caption has %d tokens, of which the first %d count: %s", tokens.shape[1], MOST_TOKENS, caption)
        return _fitting(model, normal(tokens)[:, :MOST_TOKENS], normal(pooled))

    return Encoder(encode, key)


def _constant(model: ModelPatcher, conditioning: Any, read: Encoder | None) -> Encoder:
    """One conditioning for all captions, and for the empty one what ``read`` makes of it, where that is needed."""
    if len(conditioning) != 1:
        raise ValueError(f"the conditioning holds {len(conditioning)} conditions: a trainer takes exactly 1, for all clips")
    tokens, facts = conditioning[0]
    same = _fitting(model, normal(tokens), normal(facts.get("pooled_output")))
    key = f"conditioning {weights_key(same)}"
    if read is None:
        return Encoder(lambda caption: same, key)
    return Encoder(lambda caption: read.encode(caption) if caption is NOTHING else same, f"{key} {read.key}")


def _fitting(model: ModelPatcher, tokens: Tensor, pooled: Tensor | None) -> Tensors:
    """``tokens``: ``1 k d``, ``pooled``: ``1 l`` or None."""
    takes = model.model.model_config.unet_config.get("context_dim")
    if takes is not None and tokens.shape[-1] != takes:
        raise ValueError(
            f"the text has {tokens.shape[-1]} numbers per token and the model takes {takes}: connect the CLIP of the same checkpoint"
        )
    if model.model.adm_channels and pooled is None:
        raise ValueError("the model takes a pooled text embedding and the text has none: connect the CLIP of the same checkpoint")
    found: Tensors = {} if takes is None else {CONTEXT: tokens[0].float().cpu()}
    return found | ({LABELS: pooled[0].float().cpu()} if model.model.adm_channels and pooled is not None else {})
