"""A take on its way to the disk: finished frames are decoded in batches, written, and what the take goes on from is kept beside them.

One recorder serves every sampler that finishes frames before its end. Batches always begin at the same frame numbers, so a take that was
interrupted decodes the same frames together as one that was not. A frame is on the disk before the state says so: whenever a run is
killed, or the computer with it, the next one goes on and makes the same frames.
"""

from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..sampling.job import Algorithm, Job, Recordable, Step
from .atomic import NotWritten
from .fingerprint import fingerprint
from .lock import owned
from .recording import Recording
from .state import has_state, mend
from .take_facts import differences, facts_of, facts_of_job
from .take_file import Saved, load

AGAIN = "choose another folder or prefix, or turn resume off, which sets that take aside and begins again"


class Recorder:
    """Makes a take and writes its frames; used as a context, it holds the take's lock and leaves a state to go on from.

    Args:
        recording: where and how.
        sampler: that makes the take.
        job: what it is given.
        told: gives what else the frames hang on, such as the model: texts by name, as ``fingerprint`` makes them, which takes a while.

    Raises:
        ValueError: the sampler finishes nothing before its end, or its frames cannot be decoded on their own; on entering, where there is
            another take of this name, or somebody else is making it.
    """

    def __init__(self, recording: Recording, sampler: Algorithm, job: Job, told: Callable[[], dict[str, Any]]):
        if not isinstance(sampler, Recordable):
            raise ValueError(
                f"{type(sampler).__name__} finishes all frames together, so none can go to disk before its end: do without a recording, or"
                " use Causal Take, FIFO Sampler, Forcing Sampler, Rollout or Extend"
            )
        self.recording, self.files, self.sampler, self.job = recording, recording.files, sampler, job
        self.decoder = recording.decoder(job)
        known = sampler.given_frames(job)
        extent = sampler.extent(job)
        run = told() | facts_of(sampler) | facts_of_job(job, known[0], extent.frames)
        run |= {"known_frames": fingerprint(known), "vae": recording.vae}
        run |= {"format": self.files.format, "decode_batch": recording.batch}
        run |= {"fps": self.files.fps} if self.files.format == "mp4" else {}
        ids, frames = (tensor.detach().cpu() for tensor in known)
        self.beginning = Saved(None, ids, frames, 0, len(ids), run, extent)
        self.now = self.beginning
        self.kept: Saved | None = None  # what is on disk
        self.lost: set[int] = set()  # batches that are made again before the take goes on
        self.pictures = 0  # that are on disk
        self.last: Tensor | None = None  # pictures that were decoded last
        self.notes: list[str] = []
        self.stack = ExitStack()

    @property
    def name(self) -> str:
        """The take, in a sentence."""
        return f"the take {self.files.prefix} in {self.files.folder}"

    def __enter__(self) -> "Recorder":
        with self.stack:
            self.stack.enter_context(owned(self.files.lock, self.name))
            self.files.sweep()
            if self.recording.resume:
                self._go_on()
            self.decoder.restore(self.now.decoder)
            self.begun_at = self.now.finished
            self.stack = self.stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Leave a state, unless it is the disk that failed."""
        with self.stack, ExitStack() as last:
            last.callback(self.recording.told, self)
            if self.kept is not None and self.kept is not self.now and not self.lost and not isinstance(error, NotWritten):
                self._save()

    def steps(self) -> Generator[Step, None, Tensor]:
        """The sampler's steps; each must be given to ``watch``. Returns ``f ...``, the last frames, as many as a batch."""
        if self.lost:
            go_on, self.now = self.now, self.beginning
            self.decoder.restore(self.now.decoder)
            try:
                yield from self._until_nothing_is_lost()
            finally:
                self.now = go_on
                self.decoder.restore(go_on.decoder)
        total = self.now.extent.frames
        if not total or self.now.finished < total:
            yield from self._sampled()
        self._end()
        return self.now.held[-self.recording.batch :].to(self.job.latent)

    def _until_nothing_is_lost(self) -> Generator[Step, None, None]:
        steps = self._sampled()
        for step in steps:
            yield step
            if not self.lost:
                break
        steps.close()

    def _sampled(self) -> Generator[Step, None, Tensor]:
        steps = self.sampler(replace(self.job, state=self.now.state, collect=False))
        try:
            return (yield from steps)
        finally:
            steps.close()

    def watch(self, step: Step) -> Tensor | None:
        """Take a step of the sampler. Returns ``h w c`` in 0..1, the last frame that was written now, or None."""
        if step.state is None or step.finished is None or step.ids is None:
            return None
        ids, order = torch.cat([self.now.held_ids, step.ids.cpu()]).sort()
        held = torch.cat([self.now.held, step.finished.detach().to(self.now.held)])[order]
        finished = self.now.finished + len(step.ids)
        self.now = replace(self.now, state=step.state, held_ids=ids, held=held, finished=finished, parts=None)
        if self.kept is None:
            if not len(step.ids):
                return None
            self._begin()  # there is a first frame: only now does anything old make room
        picture = None
        batch, total = self.recording.batch, self.now.extent.frames
        while self._ready() >= batch and (not total or self.now.written + batch < total):  # the last ones are ``_end``'s
            picture = self._write(batch)
        if self.lost:
            return None
        if self.now.finished - (0 if self.kept is None else self.kept.finished) >= self.recording.every and self._settled(step):
            self._save()
        if self.now.row == self.now.extent.open_rows:
            self._past().save(self.files.open_state)
        return picture if self.recording.preview else None

    def ended(self) -> Tensor | None:
        """The take ends here, as the user wants it. Returns ``f ...``, the last frames that are finished; None where none is."""
        if self.kept is None or self.lost or not len(self.now.held):
            return None
        self.notes.append("stopped by Cancel: queue the same job again and it goes on")
        return self.now.held[-self.recording.batch :].to(self.job.latent)

    def _settled(self, step: Step) -> bool:
        """Whether this is a good moment to write the past: frames that were just finished are shown once more before they stay in it."""
        return step.ids is None or not len(step.ids) or not self.job.memory.parts()

    def text(self) -> str:
        """What has been done."""
        on = f", gone on at frame {self.decoder.pictures(self.begun_at)}" if self.begun_at > self.beginning.finished else ""
        return "; ".join([f"{self.pictures} frames in {self.files.folder}{on}", *self.notes])

    def last_files(self) -> list[Path]:
        """The files of the last frames, as many as a batch."""
        if self.files.format != "mp4":
            return [self.files.path(number) for number in range(self.pictures)[-self.recording.batch :]]
        firsts = (self.decoder.pictures(first) for first in range(0, self.now.finished, self.recording.batch))
        return [self.files.path(first) for first in firsts if first < self.pictures][-1:]

    def _ready(self) -> int:
        """How many frames can be written: those that follow what is written without a gap."""
        waiting = self.now.held_ids[self.now.held_ids >= self.now.written]
        return int((waiting == torch.arange(len(waiting)) + self.now.written).cumprod(0).sum())

    def _write(self, count: int) -> Tensor | None:
        """Put the next ``count`` frames on disk; those that are there, while others are made again, stay. Gives the last picture."""
        first, picture = self.now.written, None
        if first in self.lost or not self.lost or self.decoder.carries:
            pictures = self._decoded(first, count)
            if first in self.lost or not self.lost:
                picture = self._write_pictures(first, pictures)
        self.lost.discard(first)
        written = first + count
        kept = self.now.held_ids >= written - self.recording.batch
        self.now = replace(self.now, written=written, held_ids=self.now.held_ids[kept], held=self.now.held[kept].clone())
        self.now = replace(self.now, decoder=self.decoder.tensors())
        self.pictures = max(self.pictures, self.decoder.pictures(written))
        return picture

    def _end(self) -> None:
        """Put the last frames on disk, a batch or fewer, and leave a state in which they are not: it may be made longer from there."""
        first, count = self.now.written, self._ready()
        self.pictures = self.decoder.pictures(self.now.finished, last=True)
        there = self.kept is self.now and not self.files.lost(range(self.decoder.pictures(first), self.pictures))
        if there and not self.decoder.carries:
            return
        pictures = self._decoded(first, count, last=True)
        if not there:
            self._write_pictures(first, pictures)
        if self.kept is not self.now:
            self._save()

    def _decoded(self, first: int, count: int, *, last: bool = False) -> Tensor:
        frames = self.now.held[self.now.held_ids >= first][:count]
        self.last = self.decoder(self.job.to_latent(frames.to(self.job.latent)), last=last)
        return self.last

    def _write_pictures(self, first: int, pictures: Tensor) -> Tensor | None:
        if not len(pictures):
            return None
        self.files.write(self.decoder.pictures(first), pictures)
        return pictures[-1]

    def _begin(self) -> None:
        aside = None if self.recording.resume else self.files.set_aside()
        if aside is not None:
            self.notes.append(f"the take that was there lies in {aside}")
        self._save()

    def _save(self) -> None:
        self._past().save(self.files.state)
        self.kept = self.now
        self.files.keep_past()

    def _past(self) -> Saved:
        """The present state, with what the model remembers on the disk."""
        if self.now.parts is None:
            there = {} if self.kept is None else self.kept.parts or {}
            self.now = replace(self.now, parts=self.files.past.write(self.job.memory.parts(), there))
        self.now = replace(self.now, pictures=self.pictures)
        return self.now

    def _go_on(self) -> None:
        """Begin where the take of this name is, if there is one and it is this one."""
        found = self._found()
        if not found:
            return
        now = self.beginning
        names = dict.fromkeys([*found[0].extent.differing(now.extent), *differences(found[0].run, now.run)])
        if names:
            raise ValueError(f"{self.name} was made with other settings ({', '.join(names)} differ): {AGAIN}")
        fitting = [saved for saved in found if saved.row <= saved.extent.shared(now.extent)]
        if not fitting:
            ends = f"{found[0].extent.frames or 'no'} frames as its end"
            raise ValueError(
                f"{self.name} was to have {ends}, and is too far on for another end ({found[0].finished} are finished): {AGAIN}"
            )
        fitting[0].check(now)
        self.now = replace(fitting[0], run=now.run, extent=now.extent)
        self.kept, self.pictures = self.now, self.decoder.pictures(self.now.written)
        if fitting[0] is not found[0]:
            self.notes.append(f"made longer, for which its frames from {self.pictures} on are made again")
        self._find_lost()

    def _found(self) -> list[Saved]:
        """The states that can be read, the last one first.

        Raises:
            ValueError: there are files of a take, and none of its states can be read.
        """
        found, wrong = [], []
        for path in (self.files.state, self.files.open_state):
            if has_state(path):
                try:
                    found.append(load(path))
                except ValueError as error:
                    wrong.append(str(error))
                    continue
                if found[-1].note:
                    mend(path)
        if not found and (wrong or self.files.all()):
            reason = wrong[0] if wrong else "it has frames and no state to go on from"
            raise ValueError(
                f"{self.name} cannot go on, and what is there is left as it is: {reason}. Put a copy back, or {AGAIN}"
            )
        self.notes += [saved.note for saved in found if saved.note] + (wrong if found else [])
        return found

    def _find_lost(self) -> None:
        """Find files that are not there or not whole: those whose frames are kept are written again now, the others are to be made."""
        batch, pictures = self.recording.batch, self.decoder.pictures
        batches = {first: range(pictures(first), pictures(first + batch)) for first in range(0, self.now.written, batch)}
        lost = {first: gone for first, numbers in batches.items() if (gone := self.files.lost(numbers))}
        most = min(self.now.pictures, pictures(self.now.finished, last=True))
        end = range(pictures(self.now.written), most) if self.now.finished == self.now.extent.frames else range(0)
        names = [self.files.path(number).name for gone in (*lost.values(), self.files.lost(end)) for number in gone]
        if not names:
            return
        more = f" and {len(names) - 1} more" if names[1:] else ""
        self.notes.append(f"{names[0]}{more} had gone or were not whole, and were made again")
        for first in lost:
            wanted = torch.arange(first, first + batch)
            mine = torch.isin(self.now.held_ids, wanted)
            if int(mine.sum()) == batch and not self.decoder.carries:
                self._write_pictures(first, self.decoder(self.job.to_latent(self.now.held[mine].to(self.job.latent))))
            else:
                self.lost.add(first)
