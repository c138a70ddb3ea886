"""The clips that a training step sees.

Everything drawn for step ``i`` (which clips, where they begin, how they are cut) depends on ``(seed, i, place in the batch)`` only, not on
what was asked before or by how many threads. A run resumed at step ``i`` goes on with the clips an unbroken one would have seen, and
nothing needs to be stored for that.
"""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any, TypeVar

import torch

from ..noise.seeded import frame_seed
from .captions import FLIPS, filled_in
from .footage import Unreadable
from .lengths import measured_rate, one_of
from .order import Order
from .report import Report, counted
from .settings import ClipSettings
from .sizes import CROPS, SIZES, Size, crop, resized
from .source import Found
from .take import Clip, ClipBatch, Take
from .usable import described, usable

log = logging.getLogger("longtake")
T = TypeVar("T")
Note = Callable[[str, str], None]  # takes the name of a clip that could not be read, and why
CUTS, ROUNDS = 8, 2  # how many cuts of a damaged source are tried, and of each of the others after it


class ClipDataset:
    """Clips cut from sources.

    Args:
        found: what ``find_clips``, ``from_images`` or ``moving_shapes`` gave.
        settings: how to cut them.

    Attributes:
        sources: those that are used, in their order.
        sizes: of the clips of each.
        captions: of each, never None.
        report: what became of all that was found; files that fail later are added.

    Raises:
        ValueError: clips are too short, of mixed sizes or without captions, and the settings do not say what to do then; or none is left.
    """

    def __init__(self, found: Found, settings: ClipSettings | None = None):
        self.found, self.settings = found, settings or ClipSettings()
        self.report = found.report.with_more(Report())
        self._starts = lru_cache(maxsize=None)(self.settings.pace.starts)
        self.sources = usable(found.sources, self.settings, self._starts, self.report)
        names = [source.name for source in self.sources]
        chosen = self.settings
        wanted = {"missing": chosen.missing_captions, "instead": chosen.caption, "before": chosen.caption_before}
        self.captions = filled_in([source.caption for source in self.sources], names, **wanted)
        whole = [Size(source.footage.width, source.footage.height) for source in self.sources]
        self.sizes = SIZES[self.settings.sizes](whole, self.settings.size, self.settings.multiple)
        self._motions: list[float] | None = None
        self._order = lru_cache(maxsize=4)(lambda batch: Order(self.sizes, batch, self.settings.seed))
        self.report.used = len(self)
        self.report.notes += described(self.sources, self.settings, whole, self.sizes)

    def __len__(self) -> int:
        """How many sources there are."""
        return len(self.sources)

    def with_more(self, found: Found) -> "ClipDataset":
        """A data set of these sources and more, cut in the same way."""
        return ClipDataset(self.found.and_then(found), self.settings)

    def cut_anew(self, **changes: Any) -> "ClipDataset":
        """The same sources, with some settings changed."""
        return ClipDataset(self.found, replace(self.settings, **changes))

    def otherwise(self) -> "ClipDataset | None":
        """The same clips, cut alike, with something else in each than its words say; None where nobody knows how."""
        footage = [source.footage.otherwise() for source in self.sources]
        others = [replace(source, footage=each) for source, each in zip(self.sources, footage, strict=True) if each is not None]
        return ClipDataset(Found(others), self.settings) if len(others) == len(self) else None

    def fingerprint(self) -> str:
        """A text that is another when the content of a file, a caption or a setting is: what a run to resume must find unchanged.

        Reads every file once.

        Raises:
            Unreadable: a file is gone.
        """
        about = [[source.key, caption] for source, caption in zip(self.sources, self.captions, strict=True)]
        return hashlib.sha256(json.dumps([asdict(self.settings), about], sort_keys=True).encode()).hexdigest()

    # What a step sees

    def epoch(self, batch: int) -> int:
        """Steps until every source was seen about once."""
        return self._order(batch).epoch

    def takes(self, step: int, batch: int) -> list[Take]:
        """The clips of a step before they are read, all of one size.

        Raises:
            ValueError: the batch is empty, or the step negative.
        """
        if batch < 1 or step < 0:
            raise ValueError(f"step {step} of batches of {batch} cannot be: steps count from 0, and a batch is one clip at least")
        chosen = self._order(batch).step(step)
        return [self.take(source, self._variant(step, number)) for number, source in enumerate(chosen)]

    def take(self, source: int, variant: int = 0, size: Size | None = None) -> Take:
        """One of the clips that can be cut from a source.

        Args:
            source: its number.
            variant: which one.
            size: that it is cut to; None for its own.
        """
        settings, origin, size = self.settings, self.sources[source], size or self.sizes[source]

        def draw(purpose: str) -> float:
            return frame_seed(settings.seed, variant, f"clip {source} {purpose}") / 2**63

        pace, timing, starts = settings.pace, origin.timing, self._starts(origin.timing)
        if len(starts):
            start = starts[one_of(len(starts), draw("start"), variant, settings.variants)]
            indices = pace.taken(timing, int(start))
        else:
            indices = pace.shortened(timing, settings.short)
        fps = pace.rate(timing) if pace.fps and len(starts) else measured_rate(timing, indices)
        mirrored = FLIPS[settings.flip](self.captions[source]) if draw("flip") < 0.5 else None
        place = CROPS[settings.crop](draw("left"), draw("top"))
        box = crop(Size(origin.footage.width, origin.footage.height), size, *place)
        caption = self.captions[source] if mirrored is None else mirrored
        return Take(source, indices, box, size, mirrored is not None, caption, fps)

    def key(self, take: Take) -> str:
        """A text that differs where the pixels of a clip differ, whatever its file is called.

        Raises:
            Unreadable: the file is gone.
        """
        how = [take.indices, take.box, take.size, take.flipped]
        return hashlib.sha256(f"{self.sources[take.source].key} {json.dumps(how)}".encode()).hexdigest()

    def read(self, take: Take) -> Clip:
        """The clip, decoding the frames it needs and holding none but them.

        Raises:
            Unreadable: the file is damaged, or no longer there.
        """
        source, needed = self.sources[take.source], sorted(set(take.indices))
        most = source.marked(needed)
        marked = None if most is None else self._cut(take, needed, (each[..., None] for each in most))
        return Clip(self._cut(take, needed, source.pictures(needed)) * 2 - 1, source, take, marked)

    def clip(self, source: int, step: int = 0, place: int = 0) -> Clip:
        """The clip that a place of a step's batch would get from a source.

        Raises:
            Unreadable: the file is damaged, or no longer there.
        """
        return self.read(self.take(source, self._variant(step, place)))

    def batch(self, step: int, batch: int) -> ClipBatch:
        """The clips of a step.

        Raises:
            ValueError: none of the clips of that size can be read.
        """
        clips = tuple(self.each(step, batch, self.read))
        return ClipBatch(torch.stack([clip.pixels for clip in clips]), clips)

    def each(
        self, step: int, batch: int, use: Callable[[Take], T], places: range | None = None, note: Note | None = None
    ) -> list[T]:
        """What ``use`` makes of each clip of a step, or of those at some ``places`` of it.

        A clip that turns out to be damaged is counted in the report and passed over: its place takes another cut of the same source,
        else another source, of another size where there is no other, cut to the batch's; always the same for the same step and place.
        ``note`` is told of damage instead of the report.

        Raises:
            ValueError: none of the sources can be read.
        """
        takes = self.takes(step, batch)
        return [self._first_sound(takes[place], step, place, use, note) for place in (range(batch) if places is None else places)]

    def pictures(self, step: int, batch: int, use: Callable[[Take], T], *, place: int, count: int) -> list[T]:
        """What ``use`` makes of ``count`` single frames that go with the clip at a place of a step's batch: of any sources of its size.

        Raises:
            ValueError: none of the clips of that size can be read.
        """
        size = self.takes(step, batch)[place].size
        sources = [number for number, own in enumerate(self.sizes) if own == size]
        drawn = [frame_seed(self.settings.seed, step, f"picture {place} {number}") for number in range(count)]

        def frame(take: Take, chance: int) -> Take:
            return replace(take, indices=take.indices[chance // len(sources) % len(take.indices) :][:1])

        return [
            self._first_sound(
                self.take(sources[chance % len(sources)], self._variant(step, place)),
                step,
                place,
                lambda take, chance=chance: use(frame(take, chance)),
            )
            for chance in drawn
        ]

    def sound(self, take: Take, use: Callable[[Take], T]) -> T | None:
        """What ``use`` makes of a clip; None, counted in the report, if it turns out to be damaged."""
        try:
            return use(take)
        except Unreadable as error:
            self.note(self.sources[take.source].name, str(error))
            return None

    def note(self, name: str, reason: str) -> None:
        """Count that a clip could not be read when it was needed."""
        if self.report.pass_over(name, reason):
            log.warning("a clip is passed over: %s: %s", name, reason)

    # How much moves

    def measure_motion(self, tick: Callable[[int, int], None] | None = None) -> list[float]:
        """Pixels per frame of a clip from each source, measured once; NaN where it cannot be read.

        Args:
            tick: is told how many are measured, and of how many; may raise to stop.
        """
        if self._motions is None:
            motions = []
            for number in range(len(self)):
                motion = self.sound(self.take(number), lambda take: self.read(take).motion)
                motions.append(math.nan if motion is None else motion)
                if tick:
                    tick(number + 1, len(self))
            self._motions = motions
        return self._motions

    # Within

    def _cut(self, take: Take, needed: list[int], pictures: Iterator[torch.Tensor]) -> torch.Tensor:
        """The frames of a take from those that it needs, ``h w c`` each: ``f c p q``."""
        small = {index: resized(picture, take.box, take.size) for index, picture in zip(needed, pictures, strict=True)}
        cut = torch.stack([small[index] for index in take.indices])
        return cut.flip(-1) if take.flipped else cut

    def _variant(self, step: int, place: int, turn: int = 0) -> int:
        drawn = frame_seed(self.settings.seed, step, f"variant {place}" + (f" {turn}" if turn else ""))
        return drawn % self.settings.variants if self.settings.variants else drawn

    def _first_sound(self, take: Take, step: int, place: int, use: Callable[[Take], T], note: Note | None = None) -> T:
        reason = ""
        for other in self._instead(take, step, place):
            try:
                return use(other)
            except Unreadable as error:
                reason = str(error)
                (note or self.note)(self.sources[other.source].name, reason)
        raise ValueError(
            f"none of the {counted(len(self), 'clip')} can be read any more: {reason}; put the files back, or take them out of the data"
        )

    def _instead(self, take: Take, step: int, place: int) -> Iterator[Take]:
        """A clip, and what takes its place where it is damaged, the nearest to it first."""
        yield take
        settings = self.settings
        drawn = [self._variant(step, place, turn) for turn in range(CUTS)]
        cuts = range(settings.variants)[:CUTS] if settings.variants else drawn
        yield from (self.take(take.source, variant, take.size) for variant in cuts)
        others = [number for number in range(len(self)) if number != take.source]
        others.sort(
            key=lambda other: (self.sizes[other] != take.size, frame_seed(settings.seed, step, f"instead {place} {other}"))
        )
        for variant in drawn[:ROUNDS]:
            yield from (self.take(other, variant, take.size) for other in others)
