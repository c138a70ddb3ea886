"""Clips read ahead by threads: the same clips, the same report, whatever is asked for."""

import threading
import time
from dataclasses import replace

import pytest
import torch
from clip_files import grey_frames, write_animation, write_sequence
from pack.modules.data.ahead import ReadAhead
from pack.modules.data.cache import EncodedClips
from pack.modules.data.clips import ClipDataset
from pack.modules.data.find import find_clips
from pack.modules.data.settings import ClipSettings
from pack.modules.train.encoded import source_of

SETTINGS = ClipSettings(
    frames=3, stride=1, width=32, height=24, multiple=8, crop="random", flip="always allowed", missing_captions="train without"
)


@pytest.fixture
def data(tmp_path):
    for number in range(3):
        write_animation(tmp_path / f"{number}.gif", grey_frames(8, seed=number))
    write_sequence(tmp_path / "3", grey_frames(8, seed=3))
    return ClipDataset(find_clips(tmp_path), SETTINGS)


def read_by(data, threads):
    return ReadAhead(data, data.read, threads)


@pytest.mark.parametrize(("batch", "micro"), [(1, 1), (3, 3), (4, 2), (3, 2)])
@pytest.mark.parametrize("threads", [1, 3])
def test_steps_are_those_without_threads(data, threads, batch, micro):
    ahead = read_by(data, threads)
    for step in (5, 6, 7, 2, 3):  # a run that is resumed elsewhere, and one that went back
        for start in range(0, batch, micro):
            places = range(start, min(batch, start + micro))
            expected = data.each(step, batch, data.read, places)
            given = ahead.each(step, batch, places)
            assert [clip.take for clip in given] == [clip.take for clip in expected]
            assert all(torch.equal(one.pixels, other.pixels) for one, other in zip(given, expected, strict=True))


def test_the_next_step_is_read_before_it_is_asked_for(data):
    seen, done = [], threading.Event()

    def use(take):
        seen.append(take)
        if len(seen) == 4:
            done.set()
        return take

    ahead = ReadAhead(data, use, 2)
    assert ahead.each(0, 2, range(2)) == data.takes(0, 2)
    assert done.wait(10), "nothing is asked for meanwhile"
    assert sorted(map(repr, seen)) == sorted(map(repr, [*data.takes(0, 2), *data.takes(1, 2)]))
    assert ahead.each(1, 2, range(2)) == data.takes(1, 2)


def test_waiting_ends_where_a_step_takes_longer_than_a_clip(data):
    """Clips of 20 ms for steps of 60: with threads a step waits for next to nothing."""

    def use(take):
        time.sleep(0.02)
        return take

    def waited(threads):
        ahead, total = ReadAhead(data, use, threads), 0.0
        for step in range(6):
            began = time.perf_counter()
            ahead.each(step, 2, range(2))
            total += (time.perf_counter() - began) if step else 0
            time.sleep(0.06)
        return total / 5

    assert waited(0) > 0.04
    assert waited(2) < 0.01


def test_damage_is_counted_when_its_step_comes(data, tmp_path):
    (tmp_path / "1.gif").write_bytes(b"GIF89a")
    plain, threaded = (ClipDataset(data.found, data.settings) for _ in range(2))
    ahead = read_by(threaded, 3)
    for step in range(6):
        plain.each(step, 2, plain.read)
        ahead.each(step, 2, range(2))
        assert threaded.report.passed_over == plain.report.passed_over
    assert plain.report.passed_over


def test_what_cannot_be_read_at_all_stops_the_step(data, tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.gif").unlink()
    for picture in (tmp_path / "3").iterdir():
        picture.unlink()
    with pytest.raises(ValueError, match="none of the 4 clips can be read any more: .*; put the files back"):
        read_by(data, 2).each(0, 1, range(1))


@pytest.mark.parametrize("cached", [False, True])
def test_a_training_s_batches_are_the_same(data, cached, tmp_path):
    data = ClipDataset(data.found, replace(data.settings, variants=2))
    thread = threading.get_ident()

    def encode(pixels):
        assert threading.get_ident() == thread, "the VAE belongs to the thread that trains"
        return pixels[:, :, ::4, ::4]

    def source(folder, read_ahead):
        keys = {"video_key": "v", "text_key": "t"}
        return source_of(EncodedClips(data, encode, lambda caption: {}, folder=folder, **keys), 2, read_ahead=read_ahead)

    plain, ahead = source(None, 0), source(tmp_path / "cache" if cached else None, 2)
    for step in (0, 1, 2, 1):
        assert torch.equal(ahead(step, range(2)).clips, plain(step, range(2)).clips)
