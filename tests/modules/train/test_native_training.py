"""Native training beside its loop: joint image-video batches, where clips come from, reparametrised weights, the watch, logs, samples."""

import csv
import json
import math
import os
import socket
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pack
import pytest
import torch
from pack.modules.checkpoints.video_model import load_video_model
from pack.modules.data.captions import NOT_NEEDED
from pack.modules.data.clips import ClipDataset
from pack.modules.data.procedural import moving_shapes
from pack.modules.data.settings import ClipSettings
from pack.modules.measure.alarms import Finding
from pack.modules.temporal.frames import Frames
from pack.modules.train import attention_watch
from pack.modules.train.attention_watch import AttentionWatch, WatchSettings
from pack.modules.train.base import Encoder
from pack.modules.train.engine import Run, train
from pack.modules.train.losses import LOSSES, LossSettings
from pack.modules.train.native_task import NativeChoices
from pack.modules.train.plan import Architecture, PictureSide, native_training
from pack.modules.train.recipes import TEMPORAL, small_video_model
from pack.modules.train.samples import sample_clip
from pack.modules.train.session import Manner, Place
from pack.modules.train.settings import RunSettings
from pack.modules.train.sources import FromClips, FromShapes, folded, words_of
from pack.modules.train.weights import WeightSettings, loss_weights
from PIL import Image
from safetensors.torch import load_file
from tiny_training import SHORT, native, one_thread, run_command, small

ROOT = Path(pack.__file__).parent
FAST = replace(SHORT, steps=4, batch=2)
TINY = {kind: small(16, kind) for kind in TEMPORAL}


@pytest.fixture(scope="module")
def dataset():
    settings = ClipSettings(frames=4, stride=1, width=16, height=16, variants=1, seed=1)
    return ClipDataset(moving_shapes(6, settings.pace.needed(1.0), 16, 1), settings)


def shaken(task):
    """Every weight away from where training starts, where half of the network is silent."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in task.parameters().values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=g))
    return task


# Joint image-video batches


@pytest.mark.parametrize(
    ("kind", "method"), [("transformer", "full"), *((kind, "forcing") for kind in TEMPORAL), ("pseudo3d", "full")]
)
def test_pictures_beside_a_clip_are_clips_of_their_own(kind, method):
    """Whatever sits in the slots: outputs as if they were alone, and no gradient crosses."""
    task = shaken(native(TINY[kind], FAST, method=method, images=2))
    batch = task.source(0, range(1))
    assert batch.images == 2 and batch.clips.shape[1] == 6 and batch.labels.shape[1] == 6
    x = batch.clips.clone().requires_grad_(True)
    sigma, network = torch.full((1, 6), 0.7), task.denoising.network
    out = network(x, sigma, batch)
    clip = network(x[:, :4], sigma[:, :4], replace(batch, images=0, labels=batch.labels[:, :4]))
    torch.testing.assert_close(out[:, :4], clip, rtol=1e-4, atol=1e-5)
    for place in (4, 5):
        alone = network(x[:, [place]], sigma[:, :1], replace(batch, images=0, labels=batch.labels[:, [place]]))
        torch.testing.assert_close(out[:, [place]], alone, rtol=1e-4, atol=1e-5)
        (gradient,) = torch.autograd.grad(out[:, place].square().sum(), x, retain_graph=True)
        others = [frame for frame in range(6) if frame != place]
        assert gradient[:, others].abs().max() == 0 and gradient[:, place].abs().max() > 0
    (gradient,) = torch.autograd.grad(out[:, 3].square().sum(), x)
    assert gradient[:, 4:].abs().max() == 0 and gradient[:, :3].abs().max() > 0


def test_frames_that_cannot_be_are_one_sentence():
    for alone, streams in ((4, 1), (-1, 1), (1, 2)):
        with pytest.raises(ValueError, match=f"{alone} of 4 frames in {streams} streams are said to be single pictures"):
            Frames(4, torch.arange(4), streams=streams, alone=alone)


def test_a_picture_s_weight_hangs_on_itself():
    """Under fused SNR a noisy frame counts more behind clean ones; a picture behind them does not."""
    seen = []
    task = native(
        TINY["transformer"], FAST, images=1, weight=WeightSettings("fused_snr"), levels="first_frame_known", dropout=0.0
    )

    def network(x, sigma, batch):
        seen.append(sigma)
        return batch.clips + torch.nn.functional.pad(
            torch.ones(2, 1, 48, 8, 8), (0, 0) * 3 + (4, 0)
        )  # wrong in the picture alone

    task.denoising.network = network
    loss = task.losses(0, range(2))
    alone = loss_weights(seen[0][:, 4:], "x0", WeightSettings("fused_snr"))[:, 0]
    torch.testing.assert_close(loss, alone / 5)


@pytest.mark.parametrize("images", [0, 2])
def test_a_batch_is_the_same_however_it_is_cut_up(images, dataset):
    info = Architecture(width=16).for_clips(dataset)
    for source in (FromShapes(TINY["transformer"], 3, 5, images), FromClips(dataset, info, 3, images)):
        whole = source(2, range(3))
        for place in range(3):
            part = source(2, range(place, place + 1))
            assert torch.equal(part.clips[0], whole.clips[place]) and torch.equal(part.labels[0], whole.labels[place])
        assert not torch.equal(whole.clips, source(3, range(3)).clips)


# Where clips come from


def test_clips_are_those_of_the_data_set_with_their_words(dataset):
    info = Architecture(width=16).for_clips(dataset)
    assert info.frames == 4 and info.size == (16, 16) and info.patch == 4
    assert 0 < len(info.labels) <= 64 and "a" not in info.labels
    batch = FromClips(dataset, info, 2, 2)(1, range(2))
    direct = dataset.batch(1, 2)
    torch.testing.assert_close(batch.clips[:, :4], folded(direct.pixels, 4))
    for place, caption in enumerate(direct.captions):
        assert torch.equal(batch.labels[place, 0], words_of(caption, info.labels)) and batch.labels[place, 0].sum() > 0
    every = torch.cat([folded(dataset.clip(number).pixels[None], 4)[0] for number in range(len(dataset))])
    for picture in batch.clips[:, 4:].flatten(0, 1):
        assert (every - picture).abs().flatten(1).amax(1).min() < 1e-6, "a frame of one of the clips"


def test_latents_of_a_vae_are_made_once_and_kept(dataset, tmp_path):
    calls = []

    def encode(pixels):
        calls.append(len(pixels))
        return torch.nn.functional.avg_pool2d(pixels, 8).repeat(1, 2, 1, 1)[:, :4]

    side = PictureSide(Encoder(encode, "pooling"), lambda latents: latents.movedim(1, -1)[..., :3].clamp(0, 1))
    settings = replace(FAST, steps=3)
    make = lambda: native_training(  # noqa: E731
        *(Architecture(width=16), NativeChoices(), settings, Place(tmp_path, "vae"), Manner()), dataset=dataset, vae=side
    )
    training = make()
    assert training.task.info.patch == 0 and training.task.info.latent_channels == 4
    list(training.steps())
    encoded = len(calls)
    again = make()
    list(again.task.source(0, range(2)).clips)
    assert len(calls) == encoded + 1, "only the clip by which the VAE is measured"
    direct = torch.stack([encode(clip.pixels) for clip in dataset.batch(0, 2).clips])
    torch.testing.assert_close(again.task.source(0, range(2)).clips, direct * training.task.info.latent_scale)
    scaled = torch.stack([encode(dataset.clip(0).pixels)]) * training.task.info.latent_scale
    assert scaled.std() == pytest.approx(1, rel=1e-3)
    assert training.sampled().shape == (4, 2, 2, 3)
    training.model().save(tmp_path / "vae.safetensors")
    assert load_video_model(tmp_path / "vae.safetensors").info.patch == 0


def test_a_vae_of_another_kind_is_refused(dataset, tmp_path):
    side = PictureSide(Encoder(lambda pixels: torch.nn.functional.avg_pool2d(pixels, 4), "quarter"), lambda latents: latents)
    given = Architecture(width=16), NativeChoices(), FAST, Place(tmp_path, "x"), Manner()
    with pytest.raises(ValueError, match="makes one latent of 4 pixels in a row, and 8 are needed"):
        native_training(*given, dataset=dataset, vae=side)
    with pytest.raises(ValueError, match="a VAE is given and there are no clips"):
        native_training(*given, vae=side)


def test_clips_that_cannot_be_folded_are_refused():
    settings = ClipSettings(frames=2, stride=1, width=24, height=24, missing=NOT_NEEDED)
    clips = ClipDataset(moving_shapes(2, 2, 24, 1), settings)
    info = replace(Architecture(width=16).for_clips(clips), patch=5)
    with pytest.raises(ValueError, match="clips of 24x24 pixels cannot be folded into patches of 5"):
        FromClips(clips, info, 1)


# What is asked


@pytest.mark.parametrize("kind", LOSSES)
def test_every_loss_trains(kind):
    run = Run(task := native(TINY["transformer"], FAST, loss=LossSettings(kind)), FAST)
    assert task.denoising.objective.loss.space == ("" if kind == "mse" else "x0")
    assert all(math.isfinite(step.loss) for step in run.steps())


def test_weights_know_who_sees_whom():
    assert native(TINY["transformer"], FAST).denoising.objective.weight.causal
    assert not native(TINY["transformer"], FAST, method="full").denoising.objective.weight.causal


def test_layers_that_compute_again_give_the_same_gradients():
    gradients = []
    for recompute in (False, True):
        task = shaken(native(TINY["transformer"], FAST, recompute=recompute))
        task.losses(0, range(2)).mean().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in task.parameters().items()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"temporal": "lstm"}, "'lstm' is not known"),
        ({"width": 20}, "width is 20"),
        ({"temporal": "recurrent", "qk_norm": "l2"}, "a recurrent model has none"),
        ({"skip_scale": 0.0}, "skip_scale is 0.0"),
        ({"qk_norm": "batch"}, "qk_norm is 'batch'"),
    ],
)
def test_bad_architectures_are_one_sentence(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        small_video_model(**change)


# Reparametrised weights


def test_reparametrised_weights_resume_exactly_and_are_folded(tmp_path):
    def run(path=None):
        info = replace(TINY["transformer"], unet=replace(TINY["transformer"].unet, skip_scale=0.7))
        return Run(native(info, FAST, sigma_reparam=True), FAST, path)

    unbroken = run()
    list(unbroken.steps())
    assert unbroken.undecayed and all(name.endswith(".gamma") for name in unbroken.undecayed)
    groups = unbroken.optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0] and len(groups[1]["params"]) == len(unbroken.undecayed)
    path = tmp_path / "run.safetensors"
    steps = train(run(path), every=1)
    next(steps), next(steps)
    steps.close()
    resumed = run(path)
    list(train(resumed))
    assert all(torch.equal(value, resumed.average[name]) for name, value in unbroken.average.items())
    task = unbroken.task
    video = task.model({name: value.detach() for name, value in unbroken.parameters.items()}, 4)
    assert not any("parametrizations" in name for name in video.temporal)
    unet, motion = video.build()
    x, t, y = torch.randn(4, 48, 4, 4), torch.arange(4), torch.zeros(4, len(task.info.labels))
    with torch.no_grad(), motion.during(motion.frames_for(t)), task.motion.during(task.motion.frames_for(t)):
        torch.testing.assert_close(unet(x, t, None, y), task.unet(x, t, None, y), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="no temporal attentions whose weights could be reparametrised"):
        native(TINY["recurrent"], FAST, sigma_reparam=True)
    native(TINY["pseudo3d"], FAST, sigma_reparam=True)


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
        (lambda: Manner(log="paper"), "choose one of jsonl"),
        (lambda: Manner(save_every=0), "save_every is 0"),
    ],
)
def test_bad_watches_and_manners_are_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
    assert WatchSettings.asked(0, lower=False) is None


# Logs, samples, what is shown


def session(folder, log="jsonl", steps=6, **manner):
    settings = RunSettings(steps=steps, batch=1, learning_rate=2e-3, warmup=1, ema=0.9)
    manner = Manner(**{"save_every": 2, "log": log} | manner)
    return native_training(Architecture(width=16), NativeChoices(), settings, Place(folder, "mine"), manner)


@pytest.mark.parametrize("log", ["jsonl", "csv"])
def test_the_log_of_an_interrupted_run_is_that_of_an_unbroken_one(log, tmp_path):
    first = session(tmp_path, log).steps()
    for _ in range(3):
        next(first)
    path = tmp_path / f"mine.{log}"
    with path.open("a") as file:  # what a killed process has left: a step beyond its checkpoint, and half a line
        file.write({"jsonl": '{"step": 4, "loss": 9.0}\n{"step": 5, "lo', "csv": "4,9.0,1,1,1,,,\n5,9"}[log])
    first.close()
    rest = session(tmp_path, log)
    assert rest.run.done == 3
    list(rest.steps())
    records = rest.records()
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record["loss"] for record in records] == pytest.approx(rest.run.losses)
    assert rest.plot().ndim == 4 and rest.report().startswith("6 of 6 steps")
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
    list(training.steps())
    assert written[0] == (str(tmp_path / "mine.tensorboard"), 1)
    assert ("loss", training.run.losses[1], 2) in written
    assert written[-1][0] == "sample" and written[-1][2:] == (2, "HWC")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="tensorboard, which is not installed"):
        session(tmp_path, "tensorboard", steps=2)


def test_samples_show_the_weights_and_nothing_else(tmp_path):
    training = session(tmp_path, steps=2, sample_every=2, sample_prompt="red disk")
    picture = [shown.picture for shown in training.steps()][-1]
    assert picture.shape[0] > 480, "below the curve"
    assert [path.name for path in sorted((tmp_path / "mine.samples").iterdir())] == ["step_0000002.webp"]
    task = shaken(native(TINY["transformer"], FAST))
    video = task.model({name: value.detach() for name, value in task.parameters().items()}, 0)
    once = sample_clip(video, "red disk", schedule="pyramid", steps=3)
    assert torch.equal(once, sample_clip(video, "red disk", schedule="pyramid", steps=3)) and torch.isfinite(once).all()
    assert not torch.equal(once, sample_clip(video, "blue", schedule="pyramid", steps=3))
    with pytest.raises(ValueError, match="does not know the word 'crimson'"):
        session(tmp_path, steps=4, sample_prompt="crimson")


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="nothing can be written to"):
        session(tmp_path / "file")


def test_a_log_that_cannot_be_written_is_one_sentence(tmp_path):
    training = session(tmp_path)
    (tmp_path / "mine.jsonl").mkdir()
    with pytest.raises(ValueError, match="mine.jsonl cannot be written .*Is a directory"):
        next(training.steps())


# The node


def test_the_node_trains_on_clips_and_the_model_rolls_out(tmp_path, monkeypatch, dataset):
    from pack import host
    from pack.nodes.forcing.forcing import LongTakeRollout
    from pack.nodes.measure.measure import LongTakeLossPlot
    from pack.nodes.models.models import LongTakeLabelPrompt
    from pack.nodes.train.train_video_model import LongTakeTrainVideoModel

    monkeypatch.setattr(host, "model_directory", lambda kind: tmp_path)
    asked = {
        "loss": "blend",
        "images": 1,
        "watch_every": 1,
        "sigma_reparam": True,
        "qk_norm": "layer",
        "prediction": "v",
        "levels": "fopp",
    }
    asked |= {"weight": "fused_snr", "precision": "bfloat16", "at_once": 1, "log": "csv", "optimizer": "lion", "skip_scale": 0.7}
    with torch.inference_mode():
        name, _plot, model, vae, sample, log, report = LongTakeTrainVideoModel.execute(
            name="clips", steps=2, batch=2, width=16, clips=dataset, sample_prompt="disk", **asked
        ).args
        (prompt,) = LongTakeLabelPrompt.execute(model=model, prompt="disk").args
        take = LongTakeRollout.execute(model=model, positive=prompt, frames=6, steps=3, window=4).args[0]
        pictures = vae.decode(take["samples"])
        plot, numbers = LongTakeLossPlot.execute(log=log).args
    assert sample.shape == (4, 16, 16, 3) and pictures.shape == (6, 16, 16, 3) and torch.isfinite(pictures).all()
    assert plot.ndim == 4 and numbers.startswith("clips.csv: steps 1 to 2") and report.startswith("2 of 2")
    info = load_video_model(tmp_path / name).info
    assert info.prediction == "v" and info.temporal.qk_norm == "layer" and info.trained["loss"]["kind"] == "blend"
    assert info.trained["clips"] == dataset.fingerprint()


# From a terminal


def test_two_processes_come_to_the_weights_of_one(tmp_path, monkeypatch):
    """As ``torchrun`` starts them: the same environment, without its agent."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ("--steps", "3", "--batch", "2", "--width", "16", "--warmup", "1")
    command = [sys.executable, "-m", "modules.train", "--out", str(tmp_path / "both.safetensors"), *words, "--threads", "1"]
    quiet = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(command, cwd=ROOT, env=quiet | shared | {"RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in "01"
    ]
    with one_thread():
        run_command(monkeypatch, "--out", tmp_path / "one.safetensors", *words)
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert "2 processes" in errors[0]
    both, one = (load_file(tmp_path / f"{name}.safetensors") for name in ("both", "one"))
    assert both.keys() == one.keys()
    for name, value in one.items():
        torch.testing.assert_close(both[name], value, rtol=1e-5, atol=1e-5)


def test_the_command_trains_on_a_folder_of_clips(tmp_path, monkeypatch):
    for number in range(2):
        frames = [Image.fromarray(np.full((16, 16, 3), 30 * index + number, np.uint8)) for index in range(6)]
        frames[0].save(tmp_path / f"{number}.gif", save_all=True, append_images=frames[1:], duration=100)
        (tmp_path / f"{number}.txt").write_text(f"clip number{number}")
    words = [
        "--clips",
        tmp_path,
        "--frames",
        "4",
        "--stride",
        "1",
        "--size",
        "16",
        "16",
        "--steps",
        "1",
        "--batch",
        "1",
        "--width",
        "16",
        "--half",
    ]
    run_command(monkeypatch, "--out", tmp_path / "out" / "mine.safetensors", *words)
    info = load_video_model(tmp_path / "out" / "mine.safetensors").info
    assert info.labels == ("number0", "number1") and info.frames == 4 and info.size == (16, 16)
    with pytest.raises(ValueError, match="learning_rate is 0.0"):
        run_command(monkeypatch, "--out", tmp_path / "out" / "other.safetensors", *words, "--learning-rate", "0")
    with pytest.raises(ValueError, match="there is no|nothing|no such"):
        run_command(monkeypatch, "--out", tmp_path / "other.safetensors", "--clips", tmp_path / "nowhere")
    assert not (tmp_path / "other.jsonl").exists()
