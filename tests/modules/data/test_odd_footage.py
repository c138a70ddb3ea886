"""Odd files, made on the spot: the right frames at the right times, whatever the container and codec do."""

import numpy as np
import pytest
from odd_files import SHOWN, TIMES
from odd_footage import corners_in, number_in, picture
from odd_table import decoded_by_ffmpeg, ffmpeg
from pack.modules.data.clips import ClipDataset
from pack.modules.data.find import find_clips
from pack.modules.data.lengths import Pace
from pack.modules.data.settings import ClipSettings


def written(odd, path):
    """Write a file; the test is skipped where what writes it is missing."""
    if path.suffix not in (".gif", ".webp", ".png"):
        av = pytest.importorskip("av")
        if odd.codec not in av.codecs_available:
            pytest.skip(f"this PyAV has no {odd.codec}")
    odd.make(path)
    return path


def made(odd, path):
    """Write a file, and find it."""
    (source,) = find_clips(written(odd, path)).sources
    return source


def seen(source, indices):
    return [number_in(frame) for frame in source.frames(indices).numpy() * 255]


@pytest.mark.parametrize("name", TIMES)
def test_frames_and_their_times(name, tmp_path):
    odd = TIMES[name]
    source = made(odd, tmp_path / name)
    moments = np.array([float(moment) for moment in odd.moments])
    assert source.count == len(moments)
    assert np.abs(source.timing.times - moments).max() <= odd.exact
    assert seen(source, range(source.count)) == list(range(len(moments)))
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
    moments = np.array([float(moment) for moment in odd.moments])
    steps = np.diff(moments)
    for start in {int(starts[0]), int(starts[len(starts) // 2]), int(starts[-1])}:
        taken = seen(source, Pace(6, 1, fps).taken(source.timing, start))
        rate = Pace(6, 1, fps).rate(source.timing)
        for place, number in enumerate(taken):
            off = abs(moments[number] - moments[start] - place / rate)
            around = max(steps[max(0, number - 1) : number + 1])
            assert off <= around / 2 + 2 * odd.exact, (start, taken)


@pytest.mark.parametrize("name", ["varying.mp4", "ntsc.mkv", "fifty.avi", "late.mp4"])
def test_a_table_s_row_is_what_lies_between_its_times(name, tmp_path):
    """From 1.2 s up to 1.6 s: under that row's caption, and no other frame."""
    odd = TIMES[name]
    made(odd, tmp_path / name)
    (tmp_path / "list.csv").write_text(f"file,caption,start,end\n{name},a row,1.2,1.6\n", encoding="utf-8")
    (source,) = find_clips(tmp_path / "list.csv").sources
    moments = np.array([float(moment) for moment in odd.moments])
    interval = np.diff(moments).max() if "varying" in name else np.diff(moments).min()
    shown = seen(source, range(source.count))
    assert shown == list(range(shown[0], shown[-1] + 1))
    assert abs(moments[shown[0]] - 1.2) <= interval / 2 + 1e-6
    assert abs(moments[shown[-1] + 1] - 1.6) <= interval / 2 + 1e-6


def test_uneven_files_are_named_where_a_stride_is_asked_for(tmp_path):
    made(TIMES["varying.mp4"], tmp_path / "varying.mp4")
    made(TIMES["ntsc.mp4"], tmp_path / "ntsc.mp4")
    settings = {"frames": 4, "width": 96, "height": 64, "missing_captions": "train without"}
    note = "1 clip whose frames are not evenly timed (varying.mp4): by stride they speed up and slow down; set clip_fps"
    by_stride = ClipDataset(find_clips(tmp_path), ClipSettings(stride=2, **settings))
    assert note in by_stride.report.text()
    by_time = ClipDataset(find_clips(tmp_path), ClipSettings(clip_fps=8, **settings))
    assert "evenly" not in by_time.report.text()


# How pictures are looked at


@pytest.mark.parametrize("name", SHOWN)
def test_pictures_stand_upright_with_square_pixels_in_one_size(name, tmp_path):
    odd = SHOWN[name]
    source = made(odd, tmp_path / name)
    assert (source.footage.width, source.footage.height) == odd.size
    frames = source.frames(range(source.count)).numpy() * 255
    clear = "clear" in name
    assert {corners_in(frame)[:: 2 if clear else 1] for frame in frames} == {"RB" if clear else "RGBW"}
    if not clear:
        assert [number_in(frame) for frame in frames] == list(range(source.count))
    notes = " ".join(source.footage.notes)
    assert odd.note in notes and bool(odd.note) == bool(notes)


@pytest.mark.parametrize("name", SHOWN)
def test_pictures_are_ffmpeg_s_own(name, tmp_path):
    """Its turning, its square pixels, its colours, pixel for pixel."""
    if ffmpeg() is None:
        pytest.skip("ffmpeg is not installed: its decoder is what is compared with")
    odd = SHOWN[name]
    source = made(odd, tmp_path / name)
    theirs = decoded_by_ffmpeg(tmp_path / name, odd.size, odd.filters)
    ours = source.frames(range(source.count)).numpy() * 255
    assert ours.shape == theirs.shape
    off = np.abs(ours - theirs)
    assert off.max() <= odd.off[0] + 1e-3
    assert off.mean() <= odd.off[1] + 1e-4


@pytest.mark.parametrize("number", range(8))
def test_a_display_matrix_changes_no_pixel(number, tmp_path):
    source = made(SHOWN[f"turned{number}.mov"], tmp_path / "a.mov")
    assert np.array_equal((source.frames([3])[0].numpy() * 255).round(), picture(3))


def test_what_is_odd_is_in_the_report(tmp_path):
    for name in ("hdr.mkv", "combed.mpg", "turned3.mov"):
        written(SHOWN[name], tmp_path / name)
    lines = find_clips(tmp_path).report.text().splitlines()
    assert lines[1] == "Used, but (2):"
    assert [line.split(":")[0] for line in lines[2:]] == ["  combed.mpg", "  hdr.mkv"]
