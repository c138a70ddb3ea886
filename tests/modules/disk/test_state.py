"""Tensors on disk, and states in which one wrong bit is noticed."""

import random

import pytest
import torch
from full_disk import largest_file
from pack.modules.disk import state as file
from pack.modules.disk.atomic import NotWritten
from pack.modules.disk.state import (
    SUMS,
    Sealed,
    has_state,
    load_sealed,
    load_state,
    mend,
    save_sealed,
    save_state,
    state_before,
)
from pack.modules.disk.tensor_file import TYPES, Damaged, load_tensors, save_tensors
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

MARK = "mark"


def tensors(seed=0):
    draw = torch.Generator().manual_seed(seed)
    return {"x": torch.randn(3, 2, generator=draw), "half": torch.randn(5, generator=draw).half(), "count": torch.tensor(seed)}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_the_library_reads_every_type(dtype, tmp_path):
    value = torch.tensor([[0, 1, 2], [3, 4, 5]]).to(dtype)
    save_tensors(tmp_path / "a", {"a": value, "b": value[0, 0], "none": value[:0]}, {"é": "ü"})
    read = load_file(tmp_path / "a")
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in read.items()} == {
        "a": (dtype, (2, 3)),
        "b": (dtype, ()),
        "none": (dtype, (0, 3)),
    }
    assert torch.equal(read["a"].to(torch.complex64), value.to(torch.complex64))
    with safe_open(tmp_path / "a", framework="pt") as file:
        assert file.metadata() == {"é": "ü"}


def test_the_file_is_the_library_s_byte_for_byte(tmp_path):
    """Strides, views of one storage and all."""
    base = torch.arange(12.0).reshape(3, 4)
    given = {"t": base.T, "part": base[1], "flag": torch.tensor(True), "half": base.half(), "int": base.int()}
    save_tensors(tmp_path / "a", given, {"one": "text"})
    copies = {name: value.contiguous().clone() for name, value in given.items()}
    assert (tmp_path / "a").read_bytes() == save(copies, {"one": "text"})


def test_a_type_for_the_file_is_that_of_floating_point_numbers_alone(tmp_path):
    save_tensors(tmp_path / "a", {"x": torch.ones(2), "n": torch.arange(2)}, dtype=torch.float16)
    assert {name: value.dtype for name, value in load_file(tmp_path / "a").items()} == {"x": torch.float16, "n": torch.int64}


def test_a_type_without_a_word_leaves_nothing(tmp_path):
    with pytest.raises(TypeError, match="x is torch.complex128"):
        save_tensors(tmp_path / "a", {"x": torch.zeros(2, dtype=torch.complex128)})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_keeps_the_file_that_was_there(tmp_path):
    save_tensors(tmp_path / "a", {"x": torch.zeros(1)})
    with pytest.raises(NotWritten, match="what was there before is kept: make room"), largest_file(1000):
        save_tensors(tmp_path / "a", {"x": torch.zeros(1000)})
    assert len(load_tensors(tmp_path / "a")[1]["x"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_state_comes_back_as_it_was(tmp_path):
    about = {"n": 1, "text": "é", "list": [1.5, None, {"a": True}]}
    save_state(tmp_path / "s", MARK, about, tensors())
    state = load_state(tmp_path / "s", MARK, "state")
    assert (state.about, state.note) == (about, "")
    assert same(state.tensors, tensors())


def test_every_flipped_bit_is_noticed(tmp_path):
    """In the header, the description, the checksums and the numbers: one sentence, or what is read is right all the same."""
    path = tmp_path / "s"
    save_sealed(path, MARK, {"row": 7, "name": "take"}, tensors())
    whole, chance, noticed = path.read_bytes(), random.Random(0), 0
    places = random.Random(1).sample(range(8 * len(whole)), 1500)
    for place in places:
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            state = load_sealed(path, MARK, "state")
        except ValueError as error:
            noticed += 1
            assert "\n" not in str(error) and str(error).startswith("s ")
        else:
            assert state.about == {"row": 7, "name": "take"} and same(state.tensors, tensors()), place
    assert noticed > 0.95 * len(places)
    for _ in range(50):
        path.write_bytes(whole[: chance.randrange(len(whole))])
        with pytest.raises(Damaged):
            load_sealed(path, MARK, "state")


def test_a_tensor_that_was_taken_out_or_put_in_is_noticed(tmp_path):
    path = tmp_path / "s"
    save_sealed(path, MARK, {}, tensors())
    metadata, held = load_tensors(path)
    for changed in (
        {name: value for name, value in held.items() if name != "half"},
        held | {"more": torch.zeros(1)},
        held | {"x": held["x"][:1]},
        held | {"x": held["x"].half()},
        held | {"count": held["count"] + 1},
        held | {"x": held["x"] * float("nan")},
    ):
        save_file(changed, path, metadata)
        with pytest.raises(Damaged, match=r"^s is damaged: (half|more|x|count) is not what was written$"):
            load_sealed(path, MARK, "state")
    save_file(held, path, {MARK: "{}"})
    with pytest.raises(Damaged, match="s has no checksums"):
        load_sealed(path, MARK, "state")
    for strange in ("[1]", "{}", "null", "[1, 2]", "[1, {}", "[[], []]"):
        save_file(held, path, {MARK: "{}", SUMS: strange})
        with pytest.raises(Damaged, match="^s is damaged"):
            load_sealed(path, MARK, "state")
    save_file(held, path, {"other": "{}"})
    with pytest.raises(ValueError, match="^s is no state: give another name$"):
        load_sealed(path, MARK, "state")


def test_the_state_before_is_kept_and_taken_where_the_last_one_is_damaged(tmp_path):
    path = tmp_path / "s"
    for number in range(3):
        save_state(path, MARK, number, tensors(number))
    assert load_sealed(state_before(path), MARK, "state").about == 1
    path.write_bytes(path.read_bytes()[:-3])
    state = load_state(path, MARK, "state")
    assert state.about == 1 and same(state.tensors, tensors(1))
    assert state.note.startswith("s cannot be read: it is cut short") and state.note.endswith(
        ", so the state before it was taken"
    )
    # whoever goes on keeps a good one at every moment
    mend(path)
    save_state(path, MARK, 5, tensors(5))
    assert [load_sealed(item, MARK, "state").about for item in (path, state_before(path))] == [5, 1]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    path = tmp_path / "s"
    save_state(path, MARK, 0, tensors(0))
    path.rename(state_before(path))
    assert has_state(path)
    assert (load_state(path, MARK, "state").about, load_state(path, MARK, "state").note) == (0, "")
    assert not has_state(tmp_path / "other")


def test_both_damaged_is_said_of_the_last_one(tmp_path):
    path = tmp_path / "s"
    for number in range(2):
        save_state(path, MARK, number, tensors(number))
    for item in (path, state_before(path)):
        item.write_bytes(b"x")
    with pytest.raises(Damaged, match="^s cannot be read"):
        load_state(path, MARK, "state")


def test_a_full_disk_takes_the_room_of_the_state_before_the_last(tmp_path, monkeypatch):
    """It is a spare: rather that goes than the run stops."""
    path = tmp_path / "s"
    for number in range(2):
        save_state(path, MARK, number, tensors(number))
    real = file.write_tensors

    def tight(*given):
        if state_before(path).exists():
            raise OSError(28, "No space left on device")
        real(*given)

    monkeypatch.setattr(file, "write_tensors", tight)
    save_state(path, MARK, 2, tensors(2))
    assert [load_sealed(item, MARK, "state").about for item in (path, state_before(path))] == [2, 1]

    def forbidden(*given):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(file, "write_tensors", forbidden)
    with pytest.raises(NotWritten, match="choose another folder"):  # which no room would help
        save_state(path, MARK, 3, tensors(3))
    assert [load_sealed(item, MARK, "state").about for item in (path, state_before(path))] == [2, 1]


def test_shapes_are_compared_not_broadcast():
    state = Sealed({}, {"a": torch.zeros(1), "b": torch.zeros(2, 3)})
    state.check_shapes({"b": torch.ones(2, 3)}, "s")
    with pytest.raises(ValueError, match="s holds a as float32 1 and float32 4 is needed: it is the state of something else"):
        state.check_shapes({"a": torch.zeros(4)}, "s")
    with pytest.raises(ValueError, match="s lacks c"):
        state.check_shapes({"c": torch.zeros(4)}, "s")
    with pytest.raises(ValueError, match="float16 2x3 is needed"):
        state.check_shapes({"b": torch.zeros(2, 3).half()}, "s")
