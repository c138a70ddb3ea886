"""Training a native model beside its loop: joint image-video batches, where clips come from, reparametrised weights, node and command."""

import math
import os
import socket
import subprocess
import sys
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
from pack.modules.temporal.frames import Frames
from pack.modules.train.base import Encoder
from pack.modules.train.engine import Run, train
from pack.modules.train.losses import LOSSES
from pack.modules.train.native_models import TEMPORAL, Architecture, small_video_model
from pack.modules.train.native_task import NativeChoices
from pack.modules.train.options import Options
from pack.modules.train.run_files import Files
from pack.modules.train.session import Session
from pack.modules.train.sources import FromClips, FromShapes, folded, words_of
from pack.modules.train.tasks.video_model import DEFAULTS, PictureSide, make
from pack.modules.train.weights import WeightSettings, loss_weights
from PIL import Image
from safetensors.torch import load_file
from tiny_training import SHORT, native, one_thread, run_command, shaken, small

ROOT = Path(pack.__file__).parent
FAST = replace(SHORT, steps=4, batch=2)
SMALL = Architecture(width=16), NativeChoices()
TINY = {kind: small(16, kind) for kind in TEMPORAL}


@pytest.fixture(scope="module")
def dataset():
    settings = ClipSettings(frames=4, stride=1, width=16, height=16, variants=1, seed=1)
    return ClipDataset(moving_shapes(6, settings.pace.needed(), 16, 1), settings)


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
    task = native(TINY["transformer"], FAST, images=1, weight="fused_snr", levels="first_frame_known", dropout=0.0)

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
    made = lambda: make(DEFAULTS, settings, tmp_path, *SMALL, dataset=dataset, vae=side)  # noqa: E731
    session = Session(made(), Files("vae", tmp_path, tmp_path), DEFAULTS)
    info = session.task.task.info
    assert info.patch == 0 and info.latent_channels == 4
    session.train()
    encoded = len(calls)
    again = made().task
    list(again.source(0, range(2)).clips)
    assert len(calls) == encoded + 1, "only the clip by which the VAE is measured"
    direct = torch.stack([encode(clip.pixels) for clip in dataset.batch(0, 2).clips])
    torch.testing.assert_close(again.source(0, range(2)).clips, direct * info.latent_scale)
    scaled = torch.stack([encode(dataset.clip(0).pixels)]) * info.latent_scale
    assert scaled.std() == pytest.approx(1, rel=1e-3)
    assert session.sample().shape == (4, 2, 2, 3)
    assert load_video_model(session.save()).info.patch == 0


def test_a_vae_of_another_kind_is_refused(dataset, tmp_path):
    side = PictureSide(Encoder(lambda pixels: torch.nn.functional.avg_pool2d(pixels, 4), "quarter"), lambda latents: latents)
    given = DEFAULTS, FAST, tmp_path, *SMALL
    with pytest.raises(ValueError, match="makes one latent of 4 pixels in a row, and 8 are needed"):
        make(*given, dataset=dataset, vae=side)
    with pytest.raises(ValueError, match="a VAE is given and there are no clips"):
        make(*given, vae=side)


def test_clips_that_cannot_be_folded_are_refused():
    settings = ClipSettings(frames=2, stride=1, width=24, height=24, missing_captions=NOT_NEEDED)
    clips = ClipDataset(moving_shapes(2, 2, 24, 1), settings)
    info = replace(Architecture(width=16).for_clips(clips), patch=5)
    with pytest.raises(ValueError, match="clips of 24x24 pixels cannot be folded into patches of 5"):
        FromClips(clips, info, 1)


# What is asked


@pytest.mark.parametrize("kind", LOSSES)
def test_every_loss_trains(kind):
    run = Run(task := native(TINY["transformer"], FAST, loss=kind), FAST)
    assert task.denoising.objective.loss.space == ("" if kind == "mse" else "x0")
    assert all(math.isfinite(step.loss) for step in run.steps())


def test_weights_know_who_sees_whom():
    assert native(TINY["transformer"], FAST).denoising.objective.weight.causal
    assert not native(TINY["transformer"], FAST, method="full").denoising.objective.weight.causal


def test_layers_that_compute_again_give_the_same_gradients():
    gradients = []
    for recompute in (False, True):
        task = shaken(native(TINY["transformer"], FAST, gradient_checkpointing=recompute))
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


# The node


def test_the_node_trains_on_clips_and_the_model_rolls_out(tmp_path, monkeypatch, dataset):
    from pack import host
    from pack.nodes.forcing.forcing import LongTakeRollout
    from pack.nodes.measure.training import LongTakeLossPlot
    from pack.nodes.models.models import LongTakeLabelPrompt
    from pack.nodes.train.train_video_model import LongTakeTrainVideoModel

    monkeypatch.setattr(host, "model_directory", lambda kind: tmp_path)
    monkeypatch.setattr(host, "output_directory", lambda: tmp_path)
    asked = {"images": 1, "qk_norm": "layer", "prediction": "v", "skip_scale": 0.7}
    options = Options(
        *(2, 1),
        optimizer="lion",
        precision="bfloat16",
        loss="blend",
        levels="fopp",
        weight="fused_snr",
        sample_prompt="disk",
        watch_every=1,
        log="csv",
        sigma_reparam=True,
    )
    with torch.inference_mode():
        model, vae, name, _plot, sample, log, report = LongTakeTrainVideoModel.execute(
            name="clips", steps=2, width=16, clips=dataset, options=options, **asked
        ).args
        (prompt,) = LongTakeLabelPrompt.execute(model=model, prompt="disk").args
        take = LongTakeRollout.execute(model=model, positive=prompt, frames=6, steps=3, window=4).args[0]
        pictures = vae.decode(take["samples"])
        plot, numbers = LongTakeLossPlot.execute(log=log).args
    assert sample.shape == (4, 16, 16, 3) and pictures.shape == (6, 16, 16, 3) and torch.isfinite(pictures).all()
    assert plot.ndim == 4 and numbers.startswith("clips.csv: steps 1 to 2") and "2 steps of 2 clips" in report
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
        "--fp16",
    ]
    run_command(monkeypatch, "--out", tmp_path / "out" / "mine.safetensors", *words)
    info = load_video_model(tmp_path / "out" / "mine.safetensors").info
    assert info.labels == ("number0", "number1") and info.frames == 4 and info.size == (16, 16)
    with pytest.raises(ValueError, match="learning_rate is 0: it must"):
        run_command(monkeypatch, "--out", tmp_path / "out" / "other.safetensors", *words, "--learning-rate", "0")
    with pytest.raises(ValueError, match="there is no|nothing|no such"):
        run_command(monkeypatch, "--out", tmp_path / "other.safetensors", "--clips", tmp_path / "nowhere")
    assert not (tmp_path / "other.jsonl").exists()
