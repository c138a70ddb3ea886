"""An image prompt is trained upon a frozen model, and comes back from its file as the same numbers."""

from dataclasses import replace

import pytest
import torch
from pack.modules.checkpoints.image_prompt import load_image_prompt
from pack.modules.checkpoints.video_model import new_networks
from pack.modules.control.image_prompt import cross_layers
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.train.denoising import Batch, Objective
from pack.modules.train.engine import Run, train
from pack.modules.train.native import frozen, native_network
from pack.modules.train.settings import RunSettings
from pack.modules.train.tasks.image_prompt import (
    SEEN,
    beside_text,
    check_text,
    image_prompt,
    new_image_prompt,
    shown_frames,
    with_pictures_left_out,
)
from pack.modules.train.trainable import TaskContext
from safetensors.torch import save_file
from tiny import config, info, seeded

CLIP, FRAMES, CONTEXT = 6, 2, 16
SETTINGS = RunSettings(steps=16, batch=6, learning_rate=4e-2, warmup=1)


@pytest.fixture(scope="module")
def base():
    about = info(prediction="x0", unet=config(in_channels=48, out_channels=48, context_dim=CONTEXT), labels=())
    with seeded(1):
        unet, _ = new_networks(about)
    frozen(unet)
    return about, unet


def source(step, places):
    """Clips of one colour each, which the picture tells and the text does not."""
    generators = [torch.Generator().manual_seed(1000 * step + place) for place in places]
    seen = torch.stack([torch.randn(CLIP, generator=generator) for generator in generators])
    clips = seen.repeat(1, 48 // CLIP)[:, None, :, None, None].expand(-1, FRAMES, -1, 4, 4)
    return Batch(clips, context=torch.ones(len(clips), 4, CONTEXT), extra={SEEN: seen})


def task_of(base, prompt, **options):
    about, unet = base
    schedule = NoiseSchedule.named(about.noise_schedule)
    network, gaze = beside_text(native_network(about, unet), unet, prompt)
    context = TaskContext(network, source, schedule, Objective("x0", dropout=0.0), SETTINGS, {"name": "t"})
    return image_prompt(context, prompt, gaze, **options).task


def exchanged(source):
    """Each clip with the picture of another."""

    def other(step, places):
        batch = source(step, places)
        return replace(batch, extra={SEEN: batch.extra[SEEN].roll(1, 0)})

    return other


def held_out(task):
    with torch.no_grad():
        return task.losses(10**6, range(SETTINGS.batch)).mean().item()


@pytest.mark.parametrize("kind", ["plain", "plus", "full"])
def test_it_starts_from_the_texts_keys_and_values(kind, base):
    prompt = new_image_prompt(base[1], CLIP, kind)
    for mine, theirs in zip(prompt.layers(), cross_layers(base[1]), strict=True):
        assert torch.equal(mine.to_k_ip.weight, theirs.attention.to_k.weight)
        assert torch.equal(mine.to_v_ip.weight, theirs.attention.to_v.weight)


def test_what_a_picture_says_is_learnt_and_the_base_stays_bit_for_bit(base, tmp_path):
    before = {key: value.clone() for key, value in base[1].state_dict().items()}
    with seeded(2):
        prompt = new_image_prompt(base[1], CLIP)
    task = task_of(base, prompt)
    first = held_out(task)
    run = Run(task, SETTINGS)
    list(train(run))
    trained = held_out(task)
    task.source = exchanged(task.source)
    assert trained < 0.97 * first and trained < 0.97 * held_out(task), "it is the clip's own picture that helps"
    assert all(torch.equal(value, before[key]) for key, value in base[1].state_dict().items())
    assert all(name.startswith("image_prompt.") for name in run.weights())
    save_file(prompt.state_dict(), tmp_path / "mine.safetensors")
    loaded = load_image_prompt(tmp_path / "mine.safetensors")
    assert loaded.shape == prompt.shape
    assert all(torch.equal(value, prompt.state_dict()[key]) for key, value in loaded.state.items())


def test_the_same_without_a_picture_as_without_the_prompt(base):
    """With keys and values at zero the network is the base itself."""
    about, unet = base
    batch = source(0, range(2))
    x, sigma = torch.randn(2, FRAMES, 48, 4, 4), torch.ones(2, FRAMES)
    with torch.no_grad():
        expected = native_network(about, unet)(x, sigma, batch)
        prompt = new_image_prompt(unet, CLIP)
        looking = task_of(base, prompt).network
        assert (looking(x, sigma, batch) - expected).abs().max() > 1e-4
        for pair in prompt.layers():
            pair.to_v_ip.weight.zero_()
        torch.testing.assert_close(looking(x, sigma, batch), expected, rtol=1e-5, atol=1e-6)


def test_a_share_of_clips_is_shown_no_picture():
    left_out = with_pictures_left_out(source, 0.5, 3)
    seen = left_out(0, range(64)).extra[SEEN]
    dropped = (seen == 0).all(dim=1)
    assert 16 < int(dropped.sum()) < 48
    torch.testing.assert_close(seen[~dropped], source(0, range(64)).extra[SEEN][~dropped])
    assert torch.equal(left_out(0, range(5, 9)).extra[SEEN], seen[5:9]), "however the batch is cut up"
    grey = with_pictures_left_out(source, 1.0, 3, torch.full((CLIP,), 2.0))(0, range(2)).extra[SEEN]
    assert torch.equal(grey, torch.full((2, CLIP), 2.0))


def test_a_prompt_for_another_network_is_refused(base):
    other = new_image_prompt(new_networks(info(unet=config(in_channels=48, out_channels=48, context_dim=8), labels=()))[0], CLIP)
    with pytest.raises(ValueError, match="the image prompt has . layers of 8 features and the U-Net . of 16"):
        task_of(base, other)
    with pytest.raises(ValueError, match="dropout is 2: it must lie between 0"):
        task_of(base, new_image_prompt(base[1], CLIP), dropout=2)


def test_a_model_without_text_is_refused(base):
    check_text(base[1])
    with pytest.raises(ValueError, match="no attention to the text, beside which a picture could be looked at"):
        check_text(new_networks(info())[0])


def test_both_ends_and_the_middle_are_looked_at():
    assert [shown_frames(frames) for frames in (1, 2, 3, 16)] == [[0], [0, 1], [0, 1, 2], [0, 8, 15]]


def test_the_other_weights_hang_on_the_seed(base):
    one, other, third = (new_image_prompt(base[1], CLIP, seed=seed).image_proj.proj.weight for seed in (1, 1, 2))
    assert torch.equal(one, other) and not torch.equal(one, third)
