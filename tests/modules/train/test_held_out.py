"""Clips that are not trained on: which they are, their loss in the log, stopping at the best, and runs that go wrong without a NaN."""

import re
from dataclasses import replace

import pytest
import torch
from line_session import STEADY, line_session
from lines import Line
from pack import host
from pack.modules.train import session as sessions
from pack.modules.train.engine import Diverged, Run, train
from pack.modules.train.held_out import Shown, look, parted, wrecked
from pack.modules.train.tasks import TRAINABLES
from pack.modules.train.trainable import Trainable
from pack.nodes.train.train_motion import LongTakeTrainMotion
from safetensors.torch import load_file
from tiny import info, video_model
from tiny_trainables import QUICK, WORDS, folders_in, logged, same, shapes_of

native = pytest.mark.skipif(host.name != "standalone", reason="native models as an image model exist on the standalone host only")


@pytest.mark.parametrize("count", [1, 2, 4])
def test_videos_are_held_out_evenly(count):
    clips = shapes_of(16, count=5)
    training, other = parted(clips, count)
    keys = [[source.key for source in part.sources] for part in (training, other)]
    assert sorted(keys[0] + keys[1]) == sorted(source.key for source in clips.sources) and len(keys[1]) == count
    assert training.fingerprint() != clips.fingerprint(), "another count is another run"
    for wrong in (0, 5, 9):
        with pytest.raises(ValueError, match=f"held_out is {wrong} and there are 5 videos: hold out 4 or fewer"):
            parted(clips, wrong)


@native
@pytest.mark.parametrize("what", ["domain_adapter", "motion_lora_dual"])
def test_the_loss_on_held_out_videos_is_logged_and_changes_nothing(what, tmp_path, monkeypatch):
    shape = replace(info().unet, label_channels=len(WORDS))
    model = host.video_model(video_model(labels=WORDS, unet=shape))
    model = model if TRAINABLES[what].beside_module else replace(model, motions=(), settings=())
    folders_in(monkeypatch, tmp_path)

    def teach(name, every, **inputs):
        options = replace(QUICK, held_out=1, look_every=every, sample_steps=1)
        given = {"vae": host.vae(info()), "steps": 3, "learning_rate": 1e-2, "rank": 2, "what": what, "name": name}
        return LongTakeTrainMotion.execute(model=model, clips=shapes_of(16), options=options, **given | inputs).args

    made = teach("looked", 1)
    other = teach("not", 100)
    folder = tmp_path / ("loras" if what == "domain_adapter" else "motion_loras")
    assert same(load_file(folder / made[1]), load_file(folder / other[1])), "looks change nothing"
    losses = [line["held_out"] for line in logged(tmp_path, "looked")]
    assert len(set(losses)) == 3 and "loss on the held out clips" in made[-1]
    assert not any("held_out" in line for line in logged(tmp_path, "not")) and "held out" not in other[-1]
    teach("still", 1, learning_rate=1e-8)
    still = [line["held_out"] for line in logged(tmp_path, "still")]
    assert still == pytest.approx([still[0]] * 3, rel=1e-4), "the same clips and noise at every look"


def test_a_look_is_at_other_clips_than_those_of_training():
    task = Line()
    shown = Shown(lambda step, places: "training", lambda step, places: "other", draws=3)
    task.losses = lambda step, places: seen.append(shown(step, places)) or torch.ones(len(places))
    seen = []
    made = Trainable("motion_lora", task, STEADY, lambda *_: ({}, {}), ("AnimateDiff",))
    assert look(task, shown, 2, made.with_weights(None)) == 1.0
    assert seen == ["other"] * 4 and shown(0, range(1)) == "training"


def stopping(folder, monkeypatch, losses, **options):
    """A session whose looks find these losses, one after each step."""
    found = iter(losses)
    monkeypatch.setattr(sessions, "look", lambda *_: next(found))
    training = line_session(folder, settings=replace(STEADY, steps=len(losses)), look_every=1)
    training.task = replace(training.task, shown=Shown(None, None))
    training.options = replace(training.options, held_out=1, **options)
    return training


def test_a_run_stops_at_its_best_and_its_file_has_those_weights(tmp_path, monkeypatch):
    losses = [3.0, 2.0, 1.0, 4.0, 1.5, 6.0, 7.0]
    training, weights = stopping(tmp_path, monkeypatch, losses, stop_at_best=3), []
    training.show = lambda progress: weights.append(training.run.weights())
    training.train()
    made = training.finish()
    assert training.run.done == 6 and same(load_file(made.path), weights[2])
    assert "stopped at the best: loss on the held out clips 1 after step 3, its best, and 6 at last" in made.report
    again = stopping(tmp_path, monkeypatch, losses, stop_at_best=3)
    again.train()
    assert again.run.done == 6 and same(load_file(again.finish().path), weights[2]), "as the checkpoint has it"
    longer = stopping(tmp_path, monkeypatch, losses)
    longer.train()
    assert longer.run.done == 7 and same(load_file(longer.finish().path), longer.run.weights())


def test_what_cannot_be_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="stop_at_best is 2 and no video is held out"):
        replace(QUICK, stop_at_best=2)
    with pytest.raises(
        ValueError, match="held_out is for motion modules, MotionLoRAs and domain adapters, and a motion lora is trained"
    ):
        line_session(tmp_path, held_out=1)


class Growing(Line):
    """A line whose loss grows from some step on, and is a number all along."""

    def losses(self, step, places):
        return super().losses(step, places) * 0 + (9.0 if step >= 60 else 1.0) + 0 * self.weight.sum()


def test_a_loss_that_grows_without_end_stops_a_run_and_its_remedy_is_taken(tmp_path):
    path, settings = tmp_path / "run.safetensors", replace(STEADY, steps=200)
    with pytest.raises(
        Diverged, match=r"loss of the last 50 steps before step 100 is more than 2 times that of the first 50"
    ) as error:
        list(train(Run(Growing(), settings, path), every=30))
    rate = float(re.search(r"a learning rate below ([\d.e+-]+?)(?:,|$)", str(error.value))[1])
    again = Run(Line(), replace(settings, learning_rate=rate / 2), path)
    assert again.done == 90, "the last checkpoint before"
    assert not wrecked([1.0] * 50 + [1.9] * 50) and not wrecked([1.0] * 50 + [9.0] * 49) and wrecked([1.0] * 50 + [2.1] * 50)
