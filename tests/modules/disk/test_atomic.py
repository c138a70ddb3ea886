"""Files that are whole or not there."""

import errno
import os
from pathlib import Path

import pytest
from full_disk import largest_file
from pack.modules.disk import atomic
from pack.modules.disk.atomic import NotWritten, append, leftovers, replacing, whole_files


def test_a_file_has_its_name_when_all_of_it_is_there(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    with replacing(path) as partial:
        partial.write_text("whole")
        assert not path.exists()
        assert leftovers(path) == [partial]
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_it_is_on_the_disk_before_it_has_its_name_and_its_folder_after(tmp_path, monkeypatch):
    """What a loss of power may not separate; the folders that were made are among it."""
    done, real = [], os.fsync

    def noted(handle):
        done.append((str(Path(f"/proc/self/fd/{handle}").readlink()), path.exists()))
        real(handle)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not say what a handle is of")
    path = tmp_path / "new" / "a.txt"
    monkeypatch.setattr(os, "fsync", noted)
    with replacing(path) as partial:
        partial.write_text("whole")
    assert done == [(str(tmp_path), False), (str(partial), False), (str(path.parent), True)]


@pytest.mark.parametrize("fails", ["the writer", "the disk"])
def test_what_was_there_stays_when_something_fails(fails, tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    if fails == "the disk":
        monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NotWritten if fails == "the disk" else RuntimeError), replacing(path) as partial:
        partial.write_text("new")
        if fails == "the writer":
            raise RuntimeError("no picture")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_several_files_come_together_or_not_at_all(tmp_path):
    paths = [tmp_path / name for name in "abc"]
    paths[1].write_text("old")
    with pytest.raises(NotWritten, match="make room"), largest_file(100), whole_files() as draft:
        for number, path in enumerate(paths):
            draft(path).write_bytes(b"x" * 80 * (number + 1))
    assert [path.exists() for path in paths] == [False, True, False]
    assert paths[1].read_text() == "old"
    with whole_files() as draft:
        for path in paths:
            draft(path).write_text("new")
    assert [path.read_text() for path in paths] == ["new"] * 3


@pytest.mark.parametrize(
    ("number", "old", "sentence"),
    [
        (errno.ENOSPC, False, "there was none before: make room and try again"),
        (errno.EFBIG, True, "what was there before is kept: make room and try again"),
        (errno.EROFS, True, "what was there before is kept: choose another folder and try again"),
        (errno.ENAMETOOLONG, False, "there was none before: give a shorter name and try again"),
        (errno.EIO, False, "there was none before: look after the disk, or choose another folder and try again"),
    ],
)
def test_each_reason_has_its_remedy(number, old, sentence, tmp_path):
    path = tmp_path / "a.txt"
    if old:
        path.touch()
    with pytest.raises(NotWritten) as caught, replacing(path):
        raise OSError(number, os.strerror(number))
    assert str(caught.value) == f"{path} cannot be written ({os.strerror(number)}); {sentence}"
    assert caught.value.full is ("make room" in sentence)


def test_the_system_s_own_refusals_are_sentences(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotWritten, match="cannot be written"), replacing(tmp_path / "file" / "a.txt"):
        pass
    with pytest.raises(NotWritten, match=r"give a shorter name"), replacing(tmp_path / ("n" * 300)) as partial:
        partial.write_text("")
    with pytest.raises(NotWritten, match="make room"), largest_file(10):
        append(tmp_path / "log", "a longer line than that\n")


def test_a_folder_that_cannot_be_brought_to_the_disk_is_not_a_fault_of_the_file(tmp_path, monkeypatch):
    """Some network file systems know nothing of it; but a disk that fails then has failed."""
    for number, fine in ((errno.EINVAL, True), (errno.EIO, False)):

        def refusing(folder, number=number):
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(atomic.os, "fsync", refusing)
            if fine:
                atomic.folder_to_disk(tmp_path)
            else:
                with pytest.raises(OSError, match="Input/output"):
                    atomic.folder_to_disk(tmp_path)


def test_leftovers_are_those_of_one_file(tmp_path):
    others = (".a[1].txt.partial", ".a1.txt.7-ab.partial", ".a[1].txt2.7-ab.partial", ".a[1].txt.before.7-ab.partial", "a[1].txt")
    for name in (".a[1].txt.7-ab.partial", *others):
        (tmp_path / name).touch()
    assert [path.name for path in leftovers(tmp_path / "a[1].txt")] == [".a[1].txt.7-ab.partial"]


def test_lines_are_added(tmp_path):
    append(tmp_path / "new" / "log", "a\n")
    append(tmp_path / "new" / "log", "b\n")
    assert (tmp_path / "new" / "log").read_bytes() == b"a\nb\n"
