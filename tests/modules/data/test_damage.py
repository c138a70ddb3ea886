"""What is damaged stops nothing: other cuts, other files, and a line in the report."""

import logging
from collections import Counter
from dataclasses import replace

import pytest
import torch
from clip_files import grey_frames, write_animation
from numbered import Numbers, dataset, seen
from odd_files import DAMAGED
from odd_footage import number_in
from pack.modules.data.clips import ClipDataset
from pack.modules.data.find import Search, find_clips
from pack.modules.data.footage import Unreadable
from pack.modules.data.settings import ClipSettings


def test_another_cut_of_the_same_file_takes_its_place():
    """One damaged frame of 60: the file goes on being trained on, wherever a clip would have met it."""
    footage = Numbers(60, "a", broken=[40])
    data = dataset(footage, frames=4, stride=2)
    for step in range(300):
        (name, take), *_ = seen(data.batch(step, 1))
        assert name == "a" and 40 not in take.indices
    ((name, (count, reason)),) = data.report.passed_over.items()
    assert (name, reason) == ("a", "frame 40 of a is damaged")
    assert 10 < count < 60, "every clip that met it is counted"
    assert f"  a: {count} times, the last time because frame 40 of a is damaged" in data.report.text().splitlines()


def test_a_file_that_is_all_damaged_is_passed_over_and_logged_once(caplog):
    def made():
        return dataset(Numbers(30, "a", broken=range(30)), Numbers(30, "b"), Numbers(30, "c"))

    data = made()
    with caplog.at_level(logging.WARNING, "longtake"):
        first = [seen(data.batch(step, 2)) for step in range(8)]
    assert {name for batch in first for name, _ in batch} == {"b", "c"}
    assert list(data.report.passed_over) == ["a"]
    assert len(caplog.records) == 1
    assert "a clip is passed over: a: frame" in caplog.text
    assert [seen(made().batch(step, 2)) for step in reversed(range(8))] == first[::-1], "and the same in a resumed run"


def test_a_file_of_its_size_comes_before_one_of_another():
    wide = [Numbers(30, "a", broken=range(30)), Numbers(30, "b")]
    data = dataset(*(Numbers(30, f"tall{n}", size=(32, 24)) for n in range(4)), *wide)
    for step in range(60):
        batch = data.batch(step, 2)
        if batch.pixels.shape[-1] == 32:
            assert {name for name, _ in seen(batch)} == {"b"}


def test_a_file_of_another_size_takes_its_place_where_there_is_no_other():
    """The only wide one is damaged whole: its batches stay of their size, cut from tall ones."""
    data = dataset(*(Numbers(30, f"tall{n}", size=(32, 24)) for n in range(3)), Numbers(30, "wide", broken=range(30)))
    shapes = Counter()
    for step in range(8):
        batch = data.batch(step, 2)
        shapes[tuple(batch.pixels.shape[-2:])] += 1
        assert all(name.startswith("tall") for name, _ in seen(batch))
        assert all(take.size == (batch.pixels.shape[-1], batch.pixels.shape[-2]) for _, take in seen(batch))
    assert shapes == {(32, 24): 6, (24, 32): 2}


def test_variants_are_what_is_tried_where_there_are_some():
    data = dataset(Numbers(60, "a", broken=range(30)), variants=4)
    tried = {take for step in range(40) for _, take in seen(data.batch(step, 1))}
    assert tried <= {data.take(0, variant) for variant in range(4)}
    assert len(tried) == 2, "those of the second half"


def test_nothing_sound_left(tmp_path):
    path = write_animation(tmp_path / "a.gif", grey_frames(9))
    data = ClipDataset(find_clips(tmp_path), replace(ClipSettings(), frames=3, stride=1, missing_captions="train without"))
    path.unlink()
    with pytest.raises(ValueError, match="none of the 1 clip can be read any more: a.gif cannot be read.*put the files back"):
        data.batch(0, 1)


# Files that are damaged or cut short


def found(name, tmp_path, **search):
    av = pytest.importorskip("av")
    if DAMAGED[name].codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {DAMAGED[name].codec}")
    DAMAGED[name].make(tmp_path / name)
    return find_clips(tmp_path / name, Search(**search))


def written(odd, source, index):
    """The number of the frame that was written for that moment."""
    return round(float(source.timing.times[index]) * 25) + odd.begins


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_there_is_used_and_what_is_lost_is_said(name, tmp_path):
    odd = DAMAGED[name]
    result = found(name, tmp_path)
    (source,) = result.sources
    reasons = [item.reason for item in result.report.remarks]
    assert [odd.note in reason for reason in reasons] == ([True] if odd.note else []), result.report.text()
    low, high = odd.there
    assert low <= source.count <= high
    odd.whole(tmp_path / f"whole{(tmp_path / name).suffix}")
    (whole,) = find_clips(tmp_path / f"whole{(tmp_path / name).suffix}").sources
    given = 0
    for index in sorted(set(range(source.count)) - set(source.timing.bad.tolist())):
        try:
            (frame,) = source.frames([index])
        except Unreadable:
            assert not odd.known, "what packets tell of is known before training"
            continue
        given += 1
        if odd.known:  # else a decoder may not notice that a few pixels are others
            assert torch.equal(frame, whole.frames([written(odd, source, index)])[0]), "a frame that is given is whole"
        assert number_in(frame.numpy() * 255) == written(odd, source, index), "and is the one of its moment"
    assert given >= odd.sound


@pytest.mark.parametrize("name", DAMAGED)
def test_training_goes_on_over_damage(name, tmp_path):
    settings = ClipSettings(frames=4, clip_fps=12.5, width=96, height=64, multiple=8, missing_captions="train without")
    data = ClipDataset(found(name, tmp_path), settings)
    for step in range(12):
        for clip in data.batch(step, 2).clips:
            frames = (clip.pixels.movedim(1, -1).numpy() + 1) * 127.5
            expected = [written(DAMAGED[name], clip.source, index) for index in clip.take.indices]
            assert [number_in(frame) for frame in frames] == expected


def test_checking_every_frame_finds_all_damage(tmp_path):
    result = found("struck.mp4", tmp_path, every_frame=True)
    (source,) = result.sources
    assert [item.reason for item in result.report.remarks] == [
        f"it is damaged: {len(source.timing.bad)} of its 60 frames are not used"
    ]
    for number in sorted(set(range(60)) - set(source.timing.bad.tolist())):
        assert number_in(source.frames([number])[0].numpy() * 255) == number


def test_a_file_of_which_nothing_is_left_is_named(tmp_path):
    found("struck.mp4", tmp_path)
    content = bytearray((tmp_path / "struck.mp4").read_bytes())
    begin, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    content[begin:end] = bytes(end - begin)
    (tmp_path / "struck.mp4").write_bytes(content)
    with pytest.raises(ValueError, match="none of the 1 clip in .* can be read, the first because struck.mp4"):
        find_clips(tmp_path / "struck.mp4")
