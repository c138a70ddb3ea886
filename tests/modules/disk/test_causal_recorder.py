"""A causal take to disk: what the model remembers lies in a file for each frame, and pictures hang on those before them."""

import shutil

import pytest
import torch
from pack.modules.disk.take_file import parts_named
from small_causal import SYSTEM, Pieces, causal
from small_takes import Stopped, frames_in, made

FRAMES = 18
GIVEN = {"pieces": Pieces, "batch": 3, "every": 3}


def take(folder, frames=FRAMES, **given):
    build = given.pop("build", causal)
    return made(folder, build, frames, **GIVEN | given)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Frames and end of an unbroken take, and how it is made when it was stopped after so many rows."""
    folder = tmp_path_factory.mktemp("whole")
    _, tail = take(folder)
    return frames_in(folder), tail


def stopped_after(rows):
    def change(recorder):
        if recorder.now.row >= rows:
            raise Stopped

    return change


def test_pictures_are_those_of_the_whole_clip(whole):
    """By the decoder in one piece over what the sampler gives without a recording."""
    sampler, job = causal(FRAMES)
    steps = sampler(job)
    with torch.no_grad():
        try:
            while True:
                next(steps)
        except StopIteration as end:
            clip = end.value
    pictures = Pieces()(job.to_latent(clip), last=True)
    assert len(whole[0]) == len(pictures) == 35
    from pack.modules.disk.frame_files import encoded

    assert list(whole[0].values()) == [encoded(picture, "png") for picture in pictures]


@pytest.mark.parametrize("row", range(1, 31))
def test_a_take_that_was_stopped_after_any_call_goes_on_with_the_same_bytes(row, whole, tmp_path):
    with pytest.raises(Stopped):
        take(tmp_path, change=stopped_after(row))
    recorder, end = take(tmp_path)
    assert frames_in(tmp_path) == whole[0] and torch.equal(end, whole[1])
    assert recorder.begun_at == (row + 1) // 5 * 3 and not recorder.notes


@pytest.mark.parametrize("call", [7, 9, 14, 22])
def test_and_in_the_middle_of_a_call(call, whole, tmp_path):
    """The cache is half written then: frames have left it, and one layer knows the new ones."""

    def build(frames):
        sampler, job = causal(frames)
        cache, calls = job.memory.cache, [0]
        attend = cache.attend

        def failing(layer, keys, values):
            calls[0] += layer == 0
            if calls[0] > call and layer == 1:
                raise Stopped
            return attend(layer, keys, values)

        cache.attend = failing
        return sampler, job

    with pytest.raises(Stopped):
        take(tmp_path, build=build, every=1000)
    recorder, end = take(tmp_path)
    assert frames_in(tmp_path) == whole[0] and torch.equal(end, whole[1]) and recorder.begun_at > 0


@pytest.mark.parametrize("how", ["recache", "renew", "flush", "none"])
def test_around_a_prompt_switch(how, tmp_path):
    from dataclasses import replace

    system = replace(SYSTEM, cache=replace(SYSTEM.cache, switch=how))

    def build(frames, fails=None):
        sampler, job = causal(frames, (9,), system)
        begin, calls = job.memory.cache.begin, [0]

        def begun(*given):
            calls[0] += 1
            begin(*given)
            if calls[0] == fails:
                raise Stopped

        job.memory.cache.begin = begun
        return sampler, job

    take(tmp_path / "whole", build=build)
    for call in (15, 16, 17, 18):
        with pytest.raises(Stopped):
            take(tmp_path / f"{call}", build=lambda frames, call=call: build(frames, call), every=1000)
        take(tmp_path / f"{call}", build=build)
        assert frames_in(tmp_path / f"{call}") == frames_in(tmp_path / "whole"), call


def test_only_what_is_new_is_written_and_nothing_is_left_over(tmp_path, monkeypatch):
    from pack.modules.disk import past_files

    names, save = [], past_files.save_sealed
    monkeypatch.setattr(past_files, "save_sealed", lambda path, *given: (names.append(path.name), save(path, *given))[1])
    recorder, _ = take(tmp_path)
    there = {path.stem for path in (tmp_path / "frame.past").iterdir()}
    assert there == parts_named(recorder.files.state) | parts_named(recorder.files.open_state)
    assert {int(name.split(".")[0]) for name in parts_named(recorder.files.state)} >= {0, 1, 2, 15, 16, 17}
    assert len(names) == len(set(names)) == FRAMES + 3, (
        "the first block twice, since its take began with it; each other frame once"
    )


def test_a_finished_take_is_made_longer(whole, tmp_path):
    for frames in (6, 12, FRAMES):
        recorder, _ = take(tmp_path, frames)
    assert frames_in(tmp_path) == whole[0] and recorder.begun_at == 12
    with pytest.raises(ValueError, match="was to have 18 frames as its end, and is too far on for another end"):
        take(tmp_path, 12)


def damaged(folder, how, ending):
    for path in sorted((folder / "frame.past").iterdir()):
        if path.stem in parts_named(folder / "frame.state.safetensors") and path.name.endswith(ending):
            if how == "missing":
                path.unlink()
            else:
                content = bytearray(path.read_bytes())
                content[-5] ^= 4
                path.write_bytes(content if how == "a wrong bit" else content[:100])
            return


@pytest.mark.parametrize("how", ["missing", "a wrong bit", "cut short"])
def test_a_part_of_the_past_that_is_lost_is_made_up_for_by_the_state_before(how, whole, tmp_path):
    with pytest.raises(Stopped):
        take(tmp_path, change=stopped_after(21))
    newest = max((path for path in (tmp_path / "frame.past").iterdir()), key=lambda path: int(path.stem.split(".")[-1]))
    damaged(tmp_path, how, newest.name)
    recorder, _ = take(tmp_path)
    assert any("so the state of a take before it was taken" in note and "frame.past" in note for note in recorder.notes)
    assert frames_in(tmp_path) == whole[0]


@pytest.mark.parametrize("how", ["missing", "a wrong bit", "cut short", "all of it"])
def test_where_every_state_lacks_something_nothing_is_touched_and_the_remedy_works(how, whole, tmp_path):
    with pytest.raises(Stopped):
        take(tmp_path, change=stopped_after(21))
    if how == "all of it":
        shutil.rmtree(tmp_path / "frame.past")
    else:
        sink = next(path for path in (tmp_path / "frame.past").iterdir() if path.name.startswith("0."))
        damaged(tmp_path, how, sink.name)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(
        ValueError, match=r"cannot go on, and what is there is left as it is: frame.past.*Put a copy back"
    ) as error:
        take(tmp_path)
    assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    take(tmp_path, resume=False)
    assert frames_in(tmp_path) == whole[0]
    (aside,) = [path for path in tmp_path.iterdir() if path.is_dir() and path.name != "frame.past"]
    assert {path.relative_to(aside): path.read_bytes() for path in aside.rglob("*") if path.is_file()} == {
        path.relative_to(tmp_path): content for path, content in before.items()
    }


@pytest.mark.parametrize("number", [0, 4, 20])
def test_pictures_that_a_disk_lost_are_made_again(number, whole, tmp_path):
    with pytest.raises(Stopped):
        take(tmp_path, change=stopped_after(23))
    (tmp_path / f"frame_{number:05}.png").unlink()
    recorder, _ = take(tmp_path)
    assert recorder.notes == [f"frame_{number:05}.png had gone or were not whole, and were made again"]
    assert frames_in(tmp_path) == whole[0]


def test_another_plan_is_another_take(tmp_path):
    with pytest.raises(Stopped):
        take(tmp_path, change=stopped_after(21))
    with pytest.raises(ValueError, match=r"made with other settings \(shots differ\)"):
        take(tmp_path, build=lambda frames: causal(frames, (9,)))


def test_several_clips_and_a_vae_without_pieces_are_refused(tmp_path):
    from dataclasses import replace

    def two(frames):
        sampler, job = causal(frames)
        return sampler, replace(job, latent=job.latent.expand(-1, 2, -1, -1, -1))

    with pytest.raises(ValueError, match="holds 2 clips and a recording is one take: give a latent with a batch of 1"):
        take(tmp_path, build=two)
    with pytest.raises(ValueError, match="do without a recording and decode the whole clip"):
        take(tmp_path, pieces=None)
