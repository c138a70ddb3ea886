"""Latents and text embeddings on disk, by what they were made from.

An entry's name is the SHA-256 of what it was made from and of who made it, so a changed frame, setting or VAE never meets an old entry.
An entry is written under another name, brought to the disk, and renamed: a process that is killed, or a machine that loses power, leaves
no half of one under a name that is looked for. What cannot be read all the same is made anew.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..disk.file_names import check_writable
from ..disk.state import load_sealed, save_sealed
from .clips import ClipDataset, Take

ABOUT = "longtake_cache"
ABANDONED = 24 * 3600  # seconds after which a half-written file is nobody's
Tensors = dict[str, Tensor]


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


class TensorCache:
    """Tensors by a key, kept in a folder.

    Args:
        folder: where; made if it is not there.
        maker: what an entry depends on beside its key, such as ``weights_key`` of the VAE and the size of its tiles.

    Attributes:
        hits, misses, damaged: what happened so far; a damaged entry is a miss too.

    Raises:
        ValueError: nothing can be written there.
    """

    def __init__(self, folder: Path, maker: str):
        self.folder, self.maker = folder, maker
        self.hits = self.misses = self.damaged = 0
        check_writable(folder)
        for path in folder.glob("*/.*.partial"):
            with contextlib.suppress(FileNotFoundError):  # another process tidies up too
                if time.time() - path.stat().st_mtime > ABANDONED:
                    path.unlink()

    def get(self, key: str, make: Callable[[], Tensors]) -> Tensors:
        """What was made for this key, from the disk if it is there.

        Args:
            key: what it is made from.
            make: makes it.

        Raises:
            ValueError: what was made has numbers that are not finite; it is not kept.
        """
        known = self._read(key)
        if known is not None:
            self.hits += 1
            return known
        self.misses += 1
        made = {name: value.detach().cpu().contiguous() for name, value in make().items()}
        check_finite(made)
        save_sealed(self._path(key), ABOUT, [self.maker, key], made)
        return made

    def holds(self, key: str) -> bool:
        """Whether there is an entry, which may still prove damaged."""
        return self._path(key).is_file()

    def text(self) -> str:
        """What happened so far."""
        damaged = f", {self.damaged} of them damaged" if self.damaged else ""
        return f"{self.hits} read from {self.folder}, {self.misses} made{damaged}"

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(json.dumps([self.maker, key]).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"

    def _read(self, key: str) -> Tensors | None:
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            entry = load_sealed(path, ABOUT, "cache entry")
            if entry.about == [self.maker, key]:
                check_finite(entry.tensors)
                return entry.tensors
        except ValueError:
            pass  # made anew, as one that says it is another's, or whose numbers are none
        self.damaged += 1
        return None


def check_finite(made: Tensors) -> None:
    """Refuse what training would go wrong with, steps later and with another reason.

    Raises:
        ValueError: there are numbers that are not finite.
    """
    strange = [name for name, value in made.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if strange:
        raise ValueError(f"the {strange[0]} came out with numbers that are not finite: run the model that makes them in float32")


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
    ):
        self.motion, self.held = motion, held
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

    def batch(self, step: int, batch: int, places: range | None = None) -> EncodedBatch:
        """The clips of a step, or those at some ``places`` of it.

        Raises:
            ValueError: none of the clips of that size can be read.
        """
        return self._together(self.dataset.each(step, batch, lambda take: (take, self._video(take)), places))

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

    def report(self) -> str:
        """What the cache did, and which clips were passed over."""
        cached = "No cache."
        if self.videos is not None and self.texts is not None:
            cached = f"Latents: {self.videos.text()}. Texts: {self.texts.text()}."
        return "\n".join([cached, *self.dataset.report.reading()])

    def _video(self, take: Take) -> Tensors:
        def make() -> Tensors:
            clip = self.dataset.read(take)
            encoded = {"latents": self.encode_video(clip.pixels)}
            if self.motion:
                encoded["motion"] = torch.tensor(clip.motion)
            if clip.marked is not None:
                encoded["marked"] = (clip.marked > 0.5).to(torch.uint8)
            check_finite(encoded)
            return encoded

        return make() if self.videos is None else self.videos.get(self.dataset.key(take), make)
