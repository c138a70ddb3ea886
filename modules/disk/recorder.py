"""A take on its way to the disk: finished frames are decoded in batches, written, and what the take goes on from is kept beside them.

Batches always begin at the same frame numbers, so a take that was interrupted decodes the same frames together as one that was not. A
frame is on disk before the state says so, and the state is there before the first frame: whenever a run is killed, the next one goes on.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..sampling.endless import Endless
from ..sampling.job import State, Step
from .atomic import NotWritten
from .frame_files import FrameFiles
from .state import has_state
from .take_file import Saved, differences, load

Decode = Callable[[Tensor], Tensor]  # latents ``f ...`` -> pictures ``f h w c`` in 0..1
ANEW = "choose another folder or prefix, or turn resume off to begin anew, which removes that take"


class Recorder:
    """Takes the steps of an endless take and writes its frames; used as a context, it leaves a state to go on from.

    Args:
        take: the sampler; with ``resume`` the recorder's own goes on from where the take of this name is.
        files: where frames go.
        decode: a VAE.
        run: the settings of the take, numbers and texts by name; they must be those it was begun with. ``frames``, where it ends, may
            change as long as that makes no difference to what is done.
        known: ``k ...``, the frames that the take begins with, as the VAE takes them.
        batch: frames that are decoded together.
        every: frames after which the state is written.
        resume: whether to go on with a take of the same name; else it is removed.

    Raises:
        ValueError: there is another take of this name, or its files are not all there.
    """

    def __init__(
        self,
        take: Endless,
        files: FrameFiles,
        decode: Decode,
        run: dict[str, Any],
        known: Tensor,
        *,
        batch: int = 16,
        every: int = 64,
        resume: bool = True,
    ):
        for name, value in (("decode_batch", batch), ("save_every", every)):
            if value < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1")
        self.take, self.files, self.decode, self.batch, self.every = take, files, decode, batch, every
        self.state = Saved(State(0, torch.arange(0), known[:0]), known, len(known), 0, run)
        self.kept: Saved | None = None  # the state that is on disk
        files.sweep()
        if resume:
            self._go_on()
        else:
            files.clear()
        self.known, self.begun_at = len(known), self.state.finished

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Leave a state, unless it is the disk that failed."""
        if self.kept is not None and self.kept is not self.state and not isinstance(error, NotWritten):
            self._save()

    def watch(self, step: Step) -> Tensor | None:
        """Take a step of the sampler, its finished frames as the VAE takes them. Returns ``h w c`` in 0..1, the last frame written now."""
        assert step.state is not None
        new = self.state.recent[:0] if step.finished is None else step.finished.to(self.state.recent)
        state = replace(
            self.state,
            now=step.state,
            recent=torch.cat([self.state.recent, new]),
            finished=self.state.finished + len(new),
        )
        if self.kept is None:  # so that a run never finds frames and no state
            self.state = state
            self._save()
        picture = None
        while state.finished - state.written >= self.batch:
            state, picture = self._write(state, self.batch)
        keep = max(self.batch, state.finished - state.written)
        self.state = replace(state, recent=state.recent[-keep:].clone())
        if self.kept is None or state.finished - self.kept.finished >= self.every:
            self._save()
        return picture

    def finish(self) -> Tensor:
        """Write what is left of a take that has come to its end. Returns ``f h w c`` in 0..1, its last frames."""
        left = self.state.finished - self.state.written
        if left:
            self.state, _ = self._write(self.state, left)
            self._save()
        return self.decode(self.state.recent[-self.batch :])

    def text(self) -> str:
        """What has been done."""
        on = f", gone on at frame {self.begun_at}" if self.begun_at > self.known else ""
        return f"{self.state.written} frames in {self.files.folder}{on}"

    def _write(self, state: Saved, count: int) -> tuple[Saved, Tensor]:
        """The state with ``count`` more frames on disk, and the last of them."""
        low = len(state.recent) - (state.finished - state.written)
        pictures = self.decode(state.recent[low : low + count])
        with self._kept(f"frame {state.written}"):
            self.files.write(state.written, pictures)
        return replace(state, written=state.written + count), pictures[-1]

    def _save(self) -> None:
        with self._kept("the state of the take"):
            self.state.save(self.files.state)
        self.kept = self.state

    @contextmanager
    def _kept(self, what: str) -> Iterator[None]:
        try:
            yield
        except NotWritten as error:
            raise NotWritten(f"{what}: {error}, with resume on", error.full) from error

    def _go_on(self) -> None:
        name = f"the take {self.files.prefix} in {self.files.folder}"
        if not has_state(self.files.state):
            if self.files.all():
                raise ValueError(f"{name} has frames and no state to go on from: {ANEW}")
            return
        saved = load(self.files.state)
        differing = [key for key in differences(saved.run, self.state.run) if key != "frames"]
        if differing:
            raise ValueError(f"{name} was made with other settings ({', '.join(differing)} differ): {ANEW}")
        before = replace(self.take.plan, frames=saved.run["frames"])
        take = replace(self.take, state=saved.now)
        if not take.continues(before):
            raise ValueError(
                f"{name} was to have {saved.run['frames'] or 'no'} frames as its end, and is too far on for another end"
                f" ({saved.finished} are finished): {ANEW}"
            )
        lost = self.files.missing(saved.written, self.batch)
        if lost is not None:
            raise ValueError(f"{name} lacks {self.files.path(lost).name}, which was there: put it back, or {ANEW}")
        self.take = take
        self.kept = self.state = replace(saved, run=self.state.run)
