"""One recorder for all samplers, on models of a few numbers: stopped anywhere, crashed at every moment, made longer."""

import shutil
import sys

import pytest
import torch
from full_disk import small_tmpfs
from pack.modules.disk.atomic import NotWritten
from small_takes import SAMPLERS, Stopped, backwards, endless, extension, fifo, forcing, frames_in, made, stopped_at
from writes import recorded


@pytest.mark.parametrize("build", SAMPLERS, ids=lambda build: build.__name__)
def test_every_sampler_goes_on_from_wherever_it_was_stopped(build, tmp_path):
    _, tail = made(tmp_path / "whole", build)
    expected = frames_in(tmp_path / "whole")
    assert len(expected) == 9
    for finished in range(1, 10):
        folder = tmp_path / f"at {finished}"
        with pytest.raises(Stopped):
            made(folder, build, change=stopped_at(finished))
        recorder, end = made(folder, build)
        assert recorder.begun_at >= min(finished, 9), "nothing that was finished is made again"
        assert frames_in(folder) == expected
        assert torch.equal(end, tail)


@pytest.mark.parametrize("size", ["8k", "24k", "40k"])
@pytest.mark.parametrize("build", [endless, backwards], ids=lambda build: build.__name__)
def test_a_full_disk_loses_nothing(build, size, tmp_path):
    """A real one: too small for a first state, for a batch of frames, for another state."""
    made(tmp_path / "whole", build)
    expected = frames_in(tmp_path / "whole")
    with small_tmpfs(tmp_path / "take", size) as resized:
        with pytest.raises(
            NotWritten, match=r"cannot be written \(No space left on device\).*: make room and try again"
        ) as error:
            made(tmp_path / "take", build)
        assert error.value.full and "\n" not in str(error.value)
        there = frames_in(tmp_path / "take")
        assert all(expected[name] == content for name, content in there.items())
        assert not list((tmp_path / "take").glob(".*"))
        resized("1m")
        made(tmp_path / "take", build)
        assert frames_in(tmp_path / "take") == expected


@pytest.mark.parametrize("build", [endless, forcing, fifo, extension], ids=lambda build: build.__name__)
def test_every_sampler_makes_a_finished_take_longer(build, tmp_path):
    for frames in (9, 10, 16):
        made(tmp_path / f"whole {frames}", build, frames)
        recorder, _ = made(tmp_path / "take", build, frames)
        assert frames_in(tmp_path / "take") == frames_in(tmp_path / f"whole {frames}")
        assert frames == 9 or recorder.begun_at > 0
    with pytest.raises(ValueError, match=r"was to have 16 frames as its end, and is too far on for another end"):
        made(tmp_path / "take", build, 12)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the names of open files from /proc")
@pytest.mark.parametrize("resume", [True, False])
def test_a_crash_at_any_moment_loses_nothing_that_was_said_to_be_kept(tmp_path, monkeypatch, resume):
    """Every prefix of the writes in their order; each write that no ``fsync`` covers lost, alone and all together. Power is gone."""
    made(tmp_path / "whole")
    expected = frames_in(tmp_path / "whole")
    live = tmp_path / "live"
    old = {}
    if not resume:
        made(live, frames=5, told={"model": "another"})
        old = frames_in(live)
    with recorded(live, monkeypatch) as journal:
        made(live, resume=resume)
    assert len(journal.changes) - journal.first > 40
    crashes = list(journal.crashes())
    assert len(crashes) > 60
    for count, files in crashes:
        folder = tmp_path / "crashed"
        shutil.rmtree(folder, ignore_errors=True)
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        if not resume:  # what was there before is there, in one place or the other
            kept = [content for path, content in files.items() if path.suffix == ".png"]
            assert set(old.values()) <= set(kept), f"after {count} changes"
            continue
        recorder, _ = made(folder)
        assert frames_in(folder) == expected, f"after {count} changes"
        assert not recorder.notes, f"after {count} changes: {recorder.notes}"
        assert not list(folder.glob(".*")), "no lock, and nothing half-written"
