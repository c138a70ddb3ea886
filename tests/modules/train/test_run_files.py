"""What a training leaves and replaces: nothing old goes before there is new, and nothing of anybody else's ever."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pack
import pytest
import torch
from line_session import STEADY, Stopped, line_session, stop_at
from lines import Line
from pack.modules.disk.lock import Taken, owned
from pack.modules.train.run_files import Files, free, run_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file


def contents(folder, but=()):
    """The bytes of all files below a folder, by their place."""
    found = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {path: data for path, data in found.items() if not path.name.endswith(".lock") and path.parts[0] not in but}


def finished(folder, *name, **how):
    training = line_session(folder, *name, **how)
    training.train()
    return training, training.finish()


def equal(one, other):
    one, other = load_file(one), load_file(other)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Begin anew


@pytest.mark.parametrize("breaks_at", [0, 1])
def test_a_restart_that_goes_wrong_at_once_leaves_everything(tmp_path, breaks_at):
    """Before, the checkpoint was gone before the request was looked at, and the log at the start of the session."""
    finished(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="diverged"):
        line_session(tmp_path, task=Line(breaks_at=breaks_at), restart=True).train()
    after = contents(tmp_path)
    assert all(data in after.values() for data in before.values()) and (before == after) == (breaks_at == 0)


def test_a_restart_that_is_refused_leaves_everything(tmp_path):
    finished(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="there is no checkpoint: there are mine$"):
        line_session(tmp_path, restart=True, begin_with="another")
    with pytest.raises(ValueError, match="is not installed"):
        line_session(tmp_path, restart=True, log="tensorboard").train()
    assert contents(tmp_path) == before


def test_what_a_restart_replaces_is_kept_under_its_date(tmp_path):
    old, _ = finished(tmp_path, keep_every=3)
    before = contents(tmp_path, but=("models",))
    new, made = finished(tmp_path, settings=replace(STEADY, steps=3, learning_rate=0.01), restart=True)
    (aside,) = tmp_path.glob("mine-2*")
    assert contents(aside) == before and f"is kept in {aside.name}" in made.report
    assert new.run.id != old.run.id and new.run.done == 3 and len((tmp_path / "mine.jsonl").read_text().splitlines()) == 3
    again = line_session(tmp_path, settings=replace(STEADY, steps=3, learning_rate=0.01))
    assert again.run.done == 3 and again.run.id == new.run.id


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_restart_is_resumed_from_its_first_step_on(tmp_path, stop):
    finished(tmp_path)
    other = replace(STEADY, learning_rate=0.01)
    with pytest.raises(Stopped):
        line_session(tmp_path, settings=other, restart=True, show=stop_at(stop)).train()
    assert line_session(tmp_path, settings=other).run.done == stop
    resumed, made = finished(tmp_path, settings=other)
    _, whole = finished(tmp_path / "whole", settings=other)
    assert equal(made.path, whole.path) and resumed.run.done == 6


def test_a_log_without_its_checkpoint_is_kept(tmp_path):
    finished(tmp_path)
    old = (tmp_path / "mine.jsonl").read_bytes()
    for path in tmp_path.glob("mine.run.safetensors*"):
        path.unlink()
    finished(tmp_path)
    assert [path.read_bytes() for path in tmp_path.glob("mine-2*/mine.jsonl")] == [old]


# Finished files


def test_a_file_of_the_same_name_that_is_not_this_run_s_stays(tmp_path):
    (tmp_path / "models").mkdir()
    for number, metadata in enumerate((None, {"longtake_run": "of another"})):
        path = tmp_path / "models" / ("mine.safetensors" if not number else "mine-2.safetensors")
        save_file({"x": torch.ones(2)}, path, metadata)
    before = contents(tmp_path / "models")
    _, made = finished(tmp_path)
    assert (
        made.name == "mine-3.safetensors" and "mine was there and is not of this run: it stays, and this is mine-3" in made.report
    )
    assert before.items() <= contents(tmp_path / "models").items()
    longer, again = finished(tmp_path, settings=replace(STEADY, steps=8))
    assert again.name == "mine-3.safetensors" and longer.run.done == 8, "its own is replaced"
    assert len(list((tmp_path / "models").iterdir())) == 3


def test_what_may_be_replaced(tmp_path):
    stem = tmp_path / "a"
    assert free(stem, "me", ".safetensors") == stem
    (tmp_path / "a.safetensors").write_bytes(b"no safetensors")
    assert run_of(tmp_path / "a.safetensors") == "" and free(stem, "me", ".safetensors") == tmp_path / "a-2"
    assert free(stem, "", ".safetensors") == tmp_path / "a-2"
    folder = "/diffusion_pytorch_model.safetensors"
    stem.mkdir()
    (stem / "config.json").write_text("{}")
    assert free(stem, "me", folder) == tmp_path / "a-2", "somebody's folder, weights or not"
    save_file({"x": torch.ones(2)}, f"{stem}{folder}", {"longtake_run": "me"})
    assert free(stem, "me", folder) == stem


def test_a_finished_file_says_what_it_is(tmp_path):
    training, made = finished(tmp_path)
    with safe_open(made.path, framework="pt") as file:
        told = file.metadata()
    assert told["own"] == "text" and told["longtake_run"] == training.run.id
    assert told["modelspec.sai_model_spec"] == "1.0.0" and told["modelspec.architecture"] == "longtake/motion-lora"
    assert (
        told["modelspec.title"] == "mine"
        and told["modelspec.trigger_phrase"] == "my word"
        and told["modelspec.resolution"] == "16x16"
    )
    about = json.loads(told["longtake_training"])
    assert about["steps"] == 6 and about["learning_rate"] == STEADY.learning_rate and about["made_of"] == {"size": 3}


# Steps that are kept, and runs that begin with them


def test_steps_are_kept_as_files_and_the_last_of_them_stay(tmp_path):
    training, _ = finished(tmp_path, keep_every=2, keep_last=2)
    assert training.files.steps_kept() == [4, 6]
    assert sorted(path.name for path in (tmp_path / "models" / "mine.steps").iterdir()) == [
        "mine_0000004.safetensors",
        "mine_0000006.safetensors",
    ]
    assert equal(tmp_path / "models" / "mine.steps" / "mine_0000006.safetensors", tmp_path / "models" / "mine.safetensors")


def test_a_run_that_begins_with_a_kept_step_is_the_unbroken_one(tmp_path):
    _, whole = finished(tmp_path, keep_every=2)
    before = contents(tmp_path)
    back, made = finished(tmp_path, "back", begin_with="mine@2")
    assert equal(whole.path, made.path) and "begun with mine@2, at step 2" in made.report and back.run.done == 6
    assert before.items() <= contents(tmp_path).items()
    slower, _ = finished(tmp_path, "slower", begin_with="mine", settings=replace(STEADY, steps=9, learning_rate=0.001))
    assert [item["step"] for item in slower.run.changes] == [6] and slower.run.done == 9
    with pytest.raises(Stopped):
        line_session(tmp_path, "twice", begin_with="mine@2", show=stop_at(5)).train()
    assert line_session(tmp_path, "twice", begin_with="mine@2").run.done == 5, "resumed, not begun again"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("mine", "this run is mine itself: give this run another name"),
        ("mine@2", "this run is mine itself"),
        ("other", r"no checkpoint: there are mine, mine@|no checkpoint: there are mine"),
        ("../mine", "cannot be a file name"),
        ("mine@x", "this run is mine itself"),
    ],
)
def test_what_a_run_cannot_begin_with_is_one_sentence(tmp_path, words, sentence):
    finished(tmp_path, keep_every=2)
    with pytest.raises(ValueError, match=sentence):
        line_session(tmp_path, begin_with=words)
    for bad in ("mine@3", "mine@two", "mine@"):
        with pytest.raises(ValueError, match="there are mine, mine@2, mine@4, mine@6$"):
            line_session(tmp_path, "new", begin_with=bad)
    with pytest.raises(ValueError, match="mine is at step 6, with which this run would be over: set steps to more"):
        line_session(tmp_path, "new", begin_with="mine")


def test_what_a_killed_process_has_left_is_taken_away_and_nothing_else(tmp_path):
    names = ["mine.run.safetensors", "mine.jsonl", "mine.csv", "models/mine.safetensors"]
    left = [Path(tmp_path, name).parent / f".{Path(name).name}.17-abcdef01.partial" for name in names]
    others = [path.with_name(path.name.replace(".mine.", ".mine2.")) for path in left]
    (tmp_path / "models").mkdir()
    for path in (*left, *others):
        path.write_bytes(b"half")
    finished(tmp_path)
    assert not any(path.exists() for path in left) and all(path.exists() for path in others)


# Two at once

OTHER = """
import sys
sys.path[:0] = [{tests!r}, {helpers!r}]
import conftest
from pathlib import Path
from line_session import line_session
from pack.modules.disk.lock import Taken
training = line_session(Path({folder!r}))
try:
    training.train()
except Taken as error:
    print("refused:", error)
"""


def test_a_second_process_is_told_who_trains_and_the_first_loses_nothing(tmp_path):
    tests = Path(pack.__file__).parent / "tests"
    script = OTHER.format(tests=str(tests), helpers=str(tests / "helpers"), folder=str(tmp_path))
    said = []

    def show(progress):
        if progress.step.step == 3:
            said.append(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120).stdout)

    _, made = finished(tmp_path, show=show)
    assert "refused: the training mine is being written by process" in said[0] and "wait until it is done" in said[0]
    _, whole = finished(tmp_path / "whole")
    assert equal(whole.path, made.path) and not list(tmp_path.glob(".mine*"))


def test_a_session_that_waited_goes_on_where_the_other_has_come_to(tmp_path):
    with pytest.raises(Stopped):
        line_session(tmp_path, show=stop_at(2)).train()
    waiting = line_session(tmp_path)
    with pytest.raises(Stopped):
        line_session(tmp_path, show=stop_at(5)).train()
    steps = []
    waiting.show = lambda progress: steps.append(progress.step.step)
    waiting.train()
    assert steps == [6]
    with owned(Files("mine", tmp_path, tmp_path).lock, "it"), pytest.raises(Taken):
        line_session(tmp_path).train()
