"""The trainer of native models: data that is known exactly, a loss that is what it says, runs that resume bit for bit, also when killed."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pack
import pytest
import torch
from full_disk import largest_file
from pack.modules.checkpoints.video_model import load_video_model
from pack.modules.data import shapes
from pack.modules.measure.shapes_metrics import quality, recognise
from pack.modules.noise.levels import PREDICTIONS, NoiseSchedule
from pack.modules.noise.seeded import frame_seed
from pack.modules.temporal.frames import Frames
from pack.modules.train import task
from pack.modules.train.denoising import Batch, Objective, losses
from pack.modules.train.engine import Diverged, Run, train
from pack.modules.train.levels import LEVELS
from pack.modules.train.native import two_streams
from pack.modules.train.native_methods import METHODS
from pack.modules.train.settings import RunSettings
from pack.modules.train.tasks.video_model import DEFAULTS
from pack.modules.train.weights import WeightSettings
from safetensors.torch import load_file, save_file
from tiny_training import SHORT, held_out_loss, native, one_thread, run_command, shapes_model, small

ROOT = Path(pack.__file__).parent


def weights(run):
    return {name: value.clone() for name, value in run.average.items()}


def run_of(settings=SHORT, path=None, info=None, **choices):
    job = native(info, settings, **choices)
    return Run(job, settings, path)


@pytest.mark.parametrize("method", METHODS)
def test_training_lowers_the_loss(method):
    run = run_of(replace(SHORT, steps=30, batch=4, learning_rate=4e-3, warmup=5), method=method)
    before = held_out_loss(run.task)
    list(run.steps())
    assert held_out_loss(run.task) < 0.5 * before


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_gives_the_weights_of_an_unbroken_one(method, tmp_path):
    unbroken = run_of(method=method)
    list(unbroken.steps())
    path = tmp_path / "run.safetensors"
    for stop in (2, 5):
        steps = train(run_of(path=path, method=method), every=1)
        for step in steps:
            if step.step == stop:
                steps.close()
    resumed = run_of(path=path, method=method)
    assert resumed.done == 5
    list(train(resumed))
    assert all(torch.equal(value, resumed.average[name]) for name, value in unbroken.average.items())
    assert resumed.losses == unbroken.losses


WORDS = ("--steps", "8", "--batch", "1", "--width", "16", "--save-every", "1")


def go(out):
    command = [sys.executable, "-m", "modules.train", "--out", str(out), *WORDS, "--threads", "1"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def test_kill_minus_nine_and_resume(tmp_path, monkeypatch):
    """A process that is killed twice, while it writes as likely as not, ends with the weights and the log of an unbroken run."""
    out, straight = tmp_path / "killed.safetensors", tmp_path / "straight.safetensors"
    log, chance = tmp_path / "killed.jsonl", random.Random(0)
    for kill in range(2):
        process, until = go(out), time.time() + 120
        while not log.exists() or log.read_text().count("\n") < 2 * kill + 1:
            assert process.poll() is None and time.time() < until
            time.sleep(0.005)
        time.sleep(0.05 * chance.random())
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not out.exists()
    _, errors = go(out).communicate(timeout=120)
    done = int(errors.split(" of 8 steps are done")[0].split()[-1])
    assert done >= 2, errors
    with one_thread():
        run_command(monkeypatch, "--out", straight, *WORDS)
    one, two = load_file(out), load_file(straight)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert list(tmp_path.glob(".*partial")) == []
    logs = [(tmp_path / name).read_text().splitlines() for name in ("killed.jsonl", "straight.jsonl")]
    told = [[line.partition(', "seconds"')[0] for line in lines] for lines in logs]
    assert told[0] == told[1] and len(told[0]) == 8


def test_another_run_s_checkpoint_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    list(train(run_of(replace(SHORT, steps=1), path)))
    with pytest.raises(ValueError, match=r"seed differ"):
        run_of(replace(SHORT, seed=3), path)
    with pytest.raises(ValueError, match="unet"):
        run_of(replace(SHORT, steps=1), path, small(64))
    with pytest.raises(ValueError, match="method"):
        run_of(replace(SHORT, steps=1), path, method="both_ways")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cut short"):
        run_of(replace(SHORT, steps=1), path)


def test_a_checkpoint_without_checksums_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "run.safetensors"
    save_file({"losses": torch.zeros(1)}, path, metadata={"longtake_run": '{"info": "{}", "settings": {}, "done": 1}'})
    with pytest.raises(ValueError, match="^run.safetensors has no checksums: .*an earlier version wrote it$"):
        run_of(path=path)


def test_divergence_stops_at_the_last_good_step(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    run = run_of(path=path)
    steps = train(run, every=1)
    next(steps)
    good = weights(run)
    monkeypatch.setattr(task, "losses", lambda *a, **k: float("nan") * sum(p.sum() for p in run.parameters.values())[None])
    with pytest.raises(Diverged, match="diverged at step 2"):
        next(steps)
    assert run_of(path=path).done == 1
    assert all(torch.equal(value, run.average[name]) for name, value in good.items())


def test_a_full_disk_leaves_the_checkpoint_before_it(tmp_path):
    """The operating system itself refuses to write on."""
    path = tmp_path / "run.safetensors"
    run = run_of(path=path)
    steps = run.steps()
    next(steps)
    run.save()
    before = path.read_bytes()
    next(steps)
    with (
        largest_file(len(before) // 2),
        pytest.raises(ValueError, match="run.safetensors cannot be written.*what was there before is kept: make room"),
    ):
        run.save()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert run_of(path=path).done == 1


def test_the_trained_file_runs(tmp_path):
    run = run_of(replace(SHORT, steps=1))
    list(run.steps())
    run.task.model(run.weights(), run.done).save(tmp_path / "model.safetensors", torch.float16)
    video = load_video_model(tmp_path / "model.safetensors")
    assert video.info.trained["steps"] == 1
    unet, motion = video.build()
    x = torch.randn(4, 48, 8, 8)
    with motion.during(motion.frames_for(torch.arange(4))):
        out = unet(x, torch.zeros(4), None, torch.zeros(4, len(shapes.LABELS)))
    assert out.shape == x.shape


def test_two_streams_show_the_clean_past_and_oneself():
    frames = two_streams(3)
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
    asked = Objective(prediction, "forcing", WeightSettings("capped_v"))

    def loss(offset):
        def network(x, sigma, batch):
            s = sigma[..., None, None, None]
            output = PREDICTIONS[prediction].target(clips + offset, (x - clips - offset) / s, s)
            return PREDICTIONS[prediction].clean(x, output, s)

        each = losses(network, Batch(clips), asked, schedule, seed=1, step=0, places=range(2), total=2)
        return each.mean()

    # float32 loses digits where clean = x - sigma * eps cancels
    assert loss(0.0) < (1e-4 if prediction == "eps" else 1e-6)
    g = torch.Generator().manual_seed(frame_seed(1, 0, "batch"))
    t = LEVELS["forcing"](2, 4, 1000, g)
    weight = (1 + schedule.sigmas[t] ** -2).clamp(max=5.0).mean()
    torch.testing.assert_close(loss(0.5), weight * 0.25, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_native_task_s_loss_is_its_definition(method):
    """The network called by hand on the drawn clips, the clean ones beside them where the method says so; the error weighed by hand."""
    job = native(small(16), method=method, dropout=0.0)
    with torch.no_grad():
        for parameter in job.parameters().values():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    seen = {}
    inner = job.denoising.network

    def looked_at(x, sigma, batch):
        seen.update(x=x, sigma=sigma, clips=batch.clips, labels=batch.labels)
        return inner(x, sigma, batch)

    job.denoising.network = looked_at
    with torch.no_grad():
        given = job.losses(3, range(2))
        x, sigma, clips = seen["x"], seen["sigma"], seen["clips"]
        wide = sigma[..., None, None, None]
        scaled, t = x / (wide**2 + 1).sqrt(), job.denoising.schedule.timestep(sigma.flatten()).view(sigma.shape)
        frames = job.motion.frames_for(torch.arange(4))
        if METHODS[method].beside:
            scaled, t, frames = torch.cat([clips, scaled], dim=1), torch.cat([torch.zeros_like(t), t], dim=1), two_streams(4)
        with job.motion.during(frames):
            labels = seen["labels"].repeat_interleave(frames.count, dim=0)
            clean = job.unet(scaled.flatten(0, 1), t.flatten(), None, labels).view(2, frames.count, *clips.shape[2:])[:, -4:]
        by_hand = ((1 + wide**-2).clamp(max=5.0) * (clean - clips) ** 2).flatten(1).mean(1)
    torch.testing.assert_close(given, by_hand, rtol=1e-5, atol=1e-6)
    assert (sigma[:, :1] == sigma).all() == (method == "full")


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
        ({"images": -1}, "images is -1"),
        ({"images": 4, "method": "teacher"}, "single pictures do not have: set images to 0"),
        ({"dropout": 2.0}, "dropout is 2: it must lie between 0 and 1"),
        ({"levels": "stairs"}, "choose one of auto, forcing"),
    ],
)
def test_bad_choices_are_one_sentence(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        native(small(16), **change)


def node(**values):
    """As a queue runs it: under inference mode."""
    from pack.nodes.train.train_video_model import LongTakeTrainVideoModel

    with torch.inference_mode():
        return LongTakeTrainVideoModel.execute(
            **{"name": "mine", "steps": 2, "width": 16, "options": replace(DEFAULTS, batch=1)} | values
        )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    from pack import host

    monkeypatch.setattr(host, "model_directory", lambda kind: tmp_path)
    monkeypatch.setattr(host, "output_directory", lambda: tmp_path)
    return tmp_path


def test_the_node_trains_resumes_and_leaves_a_model_that_loads(folder):
    model, vae, name, picture, sample, log, report = node().args
    assert picture.ndim == 4 and sample.shape == (16, 32, 32, 3)
    assert load_video_model(folder / name).info.trained["steps_done"] == 2
    assert (folder / log).read_text().count("\n") == 2
    assert report.startswith("video model: mine.safetensors\n2 steps of 1 clips")
    assert model.info.trained["steps_done"] == 2 and vae.decode(torch.zeros(1, 48, 8, 8)).shape == (1, 32, 32, 3)
    longer = node(steps=3).args
    assert "3 steps of 1 clips" in longer[-1] and "from step 2 on: steps 3 instead of 2" in longer[-1]
    for bad in ("", "../up", "a/b", ".hidden"):
        with pytest.raises(ValueError, match="cannot be a file name"):
            node(name=bad)


def test_cancelling_the_node_keeps_what_was_trained(folder, monkeypatch):
    from pack import host

    class Cancelled:
        def __init__(self, total):
            pass

        def update(self, done, preview=None):
            if done == 2:
                raise host.Interrupted

    monkeypatch.setattr(host, "Progress", Cancelled)
    with pytest.raises(host.Interrupted):
        node(steps=5)
    kept = folder / "longtake_training"
    names = ["mine.jsonl", "mine.run.safetensors", "mine.run.safetensors.before"]
    assert sorted(path.name for path in kept.iterdir()) == names, "and the checkpoint before, in case the last is damaged"
    settings = RunSettings(steps=5, batch=1, learning_rate=2e-3, warmup=5)
    assert Run(native(shapes_model(16), settings), settings, kept / "mine.run.safetensors").done == 2


def test_a_run_starts_from_a_file_of_its_own_architecture(tmp_path):
    first = run_of(replace(SHORT, steps=2))
    list(first.steps())
    first.task.model(first.weights(), 2).save(tmp_path / "first.safetensors")
    second = run_of(replace(SHORT, seed=5), start=str(tmp_path / "first.safetensors"))
    assert all(torch.equal(value, first.average[name]) for name, value in second.average.items())
    with pytest.raises(ValueError, match="cannot start this run: its unet differ"):
        run_of(info=small(64), start=str(tmp_path / "first.safetensors"))
    with pytest.raises(ValueError, match="there is no file"):
        run_of(start=str(tmp_path / "none.safetensors"))
