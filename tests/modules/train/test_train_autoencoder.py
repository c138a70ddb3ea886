"""Training an autoencoder and a video model of its latents: files, scale, what counts, both commands."""

import statistics
import sys
from dataclasses import replace

import pytest
import torch
from pack.modules.checkpoints.autoencoder import AutoencoderVae, load_autoencoder
from pack.modules.checkpoints.files import kind
from pack.modules.checkpoints.video_info import VideoModelInfo
from pack.modules.checkpoints.video_model import load_video_model
from pack.modules.data.captions import NOT_NEEDED
from pack.modules.data.clips import ClipDataset
from pack.modules.data.postcard_clips import PostcardSettings
from pack.modules.data.postcard_travellers import TRAVELLERS
from pack.modules.data.procedural import moving_shapes
from pack.modules.data.settings import ClipSettings
from pack.modules.nets.autoencoder import AutoencoderConfig, new_autoencoder
from pack.modules.train import train_autoencoder as command
from pack.modules.train.autoencoder import contrast_losses
from pack.modules.train.native_models import Architecture
from pack.modules.train.native_task import NativeChoices
from pack.modules.train.run_files import Files
from pack.modules.train.session import Session
from pack.modules.train.settings import RunSettings
from pack.modules.train.sources import FromClips, Otherwise, area_of
from pack.modules.train.tasks import autoencoder
from pack.modules.train.tasks.autoencoder import AutoencoderChoices, of_clips, of_postcards
from pack.modules.train.tasks.video_model import DEFAULTS, PictureSide, make
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_training import run_command

SMALL = AutoencoderChoices(latent=4, width=8)
FAST = RunSettings(steps=2, batch=2, learning_rate=1e-3, warmup=1)
CLIPS = PostcardSettings(count=60, frames=3, seed=2).clips()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished training on postcards of a small autoencoder."""
    folder = tmp_path_factory.mktemp("autoencoder")
    session = Session(autoencoder.make(autoencoder.DEFAULTS, FAST, SMALL), Files("small", folder, folder), autoencoder.DEFAULTS)
    session.train()
    return session, session.save()


def test_the_file_has_latents_that_spread_by_one(trained):
    session, path = trained
    network = load_autoencoder(path)
    assert network.config.ratio == 8 and network.config.scale != 1
    pictures = of_postcards(FAST.seed)(0, range(64), 256)[0]
    assert network.encode(pictures.movedim(1, -1) / 2 + 0.5).std() == pytest.approx(1, rel=0.1)
    for name, value in session.run.weights().items():
        assert torch.equal(network.state_dict()[name], value)
    assert session.sample().shape == (16, 64, 128, 3), "true pictures beside what becomes of them"


def test_a_run_goes_on_from_a_file(trained):
    network = load_autoencoder(trained[1])
    onwards = autoencoder.make(autoencoder.DEFAULTS, FAST, replace(SMALL, start=str(trained[1])))
    for name, value in onwards.task.parameters().items():
        assert torch.equal(network.state_dict()[name], value)
    assert onwards.task.network.config.scale == 1, "the scale is that of what was trained, and measured at its end"
    with pytest.raises(ValueError, match="cannot start this run: it is of another shape"):
        autoencoder.make(autoencoder.DEFAULTS, FAST, AutoencoderChoices(latent=4, width=16, start=str(trained[1])))


def test_only_the_decoder_is_trained_and_latents_stay(trained, tmp_path):
    """The file's latents of a picture are the same to the last bit, so a model of them needs no new training."""
    before, choices = load_autoencoder(trained[1]), replace(SMALL, start=str(trained[1]), decoder_only=True, contrast=1.0)
    task = autoencoder.make(autoencoder.DEFAULTS, FAST, choices)
    assert task.task.parameters() and all(name.startswith("decoder.") for name in task.task.parameters())
    session = Session(task, Files("decoder", tmp_path, tmp_path), autoencoder.DEFAULTS)
    session.train()
    after, pictures = load_autoencoder(session.save()), torch.rand(2, 64, 64, 3)
    assert torch.equal(after.encode(pictures), before.encode(pictures)) and after.config == before.config
    assert not torch.equal(after.decode(before.encode(pictures)), before.decode(before.encode(pictures)))
    assert session.sample().shape == (16, 64, 128, 3)


def test_contrast_is_that_of_patches_and_not_of_places():
    """Stripes one pixel further on are as strong, though every pixel is wrong; paler ones are not."""
    stripes = (torch.arange(32) // 2 % 2).float().expand(1, 3, 32, 32) * 2 - 1
    moved, paler = stripes.roll(2, dims=3), stripes / 2
    assert contrast_losses(moved, stripes).max() < 1e-3 < 0.1 < contrast_losses(paler, stripes).min()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"decoder_only": True}, "none is given: name one as start"),
        ({"contrast": -1.0}, "contrast is -1: it must lie between 0 and 100"),
    ],
)
def test_what_cannot_be_asked_of_a_run_is_refused(asked, said):
    with pytest.raises(ValueError, match=said):
        AutoencoderChoices(**asked)


def test_a_take_is_decoded_a_few_frames_at_a_time(trained):
    vae = AutoencoderVae(load_autoencoder(trained[1]))
    seen, network = [], vae.first_stage_model
    plain = network.decode
    network.decode = lambda latents: seen.append(len(latents)) or plain(latents)
    latents = torch.randn(70, 4, 8, 8)
    together = vae.decode(latents)
    assert seen == [32, 32, 6] and together.shape == (70, 64, 64, 3)
    torch.testing.assert_close(together, plain(latents))
    with pytest.raises(ValueError, match="pictures are 64x60: this model needs sides that are multiples of 8"):
        vae.encode(torch.rand(1, 60, 64, 3))


def test_what_is_marked_counts_more():
    pictures, weights = of_postcards(3)(1, range(2), 2)
    assert pictures.shape == (2, 3, 64, 64) and set(weights.unique().tolist()) == {1.0, 1.0 + autoencoder.MARKED}
    of_dataset, theirs = of_clips(CLIPS)(0, range(2), 2)
    assert of_dataset.shape == pictures.shape and set(theirs.unique().tolist()) == {1.0, 1.0 + autoencoder.MARKED}
    shapes = ClipDataset(
        moving_shapes(2, 3, 64), ClipSettings(frames=3, stride=1, width=64, height=64, missing_captions=NOT_NEEDED)
    )
    assert of_clips(shapes)(0, range(2), 2)[1].unique().tolist() == [1.0]
    marked = torch.zeros(1, 2, 1, 16, 16)
    marked[0, 0, 0, 3, 5] = 1
    area = area_of(marked, torch.zeros(1, 2, 4, 2, 2))
    assert area.shape == (1, 2, 1, 2, 2) and area.mean() == pytest.approx(1)
    assert area[0, 0, 0, 0, 0] == 4 * area[0, 0, 0, 1, 1] == 4 * area[0, 1, 0, 0, 0]


def test_a_video_model_s_file_holds_its_autoencoder(trained, tmp_path):
    network = load_autoencoder(trained[1])
    side, architecture = PictureSide.of(AutoencoderVae(network)), Architecture(width=8)
    session = Session(
        make(DEFAULTS, FAST, tmp_path, architecture, NativeChoices(), dataset=CLIPS, vae=side),
        Files("v", tmp_path, tmp_path),
        DEFAULTS,
    )
    assert "area" in session.task.task.source(0, range(2)).extra
    session.train()
    video = load_video_model(session.save())
    assert video.info.autoencoder == network.config and video.info.side == 8 and video.info.latent_scale == 1
    assert VideoModelInfo.parse(video.info.json()) == video.info
    pictures = CLIPS.clip(0).pixels.movedim(1, -1) / 2 + 0.5
    vae = video.vae()
    torch.testing.assert_close(vae.encode(pictures), network.encode(pictures))
    assert session.sample().shape == (3, 64, 64, 3)
    # the next stage keeps the words' order, whatever that of its own captions is
    other = PostcardSettings(count=50, frames=3, seed=8).clips()
    onwards = NativeChoices(start=str(session.files.model.with_suffix(".safetensors")))
    stage = make(DEFAULTS, FAST, tmp_path, architecture, onwards, dataset=other, vae=side)
    assert stage.task.info.labels == video.info.labels != architecture.for_clips(other).labels


def test_some_postcards_are_shown_with_another_traveller():
    """The words and what is asked for stay; where both travellers are counts more; a batch is the same however it is cut up."""
    info = Architecture(width=8).for_clips(CLIPS)
    right, wrong = (FromClips(clips, info, 4) for clips in (CLIPS, CLIPS.otherwise()))
    every = Otherwise(right, wrong, 1.0, 7)(3, range(4))
    given, other = right(3, range(4)), wrong(3, range(4))
    assert torch.equal(every.clips, given.clips) and torch.equal(every.labels, given.labels)
    pairs = [
        (mine.footage.card, theirs.footage.card) for mine, theirs in zip(CLIPS.sources, CLIPS.otherwise().sources, strict=True)
    ]
    changed = (every.extra["shown"] != given.clips).any(2)
    share = changed.float().mean(dim=(1, 2, 3))
    assert changed.flatten(1).any(1).all() and share.min() < 0.5 < share.max(), "the land is the same, the time of day not always"
    here = share < 0.5  # at the same time of day, so that only travellers differ
    area = every.extra["area"][:, :, 0]
    assert ((area > area.amin((1, 2, 3), keepdim=True)) >= changed)[here].all()
    assert torch.equal(Otherwise(right, wrong, 0.0, 7)(3, range(4)).extra["shown"], given.clips)
    half = Otherwise(right, wrong, 0.5, 7)
    torch.testing.assert_close(half(3, range(1, 3)).extra["shown"], half(3, range(4)).extra["shown"][1:3])
    assert 0.3 < statistics.mean(one.time != two.time for one, two in pairs) < 0.7
    for one, two in pairs:
        assert (one.traveller, one.colour) != (two.traveller, two.colour) and two.scene in TRAVELLERS[two.traveller].scenes
    assert not torch.equal(other.clips, given.clips)


def test_clips_that_nobody_can_change_are_not_shown_otherwise(tmp_path):
    shapes = ClipDataset(
        moving_shapes(2, 3, 64), ClipSettings(frames=3, stride=1, width=64, height=64, missing_captions=NOT_NEEDED)
    )
    with pytest.raises(ValueError, match="wrong_outlines is 0.5 with clips of yours"):
        make(DEFAULTS, FAST, tmp_path, Architecture(width=8), NativeChoices(wrong_outlines=0.5), dataset=shapes)
    with pytest.raises(ValueError, match="wrong_outlines is 0.5 with images"):
        make(DEFAULTS, FAST, tmp_path, Architecture(width=8), NativeChoices(wrong_outlines=0.5, images=1), dataset=CLIPS)


def test_files_that_are_no_autoencoder_are_refused(trained, tmp_path):
    path = trained[1]
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert kind(load_file(path), metadata).startswith("an autoencoder")
    with pytest.raises(ValueError, match="is no LongTake video model: it is an autoencoder"):
        load_video_model(path)
    state = load_file(path)
    state.pop("autoencoder.encoder.0.weight")
    save_file(state, tmp_path / "cut.safetensors", metadata)
    with pytest.raises(ValueError, match="1 weight is missing"):
        load_autoencoder(tmp_path / "cut.safetensors")
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="is no autoencoder of this pack"):
        load_autoencoder(tmp_path / "other.safetensors")


def test_a_model_and_its_autoencoder_agree():
    info = replace(Architecture(width=8).for_clips(CLIPS, 4), autoencoder=AutoencoderConfig(latent=4, widths=(8, 8, 24)))
    with pytest.raises(ValueError, match="the autoencoder makes latents of 8 channels and the model takes 4"):
        replace(info, autoencoder=AutoencoderConfig(latent=8, widths=(8, 8, 24)))
    assert new_autoencoder(info.autoencoder, 0).config.ratio == info.side


def test_both_commands(monkeypatch, tmp_path):
    first, second = tmp_path / "a.safetensors", tmp_path / "v.safetensors"
    usual = ("--steps", "2", "--batch", "2", "--threads", torch.get_num_threads())
    monkeypatch.setattr(sys, "argv", [str(word) for word in ("train", "--out", first, "--latent", 4, "--width", 8, *usual)])
    assert command.main() == 0
    words = ("--out", second, "--width", 8, "--postcards", 3, "--frames", 3, "--autoencoder", first, *usual[:4])
    assert run_command(monkeypatch, *words) == 0
    assert load_video_model(second).info.autoencoder == load_autoencoder(first).config
    with pytest.raises(ValueError, match="--clips and --postcards 3 are given"):
        run_command(monkeypatch, "--clips", tmp_path, *words)
