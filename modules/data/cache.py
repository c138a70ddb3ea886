"""The clips of a data set through a VAE and a text encoder, once: latents and text embeddings are kept on disk (``tensor_cache.py``)."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .ahead import ReadAhead
from .cache_limit import trim
from .clips import ClipDataset
from .take import Clip, Take
from .tensor_cache import TensorCache, Tensors, check_finite

Reader = ReadAhead[tuple[Take, Clip | Tensors]]


def weights_key(state: Mapping[str, Tensor]) -> str:
    """A text that differs where weights do: what makes a VAE or a text encoder known to a cache.

    Args:
        state: of the network.
    """
    whole = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        whole.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        whole.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()


@dataclass(frozen=True)
class EncodedBatch:
    """What a trainer gets of a step.

    Attributes:
        latents: ``b ...``, as ``encode_video`` gives them.
        marked: ``b f 1 h w`` in 0..1, pixels that training should look at most; None where that is not known of all clips.
        texts: what ``encode_text`` gives for each caption.
        takes: how each clip was cut.
        motion: of each clip, in pixels per frame; empty unless asked for.
    """

    latents: Tensor
    texts: tuple[Tensors, ...]
    takes: tuple[Take, ...]
    motion: tuple[float, ...]
    marked: Tensor | None = None


class EncodedClips:
    """The clips of a data set through a VAE and a text encoder, cached on disk if there is a folder for it.

    Args:
        dataset: the clips.
        encode_video: from pixels ``f c h w`` in -1..1 to latents, which begin with ``f``.
        encode_text: from a caption, or None for no text at all, to tensors by name.
        folder: of the cache; None to encode everything whenever it is needed.
        video_key: tells the VAE and how it is used from any other, such as its ``weights_key``.
        text_key: tells the text encoder from any other.
        motion: measure how much moves in each clip, which takes about as long as decoding it.
        held: other clips, through the same encoders, that are not trained on.
        most: GB that the folder may take; 0 for no limit.

    Raises:
        ValueError: nothing can be written to the folder, or clips without end are to be cached.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        encode_video: Callable[[Tensor], Tensor],
        encode_text: Callable[[Any], Tensors],
        *,
        folder: Path | None = None,
        video_key: str = "",
        text_key: str = "",
        motion: bool = False,
        held: "EncodedClips | None" = None,
        most: float = 0.0,
    ):
        self.motion, self.held, self.folder, self.most, self.trimmed = motion, held, folder, most, ""
        self.dataset, self.encode_video, self.encode_text = dataset, encode_video, encode_text
        self.videos = self.texts = None
        if folder is None:
            return
        if not dataset.settings.variants:
            raise ValueError(
                "clips that are cut anew every time cannot be cached: set variants to 1 or more, or do without a cache"
            )
        if not (video_key and text_key):
            raise ValueError("a cache needs to know the VAE and the text encoder: give video_key and text_key, see weights_key")
        self.videos, self.texts = (
            TensorCache(folder / "latents", f"{video_key} {motion}"),
            TensorCache(folder / "texts", text_key),
        )

    def ahead(self, threads: int) -> Reader:
        """A reader of these clips for ``batch``, which reads those of coming steps in so many threads."""
        return ReadAhead(self.dataset, lambda take: (take, self._read(take)), threads)

    def batch(
        self,
        step: int,
        batch: int,
        places: range | None = None,
        ahead: Reader | None = None,
    ) -> EncodedBatch:
        """The clips of a step, or those at some ``places`` of it, read by ``ahead`` where there is one.

        Raises:
            ValueError: none of the clips of that size can be read.
        """
        read = (ahead or self.ahead(0)).each(step, batch, range(batch) if places is None else places)
        return self._together([(take, self._encoded(take, given)) for take, given in read])

    def pictures(self, step: int, batch: int, *, place: int, count: int) -> EncodedBatch:
        """Single frames that go with the clip at a place of a step's batch, as clips of one frame.

        Raises:
            ValueError: none of the clips of that size can be read.
        """
        use = lambda take: (take, self._video(take))  # noqa: E731
        return self._together(self.dataset.pictures(step, batch, use, place=place, count=count))

    def _together(self, made: list[tuple[Take, Tensors]]) -> EncodedBatch:
        takes, videos = zip(*made, strict=True)
        return EncodedBatch(
            torch.stack([video["latents"] for video in videos]),
            tuple(self.text(take.caption) for take in takes),
            takes,
            tuple(float(video["motion"]) for video in videos if "motion" in video),
            torch.stack([video["marked"] for video in videos]).float() if all("marked" in video for video in videos) else None,
        )

    def text(self, caption: str | None) -> Tensors:
        """A caption through the text encoder; None for steps without words."""
        if self.texts is None:
            encoded = self.encode_text(caption)
            check_finite(encoded)
            return encoded
        return self.texts.get(json.dumps(caption), lambda: self.encode_text(caption))

    def fill(self) -> Iterator[tuple[int, int]]:
        """Encode everything that is not in the cache, so that the VAE is not needed while training. Gives how much is done, of how much.

        Raises:
            ValueError: there is no cache.
        """
        if self.videos is None:
            raise ValueError("there is no cache to fill: give a folder for it")
        total = len(self.dataset) * self.dataset.settings.variants
        for number in range(total):
            take = self.dataset.take(*divmod(number, self.dataset.settings.variants))
            self.dataset.sound(take, self._video)
            self.text(take.caption)
            yield number + 1, total
        self._trim()

    def _trim(self) -> None:
        """Keep the cache within its limit; what these clips and those held out have used stays."""
        made = [self.videos, self.texts, *([self.held.videos, self.held.texts] if self.held else [])]
        spared = set().union(*(cache.used for cache in made if cache is not None))
        self.trimmed = trim(self.folder, self.most, spared) if self.folder else ""

    def report(self) -> str:
        """What the cache did, and which clips were passed over."""
        cached = "No cache."
        if self.videos is not None and self.texts is not None:
            cached = f"Latents: {self.videos.text()}. Texts: {self.texts.text()}."
        return "\n".join([cached, *filter(None, [self.trimmed]), *self.dataset.report.reading()])

    def _video(self, take: Take) -> Tensors:
        return self._encoded(take, self._read(take))

    def _read(self, take: Take) -> Clip | Tensors:
        """What the cache has of a clip, else its frames; may be called from any thread."""
        known = None if self.videos is None else self.videos.find(self.dataset.key(take))
        return self.dataset.read(take) if known is None else known

    def _encoded(self, take: Take, given: Clip | Tensors) -> Tensors:
        if not isinstance(given, Clip):
            return given
        encoded = {"latents": self.encode_video(given.pixels)}
        if self.motion:
            encoded["motion"] = torch.tensor(given.motion)
        if given.marked is not None:
            encoded["marked"] = (given.marked > 0.5).to(torch.uint8)
        check_finite(encoded)
        return encoded if self.videos is None else self.videos.keep(self.dataset.key(take), encoded)
