"""Runs that go on otherwise than they began, and checkpoints that are not what they say: taken right, or refused in one sentence."""

import json
import re
from dataclasses import replace

import pytest
import torch
from lines import SHORT, Line
from pack.modules.disk.state import load_state, save_state, state_before
from pack.modules.train.checkpoint import FACTS, MARK
from pack.modules.train.engine import Diverged, Run, train
from pack.modules.train.report import change_text
from safetensors import safe_open
from safetensors.torch import save_file

STEADY = replace(SHORT, decay="constant")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.safetensors"


def stopped(path, at, settings=STEADY):
    """A run that was stopped after so many steps, with a checkpoint there."""
    steps = train(Run(Line(), settings, path), every=100)
    for step in steps:
        if step.step == at:
            steps.close()
    assert path.is_file()


def trained(settings=STEADY, path=None):
    run = Run(Line(), settings, path)
    steps = list(train(run, every=100))
    return run, steps


# Longer, slower, larger


def test_a_run_that_is_made_longer_is_the_long_one(path):
    trained(replace(STEADY, steps=3), path)
    longer, _ = trained(STEADY, path)
    whole, _ = trained(STEADY)
    assert all(torch.equal(value, longer.weights()[name]) for name, value in whole.weights().items())
    assert longer.losses == whole.losses
    assert [(item["step"], item["settings"]) for item in longer.changes] == [(3, {"steps": [3, 6]})]


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 0.01},
        {"decay": "cosine"},
        {"steps": 12, "decay": "linear"},
        {"warmup": 6},
        {"batch": 2},
        {"weight_decay": 0.5},
        {"clip_norm": 0.1},
        {"ema": 0.2},
        {"ema": 0.0},
        {"precision": "bfloat16"},
    ],
    ids=str,
)
def test_a_run_goes_on_with_another_setting(path, change):
    stopped(path, 3)
    other = replace(STEADY, **change)
    run, steps = trained(other, path)
    assert run.done == other.steps and len(steps) == other.steps - 3
    assert [step.rate for step in steps] == pytest.approx([other.rate(step) for step in range(3, other.steps)])
    assert run.changes == [
        {"step": 3, "rate": other.rate(3), "settings": {name: [getattr(STEADY, name), value] for name, value in change.items()}}
    ]
    again = Run(Line(), other, path)
    assert again.changes == run.changes, "once, however often it is taken up"
    plain, _ = trained()
    assert change == {"ema": 0.0} or any(not torch.equal(value, plain.weights()[name]) for name, value in run.weights().items())
    name, value = next(iter(change.items()))
    assert change_text(run.changes[0]).startswith(f"from step 3 on: {name} {value} instead of {getattr(STEADY, name)}")


def test_averages_begin_where_there_were_none(path):
    stopped(path, 3, replace(STEADY, ema=0.0))
    run = Run(Line(), STEADY, path)
    assert all(torch.equal(value, run.parameters[name]) for name, value in run.average.items())


def test_a_run_that_is_further_than_asked_is_refused_and_its_remedy_works(path):
    stopped(path, 5)
    with pytest.raises(ValueError, match="is at step 5 and this run shall have 4 steps: set steps to 5 or more") as error:
        Run(Line(), replace(STEADY, steps=4), path)
    steps = int(re.search(r"set steps to (\d+)", str(error.value))[1])
    assert Run(Line(), replace(STEADY, steps=steps), path).done == 5


@pytest.mark.parametrize("every", [2, 100])
def test_the_remedy_for_a_divergence_is_taken(path, every):
    with pytest.raises(Diverged) as error:
        list(train(Run(Line(breaks_at=4), SHORT, path), every))
    rate = float(re.search(r"a learning rate below ([\d.e+-]+?)(?:,|$)", str(error.value))[1])
    assert ("no checkpoint was written yet: start again" in str(error.value)) == (every == 100)
    run, _ = trained(replace(SHORT, learning_rate=0.9 * rate), path)
    assert run.done == SHORT.steps


# Checkpoints that are not what they say


def rewritten(path, change):
    """The checkpoint with ``change(about, tensors)`` done to it, and right sums."""
    kept = load_state(path, MARK, "checkpoint")
    about, tensors = dict(kept.about), dict(kept.tensors)
    change(about, tensors)
    path.unlink()
    save_state(path, MARK, about, tensors)
    state_before(path).unlink(missing_ok=True)


SHAPES = {
    "missing": lambda value: None,
    "broadcast": lambda value: value.flatten()[:1],
    "longer": lambda value: torch.cat([value[None]] * 2),
    "whole numbers": lambda value: value.long() if value.is_floating_point() else value.double(),
    "not finite": lambda value: torch.full_like(value, float("nan")),
}


@pytest.mark.parametrize("name", ["now/weight", "average/bias", "optimizer/weight/exp_avg", "optimizer/bias/step", "losses"])
@pytest.mark.parametrize("wrong", SHAPES)
def test_a_tensor_that_is_not_this_run_s_is_one_sentence(path, name, wrong):
    stopped(path, 3)

    def change(_, tensors):
        made = SHAPES[wrong](tensors.pop(name))
        if made is not None:
            tensors[name] = made

    rewritten(path, change)
    if name == "losses" and wrong == "not finite":
        return  # a loss of the past says nothing of what comes
    with pytest.raises(ValueError, match=r"^run\.safetensors ") as error:
        Run(Line(), STEADY, path)
    assert type(error.value) is ValueError and "another name" in str(error.value)


FAULTS = {
    **{f"no {name}": lambda about, name=name: about.pop(name) for name in FACTS},
    "done is a word": lambda about: about.update(done="3"),
    "done is true": lambda about: about.update(done=True),
    "done is negative": lambda about: about.update(done=-3),
    "done is another number": lambda about: about.update(done=2),
    "done is huge": lambda about: about.update(done=10**9),
    "slowed is 0": lambda about: about.update(slowed=0.0),
    "slowed is not a number": lambda about: about.update(slowed=float("nan")),
    "task is a list": lambda about: about.update(task=[]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_description_that_cannot_be_is_one_sentence(path, fault):
    stopped(path, 3)
    rewritten(path, lambda about, _: FAULTS[fault](about))
    with pytest.raises(ValueError, match=r"^run\.safetensors .*another name") as error:
        Run(Line(), STEADY, path)
    assert type(error.value) is ValueError


def test_any_flipped_bit_is_found(path):
    stopped(path, 3)
    right = path.read_bytes()
    for place in range(0, len(right), max(1, len(right) // 60)):
        path.write_bytes(right[:place] + bytes([right[place] ^ 4]) + right[place + 1 :])
        with pytest.raises(ValueError, match=r"^run\.safetensors "):
            Run(Line(), STEADY, path)


def test_a_file_of_another_program_is_one_sentence(path):
    save_file({"weight": torch.zeros(2)}, path, {MARK: json.dumps({"done": 3})})
    with pytest.raises(ValueError, match="has no checksums"):
        Run(Line(), STEADY, path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="is no training checkpoint: give another name"):
        Run(Line(), STEADY, path)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() is None, "it is left as it was"
