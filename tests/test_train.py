"""The trainer: data that is known exactly, a loss that is what it says, runs that resume bit for bit."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pack
import pytest
import torch
from pack.modules.noise import NoiseSchedule
from pack.modules.temporal.frames import Frames
from pack.modules.train import loop, objective, shapes
from pack.modules.train.levels import LEVELS
from pack.modules.train.loop import Diverged, Run, TrainSettings, train
from pack.modules.train.recipes import shapes_model
from pack.modules.train.shapes_metrics import quality, recognise
from pack.modules.video_model import fold, load_video_model
from safetensors.torch import load_file

ROOT = Path(pack.__file__).parent
SMALL = replace(shapes_model(32), frames=4)
SHORT = TrainSettings(steps=6, batch=2, warmup=2)


def weights(run):
    return {name: value.clone() for name, value in run.average.items()}


@torch.no_grad()
def held_out_loss(run):
    batch = shapes.clips(16, 4, seed=999)
    latents = torch.stack([fold(clip.movedim(1, -1) / 2 + 0.5, run.info.patch) for clip in batch.frames])
    return objective.clip_loss(
        run.unet,
        run.motion,
        latents,
        batch.labels,
        method=objective.METHODS[run.settings.method],
        schedule=run.schedule,
        prediction=run.info.prediction,
        g=torch.Generator().manual_seed(0),
    ).item()


@pytest.mark.parametrize("method", objective.METHODS)
def test_training_lowers_the_loss(method):
    run = Run(SMALL, replace(SHORT, steps=30, batch=4, method=method, learning_rate=4e-3, warmup=5))
    before = held_out_loss(run)
    list(run.steps())
    assert held_out_loss(run) < 0.5 * before


@pytest.mark.parametrize("method", objective.METHODS)
def test_a_resumed_run_gives_the_weights_of_an_unbroken_one(method, tmp_path):
    settings = replace(SHORT, method=method)
    unbroken = Run(SMALL, settings)
    list(unbroken.steps())
    path = tmp_path / "run.safetensors"
    for stop in (2, 5):
        steps = train(Run(SMALL, settings, path), every=1)
        for step in steps:
            if step.step == stop:
                steps.close()
    resumed = Run(SMALL, settings, path)
    assert resumed.done == 5
    list(train(resumed))
    assert all(torch.equal(value, resumed.average[name]) for name, value in unbroken.average.items())
    assert resumed.losses == unbroken.losses


def test_kill_minus_nine_and_resume(tmp_path):
    """A process killed without warning resumes from its last checkpoint and ends with the weights of an unbroken run."""
    out = tmp_path / "killed.safetensors"
    command = [
        sys.executable,
        "-m",
        "modules.train",
        "--out",
        str(out),
        "--steps",
        "8",
        "--batch",
        "1",
        "--every",
        "1",
        "--threads",
        "1",
    ]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    checkpoint = out.with_suffix(".run.safetensors")
    until = time.time() + 120
    while not checkpoint.exists() and process.poll() is None and time.time() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    assert not out.exists()
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stderr=subprocess.DEVNULL)
    straight = tmp_path / "straight.safetensors"
    subprocess.run([*command[:4], str(straight), *command[5:]], cwd=ROOT, env=environment, check=True, stderr=subprocess.DEVNULL)
    one, two = load_file(out), load_file(straight)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert list(tmp_path.glob(".*partial")) == []


def test_another_run_s_checkpoint_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    list(train(Run(SMALL, replace(SHORT, steps=1), path)))
    with pytest.raises(ValueError, match=r"learning_rate, steps differ"):
        Run(SMALL, replace(SHORT, learning_rate=1e-3), path)
    with pytest.raises(ValueError, match="unet"):
        Run(replace(shapes_model(64), frames=4), replace(SHORT, steps=1), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cut short"):
        Run(SMALL, replace(SHORT, steps=1), path)


def test_divergence_stops_at_the_last_good_step(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    run = Run(SMALL, SHORT, path)
    steps = train(run, every=1)
    next(steps)
    good = weights(run)
    monkeypatch.setattr(
        loop,
        "clip_loss",
        lambda *a, **k: torch.tensor(float("nan"), requires_grad=True) * sum(p.sum() for p in run.parameters.values()),
    )
    with pytest.raises(Diverged, match="diverged at step 2"):
        next(steps)
    assert Run(SMALL, SHORT, path).done == 1
    assert all(torch.equal(value, run.average[name]) for name, value in good.items())


def test_a_full_disk_leaves_the_checkpoint_before_it(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    run = Run(SMALL, SHORT, path)
    steps = run.steps()
    next(steps)
    run.save()
    before = path.read_bytes()

    def full(state, filename, metadata):
        Path(filename).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loop, "save_file", full)
    next(steps)
    with pytest.raises(OSError, match="No space left"):
        run.save()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_trained_file_runs(tmp_path):
    run = Run(SMALL, replace(SHORT, steps=1))
    list(run.steps())
    run.model().save(tmp_path / "model.safetensors", torch.float16)
    video = load_video_model(tmp_path / "model.safetensors")
    assert video.info.trained["steps"] == 1
    unet, motion = video.build()
    x = torch.randn(4, 48, 8, 8)
    with motion.during(motion.frames_for(torch.arange(4))):
        out = unet(x, torch.zeros(4), None, torch.zeros(4, len(shapes.LABELS)))
    assert out.shape == x.shape


def test_two_streams_show_the_clean_past_and_oneself():
    frames = objective.two_streams(3)
    assert isinstance(frames, Frames)
    assert frames.mask.int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [1, 0, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 1],
    ]


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_the_loss_is_zero_for_the_right_answer_and_weighted_as_stated(prediction):
    """A network that knows the clip has no loss; one that is off by d in the clean frames has weight * d^2."""
    clips = torch.randn(2, 4, 48, 8, 8)
    schedule = NoiseSchedule.named("cosine")
    run = Run(replace(SMALL, prediction=prediction), SHORT)

    def network(offset):
        def forward(x, t, context, y):
            s = schedule.sigmas[t].view(-1, 1, 1, 1)
            clean = clips.flatten(0, 1)
            noisy = x * (s**2 + 1).sqrt()
            return objective.PREDICTIONS[prediction].target(clean + offset, (noisy - clean - offset) / s, s)

        return forward

    options = {"method": objective.METHODS["forcing"], "schedule": schedule, "prediction": prediction}

    def loss(offset):
        return objective.clip_loss(network(offset), run.motion, clips, None, g=torch.Generator().manual_seed(1), **options)

    # float32 loses digits where clean = x - sigma * eps cancels
    assert loss(0.0) < (1e-4 if prediction == "eps" else 1e-6)
    g = torch.Generator().manual_seed(1)
    t = LEVELS["forcing"](2, 4, 1000, g)
    weight = (1 + schedule.sigmas[t] ** -2).clamp(max=objective.WEIGHT_CAP).mean()
    torch.testing.assert_close(loss(0.5), weight * 0.25, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("name", LEVELS)
def test_levels_stay_on_the_table_and_follow_the_generator(name):
    draw = lambda seed: LEVELS[name](64, 16, 1000, torch.Generator().manual_seed(seed))  # noqa: E731
    levels = draw(0)
    assert levels.shape == (64, 16)
    assert levels.dtype == torch.int64
    assert levels.min() >= 0
    assert levels.max() <= 999
    assert torch.equal(levels, draw(0))
    assert not torch.equal(levels, draw(1))


def test_ramps_rise_and_shared_levels_are_shared():
    g = torch.Generator().manual_seed(0)
    assert (LEVELS["ramps"](64, 16, 1000, g).diff(dim=1) >= 0).all()
    assert (LEVELS["shared"](64, 16, 1000, g).diff(dim=1) == 0).all()


def test_the_world_does_not_depend_on_how_long_one_looks():
    short, long = shapes.clips(8, 5, seed=3, index=2), shapes.clips(8, 40, seed=3, index=2)
    assert torch.equal(short.frames, long.frames[:, :5])
    assert not torch.equal(short.frames, shapes.clips(8, 5, seed=3, index=3).frames)
    assert (short.labels.sum(1) == 3).all()


def test_the_measures_recognise_the_truth_and_refuse_what_is_not():
    truth = shapes.clips(6, 48, seed=1)
    perfect = quality(truth.frames, truth)
    for row in perfect.values():
        assert row["valid"] == 1
        assert row["kept"] == 1
        assert abs(row["speed"] - 1) < 0.02
        assert row["drift"] == 0
        assert abs(row["contrast"] - 1) < 1e-6
    assert (recognise(truth.frames).centre - truth.centre).norm(dim=-1).max() < 0.3
    still = quality(truth.frames[:, :1].expand_as(truth.frames), truth)["16-48"]
    assert still["speed"] < 0.01
    assert still["kept"] == 1
    empty = quality(truth.background[:, None, None].expand_as(truth.frames), truth)["16-48"]
    assert empty["valid"] == 0
    faded = quality(truth.frames * 0.5 - 0.25, truth)["16-48"]
    assert abs(faded["contrast"] - 0.5) < 0.01
    swapped = replace(truth, shape=(truth.shape + 1) % 4)
    assert quality(truth.frames, swapped)["16-48"]["kept"] == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"method": "magic"}, "choose one of forcing"),
        ({"steps": 0}, "steps is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": 1e3}, "learning_rate is 1000.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"ema": 1.0}, "ema is 1.0"),
    ],
)
def test_bad_settings_are_one_sentence(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(SHORT, **change)


def test_the_node_trains_resumes_and_leaves_a_model_that_loads(tmp_path, monkeypatch):
    """As a queue runs it: under inference mode."""
    from pack import host
    from pack.nodes.train import LongTakeTrainVideoModel

    monkeypatch.setattr(host, "model_directory", lambda kind: tmp_path)
    monkeypatch.setattr("pack.nodes.train.shapes_model", lambda **kind: SMALL)
    with torch.inference_mode():
        name, picture = LongTakeTrainVideoModel.execute(name="mine", steps=2, batch=1).args
    assert picture.ndim == 4
    assert load_video_model(tmp_path / name).info.trained["steps_done"] == 2
    with pytest.raises(ValueError, match="belongs to another run"):
        LongTakeTrainVideoModel.execute(name="mine", steps=3, batch=1)
    for bad in ("", "../up", "a/b", ".hidden"):
        with pytest.raises(ValueError, match="cannot be a file name"):
            LongTakeTrainVideoModel.execute(name=bad)


def test_cancelling_the_node_keeps_what_was_trained(tmp_path, monkeypatch):
    from pack import host
    from pack.nodes.train import LongTakeTrainVideoModel

    class Cancelled:
        def __init__(self, total):
            pass

        def update(self, done, preview=None):
            if done == 2:
                raise host.Interrupted

    monkeypatch.setattr(host, "model_directory", lambda kind: tmp_path)
    monkeypatch.setattr(host, "Progress", Cancelled)
    monkeypatch.setattr("pack.nodes.train.shapes_model", lambda **kind: SMALL)
    with pytest.raises(host.Interrupted):
        LongTakeTrainVideoModel.execute(name="mine", steps=5, batch=1, save_every=100)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.run.safetensors"]
    assert Run(SMALL, TrainSettings(steps=5, batch=1), tmp_path / "mine.run.safetensors").done == 2


def test_a_run_starts_from_a_file_of_its_own_architecture(tmp_path):
    first = Run(SMALL, replace(SHORT, steps=2))
    list(first.steps())
    first.model().save(tmp_path / "first.safetensors")
    second = Run(SMALL, replace(SHORT, seed=5, start=str(tmp_path / "first.safetensors")))
    assert all(torch.equal(value, first.average[name]) for name, value in second.average.items())
    with pytest.raises(ValueError, match="cannot start this run: its unet differ"):
        Run(replace(shapes_model(64), frames=4), replace(SHORT, start=str(tmp_path / "first.safetensors")))
    with pytest.raises(ValueError, match="there is no file"):
        Run(SMALL, replace(SHORT, start=str(tmp_path / "none.safetensors")))
