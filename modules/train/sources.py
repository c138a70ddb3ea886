"""Where the clips of a native model's training come from: the procedural shapes, or a data set of clips.

A source gives the clips at some places of a step's batch as latents with labels, and behind each clip as many single pictures as asked
for (joint image-video training, arXiv:2204.03458, Section 3). What it gives depends on the step and the place alone. Pictures have labels
of their own, so labels come per frame then.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..checkpoints.video_model import VideoModelInfo, fold
from ..data import shapes
from ..data.cache import EncodedClips
from ..data.clips import ClipDataset
from ..noise.seeded import frame_seed
from .denoising import Batch
from .options import Options

MOST_LABELS = 64
MARKED = 3.0  # what numbers of a latent count more that show what training should look at most
_WORD = re.compile(r"[\w'-]+")
GRAMMAR = frozenset(
    re.findall(
        r"\w+",
        "a an the this that these those some its his her their it he she they is are was were be being been has have and or but with of in"
        " on at to from by for as into over under near without while which who there",
    )
)


class ClipsToTrainOn(Protocol):
    """A source that can say what it is."""

    def __call__(self, step: int, places: range) -> Batch:
        """The clips at these places of the step's batch."""
        ...

    def facts(self) -> dict[str, Any]:
        """What another run's data must agree with to be the same; JSON-able."""
        ...

    def report(self) -> str:
        """What the clips are, and what was wrong with them."""
        ...


def folded(pixels: Tensor, patch: int) -> Tensor:
    """Clips of pixels as latents of a pixel-space model: ``pixels``: ``b f c h w`` in -1..1. Returns ``b f l p q``."""
    latents = fold(rearrange(pixels, "b f c h w -> (b f) h w c") / 2 + 0.5, patch)
    return rearrange(latents, "(b f) l h w -> b f l h w", f=pixels.shape[1])


class FromShapes:
    """The procedural world of ``shapes.py``.

    Args:
        info: of the model that is trained; its words must be the world's.
        batch: clips in a step's batch.
        seed: of the run.
        images: single pictures behind each clip.
        wrong_outlines: share of clips that are shown with another shape's outline.

    Raises:
        ValueError: pictures are asked for, and wrong outlines.
    """

    def __init__(self, info: VideoModelInfo, batch: int, seed: int, images: int = 0, wrong_outlines: float = 0.0):
        if images and wrong_outlines:
            raise ValueError(f"wrong_outlines is {wrong_outlines:g} with images: set one of them to 0")
        self.info, self.batch, self.seed, self.images, self.wrong_outlines = info, batch, seed, images, wrong_outlines

    def __call__(self, step: int, places: range) -> Batch:
        """See ``ClipsToTrainOn``."""
        chosen = slice(places.start, places.stop)
        drawn = shapes.clips(self.batch, self.info.frames, self.seed, step)
        pixels, labels = drawn.frames[chosen], drawn.labels[chosen]
        if self.images:  # the first frames of other clips
            others = shapes.clips(self.batch * self.images, 1, self.seed, -1 - step)
            pictures = others.frames.view(self.batch, self.images, *pixels.shape[2:])[chosen]
            theirs = others.labels.view(self.batch, self.images, -1)[chosen]
            pixels = torch.cat([pixels, pictures], dim=1)
            labels = _per_frame(labels, self.info.frames, theirs)
        extra = self._wrong(drawn.frames, step, chosen) if self.wrong_outlines else {}
        return Batch(folded(pixels, self.info.patch), self.images, labels=labels, extra=extra)

    def _wrong(self, frames: Tensor, step: int, chosen: slice) -> dict[str, Tensor]:
        """What is shown instead of the clips, the other outline fading in time in half of them, and how much each pixel counts."""
        count, length = frames.shape[:2]
        g = torch.Generator().manual_seed(frame_seed(self.seed, step, "outlines"))
        further = torch.randint(1, len(shapes.SHAPES), (count,), generator=g)
        part = how_wrong(count, length, self.wrong_outlines, g)
        other = shapes.clips(count, length, self.seed, step, further=further).frames
        shown = frames + part[:, :, None, None, None] * (other - frames)
        colourful = torch.maximum(_colourful(frames), _colourful(other)).expand_as(frames)
        area = 1 + 2 * (folded(colourful * 2 - 1, self.info.patch)[chosen] + 1)
        return {"shown": folded(shown[chosen], self.info.patch), "area": area / area.mean(dim=(1, 2, 3, 4), keepdim=True)}

    def facts(self) -> dict[str, Any]:
        """See ``ClipsToTrainOn``."""
        wrong = {"wrong_outlines": self.wrong_outlines} if self.wrong_outlines else {}
        return {"clips": "procedural shapes", **wrong}

    def report(self) -> str:
        """See ``ClipsToTrainOn``."""
        return "clips of moving shapes, drawn as they are needed"


def how_wrong(count: int, length: int, share: float, g: torch.Generator) -> Tensor:
    """How far each frame of each clip is turned into another, fading in time in half of a ``share`` of them. Returns ``b f``, 0..1."""
    part, end, fades, within = torch.rand(4, count, 1, generator=g)
    fading = (1 - torch.arange(length) / (end * length).clamp_min(1)).clamp(0, 1)
    return part * torch.where(fades < 0.5, 1.0, fading) * (within < share)


def _colourful(pixels: Tensor) -> Tensor:
    """Where the shape is, since all else is grey: ``pixels``: ``b f c h w`` in -1..1. Returns ``b f 1 h w`` in 0..1."""
    return ((pixels.amax(2, keepdim=True) - pixels.amin(2, keepdim=True)) / shapes.MOST_COLOUR).clamp(0, 1)


class FromClips:
    """A data set of clips, through an encoder.

    Args:
        dataset: the clips.
        info: of the model that is trained.
        batch: clips in a step's batch.
        images: single pictures behind each clip.
        encode: what makes latents ``f l p q`` of pixels ``f c h w`` in -1..1; None to fold them.
        cache: folder for latents on disk; None for none. Only with ``encode``, whose results are worth keeping.
        encoder: tells ``encode`` from any other, for the cache.
        options: ``read_ahead`` and ``cache_gb`` are read.

    Raises:
        ValueError: pictures cannot be folded, or clips without end are to be cached.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        info: VideoModelInfo,
        batch: int,
        images: int = 0,
        *,
        encode: Callable[[Tensor], Tensor] | None = None,
        cache: Path | None = None,
        encoder: str = "",
        options: Options | None = None,
    ):
        options = options or Options()
        self.info, self.size, self.images, self.dataset, self.encoder = info, batch, images, dataset, encoder
        if encode is None:
            odd = next((size for size in dataset.sizes if size.width % info.patch or size.height % info.patch), None)
            if odd is not None:
                raise ValueError(f"clips of {odd} pixels cannot be folded into patches of {info.patch}: use multiples of it")
        self.clips = EncodedClips(
            dataset,
            encode or (lambda pixels: folded(pixels[None], info.patch)[0]),
            lambda caption: {"labels": words_of(caption, info.labels)},
            folder=cache if encode is not None else None,
            video_key=encoder,
            text_key=f"words {' '.join(info.labels)}",
            most=options.cache_gb,
        )
        self.ahead = self.clips.ahead(options.read_ahead)

    def __call__(self, step: int, places: range) -> Batch:
        """See ``ClipsToTrainOn``."""
        given = self.clips.batch(step, self.size, places, self.ahead)
        latents, labels = given.latents, torch.stack([text["labels"] for text in given.texts])
        if self.images:
            drawn = [self.clips.pictures(step, self.size, place=place, count=self.images) for place in places]
            latents = torch.cat([latents, torch.stack([part.latents[:, 0] for part in drawn])], dim=1)
            theirs = torch.stack([torch.stack([text["labels"] for text in part.texts]) for part in drawn])
            labels = _per_frame(labels, given.latents.shape[1], theirs)
        extra = {} if given.marked is None or self.images else {"area": area_of(given.marked, latents)}
        return Batch(
            latents.float() * self.info.latent_scale, self.images, labels=labels if self.info.labels else None, extra=extra
        )

    def facts(self) -> dict[str, Any]:
        """See ``ClipsToTrainOn``."""
        return {"clips": self.dataset.fingerprint(), "encoder": self.encoder}

    def report(self) -> str:
        """See ``ClipsToTrainOn``."""
        return "\n".join([f"words that it knows: {', '.join(self.info.labels) or 'none'}", self.clips.report()])


class Otherwise:
    """Clips of which some are shown with something else in them than their words say, wholly or partly, as ``FromShapes`` does it.

    Args:
        right: the clips.
        wrong: the same with something else in each.
        share: of clips that are shown otherwise.
        seed: of the run.

    Raises:
        ValueError: single pictures stand beside the clips.
    """

    def __init__(self, right: FromClips, wrong: FromClips, share: float, seed: int):
        if right.images:
            raise ValueError(f"wrong_outlines is {share:g} with images: set one of them to 0")
        self.right, self.wrong, self.share, self.seed = right, wrong, share, seed

    def __call__(self, step: int, places: range) -> Batch:
        """See ``ClipsToTrainOn``."""
        given, other = self.right(step, places), self.wrong(step, places)
        g = torch.Generator().manual_seed(frame_seed(self.seed, step, "otherwise"))
        part = how_wrong(self.right.size, given.clips.shape[1], self.share, g)[places.start : places.stop, :, None, None, None]
        extra = {"shown": given.clips + part * (other.clips - given.clips)}
        if "area" in given.extra:
            area = torch.maximum(given.extra["area"], other.extra["area"])
            extra["area"] = area / area.mean(dim=(1, 2, 3, 4), keepdim=True)
        return replace(given, extra=extra)

    def facts(self) -> dict[str, Any]:
        """See ``ClipsToTrainOn``."""
        return {**self.right.facts(), "wrong_outlines": self.share}

    def report(self) -> str:
        """See ``ClipsToTrainOn``."""
        return self.right.report()


def area_of(marked: Tensor, latents: Tensor) -> Tensor:
    """How much each number of clips counts.

    Args:
        marked: ``b f 1 h w`` in 0..1, pixels that count most.
        latents: ``b f l p q``, of the same clips.

    Returns:
        area: ``b f 1 p q``, 1 on average over each clip.
    """
    touched = F.adaptive_max_pool2d(marked.flatten(0, 1), latents.shape[-2:]).unflatten(0, marked.shape[:2])
    area = 1 + MARKED * touched
    return area / area.mean(dim=(1, 2, 3, 4), keepdim=True)


def _per_frame(labels: Tensor, frames: int, pictures: Tensor) -> Tensor:
    """Labels of each frame of a clip, then those of its pictures: ``labels``: ``b l``, ``pictures``: ``b k l``. Returns ``b n l``."""
    return torch.cat([labels[:, None].expand(-1, frames, -1), pictures], dim=1)


def caption_words(captions: Iterable[str], most: int = MOST_LABELS) -> tuple[str, ...]:
    """The words that tell captions apart, those that part them most evenly first; words of grammar and of every caption tell nothing.

    A word in a share ``p`` of the captions tells ``p (1 - p)``: most at a half, next to nothing where all or one of many have it.

    >>> caption_words(["a red disk, bouncing", "a red ring, turning", "the blue disk is turning"])
    ('disk', 'red', 'turning', 'blue', 'bouncing', 'ring')
    """
    each = [set(_WORD.findall(caption.lower())) - GRAMMAR for caption in captions]
    counts = Counter(word for words in each for word in words)
    told = {word: count * (len(each) - count) for word, count in counts.items()}
    return tuple(sorted((word for word in told if told[word]), key=lambda word: (-told[word], -counts[word], word))[:most])


def words_of(caption: str, labels: Sequence[str]) -> Tensor:
    """A caption as a label vector: ones at its words. Returns ``l``."""
    words = set(_WORD.findall(caption.lower()))
    return torch.tensor([float(label in words) for label in labels])
