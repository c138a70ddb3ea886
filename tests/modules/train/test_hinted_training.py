"""Training models that fill in: what they are shown, that they learn from it, and that nothing else changes."""

from dataclasses import replace

import pytest
import torch
from pack.modules.checkpoints.video_model import VideoModel, VideoModelInfo, load_video_model, taking_hints, with_hints
from pack.modules.control.hints import LAYOUTS
from pack.modules.data.shapes import LABELS, clips
from pack.modules.train.hinted import HintedRun, HintTraining, WithHints, shapes_source
from pack.modules.train.native_task import NativeChoices, NativeTask
from pack.modules.train.options import Options
from pack.modules.train.settings import RunSettings
from pack.modules.train.sources import FromShapes
from tiny import config, info, video_model

SETTINGS = RunSettings(steps=4, batch=2, warmup=1, learning_rate=1e-3, ema=0.5)


def small(**changes):
    """A model of the procedural world in small."""
    shape = config(in_channels=48, out_channels=48, label_channels=len(LABELS))
    return video_model(unet=shape, labels=LABELS, size=(32, 32), **changes)


def test_a_model_that_is_given_room_for_hints_does_what_it_did(tmp_path):
    plain = small()
    wide = with_hints(plain)
    x, t = torch.randn(3, 48, 8, 8, generator=torch.Generator().manual_seed(0)), torch.full((3,), 400)
    y = torch.zeros(3, len(LABELS))
    beside = torch.randn(3, 49, 8, 8, generator=torch.Generator().manual_seed(1))
    before, after = (network for network, _ in (plain.build(), wide.build()))
    assert torch.equal(before(x, t, None, y), after(torch.cat([x, beside], 1), t, None, y))
    wide.save(tmp_path / "wide.safetensors")
    read = load_video_model(tmp_path / "wide.safetensors")
    assert read.info == wide.info and read.info.latent_channels == 48 and read.info.hints
    assert '"hints"' not in plain.info.json(), "files of models without hints stay as they were"
    with pytest.raises(ValueError, match="takes hints already"):
        with_hints(wide)


def test_descriptions_that_do_not_add_up_are_refused():
    with pytest.raises(ValueError, match="the U-Net takes 48 channels and gives 48: a video model with hints takes 97"):
        replace(info(), hints=True)
    with pytest.raises(ValueError, match="a video model without hints takes 48"):
        replace(taking_hints(info()), hints=False)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_clip_is_told_of_its_own_keyframes(layout):
    training = HintTraining(layout, keyframes=3, factor=2, rates=(0.5,), pinned=1.0)
    batch = shapes_source(with_hints(small()).info, training, 3, 2)(5, range(2))
    before = LAYOUTS[layout].before
    assert batch.clips.shape == (2, 5 - before, 48, 8, 8) and batch.extra["hints"].shape == (2, 5 - before, 49, 8, 8)
    if not before:
        assert torch.equal(batch.extra["hints"][:, ::2, 1:], batch.clips[:, ::2])
        assert batch.extra["known"].tolist() == [[True, False, True, False, True]] * 2
    truth = clips(1, 5, 3, 5 * 2 + 1, 0.5)
    assert torch.equal(batch.labels[1], truth.labels[0])


def test_a_slower_clip_is_the_same_scene():
    fast, slow = clips(2, 5, 7), clips(2, 17, 7, step=0.25)
    torch.testing.assert_close(slow.frames[:, ::4], fast.frames, atol=1e-5, rtol=1e-5)


def test_training_on_hints_learns_to_use_them():
    """A few steps of a small model: clips that it has not seen cost less, hints get weight, and the finished file is one with hints."""
    settings = replace(SETTINGS, steps=24, batch=2, learning_rate=1e-3, ema=0.0)
    run = HintedRun(small(), HintTraining(keyframes=2, factor=2, rates=(0.5,)), settings, dropout=0.0)

    def cost():
        with torch.no_grad():
            return sum(float(run.task.losses(step, range(2)).mean()) for step in range(1000, 1006))

    before = cost()
    for _ in run.steps():
        pass
    assert cost() < 0.8 * before
    made = run.model()
    assert made.unet["input_blocks.0.0.weight"][:, 48:].abs().max() > 1e-3
    assert made.info.hints and made.info.temporal.mask == "full" and made.info.trained["layout"] == "article"


def test_what_is_known_is_no_error():
    """A clip whose frames are all known costs nothing, whatever the network makes of it."""
    run = HintedRun(small(), HintTraining(keyframes=2, factor=2, rates=(0.5,)), SETTINGS)
    batch = run.task.source(0, range(2))
    known = torch.ones_like(batch.extra["known"])
    sigma = torch.full(known.shape, 3.0)
    clean = run.task.network(batch.clips, sigma, replace(batch, extra={**batch.extra, "known": known}))
    assert torch.equal(clean, batch.clips)


def test_any_source_can_tell_of_its_frames():
    source = FromShapes(small().info, 2, 0)
    told = WithHints(source, "make_a_video", 3, 0.5, 0)
    batch = told(0, range(2))
    assert batch.extra["hints"].shape == (2, 8, 49, 8, 8)
    assert torch.equal(batch.extra["hints"][:, [0, 3, 6], 1:], batch.clips[:, [0, 3, 6]])
    assert not batch.extra["hints"][:, [1, 2, 4, 5, 7], 1:].any() and batch.extra["hints"][:, :, 0, 0, 0].tolist()[0] == [
        *(0, 1, 1, 0, 1, 1, 0, 1)
    ]
    again = told(0, range(1, 2))
    assert torch.equal(again.extra["known"][0], batch.extra["known"][1]), "a clip's draw does not hang on its batch"
    assert told.facts()["hints"] == {"layout": "make_a_video", "factor": 3, "pinned": 0.5}
    with pytest.raises(ValueError, match="clips of 8 frames have no two keyframes 8 apart"):
        WithHints(source, "article", 8, 0.5, 0)(0, range(1))
    with pytest.raises(ValueError, match="single pictures have no keyframes"):
        WithHints(FromShapes(small().info, 2, 0, images=1), "article", 2, 0.5, 0)(0, range(1))


def test_the_native_task_trains_models_with_hints(tmp_path):
    plain = small()
    plain.save(tmp_path / "start.safetensors")
    choices = NativeChoices("full", hints="article", hint_factor=3, start=str(tmp_path / "start.safetensors"))
    task = NativeTask(plain.info, choices, Options(), SETTINGS, FromShapes(plain.info, 2, 0))
    assert torch.equal(task.unet.state_dict()["input_blocks.0.0.weight"][:, :48], plain.unet["input_blocks.0.0.weight"])
    losses = task.losses(0, range(2))
    assert losses.shape == (2,) and torch.isfinite(losses).all()
    assert task.description()["data"]["hints"]["layout"] == "article" and task.hints().shape == (8, 49, 8, 8)
    made = task.model({name: value.detach() for name, value in task.parameters().items()}, 0)
    assert isinstance(made, VideoModel) and made.info.hints


BAD = [
    ({"layout": "blog"}, "the layout 'blog' is not known"),
    ({"keyframes": 1}, "filling in between needs at least 2"),
    ({"factor": 1}, "factor is 1"),
    ({"rates": ()}, "give at least one time from frame to frame"),
    ({"pinned": 1.5}, "pinned is 1.5: it must lie between 0"),
]


@pytest.mark.parametrize(("values", "sentence"), BAD, ids=[sentence[:20] for _, sentence in BAD])
def test_bad_settings_are_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        HintTraining(**values)


def test_a_model_of_latents_cannot_train_on_pictures():
    latents = video_model(patch=0, unet=config(label_channels=4))
    with pytest.raises(ValueError, match="works on the latents of a VAE"):
        HintedRun(latents, HintTraining(), SETTINGS)
    assert isinstance(latents.info, VideoModelInfo)
