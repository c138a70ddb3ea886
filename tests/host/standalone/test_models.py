"""MODELs of the standalone host: sampling, guidance, and networks that models share."""

from dataclasses import replace

import pytest
import torch
from pack.host.standalone import models, sampling, session
from pack.modules.checkpoints.video_model import clean_prediction, new_networks
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.noise.seeded import frame_noise
from pack.modules.sampling.job import Step
from pack.modules.sampling.model_view import View


def conditioning(y):
    return [[torch.zeros(1, 1, 1), {} if y is None else {"pooled_output": y}]]


def labels(*values):
    return torch.tensor([values], dtype=torch.float32)


def once(sigma, seen=None):
    """A sampler of one call: from noise at these sigmas straight to the model's guess."""

    def algorithm(job):
        noise = frame_noise(job.latent.shape[1:], 1, range(len(job.latent)))
        x = job.latent + sigma[:, None, None, None] * noise
        clean = job.denoise(View.plain(x, sigma))
        if seen is not None:
            seen.append(x)
        yield Step(1, 1, clean)
        return clean

    return algorithm


SIGMA = torch.tensor([0.0, 0.5, 1.0, 2.0, 4.0, 8.0])


def sampled(model, *, cfg=1.0, positive=None, negative=None, sigma=SIGMA):
    latent = torch.linspace(-1, 1, len(sigma) * 48 * 16).reshape(len(sigma), 48, 4, 4)
    positive = conditioning(labels(1, 0, 0, 1)) if positive is None else positive
    return sample(model, positive, negative, cfg=cfg, latent=latent, algorithm=once(sigma))


def sample(model, positive, negative=None, **given):
    """``sampling.sample`` with a seed and sigmas that do not matter to these algorithms."""
    return sampling.sample(model, positive, negative, seed=1, sigmas=torch.tensor([0.0, 1.0]), **given)


def by_hand(video, y, sigma=SIGMA):
    """The same without the host: the file's own networks, one condition."""
    unet, motion = video.build()
    latent = torch.linspace(-1, 1, len(sigma) * 48 * 16).reshape(len(sigma), 48, 4, 4)
    x = latent + sigma[:, None, None, None] * frame_noise((48, 4, 4), 1, range(len(sigma)))
    with torch.no_grad(), motion.during(motion.frames_for(torch.arange(len(sigma)))):
        schedule = NoiseSchedule.named(video.info.noise_schedule)
        return clean_prediction(unet, x, sigma, schedule, video.info.prediction, y=y.expand(len(sigma), -1))


def test_a_model_without_guidance(tiny_video_model):
    y = labels(1, 0, 0, 1)
    assert torch.allclose(sampled(models.video_model(tiny_video_model)), by_hand(tiny_video_model, y), atol=1e-6)


def test_guidance_is_what_the_formula_says(tiny_video_model):
    one, other = labels(1, 0, 0, 1), labels(0, 1, 1, 0)
    positive, negative = by_hand(tiny_video_model, one), by_hand(tiny_video_model, other)
    assert not torch.allclose(positive, negative, atol=1e-3)
    given = sampled(models.video_model(tiny_video_model), cfg=2.5, positive=conditioning(one), negative=conditioning(other))
    assert torch.allclose(given, negative + 2.5 * (positive - negative), atol=1e-4)


def test_clean_frames_stay_under_guidance(tiny_video_model):
    latent = torch.linspace(-1, 1, len(SIGMA) * 48 * 16).reshape(len(SIGMA), 48, 4, 4)
    given = sampled(models.video_model(tiny_video_model), cfg=3.0, negative=conditioning(None))
    assert torch.equal(given[0], latent[0])


def test_no_label_means_anything(tiny_video_model):
    model = models.video_model(tiny_video_model)
    assert torch.equal(sampled(model, positive=conditioning(None)), sampled(model, positive=conditioning(labels(0, 0, 0, 0))))


def test_labels_may_change_with_the_frame(tiny_video_model):
    model = models.video_model(tiny_video_model)
    same = labels(1, 0, 0, 1).repeat(len(SIGMA), 1)
    assert torch.equal(sampled(model), sampled(model, positive=conditioning(same)))
    other = same.clone()
    other[3:] = labels(0, 1, 1, 0)
    changed = sampled(model, positive=conditioning(other))
    assert torch.equal(changed[:3], sampled(model)[:3])  # the tiny model is causal
    assert not torch.allclose(changed[3:], sampled(model)[3:])


@pytest.mark.parametrize("shape", [(4,), (1, 1, 4)], ids=str)
def test_a_label_vector_of_any_axes_is_rows(tiny_video_model, shape):
    """As ComfyUI's pooled outputs are."""
    model = models.video_model(tiny_video_model)
    same = labels(1, 0, 0, 1)
    assert torch.equal(sampled(model, positive=conditioning(same.reshape(shape))), sampled(model, positive=conditioning(same)))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"positive": conditioning(labels(1, 0))}, "positive label vector is 1 rows of 2"),
        ({"positive": conditioning(labels(1, 0, 0, 0).repeat(2, 1))}, "2 rows of 4.*per frame \\(6\\)"),
        ({"positive": conditioning(None) * 2}, "holds 2 conditions"),
        ({"positive": []}, "holds 0 conditions"),
        ({"cfg": 2.0}, "no negative condition"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(tiny_video_model, given, words):
    with pytest.raises(ValueError, match=words):
        sampled(models.video_model(tiny_video_model), **given)


def test_models_that_share_a_network_do_not_hear_of_each_other(tiny_video_model):
    model = models.video_model(tiny_video_model)
    before = sampled(model)
    assert torch.equal(sampled(model.clone()), before)
    other = replace(model, motions=())
    assert not torch.allclose(sampled(other), before)
    with pytest.raises(ValueError, match="conditions"):
        sampled(other, positive=[])
    assert torch.equal(sampled(model), before)


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_nothing_is_left_behind_after_an_error(tiny_video_model, error):
    model = models.video_model(tiny_video_model)
    before = sampled(model)
    closed = []

    def algorithm(job):
        try:
            yield Step(1, 2, job.denoise(View.plain(job.latent, torch.ones(len(job.latent)))))
            raise error
        finally:
            closed.append(True)

    with pytest.raises(type(error)):
        sample(model, conditioning(None), cfg=1.0, latent=torch.zeros(3, 48, 4, 4), algorithm=algorithm)
    assert closed == [True]
    assert not [module for module in model.unet.modules() if "forward" in vars(module)]
    assert all(motion.frames is None for motion in model.motions)
    assert torch.equal(sampled(model), before)


def test_cancel_closes_the_sampler(tiny_video_model):
    model, run, closed = models.video_model(tiny_video_model), session.Session(), []
    run.report = lambda report: run.cancel() if report.done == 2 else None

    def rows():
        try:
            for row in range(1, 6):
                yield Step(row, 5)
        finally:
            closed.append(row)

    held = rows()  # so that nothing but an explicit close ends it
    with run.active(), pytest.raises(session.Interrupted):
        latent = torch.zeros(3, 48, 4, 4)
        sample(model, conditioning(None), cfg=1.0, latent=latent, algorithm=lambda job: held)
    assert closed == [2]


def test_the_vae_of_a_pixel_model_only_folds(tiny_video_model):
    vae = models.vae(tiny_video_model.info)
    pixels = torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    assert vae.encode(pixels).shape == (2, 48, 4, 4)
    assert torch.allclose(vae.decode(vae.encode(pixels)), pixels, atol=1e-6)
    with pytest.raises(ValueError, match="VAE"):
        models.vae(replace(tiny_video_model.info, patch=0))


def test_only_our_models_say_what_they_are(tiny_video_model):
    assert models.video_info(models.video_model(tiny_video_model)) == tiny_video_model.info
    assert models.video_info(object()) is None


def module_for(info, **changes):
    """A motion module for the tiny model's slots."""
    from pack.modules.checkpoints.motion import MotionModule
    from tiny import seeded

    with seeded(3):
        _, network = new_networks(info)
    channels = {name: network.at(name).proj_in.in_features for name in network.names}
    values = {"name": "m.safetensors", "family": "v3", "widths": channels, "config": info.temporal}
    values |= {"state": network.state_dict(), "noise_schedule": "linear", "clip_norms": False, "max_frames": 32}
    return MotionModule(**(values | changes))


def test_a_motion_module_works_on_the_clone_only(tiny_video_model):
    model = models.video_model(tiny_video_model)
    before = sampled(model)
    moved = models.apply_motion(model, module_for(tiny_video_model.info))
    after = sampled(moved)
    assert not torch.allclose(after, before, atol=1e-3)
    assert torch.equal(sampled(model), before)
    assert torch.equal(sampled(moved), after)
    assert torch.equal(models.noise_schedule(moved).sigmas, NoiseSchedule.named("linear").sigmas)
    assert torch.equal(models.noise_schedule(model).sigmas, NoiseSchedule.named("cosine").sigmas)


def test_a_module_that_changes_nothing_changes_nothing(tiny_video_model):
    model = models.video_model(tiny_video_model)
    module = module_for(tiny_video_model.info, noise_schedule="cosine")
    zero = {key: torch.zeros_like(value) if ".proj_out." in key else value for key, value in module.state.items()}
    assert torch.equal(sampled(models.apply_motion(model, replace(module, state=zero))), sampled(model))


def test_modules_for_other_networks_are_refused(tiny_video_model):
    model, module = models.video_model(tiny_video_model), module_for(tiny_video_model.info)
    with pytest.raises(ValueError, match="first generation"):
        models.apply_motion(model, replace(module, clip_norms=True))
    other = {name.replace("down_blocks.0", "down_blocks.7"): width for name, width in module.widths.items()}
    state = {key.replace("down_blocks.0", "down_blocks.7"): value for key, value in module.state.items()}
    with pytest.raises(ValueError, match="is for a U-Net with levels of 64, 32 channels"):
        models.apply_motion(model, replace(module, widths=other, state=state))
    assert not [layer for layer in model.unet.modules() if "forward" in vars(layer)]
