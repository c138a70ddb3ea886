"""Clips are found and read exactly: every kind of file, every codec, whatever is broken."""

import csv
import os
import re
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from clip_files import (
    as_tensor,
    caption,
    counting_frames,
    grey_frames,
    write_animation,
    write_exact_video,
    write_sequence,
    write_video,
)
from pack.modules.data import video_decode, video_index, video_scan
from pack.modules.data.displayed import View
from pack.modules.data.find import Search, find_clips, natural, stamp
from pack.modules.data.footage import Images, Unreadable
from pack.modules.data.picture_files import Animation, Pictures
from pack.modules.data.source import ClipSource, from_images
from pack.modules.data.video_file import VideoFile
from PIL import Image


def names(found):
    return [source.name for source in found.sources]


def reasons(found):
    return {item.name: item.reason for item in found.report.unreadable}


# Frames, exactly

EXACT = {
    "clip.mkv": write_exact_video,
    "clip.gif": write_animation,
    "clip.webp": write_animation,
    "clip.png": write_animation,
    "folder": write_sequence,
}


@pytest.mark.parametrize("name", EXACT)
def test_frames_are_those_that_were_written(name, tmp_path):
    written = grey_frames(12)
    EXACT[name](tmp_path / "in" / name, written)
    (source,) = find_clips(tmp_path / "in").sources
    assert (source.count, source.footage.height, source.footage.width) == (12, 24, 32)
    order = [3, 0, 3, 11, 7]
    assert torch.equal(source.frames(order), as_tensor(written)[order])


def test_frames_of_a_graph(tmp_path):
    images = as_tensor(grey_frames(5))
    (source,) = from_images(images, " a  cat ", 8.0).sources
    assert torch.equal(source.frames([4, 1]), images[[4, 1]])
    assert (source.fps, source.caption, source.count) == (8.0, "a  cat", 5)
    with_mask = torch.cat([images, torch.zeros_like(images[..., :1])], dim=-1)
    assert torch.equal(from_images(with_mask, "", 8.0).sources[0].frames([2])[0], images[2])


CODECS = {
    "h264.mp4": {"codec": "libx264", "bf": "3", "g": "12"},
    "open.mp4": {"codec": "libx264", "x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:b-pyramid=2"},
    "h265.mkv": {"codec": "libx265", "x265-params": "open-gop=1:keyint=12:bframes=4:log-level=0"},
    "h264.ts": {"codec": "libx264", "g": "10"},
    "mpeg4.avi": {"codec": "mpeg4", "bf": "2", "g": "12"},
    "mpeg2.mpg": {"codec": "mpeg2video", "bf": "2", "g": "12", "rate": 25},
    "wmv.wmv": {"codec": "wmv2"},
    "vp9.webm": {"codec": "libvpx-vp9", "deadline": "realtime", "cpu-used": "8"},
    "motion.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
}


@pytest.mark.parametrize("name", CODECS)
def test_any_frame_is_the_one_that_playing_shows(name, tmp_path):
    """Whatever order a codec stores frames in, and wherever a seek lands."""
    av = pytest.importorskip("av")
    path = write_video(tmp_path / name, counting_frames(50), **CODECS[name])
    with av.open(str(path)) as file:
        played = as_tensor(np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]))
    video = VideoFile(path)
    assert video.count == len(played) == 50
    for index in (0, 1, 13, 24, 37, 49):
        (picture,) = video.pictures([index])
        assert torch.equal(picture, played[index]), index
    assert torch.equal(torch.stack(list(video.pictures(range(20, 45, 4)))), played[20:45:4])
    shown = [(float(picture.mean()) * 255 - 20) / 4 for picture in video.pictures([2, 47])]
    assert shown == pytest.approx([2, 47], abs=1.5), "what was written, as well as the codec keeps it"


def test_times_that_a_container_does_not_tell_are_found_by_decoding(tmp_path, monkeypatch):
    path = write_exact_video(tmp_path / "a.mkv", written := grey_frames(20))
    true = video_scan._told(path)
    for wrong in (lambda time: None, lambda time: time + 1, lambda time: 0):
        packets = [replace(packet, key=(wrong(packet.key[0]), *packet.key[1:])) for packet in true.packets]
        monkeypatch.setattr(video_scan, "_told", lambda path, packets=packets: replace(true, packets=packets))
        video = VideoFile(path)
        assert (video.count, video.index.ticks) == (20, None)
        assert video.timing.times.tolist() == pytest.approx([number / 24 for number in range(20)], abs=6e-4)
        assert torch.equal(next(video.pictures([17])), as_tensor(written)[17])


def test_only_what_is_needed_is_decoded(tmp_path, monkeypatch):
    video = VideoFile(write_video(tmp_path / "long.mp4", counting_frames(300), g="10", bf="0"))
    decoded, converted = [], []
    run, picture = video_index.decoded, View.picture

    def counted_run(packets):
        for frame, sound in run(packets):
            decoded.append(frame.pts)
            yield frame, sound

    monkeypatch.setattr(video_index, "decoded", counted_run)
    monkeypatch.setattr(View, "picture", lambda self, frame: converted.append(frame.pts) or picture(self, frame))
    assert len(list(video.pictures([200, 204, 208]))) == 3
    assert len(converted) == 3
    assert len(decoded) <= 10 + 8, "from the key frame, at most a group of pictures before, to the last"


def test_a_frame_at_a_time(tmp_path):
    """A reader gives a frame before it reads the next: a long video is never in memory."""
    written = grey_frames(6)
    reader = Pictures(sorted(write_sequence(tmp_path, written).iterdir()), 24, "sequence")
    frames = reader.pictures(range(6))
    assert torch.equal(next(frames), as_tensor(written)[0])
    for number in (1, 2, 3, 4, 5):
        (tmp_path / f"frame_{number}.png").unlink()
    with pytest.raises(Unreadable, match=r"frame_1.png cannot be read"):
        next(frames)


def test_a_phone_video_is_turned(tmp_path):
    """Phones store how a video is to be turned; the matrix in the file's header says by how much."""
    frames = counting_frames(3)
    frames[:, :24, :32] = 255  # bright at the top left
    path = write_video(tmp_path / "phone.mp4", frames)
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    assert struct.unpack(">9i", content[matrix : matrix + 36])[0] == 0x10000
    quarter = (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)  # x goes down, y to the left: clockwise
    content[matrix : matrix + 36] = struct.pack(">9i", *quarter)
    path.write_bytes(content)
    video = VideoFile(path)
    assert (video.height, video.width) == (64, 48)
    (picture,) = video.pictures([2])
    assert picture.shape == (64, 48, 3)
    assert picture[:30, 26:].mean() > 0.9, "now bright at the top right"
    assert picture[34:].mean() < 0.2


def test_pictures_of_every_mode(tmp_path):
    colours = np.array([[[10, 200, 30, 0], [10, 200, 30, 255], [100, 0, 250, 127]]], np.uint8)
    Image.fromarray(colours).save(tmp_path / "alpha.png")
    (picture,) = Pictures([tmp_path / "alpha.png"], 1, "x").pictures([0])
    expected = torch.tensor([[0, 0, 0], [10, 200, 30], [50, 0, 125]]) / 255
    torch.testing.assert_close(picture[0], expected, atol=1.1 / 255, rtol=0)
    deep = np.array([[0, 32768, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    (picture,) = Pictures([tmp_path / "deep.png"], 1, "x").pictures([0])
    torch.testing.assert_close(picture[0, :, 1], torch.tensor([0, 32768 / 65535, 1.0]))
    turned = Image.fromarray(np.zeros((4, 9, 3), np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    reader = Pictures([tmp_path / "turned.jpg"], 1, "x")
    (picture,) = reader.pictures([0])
    assert picture.shape[:2] == (reader.height, reader.width) == (9, 4)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_animations_tell_their_frame_rate(name, tmp_path):
    assert Animation(write_animation(tmp_path / name, grey_frames(4), 40)).fps == pytest.approx(25)


@pytest.mark.parametrize(
    ("images", "fps", "sentence"),
    [
        (torch.zeros(0, 4, 4, 3), 8.0, "this has the shape"),
        (torch.zeros(4, 4, 3), 8.0, "this has the shape"),
        (torch.zeros(2, 4, 4, 2), 8.0, "this has the shape"),
        (torch.zeros(2, 4, 4, 3), 0.0, "its frame rate .0. must be above 0"),
        (torch.full((2, 4, 4, 3), float("nan")), 8.0, "its pixels ordinary numbers"),
    ],
)
def test_what_cannot_be_a_clip(images, fps, sentence):
    with pytest.raises(ValueError, match=sentence):
        Images(images, fps)


# What is broken


def cut(path, part=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])


def sound(path):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())


def noisy(path, **options):
    return write_video(path, grey_frames(40, 48, 64), qp="0", **options)


def differing(folder):
    write_sequence(folder, grey_frames(3))
    Image.new("RGB", (16, 16)).save(folder / "frame_9.png")


BROKEN = {
    "cut_behind.mp4": (lambda path: cut(noisy(path)), "it is damaged, cut short or no video"),
    "text.mp4": (lambda path: path.write_text("a cat walks\n" * 50, encoding="utf-8"), "it is damaged, cut short or no video"),
    "empty.mp4": (lambda path: path.write_bytes(b""), "it is damaged, cut short or no video"),
    "sound.mp4": (sound, "there are no pictures in it"),
    "cut.gif": (lambda path: cut(write_animation(path, grey_frames(9))), "damaged or cut short"),
    "cut.webp": (lambda path: cut(write_animation(path, grey_frames(9))), "damaged or cut short"),
    "text.gif": (lambda path: path.write_text("cat", encoding="utf-8"), "no picture, or of a kind that is not known"),
    "mixed": (differing, "its pictures differ in size: frame_0.png is 32x24 and frame_9.png is 16x16"),
    "cut_last": (
        lambda path: cut(write_sequence(path, grey_frames(3)) / "frame_2.png"),
        "frame_2.png cannot be read: it is damaged",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named_once_and_left_out(name, tmp_path):
    make, sentence = BROKEN[name]
    make(tmp_path / name)
    write_animation(tmp_path / "sound.gif", grey_frames(4))
    found = find_clips(tmp_path)
    assert names(found) == ["sound.gif"]
    assert found.report.found == 2
    assert [item.name for item in found.report.unreadable] == [name]
    assert re.search(sentence, reasons(found)[name]), reasons(found)[name]
    assert found.report.text().count(f"  {name}: ") == 1


@pytest.mark.parametrize("name", BROKEN)
def test_nothing_but_broken_files_is_refused(name, tmp_path):
    BROKEN[name][0](tmp_path / name)
    with pytest.raises(ValueError, match="none of the 1 clip in .* can be read, the first because"):
        find_clips(tmp_path)


def test_damage_in_the_middle_is_found_when_asked(tmp_path):
    write_sequence(tmp_path / "walk", grey_frames(5))
    write_animation(tmp_path / "a.gif", grey_frames(4))
    cut(tmp_path / "walk" / "frame_2.png")
    assert names(find_clips(tmp_path)) == ["a.gif", "walk"]
    found = find_clips(tmp_path, Search(every_frame=True))
    assert names(found) == ["a.gif"]
    assert "frame_2.png cannot be read" in reasons(found)["walk"]


def test_damage_in_the_middle_of_a_video(tmp_path):
    """What is not needed is not looked at, unless asked: a clip from before or after the damage is sound."""
    av = pytest.importorskip("av")
    path = write_video(tmp_path / "a.mp4", written := grey_frames(100, 48, 64), g="10", bf="0", **{"x264-params": "scenecut=0"})
    with av.open(str(path)) as file:
        packets = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    place = packets[45][0] + packets[45][1] // 3
    content[place : place + 60] = bytes(byte ^ 0x5A for byte in content[place : place + 60])
    path.write_bytes(content)
    (source,) = find_clips(path).sources
    assert source.count == len(written)
    for sound in ([0, 20, 39], [70, 80, 99]):
        assert len(source.frames(sound)) == 3
    assert len(source.frames([50, 52])) == 2, "damage is at an end with the next key frame"
    with pytest.raises(Unreadable, match=r"a.mp4 is damaged: frame 49 of 100, at 2.04 s, cannot be decoded"):
        source.frames([40, 49])
    found = find_clips(path, Search(every_frame=True))
    assert [item.reason for item in found.report.remarks] == ["it is damaged: 5 of its 100 frames are not used"]
    assert found.sources[0].timing.bad.tolist() == [45, 46, 47, 48, 49]


def test_without_pyav_videos_are_named_and_the_rest_is_read(tmp_path, monkeypatch):
    write_exact_video(tmp_path / "b.mkv", grey_frames(4))
    write_animation(tmp_path / "a.gif", grey_frames(4))
    monkeypatch.setattr(video_decode, "pyav", lambda: None)
    found = find_clips(tmp_path)
    assert names(found) == ["a.gif"]
    assert "needs PyAV, which is not installed: python -m pip install av" in reasons(found)["b.mkv"]


def test_pyav_is_not_asked_for_before_a_video_is_read(tmp_path, monkeypatch):
    write_animation(tmp_path / "a.gif", grey_frames(4))
    write_sequence(tmp_path / "walk", grey_frames(4))
    asked = []
    monkeypatch.setattr(video_decode, "pyav", lambda: asked.append("av"))
    assert find_clips(tmp_path).sources[0].frames([2]).shape == (1, 24, 32, 3)
    assert not asked


# Finding


def test_order_is_that_of_names_whatever_the_threads(tmp_path):
    for name in ("clip10.gif", "clip9.gif", "Clip1.gif", "b/z.gif", "b/1/y.gif", "ä/Käse 猫.gif", "ä/ñ.gif"):
        write_animation(tmp_path / name, grey_frames(3, seed=len(name)))
    write_sequence(tmp_path / "b" / "walk", grey_frames(11))
    (tmp_path / ".hidden.gif").write_bytes(b"no")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "c.gif").write_bytes(b"no")
    (tmp_path / "notes.md").write_text("no clip", encoding="utf-8")
    expected = ["Clip1.gif", "clip9.gif", "clip10.gif", "b/z.gif", "b/1/y.gif", "b/walk", "ä/Käse 猫.gif", "ä/ñ.gif"]
    for threads in (1, 2, 8):
        found = find_clips(tmp_path, Search(threads=threads))
        assert names(found) == expected
        assert not found.report.unreadable
    walk = found.sources[5]
    assert torch.equal(walk.frames([10]), as_tensor(grey_frames(11))[10:]), "frame_10 is the last, after frame_9"


def test_natural_order_is_total():
    jumbled = ["a", "A", "10", "9", "a1", "a01", "", "ä2", "b", "٣"]
    backwards = jumbled[::-1]
    assert sorted(jumbled, key=natural) == sorted(backwards, key=natural)


def test_links_are_followed_once(tmp_path):
    write_animation(tmp_path / "far" / "a.gif", grey_frames(3))
    (tmp_path / "near").mkdir()
    try:
        (tmp_path / "near" / "link").symlink_to(tmp_path / "far", target_is_directory=True)
        (tmp_path / "far" / "round").symlink_to(tmp_path / "near", target_is_directory=True)
    except OSError:
        pytest.skip("no links on this machine")
    assert names(find_clips(tmp_path / "near")) == ["link/a.gif"]


def test_previews_and_single_pictures_are_no_clips(tmp_path):
    write_animation(tmp_path / "a.gif", frames := grey_frames(3))
    write_sequence(tmp_path, frames[:1], "a.png")
    write_sequence(tmp_path, frames[:1], "cover.jpg")
    found = find_clips(tmp_path)
    assert names(found) == ["a.gif"]
    assert "1 picture beside a video of the same name: taken for its preview." in found.report.notes
    assert "1 picture alone in a folder: no clip, unless clips of one frame are asked for." in found.report.notes


def test_stills(tmp_path):
    write_sequence(tmp_path, grey_frames(3))
    caption(tmp_path / "frame_1.png", "a cat")
    found = find_clips(tmp_path, Search(stills=True))
    assert [(source.name, source.count, source.caption) for source in found.sources] == [
        ("frame_0.png", 1, None),
        ("frame_1.png", 1, "a cat"),
        ("frame_2.png", 1, None),
    ]


def test_one_file(tmp_path):
    caption(write_animation(tmp_path / "a.gif", grey_frames(3)), "a cat")
    (source,) = find_clips(tmp_path / "a.gif").sources
    assert (source.name, source.caption) == ("a.gif", "a cat")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere", "there is no folder or file .*nowhere: give the path of a folder"),
        ("empty", "empty holds no clips: put videos"),
        ("notes.md", "none of the 1 clip in .* can be read, the first because .md is no kind of video or picture"),
    ],
)
def test_nothing_there(name, sentence, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").write_text("no clip", encoding="utf-8")
    with pytest.raises(ValueError, match=sentence):
        find_clips(tmp_path / name)


def test_progress_is_told_and_may_stop(tmp_path):
    for number in range(5):
        write_animation(tmp_path / f"{number}.gif", grey_frames(2))
    told = []
    find_clips(tmp_path, tick=lambda done, total: told.append((done, total)))
    assert told == [(1, 0), *((number, 5) for number in range(1, 6))]

    class Stop(Exception):
        pass

    def stop(done, total):
        raise Stop

    with pytest.raises(Stop):
        find_clips(tmp_path, tick=stop)


def test_the_stamp_changes_with_the_files(tmp_path):
    path = write_animation(tmp_path / "a" / "a.gif", grey_frames(3))
    before = stamp(tmp_path)
    assert stamp(tmp_path) == before
    caption(path, "new")
    after = stamp(tmp_path)
    assert after != before
    os.utime(path, (1, 1))
    assert stamp(tmp_path) != after
    assert stamp(tmp_path / "nowhere") == ""


# Captions


def test_captions_lie_beside(tmp_path):
    caption(write_animation(tmp_path / "a.v2.gif", grey_frames(2)), "\n a  cat\nwalks ")
    caption(write_sequence(tmp_path / "walk.1", grey_frames(2)), "a walk")
    inside = write_sequence(tmp_path / "inside", grey_frames(2))
    (inside / "caption.txt").write_text("\ufeffa door", encoding="utf-8")
    (write_animation(tmp_path / "wide.gif", grey_frames(2)).with_suffix(".txt")).write_text("größer", encoding="utf-16")
    write_animation(tmp_path / "blank.gif", grey_frames(2)).with_suffix(".txt").write_text(" \n", encoding="utf-8")
    (write_animation(tmp_path / "latin.gif", grey_frames(2)).with_suffix(".txt")).write_bytes("größer".encode("latin-1"))
    found = find_clips(tmp_path)
    captions = {source.name: source.caption for source in found.sources}
    assert captions == {
        "a.v2.gif": "a cat walks",
        "blank.gif": None,
        "inside": "a door",
        "walk.1": "a walk",
        "wide.gif": "größer",
    }
    assert reasons(found)["latin.gif"] == "its caption latin.txt is no UTF-8 text: save it as UTF-8"


# Tables


def write_table(path, rows, **options):
    with path.open("w", encoding=options.pop("encoding", "utf-8"), newline="") as file:
        csv.writer(file, **options).writerows(rows)
    return path


@pytest.fixture
def clips_folder(tmp_path):
    write_animation(tmp_path / "clips" / "a.gif", grey_frames(10), 500)
    caption(tmp_path / "clips" / "a.gif", "from the text file")
    write_sequence(tmp_path / "clips" / "walk", grey_frames(4, seed=1))
    return tmp_path


@pytest.mark.parametrize("file", ["path", "file", "File_Name", "video"])
@pytest.mark.parametrize("words", ["caption", "text", "prompt"])
def test_a_table_s_columns(file, words, clips_folder):
    rows = [[words, file], ['a "cat", walking', "clips/a.gif"], [], ["", "clips\\a.gif"], ["a walk", "clips/walk"]]
    found = find_clips(write_table(clips_folder / "list.csv", rows))
    assert [(source.name, source.caption) for source in found.sources] == [
        ("clips/a.gif", 'a "cat", walking'),
        ("clips/a.gif", "from the text file"),
        ("clips/walk", "a walk"),
    ]


@pytest.mark.parametrize(
    ("name", "options"),
    [("list.tsv", {"delimiter": "\t"}), ("list.csv", {"delimiter": ";"}), ("list.csv", {"encoding": "utf-8-sig"})],
)
def test_a_table_s_dialects(name, options, clips_folder):
    found = find_clips(write_table(clips_folder / name, [["file", "caption"], ["clips/a.gif", "größer, höher"]], **options))
    assert [source.caption for source in found.sources] == ["größer, höher"]


def test_webvid_s_own_table(tmp_path):
    write_video(tmp_path / "001_050" / "1234.mp4", counting_frames(4))
    rows = [["videoid", "contentUrl", "duration", "page_dir", "name"], ["1234", "https://x", "PT1S", "001_050", "A cat walks"]]
    (source,) = find_clips(write_table(tmp_path / "results.csv", rows)).sources
    assert (source.count, source.caption) == (4, "A cat walks")


def test_a_table_s_times(clips_folder):
    """Two frames per second: from 1 s is frame 2, to 3 s is up to frame 5."""
    rows = [
        ["file", "start", "end", "fps"],
        ["clips/a.gif", "1", "3", ""],
        ["clips/a.gif", "4", "", ""],
        ["clips/a.gif", "", "", "10"],
    ]
    rows += [["clips/a.gif", "9", "", ""]]
    found = find_clips(write_table(clips_folder / "list.csv", rows))
    assert [(source.first, source.count, source.fps) for source in found.sources] == [(2, 4, 2.0), (8, 2, 2.0), (0, 10, 10.0)]
    assert torch.equal(found.sources[0].frames([0, 3]), as_tensor(grey_frames(10))[[2, 5]])
    assert len({source.key for source in found.sources}) == 3
    assert reasons(found) == {"clips/a.gif from 9 s": "there is no frame from 9 s to 5 s: it ends at 5.00 s"}


def test_a_table_s_missing_files(clips_folder):
    (clips_folder / "void").mkdir()
    rows = [["file"], ["clips/a.gif"], ["clips/gone.mp4"], ["void"]]
    found = find_clips(write_table(clips_folder / "list.csv", rows))
    assert names(found) == ["clips/a.gif"]
    assert reasons(found) == {"clips/gone.mp4": "there is no such file", "void": "there are no pictures in that folder"}


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            [["name", "length"], ["cat", "3"]],
            r"list.csv has no column for the file of a clip: call one of its columns \(name, length\) path",
        ),
        ([], "list.csv has no column for the file of a clip"),
        ([["file"]], "list.csv holds no clips"),
        ([["file", "caption"], ["", "a cat"]], "line 2 of list.csv names no file"),
        ([["file", "start"], ["a.gif", "soon"]], "line 2 of list.csv has 'soon' as start: write seconds as a plain number"),
        ([["file", "fps"], ["a.gif", "nan"]], "line 2 of list.csv has 'nan' as fps: write frames per second"),
        ([["file", "end"], ["a.gif", "-1"]], "line 2 of list.csv has '-1' as end"),
        ([["file", "start", "end"], ["a.gif", "5", "2"]], "line 2 of list.csv ends at 2 s and starts at 5 s"),
    ],
)
def test_tables_that_are_none(rows, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        find_clips(write_table(tmp_path / "list.csv", rows))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'file,caption\n"a.gif,cat', "line 2 of list.csv cannot be read as a table"),
        (b"file\n\xff\xe4.gif", "list.csv is no UTF-8 text"),
    ],
)
def test_tables_that_are_damaged(content, sentence, tmp_path):
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        find_clips(tmp_path / "list.csv")


# Keys


def test_a_key_is_of_the_content(tmp_path):
    one, two = (write_animation(tmp_path / name / "a.gif", grey_frames(4)) for name in ("one", "two"))
    keys = [find_clips(path).sources[0].key for path in (one, two)]
    assert keys[0] == keys[1], "the same file elsewhere"
    content = bytearray(two.read_bytes())
    content[-40] ^= 1
    two.write_bytes(content)
    assert ClipSource.of(Animation(two), "two").key != keys[0]
    images = as_tensor(grey_frames(4))
    changed = images.clone()
    changed[3, 5, 6, 1] += 1e-6
    assert from_images(images, "", 8.0).sources[0].key != from_images(changed, "", 8.0).sources[0].key
