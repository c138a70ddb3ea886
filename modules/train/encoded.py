"""Encoded clips as a trainer wants them: the batch of a step, with the conditions that a network takes of its captions."""

import math
import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..checkpoints.video_model import VideoModelInfo
from ..data.cache import EncodedClips
from ..data.tensor_cache import Tensors
from .denoising import Batch, Source

CONTEXT, LABELS = "context", "labels"
NOTHING = None  # in the place of a caption: what steps without words are shown, be there a conditioning for all captions or not
NO_BLANK = (
    "one conditioning stands for all captions and nothing says what no text is: connect the checkpoint's CLIP as well, whose empty caption"
    " sampling takes for it; or set dropout to 0 and sample_cfg to 1 in Training Options, where nothing is shown without text"
)


def source_of(
    clips: EncodedClips,
    batch: int,
    to_model: Callable[[Tensor], Tensor] = lambda latents: latents,
    each: Callable[[], None] = lambda: None,
    read_ahead: int = 0,
) -> Source:
    """The clips of each step.

    Args:
        clips: latents and what the captions became (``base.Encoder``).
        batch: clips per step.
        to_model: from a VAE's latents, ``n c h w``, to the numbers that the network works with.
        each: called whenever clips are asked for, such as to see whether the user cancelled.
        read_ahead: threads that read the clips of coming steps.
    """
    ahead = clips.ahead(read_ahead)

    def source(step: int, places: range) -> Batch:
        each()
        some = clips.batch(step, batch, places, ahead)
        encoded = to_model(some.latents.flatten(0, 1).float()).unflatten(0, some.latents.shape[:2])
        return conditioned(encoded, some.texts, clips.text(NOTHING))

    return source


def conditioned(clips: Tensor, texts: Sequence[Tensors], nothing: Tensors) -> Batch:
    """Clips with their conditions.

    Args:
        clips: ``n f c h w``.
        texts: of each clip, ``context``, ``k d``, and ``labels``, ``l``, or one of them, or neither.
        nothing: the same of the empty caption, for clips that are shown without words.
    """
    extra: dict[str, Tensor] = {}
    context = labels = None
    if CONTEXT in nothing:
        *tokens, blank = lengthened([*(text[CONTEXT] for text in texts), nothing[CONTEXT]], nothing[CONTEXT])
        context, extra["no_context"] = torch.stack(tokens).float(), blank.float().expand(len(texts), -1, -1)
    if LABELS in nothing:
        labels = torch.stack([text[LABELS] for text in texts]).float()
        extra["no_labels"] = nothing[LABELS].float().expand(len(texts), -1)
    return Batch(clips, context=context, labels=labels, extra=extra)


def by_labels(info: VideoModelInfo) -> Callable[[str | None], Tensors]:
    """What a model that knows labels takes of a caption: those of its words that it knows; all others are passed over."""

    def encode(caption: str | None) -> Tensors:
        known = [word for word in re.findall(r"\w+", (caption or "").lower()) if word in info.labels]
        return {LABELS: info.label_vector(" ".join(known))}

    return encode


def lengthened(tokens: Sequence[Tensor], blank: Tensor) -> list[Tensor]:
    """Captions of different length at the length of the longest.

    Args:
        tokens: ``k d`` each.
        blank: ``l d``, the tokens of the empty caption, which stand behind shorter ones.

    Returns:
        tokens: ``m d`` each.
    """
    length = max(len(item) for item in tokens)
    behind = blank.repeat(math.ceil(length / len(blank)), 1)
    return [torch.cat([item, behind[: length - len(item)]]) for item in tokens]
