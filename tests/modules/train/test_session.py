"""A session: the watch that slows a run down, logs, samples, what is shown meanwhile, and what cannot be written."""

import csv
import json
import sys
import types
from dataclasses import replace

import pytest
import torch
from pack.modules.measure.alarms import Finding
from pack.modules.train import attention_watch
from pack.modules.train.attention_watch import AttentionWatch, WatchSettings
from pack.modules.train.engine import Run, train
from pack.modules.train.native_models import Architecture
from pack.modules.train.native_task import NativeChoices
from pack.modules.train.options import BasicSettings, Options
from pack.modules.train.run_files import Files
from pack.modules.train.session import Session
from pack.modules.train.tasks.video_model import DEFAULTS, make, sample_of
from tiny_training import SHORT, native, shaken, small

FAST = replace(SHORT, steps=4, batch=2)
SMALL = Architecture(width=16), NativeChoices()
TINY = {kind: small(16, kind) for kind in ("transformer", "recurrent")}


# The watch


def alarming(snapshots):
    """As if the attentions collapsed at the second look."""
    return [Finding(snapshots[-1].step == 2, "made up")] if snapshots else []


def test_a_run_that_slows_down_resumes_exactly(tmp_path, monkeypatch):
    monkeypatch.setattr(attention_watch, "findings", alarming)
    monkeypatch.setattr("pack.modules.measure.alarms.findings", alarming)

    def run(path=None, lower=True):
        task = native(TINY["transformer"], FAST)
        return Run(task, FAST, path, AttentionWatch(task.motion, WatchSettings(1, lower)))

    unbroken = run()
    rates = [step.rate for step in unbroken.steps()]
    plain = [FAST.rate(step) for step in range(4)]
    assert rates == pytest.approx([plain[0], plain[1], plain[2] / 2, plain[3] / 2])
    path = tmp_path / "run.safetensors"
    steps = train(run(path), every=1)
    next(steps), next(steps)
    steps.close()
    resumed = run(path)
    assert resumed.slowed == 0.5 and [item.step for item in resumed.watch.snapshots] == [1, 2]
    list(train(resumed))
    assert all(torch.equal(value, resumed.average[name]) for name, value in unbroken.average.items())
    assert [step.rate for step in run(lower=False).steps()] == pytest.approx(plain)
    with pytest.raises(ValueError, match="lower differ|lower"):
        run(path, lower=False)


def test_watching_changes_nothing_and_says_what_it_saw():
    seen, plain = native(TINY["transformer"], FAST), native(TINY["transformer"], FAST)
    watch = AttentionWatch(seen.motion, WatchSettings(2))
    runs = Run(seen, FAST, None, watch), Run(plain, FAST)
    records = [watch.record(step.step) for step in runs[0].steps()]
    list(runs[1].steps())
    assert all(torch.equal(value, runs[1].average[name]) for name, value in runs[0].average.items())
    assert [bool(record) for record in records] == [False, True, False, True]
    assert 0 < records[1]["lowest_entropy"] <= records[1]["entropy"] <= 1 and records[1]["attention"][0]["grad_q"] is not None


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: WatchSettings(0), "every 0 steps"),
        (lambda: WatchSettings(5, factor=1.0), "factor is 1.0"),
        (lambda: WatchSettings.asked(0, lower=True), "set watch_every"),
        (lambda: AttentionWatch(native(TINY["recurrent"], FAST).motion), "no temporal attention to watch"),
        (lambda: Options(log="paper"), "choose one of jsonl"),
        (lambda: Options(save_every=0), "save_every is 0"),
    ],
)
def test_bad_watches_and_options_are_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
    assert WatchSettings.asked(0, lower=False) is None


# Logs, samples, what is shown


class Stopped(Exception):
    pass


def session(folder, log="jsonl", steps=6, stop=None, **options):
    """A training of the shapes; with ``stop``, what is shown stops it after so many steps."""

    def show(progress):
        if progress.step.step == stop:
            raise Stopped

    options = replace(DEFAULTS, **{"batch": 1, "warmup": 1, "ema": 0.9, "save_every": 2, "log": log} | options)
    settings = options.run(BasicSettings(steps=steps, learning_rate=2e-3))
    return Session(make(options, settings, folder, *SMALL), Files("mine", folder, folder), options, show)


@pytest.mark.parametrize("log", ["jsonl", "csv"])
def test_the_log_of_an_interrupted_run_is_that_of_an_unbroken_one(log, tmp_path):
    with pytest.raises(Stopped):
        session(tmp_path, log, stop=3).train()
    path = tmp_path / f"mine.{log}"
    with path.open("a") as file:  # what a killed process has left: a step beyond its checkpoint, and half a line
        file.write({"jsonl": '{"step": 4, "loss": 9.0}\n{"step": 5, "lo', "csv": "4,9.0,1,1,1,,,,\n5,9"}[log])
    rest = session(tmp_path, log)
    assert rest.run.done == 3
    rest.train()
    records = rest.records()
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record["loss"] for record in records] == pytest.approx(rest.run.losses)
    assert rest.plot().ndim == 4 and rest.report("mine").startswith("video model: mine\n6 steps of 1 clips")
    text = path.read_text().splitlines()
    assert json.loads(text[0])["lr"] > 0 if log == "jsonl" else next(csv.reader(text))[:2] == ["step", "loss"]


def test_tensorboard_gets_the_same_numbers(tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, *what):
            written.append(what)

        def add_image(self, name, image, step, dataformats):
            written.append((name, image.shape, step, dataformats))

        def flush(self):
            pass

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    training = session(tmp_path, "tensorboard", steps=2, sample_every=2)
    training.train()
    assert written[0] == (str(tmp_path / "mine.tensorboard"), 1)
    assert ("loss", training.run.losses[1], 2) in written
    assert written[-1][0] == "sample" and written[-1][2:] == (2, "HWC")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="tensorboard, which is not installed"):
        session(tmp_path, "tensorboard", steps=2)


def test_samples_show_the_weights_and_nothing_else(tmp_path):
    training, pictures = session(tmp_path, steps=2, sample_every=2, sample_prompt="red disk"), []
    training.show = lambda progress: pictures.append(progress.picture)
    training.train()
    assert pictures[-1].shape[0] > 480, "below the curve"
    assert [path.name for path in sorted((tmp_path / "mine.samples").iterdir())] == ["step_0000002.webp"]
    task = shaken(native(TINY["transformer"], FAST))
    video = task.model({name: value.detach() for name, value in task.parameters().items()}, 0)
    task.options = replace(task.options, sample_prompt="red disk", sample_steps=3)
    once = sample_of(task, video, "cpu")
    assert torch.equal(once, sample_of(task, video, "cpu")) and torch.isfinite(once).all()
    found = []
    for change in ({"sample_prompt": "blue"}, {"sample_cfg": 2.0}):
        task.options = replace(task.options, **change)
        found.append(sample_of(task, video, "cpu"))
    assert not torch.equal(once, found[0]) and not torch.equal(*found)
    with pytest.raises(ValueError, match="does not know the word 'crimson'"):
        session(tmp_path, steps=4, sample_prompt="crimson")


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="nothing can be written to"):
        session(tmp_path / "file")


def test_a_log_that_cannot_be_written_is_one_sentence(tmp_path):
    training, log = session(tmp_path), tmp_path / "mine.jsonl"

    def show(progress):
        log.unlink()
        log.mkdir()

    training.show = show
    with pytest.raises(ValueError, match="mine.jsonl cannot be written .*Is a directory"):
        training.train()
