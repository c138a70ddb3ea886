"""What Clip Folder may read of a disk: no pipes, nothing that hangs, and in a strict server nothing outside of its folders."""

import os
import socket
import threading
from pathlib import Path

import pytest
from clip_files import grey_frames, write_animation
from pack.modules.data.find import Search, find_clips, stamp
from pack.modules.data.places import MADE_UP, STRICT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links and pipes as POSIX has them")


@pytest.fixture
def trees(tmp_path):
    """Folders inside and outside of what may be read, each with a clip."""
    write_animation(tmp_path / "in" / "a.gif", grey_frames(3))
    write_animation(tmp_path / "out" / "b.gif", grey_frames(3))
    (tmp_path / "out" / "secret.txt").write_text("a secret", encoding="utf-8")
    return tmp_path / "in", tmp_path / "out"


def names(found):
    return [source.name for source in found.sources]


def soon(work):
    """What ``work`` gives, or an error if it waits for something that never comes."""
    given = []
    thread = threading.Thread(target=lambda: given.append(work()), daemon=True)
    thread.start()
    thread.join(20)
    assert given, "it hangs"
    return given[0]


@pytest.mark.parametrize("name", ["pipe.png", "pipe.gif", "pipe.mp4", "a.txt", "in.txt"])
def test_pipes_are_passed_over(trees, name):
    inside, _ = trees
    os.mkfifo(inside / name)
    found = soon(lambda: find_clips(inside))
    assert names(found) == ["a.gif"]
    assert found.report.notes == ["1 file that is a pipe or a device: passed over."]
    assert found.sources[0].caption is None
    assert soon(lambda: stamp(inside))


def test_links_to_nothing_and_sockets_are_passed_over(trees):
    inside, _ = trees
    (inside / "gone.png").symlink_to(inside / "nothing.png")
    (inside / "round.gif").symlink_to(inside / "round.gif")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(os.path.relpath(inside / "door.mp4"))
        found = find_clips(inside)
    assert names(found) == ["a.gif"]
    assert found.report.notes == [
        "2 links to files that are not there: passed over.",
        "1 file that is a pipe or a device: passed over.",
    ]
    assert stamp(inside)


def test_what_the_system_makes_up_is_not_walked(trees):
    inside, _ = trees
    real = [place for place in MADE_UP if place.is_dir()]
    for place in real:
        (inside / place.name).symlink_to(place, target_is_directory=True)
        for given in (place, place / "self", inside / place.name):
            with pytest.raises(ValueError, match="is made up by the system: give the path") as error:
                find_clips(given)
            assert "\n" not in str(error.value)
            assert stamp(given) == ""
    found = soon(lambda: find_clips(inside))
    assert names(found) == ["a.gif"]
    assert bool(real) is any("not followed" in note for note in found.report.notes)


def test_nothing_outside_is_read_where_it_may_not_be(trees):
    inside, outside = trees
    (inside / "folder").symlink_to(outside, target_is_directory=True)
    (inside / "b.gif").symlink_to(outside / "b.gif")
    (inside / "a.txt").symlink_to(outside / "secret.txt")
    assert names(find_clips(inside)) == ["a.gif", "b.gif", "folder/b.gif"]
    assert find_clips(inside).sources[0].caption == "a secret"
    found = find_clips(inside, Search(within=(inside,)))
    assert (names(found), found.sources[0].caption) == (["a.gif"], None)
    assert found.report.notes == ["3 links out of the folders that may be read: not followed."]


@pytest.mark.parametrize("way", ["{out}", "{out}/b.gif", "{in}/../out", "{in}/link", "/", "/etc/passwd", "{out}/nowhere"])
def test_places_outside_are_refused_whether_they_are_there_or_not(trees, way):
    inside, outside = trees
    (inside / "link").symlink_to(outside, target_is_directory=True)
    place = Path(way.replace("{in}", str(inside)).replace("{out}", str(outside)))
    with pytest.raises(
        ValueError, match=f"lies outside of the folders that this server reads .{STRICT} is set.: put the clips below"
    ):
        find_clips(place, Search(within=(inside,)))
    assert stamp(place, (inside,)) == ""


def test_rows_of_a_table_stay_inside(trees):
    inside, outside = trees
    rows = ["path,caption", "a.gif,one", "../out/b.gif,two", f"{outside / 'b.gif'},three", "../out,four", "/proc,five"]
    (inside / "list.csv").write_text("\n".join(rows), encoding="utf-8")
    found = find_clips(inside / "list.csv", Search(within=(inside,)))
    assert [source.caption for source in found.sources] == ["one"]
    assert len(found.report.unreadable) == 4
    assert all(
        item.reason.startswith("it lies outside of the folders that this server reads") for item in found.report.unreadable
    )
    assert [source.caption for source in find_clips(inside / "list.csv").sources] == ["one", "two", "three", "four"]


def test_looking_through_folders_can_be_stopped(tmp_path):
    for number in range(5):
        write_animation(tmp_path / str(number) / "a.gif", grey_frames(2))
    told = []
    find_clips(tmp_path, tick=lambda done, total: told.append((done, total)))
    assert told == [(number, 0) for number in range(1, 7)] + [(number, 5) for number in range(1, 6)]

    class Stop(Exception):
        pass

    def stop(done, total):
        assert total == 0
        if done == 3:
            raise Stop

    with pytest.raises(Stop):
        find_clips(tmp_path, tick=stop)


def test_a_single_video_is_stamped_without_its_neighbours(trees):
    inside, _ = trees
    before = stamp(inside / "a.gif")
    write_animation(inside / "other.gif", grey_frames(2))
    assert stamp(inside / "a.gif") == before
    (inside / "a.txt").write_text("a caption", encoding="utf-8")
    assert stamp(inside / "a.gif") != before
