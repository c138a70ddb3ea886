"""What Train Sparse Control trains, on native models: it leads, the model stays, the file opens again, a run goes on, what is refused."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from pack import host
from pack.modules.checkpoints.sparsectrl import OWN, base_config, load_sparse_control, released_by, saved_state
from pack.modules.checkpoints.video_model import fold
from pack.modules.control.sparsectrl import SparseControl
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.train.denoising import Batch
from pack.modules.train.native import native_network
from pack.modules.train.tasks.sparse_control import (
    image_config,
    led_at,
    new_encoder,
    residuals_of,
    scribbles,
    shown_maps,
    sparse_config,
)
from pack.nodes.train.train_sparse import LongTakeTrainSparseControl
from safetensors.torch import load_file, save_file
from tiny import info, unet, video_model
from tiny_sparse import PIXELS, RGB, network
from tiny_trainables import FRAMES, QUICK, WORDS, cancelled, folders_in, logged, parts_state, same, shapes_of

SIZE = 16
native = pytest.mark.skipif(host.name != "standalone", reason="native models as they are exist on the standalone host only")


@pytest.fixture(scope="module")
def clips():
    return shapes_of(SIZE)


@pytest.fixture(scope="module")
def video():
    shape = replace(info().unet, label_channels=len(WORDS))
    return host.video_model(video_model(labels=WORDS, unet=shape))


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Folders of this test alone."""
    return folders_in(monkeypatch, tmp_path)


def teach(model, clips, **inputs):
    """The node."""
    values = {"vae": host.vae(info()), "steps": 2, "learning_rate": 1e-2, "options": QUICK}
    return LongTakeTrainSparseControl.execute(model=model, clips=clips, **values | inputs).args


def state_of(model):
    return parts_state(model.unet, *model.motions)


def led(model, file, frames=(0, -1), seed=0):
    """What the model takes clips to be that a file leads by these frames of theirs; by none where ``file`` is None."""
    g = torch.Generator().manual_seed(seed)
    batch = led_at(Batch(torch.randn(2, FRAMES, 48, 4, 4, generator=g), labels=torch.zeros(2, len(WORDS))), frames)
    x, sigma = torch.randn(2, FRAMES, 48, 4, 4, generator=g), torch.full((2, FRAMES), 2.0)
    added = None if file is None else residuals_of(file.build(), model.schedule)
    with torch.no_grad(), model.ready():
        return native_network(model.info, model.unet, model.motions, added=added)(x, sigma, batch)


@native
def test_it_trains_and_the_model_stays_bit_for_bit(video, clips, places):
    before = state_of(video)
    control, name, plot, sample, _, report = teach(video, clips)
    assert same(before, state_of(video)) and not any("forward" in vars(part) for part in video.unet.modules())
    assert plot.shape[0] == 1 and "sparse control: my_sparse_control.safetensors\n2 steps of 2 clips" in report
    assert sample.shape == (FRAMES, SIZE, SIZE, 3) and sample.min() >= 0 and sample.max() <= 1
    read = load_sparse_control(places / "controlnets" / name)
    assert (read.layout, read.pictures, read.max_frames) == (OWN, "rgb", 32) and same(read.state, control.state)
    assert read.config.facts() == sparse_config(video.info).facts()
    assert not torch.allclose(led(video, read), led(video, None), atol=1e-5), "the file leads"
    assert not torch.allclose(led(video, read), led(video, read, (0,)), atol=1e-6), "by the frames that it is shown"


@native
def test_next_to_no_learning_leaves_the_model_alone(video, clips, places):
    _, name, *_ = teach(video, clips, steps=1, learning_rate=1e-8)
    read = load_sparse_control(places / "controlnets" / name)
    torch.testing.assert_close(led(video, read), led(video, None), rtol=0, atol=1e-4)


def error(model, file, shown, frames=(0, -1)):
    """Mean square error of clips that are led by frames of their own, or of others, with the same noise."""
    clips = torch.stack([fold((shapes_of(SIZE).clip(number).pixels.movedim(1, -1) + 1) / 2, 4) for number in range(3)])
    batch = led_at(Batch(clips[shown], labels=torch.zeros(3, len(WORDS))), frames)
    noise = torch.randn(clips.shape, generator=torch.Generator().manual_seed(9))
    added = None if file is None else residuals_of(file.build(), model.schedule)
    with torch.no_grad(), model.ready():
        made = native_network(model.info, model.unet, model.motions, added=added)(
            clips + 3 * noise, torch.full((3, FRAMES), 3.0), batch
        )
    return (made - clips).square().mean().item()


@native
def test_the_loss_falls_because_of_the_pictures(video, clips, places):
    options = replace(QUICK, batch=3, decay="constant", ema=0.0, dropout=0.0)
    control, *_ = teach(video, clips, steps=60, learning_rate=5e-3, options=options)
    own, none = error(video, control, [0, 1, 2]), error(video, None, [0, 1, 2])
    assert own < 0.9 * none and own < 0.98 * error(video, control, [1, 2, 0])


@native
@pytest.mark.parametrize("at", [1, 4])
def test_a_cancelled_training_goes_on_to_the_same_weights(video, clips, places, monkeypatch, at):
    inputs = {"steps": 6, "options": replace(QUICK, save_every=2)}
    _, name, *_ = teach(video, clips, name="unbroken", **inputs)
    train = partial(teach, video, clips, name="broken", **inputs)
    cancelled(monkeypatch, train, 6, at)
    assert not any("forward" in vars(part) for part in video.unet.modules())
    assert len(logged(places, "broken")) == at, "cancelled within a step"
    _, again, *_ = train()
    assert same(*(load_file(places / "controlnets" / which) for which in (name, again)))


@native
def test_cancelling_in_the_middle_of_a_step(video, clips, places, monkeypatch):
    asked = []

    def check():
        asked.append(1)
        if len(asked) == 3:
            raise host.Interrupted

    with monkeypatch.context() as patch, pytest.raises(host.Interrupted):
        patch.setattr(host, "check_interrupt", check)
        teach(video, clips, steps=6)
    _, name, *_ = teach(video, clips, steps=6)
    _, unbroken, *_ = teach(video, clips, steps=6, name="unbroken")
    assert same(*(load_file(places / "controlnets" / which) for which in (name, unbroken)))


@native
def test_computing_again_gives_the_same(video, clips, places):
    found = [
        teach(video, clips, name=f"r{again}", options=replace(QUICK, gradient_checkpointing=again))[0] for again in (False, True)
    ]
    for key, value in found[0].state.items():
        torch.testing.assert_close(value, found[1].state[key], rtol=1e-3, atol=1e-5)


def test_computing_again_keeps_a_fraction():
    kept = []
    for again in (False, True):
        control, seen = network(RGB).requires_grad_(True), {}
        added = residuals_of(control, NoiseSchedule.named("linear"), gradient_checkpointing=again)
        batch = led_at(Batch(torch.zeros(1, 8, 4, 8, 8), context=torch.zeros(1, 4, 16)), (0, -1))

        def keep(tensor, seen=seen):
            seen[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            made = added(torch.full((1, 8), 2.0), batch)
        sum(part.sum() for part in made).backward()
        kept.append(sum(seen.values()))
    assert kept[1] < 0.2 * kept[0]


def test_the_encoder_for_sd15_is_the_authors_and_is_written_in_their_layout(tmp_path):
    shape = replace(RGB.unet, transformer_depth_output=(1, 1, 1, 0, 0, 0))
    base = unet(**{name: getattr(shape, name) for name in shape.__dataclass_fields__})
    config = image_config(base)
    assert replace(config.unet, transformer_depth_output=shape.transformer_depth_output) == shape
    assert config.temporal == RGB.temporal and (config.condition, config.stem, config.masked) == (4, (), True)
    assert image_config(base, "depth").stem == PIXELS.stem
    for pictures, meant in (("rgb", RGB), ("scribble", PIXELS), ("depth", PIXELS)):
        state = network(meant).state_dict()
        tensors, metadata = saved_state(meant, state, pictures, 32)
        assert set(released_by(meant, state)) < set(tensors) and any(key.endswith("pos_encoder.pe") for key in tensors)
        save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / "mine.safetensors", metadata)
        read = load_sparse_control(tmp_path / "mine.safetensors")
        assert (read.layout, read.pictures, read.max_frames) == ("AnimateDiff", pictures, 32) and same(dict(read.state), state)
    assert load_sparse_control(tmp_path / "mine.safetensors", "scribble").pictures == "scribble", "a wish counts more"


def test_other_image_models_have_no_encoder():
    with pytest.raises(ValueError, match="not built as SD1.5, which SparseCtrl encoders are for"):
        base_config(unet(num_heads=2, context_dim=8))


def test_a_damaged_file_of_ours_is_refused_in_one_sentence(tmp_path):
    config = sparse_config(info())
    tensors, metadata = saved_state(config, SparseControl(config).state_dict(), "rgb", 32)
    save_file(tensors, tmp_path / "a.safetensors", {**metadata, "longtake_sparse_control": '{"unet": {"later": 1}}'})
    with pytest.raises(ValueError, match="the description of a.safetensors is broken: .*; download the file again"):
        load_sparse_control(tmp_path / "a.safetensors")
    tensors.pop("condition.weight")
    save_file(tensors, tmp_path / "b.safetensors", metadata)
    with pytest.raises(ValueError, match=r"is not complete: 1 weight is missing .condition.weight"):
        load_sparse_control(tmp_path / "b.safetensors")


def test_a_recurrent_model_gets_an_encoder_that_looks_both_ways():
    about = info(temporal=replace(info().temporal, kind="recurrent"))
    assert (sparse_config(about).temporal.kind, sparse_config(about).temporal.mask) == ("transformer", "full")


def test_outlines_are_where_something_ends():
    pixels = -torch.ones(1, 3, 9, 9)
    pixels[..., 3:6, 3:6] = 1
    made = scribbles(pixels)
    assert made.shape == (1, 1, 9, 9) and made.dtype == torch.uint8 and made.max() == 255
    assert not made[..., 4, 4].any() and not made[..., 0, 0].any() and (made[0, 0, 3:6, 3] > 128).all()
    assert not scribbles(torch.ones(1, 3, 4, 4)).any(), "nothing is drawn of one colour"
    shown = shown_maps(made[None], "scribble")
    assert shown.shape == (1, 1, 3, 9, 9) and shown.max() == 1 and torch.equal(shown[:, :, 0], shown[:, :, 2])


def test_the_same_seed_gives_the_same_encoder():
    about = info()
    parts = video_model().build()
    one, other, third = (new_encoder(sparse_config(about), *parts, seed).state_dict() for seed in (3, 3, 4))
    assert same(one, other) and not same(one, third)


BAD = {
    "no VAE": ({"vae": None}, "None was given for a VAE"),
    "a name that is a path": ({"name": "a/b"}, "cannot be a file name"),
    "learning rate": ({"learning_rate": 0.0}, "learning_rate is 0: it must"),
    "scribbles": ({"pictures": "scribble"}, "a LongTake video model is led by what it works on itself: choose rgb"),
    "single frames": ({"clips": shapes_of(SIZE, 1)}, "single frames, in which nothing is between"),
    "maps for colours": ({"condition_clips": shapes_of(SIZE)}, "rgb is shown the clips themselves: choose scribble or depth"),
}


@native
@pytest.mark.parametrize(("inputs", "sentence"), BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence_before_the_first_step(video, clips, places, inputs, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        teach(**{"model": video, "clips": clips} | inputs)
    assert "\n" not in str(caught.value) and not list(places.rglob("*.run.safetensors"))


@native
def test_what_does_not_fit_is_refused(video, clips, places, monkeypatch):
    with pytest.raises(ValueError, match="nothing moves in this model: connect it from behind Apply Motion Module"):
        teach(replace(video, motions=(), settings=()), clips)
    teach(video, clips)
    for change in ({"seed": 1}, {"options": replace(QUICK, loss="chain")}):
        with pytest.raises(ValueError, match="belongs to another run"):
            teach(video, clips, **change)
    assert "3 steps" in teach(video, clips, steps=3, restart=True)[-1]
    (places / "file").write_text("")
    monkeypatch.setattr(host, "model_directory", lambda kind: places / "file" / "below")
    with pytest.raises(ValueError, match="nothing can be written"):
        teach(video, clips)
