"""The nodes of the main job, called from Python as scripts call them, on whichever host is there."""

import pytest
import torch
from pack import host
from pack.modules.sampling.noise_levels import NoiseLevels
from pack.nodes.forcing.forcing import LongTakeNoiseLevels, LongTakeRollout
from pack.nodes.measure.contact_sheet import LongTakeContactSheet
from pack.nodes.models.models import LongTakeEmptyClip, LongTakeLabelPrompt, LongTakeLoadVideoModel
from tiny import video_model


@pytest.fixture
def model():
    return host.video_model(video_model())


@pytest.fixture
def positive(model):
    return LongTakeLabelPrompt.execute(model=model, prompt="red square").args[0]


@pytest.fixture
def negative(model):
    return LongTakeLabelPrompt.execute(model=model, prompt="").args[0]


def roll(**options):
    latent, report = LongTakeRollout.execute(**{"frames": 12, "steps": 4, "lag": 1.0} | options).args
    return latent["samples"], report


def test_defaults_are_the_schema_s(model, positive):
    samples, report = LongTakeRollout.execute(model=model, positive=positive, frames=6, lag=4.0).args
    assert samples["samples"].shape == (6, 48, 4, 4)
    assert report.startswith("seed 0, 6 frames, 32 model calls, ")


def test_a_model_and_a_length_are_enough(model, negative):
    alone = LongTakeRollout.execute(model=model, frames=5, steps=4).args[0]["samples"]
    anything = LongTakeRollout.execute(model=model, frames=5, steps=4, positive=negative).args[0]["samples"]
    assert torch.equal(alone, anything)


def test_a_take_does_not_change_with_its_length_and_repeats(model, positive):
    short, _ = roll(model=model, positive=positive, frames=9)
    long, _ = roll(model=model, positive=positive, frames=15)
    torch.testing.assert_close(long[:9], short, rtol=1e-4, atol=1e-4)
    again, _ = roll(model=model, positive=positive, frames=9)
    assert torch.equal(again, short)
    other, _ = roll(model=model, positive=positive, frames=9, seed=1)
    assert not torch.allclose(other, short, atol=1e-2)


def test_cfg_mixes_the_two_predictions(model, positive, negative):
    """At one step the result is the prediction itself, so guidance can be checked by hand."""
    one = {"model": model, "frames": 4, "steps": 1, "schedule": "full_sequence", "context_noise": 0.0}
    with_label, _ = roll(positive=positive, **one)
    without, _ = roll(positive=negative, **one)
    guided, _ = roll(positive=positive, negative=negative, cfg=2.5, **one)
    torch.testing.assert_close(guided, without + 2.5 * (with_label - without), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(with_label, without, atol=1e-3)


def test_known_frames_come_back(model, positive):
    known = torch.randn(3, 48, 4, 4)
    samples, _ = roll(model=model, positive=positive, known_frames={"samples": known})
    assert torch.equal(samples[:3], known)
    assert len(samples) == 12


def test_noise_levels_replace_the_widgets(model, positive):
    levels, picture, calls, _ = LongTakeNoiseLevels.execute(frames=7, schedule="autoregressive", steps=2).args
    assert isinstance(levels, NoiseLevels)
    assert picture.shape[0] == 1
    samples, report = roll(model=model, positive=positive, noise_levels=levels, frames=99)
    assert len(samples) == 7
    assert f"{calls} model calls" in report


def test_the_model_s_own_length_is_the_window(model, positive):
    with pytest.raises(ValueError, match=r"window holds 8 frames and this schedule has 10 in flight"):
        roll(model=model, positive=positive, frames=30, steps=10, lag=1.0)
    roll(model=model, positive=positive, frames=12, steps=10, lag=1.0, window=10)


def test_a_bundled_file_loads_and_decodes(tiny_video_file, monkeypatch):
    monkeypatch.setattr(host, "file", lambda kind, name: tiny_video_file)
    model, vae = LongTakeLoadVideoModel.execute(model_name="tiny.safetensors").args
    clip = LongTakeEmptyClip.execute(model=model, frames=5).args[0]["samples"]
    assert clip.shape == (5, 48, 4, 4)
    pictures = vae.decode(clip)
    assert pictures.shape == (5, 16, 16, 3)
    torch.testing.assert_close(vae.encode(pictures), clip, rtol=0, atol=1e-5)
    sheet = LongTakeContactSheet.execute(images=pictures, columns=2).args[0]
    assert sheet.shape == (1, 3 * 18, 2 * 18, 3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"cfg": 2.0}, "no negative conditioning is connected"),
        ({"frames": 0}, "frames is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"window": 2}, "window holds 2 frames"),
        ({"schedule": "spiral"}, "choose one of pyramid"),
        ({"known_frames": {"samples": torch.zeros(12, 48, 4, 4)}}, "nothing is left to generate"),
        ({"known_frames": {"samples": torch.zeros(1, 48, 3, 4, 4)}}, "frames in the batch axis"),
        ({"known_frames": {"samples": torch.zeros(1, 7, 4, 4)}}, "the latent has 7 channels and this model takes 48: encode"),
        ({"noise_levels": NoiseLevels.named("pyramid", 12, 4, known=2)}, "2 known frames and none are connected"),
        ({"known_frames": {"samples": torch.full((2, 48, 4, 4), float("nan"))}}, "not finite"),
        ({"context_noise": -2.0}, "context_noise is -2: it must lie between -1 and 10"),
        ({"context_noise_frames": "some"}, "context_noise_frames is 'some': choose one of all, known, generated"),
        ({"tempo": 3}, "no input 'tempo'"),
    ],
)
def test_bad_input_is_one_sentence_before_the_first_model_call(model, positive, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        roll(**{"model": model, "positive": positive} | change)


def test_a_word_the_model_does_not_know(model):
    with pytest.raises(ValueError, match="does not know the word 'purple': it knows disc, square, red, blue"):
        LongTakeLabelPrompt.execute(model=model, prompt="purple disc")


@pytest.mark.comfy
def test_full_sequence_equals_comfyui_s_own_euler(model, positive, negative):
    """The same noise through ComfyUI's KSAMPLER euler, with the sigmas of our levels, to 1e-5."""
    import comfy.samplers
    from pack.modules.noise.seeded import frame_noise

    frames, steps = 6, 5
    ours, _ = roll(
        model=model,
        positive=positive,
        negative=negative,
        cfg=1.7,
        frames=frames,
        steps=steps,
        schedule="full_sequence",
        context_noise=0.0,
        seed=11,
    )
    sigmas = host.noise_schedule(model).levels(steps).flip(0)
    noise = frame_noise((48, 4, 4), 11, range(frames))
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(1.7)
    theirs = guider.sample(
        noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas, seed=11, disable_pbar=True
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
