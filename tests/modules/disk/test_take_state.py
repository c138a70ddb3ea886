"""No state of a take is trusted: what is damaged is noticed and the one before is taken, what cannot be is refused in a sentence."""

import re
from dataclasses import replace

import pytest
import torch
from pack.modules.disk.frame_files import whole
from pack.modules.disk.state import save_state, state_before
from pack.modules.disk.take_file import KEY, load
from pack.modules.disk.tensor_file import load_tensors
from small_takes import Stopped, extension, frames_in, made, stopped_at


@pytest.fixture
def begun(tmp_path):
    """A take that was stopped after 6 of 9 frames, and its state."""
    with pytest.raises(Stopped):
        made(tmp_path / "take", change=stopped_at(6))
    return tmp_path / "take", tmp_path / "take" / "frame.state.safetensors"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_state_comes_back_as_it_was(begun):
    _, path = begun
    saved = load(path)
    saved.save(path)
    again = load(path)
    assert (again.written, again.finished, again.run, again.extent) == (saved.written, saved.finished, saved.run, saved.extent)
    assert torch.equal(again.state.x, saved.state.x) and torch.equal(again.state.ids, saved.state.ids)
    assert torch.equal(again.held, saved.held) and torch.equal(again.held_ids, saved.held_ids)


@pytest.mark.parametrize("cut", [0, 7, 0.3, 0.9, -1])
def test_a_state_that_is_cut_short_is_made_up_for_by_the_one_before(begun, cut, tmp_path):
    """Seen before: the only advice was to turn resume off, which removed the frames."""
    folder, path = begun
    made(tmp_path / "whole")
    content = path.read_bytes()
    path.write_bytes(content[: cut if isinstance(cut, int) else int(len(content) * cut)])
    recorder, _ = made(folder)
    assert 0 < recorder.begun_at <= 6, "the state before the last one, or the open one"
    assert any("so the state of a take before it was taken" in note for note in recorder.notes), recorder.notes
    assert frames_in(folder) == frames_in(tmp_path / "whole")


def test_any_flipped_bit_is_made_up_for(begun, tmp_path):
    folder, path = begun
    made(tmp_path / "whole")
    good = contents(folder)
    for place in range(0, len(good[path.name]), max(1, len(good[path.name]) // 40)):
        for name, content in good.items():
            (folder / name).write_bytes(content)
        wrong = bytearray(good[path.name])
        wrong[place] ^= 1 << place % 8
        path.write_bytes(wrong)
        recorder, _ = made(folder)
        assert recorder.notes, f"byte {place} is not noticed"
        assert frames_in(folder) == frames_in(tmp_path / "whole")
        for extra in set(contents(folder)) - set(good):
            (folder / extra).unlink()


def test_where_no_state_can_be_read_nothing_is_touched_and_the_remedy_works(begun):
    folder, _ = begun
    for path in folder.glob("*.safetensors*"):
        path.write_bytes(path.read_bytes()[:-3])
    before = contents(folder)
    with pytest.raises(
        ValueError, match=r"cannot go on, and what is there is left as it is: frame.state.safetensors .*\. Put a copy back"
    ):
        made(folder)
    assert contents(folder) == before
    made(folder, resume=False)
    (aside,) = [path for path in folder.iterdir() if path.is_dir()]
    assert contents(aside) == before
    assert len(frames_in(folder)) == 9


def changed(path, about=lambda facts: facts, tensors=lambda given: given):
    """A state with other contents and the right checksums: of another program, or of somebody who means it."""
    metadata, held = load_tensors(path)
    import json

    for file in (
        state_before(path),
        path.with_name("frame.open.safetensors"),
        state_before(path.with_name("frame.open.safetensors")),
    ):
        file.unlink(missing_ok=True)
    path.unlink()
    save_state(path, KEY, about(json.loads(metadata[KEY])), tensors(held))


CRAFTED = {
    "no ids": ({"tensors": lambda held: {name: value for name, value in held.items() if name != "ids"}}, "has no ids"),
    "no row": ({"about": lambda facts: {name: value for name, value in facts.items() if name != "row"}}, "has no row"),
    "a row far off": ({"about": lambda facts: facts | {"row": 10**9}}, "cannot go on at row 1000000000|too far on"),
    "a row below 0": ({"about": lambda facts: facts | {"row": -1}}, "another program's"),
    "shifted frames": ({"tensors": lambda held: held | {"ids": held["ids"] + 1}}, "cannot go on at row"),
    "shapes that broadcast": ({"tensors": lambda held: held | {"x": held["x"][:, :1]}}, r"frames of \[1, 2, 3\] and"),
    "held frames that broadcast": (
        {"tensors": lambda held: held | {"held": held["held"][..., :1]}},
        r"and this take has frames of",
    ),
    "no numbers": ({"tensors": lambda held: held | {"x": held["x"] * torch.nan}}, "not finite"),
    "held frames that are none": ({"tensors": lambda held: held | {"held": held["held"] / 0}}, "another program's"),
    "more written than finished": ({"about": lambda facts: facts | {"written": 8}}, "another program's"),
    "numbers that are words": ({"about": lambda facts: facts | {"row": "x"}}, "says that row is 'x', which it cannot be"),
    "half a row": ({"about": lambda facts: facts | {"row": 1.5}}, "says that row is '1.5', which it cannot be"),
    "true for a number": ({"about": lambda facts: facts | {"written": True}}, "says that written is 'True'"),
    "no number at all": ({"about": lambda facts: facts | {"finished": None}}, "says that finished is 'None'"),
    "a plan that is a word": ({"about": lambda facts: facts | {"plan": "x"}}, "says that plan is 'x'"),
    "a run that is a list": ({"about": lambda facts: facts | {"run": [1]}}, "says that run is '\\[1\\]'"),
    "an end that is a word": ({"about": lambda facts: facts | {"open_rows": "x"}}, "says that open_rows is 'x'"),
    "parts that are a word": ({"about": lambda facts: facts | {"parts": "x"}}, "says that parts is 'x'"),
    "a thousand million frames": ({"about": lambda facts: facts | {"written": 10**9, "finished": 10**9}}, "another program's"),
    "whole numbers for frames": ({"tensors": lambda held: held | {"x": held["x"].long()}}, "another program's"),
    "fractions for frame numbers": ({"tensors": lambda held: held | {"ids": held["ids"].float()}}, "another program's"),
    "frames twice": ({"tensors": lambda held: held | {"held_ids": held["held_ids"] * 0}}, "another program's"),
}


@pytest.mark.parametrize(("change", "sentence"), CRAFTED.values(), ids=CRAFTED)
def test_a_state_that_cannot_be_is_one_sentence(begun, change, sentence):
    folder, path = begun
    changed(path, **change)
    before = contents(folder)
    with pytest.raises(ValueError, match=sentence) as error:
        made(folder)
    assert "\n" not in str(error.value)
    assert contents(folder) == before


def test_an_extension_s_state_is_not_trusted_either(tmp_path):
    with pytest.raises(Stopped):
        made(tmp_path / "take", extension, change=stopped_at(6))
    path = tmp_path / "take" / "frame.state.safetensors"
    saved = load(path)
    for state in (replace(saved.state, row=99), replace(saved.state, ids=saved.state.ids + 100)):
        for other in path.parent.glob("*.safetensors*"):
            other.unlink()
        replace(saved, state=state).save(path)
        with pytest.raises(ValueError, match="begin another take|too far on"):
            made(tmp_path / "take", extension)


@pytest.mark.parametrize("damage", [b"", b"\x89PNG", None], ids=["zero length", "cut short", "gone"])
def test_frames_that_a_disk_lost_are_made_again(begun, damage, tmp_path):
    folder, _ = begun
    made(tmp_path / "whole")
    expected = frames_in(tmp_path / "whole")
    for number in (0, 3):
        path = folder / f"frame_{number:05}.png"
        path.unlink() if damage is None else path.write_bytes(damage)
    recorder, _ = made(folder)
    assert recorder.notes == ["frame_00000.png and 1 more had gone or were not whole, and were made again"]
    assert frames_in(folder) == expected


def test_the_sweep_takes_its_own_leftovers_alone(begun):
    """Seen before: the sweep of the prefix ``frame`` deleted another take's ``.frame2_00000.png.1-ab.partial``."""
    folder, _ = begun
    mine = [".frame_00007.png.1-ab.partial", ".frame.state.safetensors.1-ab.partial", ".frame.open.safetensors.1-ab.partial"]
    others = [
        ".frame2_00000.png.1-ab.partial",
        ".frame_2_00000.png.1-ab.partial",
        ".frame.x_00000.png.1-ab.partial",
        ".frame.state.safetensors.partial",
        ".other.state.safetensors.1-ab.partial",
        "frame_00007.png.partial",
    ]
    for name in (*mine, *others):
        (folder / name).write_bytes(b"")
    made(folder)
    assert not [name for name in mine if (folder / name).exists()]
    assert [name for name in others if not (folder / name).exists()] == []


def test_what_is_a_whole_picture_is_known_by_its_end(begun):
    folder, _ = begun
    path = folder / "frame_00000.png"
    content = path.read_bytes()
    assert whole(path, "png")
    for size in range(len(content)):
        path.write_bytes(content[:size])
        assert not whole(path, "png"), size
    assert not whole(path.with_name("none.png"), "png")
    assert re.fullmatch(rb".*IEND....", content, re.DOTALL)
