"""Odd files, made on the spot: the right frames at the right times, whatever the container and codec do."""

import numpy as np
import pytest
from odd_footage import TIMES, corners_in, number_in
from pack.modules.data.clips import ClipDataset
from pack.modules.data.find import find_clips
from pack.modules.data.lengths import Pace
from pack.modules.data.settings import ClipSettings


def made(odd, path):
    """Write a file, and find it."""
    if path.suffix not in (".gif", ".webp", ".png"):
        av = pytest.importorskip("av")
        missing = [codec for codec in odd.codecs if codec not in av.codecs_available]
        if missing:
            pytest.skip(f"this PyAV has no {missing[0]}")
    odd.make(path)
    (source,) = find_clips(path).sources
    return source


def seen(source, indices):
    return [number_in(frame) for frame in source.frames(indices).numpy() * 255]


@pytest.mark.parametrize("name", TIMES)
def test_frames_and_their_times(name, tmp_path):
    odd = TIMES[name]
    source = made(odd, tmp_path / name)
    written = np.array([float(moment) for moment in odd.moments])
    assert source.count == len(written)
    assert np.abs(source.timing.times - written).max() <= odd.exact
    assert seen(source, range(source.count)) == list(range(len(written)))
    assert corners_in(source.frames([0])[0].numpy() * 255) == "RGBW"


@pytest.mark.parametrize("name", TIMES)
def test_a_frame_is_the_same_however_it_is_reached(name, tmp_path):
    source = made(TIMES[name], tmp_path / name)
    for number in (source.count - 1, source.count // 2, 0, source.count * 3 // 4):
        assert seen(source, [number]) == [number]


@pytest.mark.parametrize("fps", [3, 8, 10, 15, 24])
@pytest.mark.parametrize("name", TIMES)
def test_what_a_clip_shows_is_what_was_asked_for(name, fps, tmp_path):
    """The numbers in the pixels tell when frames were written; each lies within half a frame of its moment."""
    odd = TIMES[name]
    source = made(odd, tmp_path / name)
    starts = Pace(6, 1, fps).starts(source.timing)
    if not len(starts):
        assert 5 / fps > float(odd.moments[-1]) - 0.4 or source.fps < fps, "too short, or too slow"
        return
    written = np.array([float(moment) for moment in odd.moments])
    steps = np.diff(written)
    for start in {int(starts[0]), int(starts[len(starts) // 2]), int(starts[-1])}:
        taken = seen(source, Pace(6, 1, fps).taken(source.timing, start))
        rate = Pace(6, 1, fps).rate(source.timing)
        for place, number in enumerate(taken):
            off = abs(written[number] - written[start] - place / rate)
            around = max(steps[max(0, number - 1) : number + 1])
            assert off <= around / 2 + 2 * odd.exact, (start, taken)


@pytest.mark.parametrize("name", ["varying.mp4", "ntsc.mkv", "fifty.avi", "late.mp4"])
def test_a_table_s_row_is_what_lies_between_its_times(name, tmp_path):
    """From 1.2 s up to 1.6 s: under that row's caption, and no other frame."""
    odd = TIMES[name]
    made(odd, tmp_path / name)
    (tmp_path / "list.csv").write_text(f"file,caption,start,end\n{name},a row,1.2,1.6\n", encoding="utf-8")
    (source,) = find_clips(tmp_path / "list.csv").sources
    written = np.array([float(moment) for moment in odd.moments])
    interval = np.diff(written).max() if "varying" in name else np.diff(written).min()
    shown = seen(source, range(source.count))
    assert shown == list(range(shown[0], shown[-1] + 1))
    assert abs(written[shown[0]] - 1.2) <= interval / 2 + 1e-6
    assert abs(written[shown[-1] + 1] - 1.6) <= interval / 2 + 1e-6


def test_uneven_files_are_named_where_a_stride_is_asked_for(tmp_path):
    made(TIMES["varying.mp4"], tmp_path / "varying.mp4")
    made(TIMES["ntsc.mp4"], tmp_path / "ntsc.mp4")
    settings = {"frames": 4, "width": 96, "height": 64, "missing": "train without"}
    note = "1 clip whose frames are not evenly timed (varying.mp4): by stride they speed up and slow down; set clip_fps"
    by_stride = ClipDataset(find_clips(tmp_path), ClipSettings(stride=2, **settings))
    assert note in by_stride.report.text()
    by_time = ClipDataset(find_clips(tmp_path), ClipSettings(fps=8, **settings))
    assert "evenly" not in by_time.report.text()
