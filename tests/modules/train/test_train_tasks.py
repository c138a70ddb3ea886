"""What can be trained on a native model: motion modules, LoRAs and whole models; who sees whom, what stays as it was."""

from dataclasses import replace

import pytest
import torch
from pack.modules.checkpoints.motion_lora import MotionLora, merged
from pack.modules.checkpoints.video_model import new_networks
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.temporal.motion import MotionModel
from pack.modules.temporal.slots import widths
from pack.modules.temporal.transformer import TemporalConfig
from pack.modules.train.denoising import Batch, Objective, clip_noise, losses
from pack.modules.train.engine import Run, train
from pack.modules.train.lora import beside, deltas_of, image_projections, motion_projections, trainable_branches
from pack.modules.train.losses import LossSettings
from pack.modules.train.native import frozen, named_parameters, native_network, scoped
from pack.modules.train.settings import RunSettings
from pack.modules.train.task import Denoising, Together
from tiny import LABELS, info, seeded

FRAMES = 6
SETTINGS = RunSettings(steps=4, batch=4, learning_rate=5e-3, warmup=1)


def base(**changes):
    about = info(prediction="v", **changes)
    with seeded(1):
        unet, _ = new_networks(about)
    return about, unet


def motion_on(unet, seed=2, **config):
    with seeded(seed):
        return MotionModel(widths(unet), TemporalConfig(heads=2, attentions=2, groups=8, **config))


def source(step, places):
    g = [torch.Generator().manual_seed(1000 * step + place) for place in places]
    start = torch.stack([torch.randn(1, 48, 4, 4, generator=one) for one in g])
    ramp = torch.linspace(0, 1, FRAMES).view(1, FRAMES, 1, 1, 1)
    return Batch(start * (1 - ramp), labels=torch.stack([torch.rand(len(LABELS), generator=one) for one in g]))


def shown(x, images=0):
    return Batch(x, images=images, labels=torch.zeros(len(x), len(LABELS)))


def task(about, network, parameters, settings=SETTINGS, objective=None, name="test"):
    schedule = NoiseSchedule.named(about.noise_schedule)
    return Denoising(network, parameters, source, objective or Objective("v"), schedule, settings, {"name": name})


def motion_task(settings=SETTINGS, **objective):
    about, unet = base()
    frozen(unet)
    motion = motion_on(unet).zero()
    network = native_network(about, unet, [motion])
    return unet, motion, task(about, network, named_parameters(motion=motion), settings, Objective("v", **objective))


def test_a_motion_module_learns_and_the_image_model_stays_bit_for_bit():
    unet, _motion, job = motion_task(replace(SETTINGS, steps=40))
    before = {key: value.clone() for key, value in unet.state_dict().items()}
    held_out = lambda: job.losses(10**6, range(4)).mean().item()  # noqa: E731
    first = held_out()
    run = Run(job, job.settings)
    list(train(run))
    assert held_out() < 0.95 * first
    assert all(torch.equal(value, before[key]) for key, value in unet.state_dict().items())
    assert all(name.startswith("motion.") for name in run.weights())


def test_a_batch_is_the_same_however_it_is_cut_up():
    _, _, job = motion_task(loss=LossSettings("chain"), noise_offset=0.1, dropout=0.5)
    whole = job.losses(3, range(4))
    parts = torch.cat([job.losses(3, range(0, 1)), job.losses(3, range(1, 4))])
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(whole, job.losses(4, range(4)))


def test_noise_offset_has_its_size():
    clips = torch.zeros(2, 3, 4, 32, 32)
    noise = clip_noise(clips, 0.5, 0, 0, range(2))
    assert abs(noise.mean(dim=(-1, -2)).std().item() - 0.5) < 0.15 and abs(noise.std().item() - 1.118) < 0.05
    assert torch.equal(clip_noise(clips[1:], 0.0, 0, 0, range(1, 2))[0], clip_noise(clips, 0.0, 0, 0, range(2))[1])


def joint(kind="transformer"):
    about, unet = base()
    motion = motion_on(unet, **({} if kind == "transformer" else {"kind": kind, "mask": "causal"}))
    return native_network(about, unet, [motion]), motion


@pytest.mark.parametrize("mask", ["full", "causal"])
def test_pictures_beside_a_clip_neither_see_it_nor_are_seen(mask):
    about, unet = base()
    network = native_network(about, unet, [motion_on(unet, mask=mask)])
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, FRAMES + 2, 48, 4, 4, generator=g).requires_grad_(True)
    sigma = torch.rand(2, FRAMES + 2, generator=g) + 0.5
    out = network(x, sigma, shown(x, 2))
    alone = network(x[:, -1:], sigma[:, -1:], shown(x[:, -1:]))
    clip = network(x[:, :FRAMES], sigma[:, :FRAMES], shown(x[:, :FRAMES]))
    torch.testing.assert_close(out[:, -1:], alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out[:, :FRAMES], clip, rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(out[:, FRAMES:].square().sum(), x, retain_graph=True)
    assert gradient[:, :FRAMES].abs().max() == 0 and gradient[:, FRAMES:].abs().max() > 0
    (gradient,) = torch.autograd.grad(out[:, :FRAMES].square().sum(), x)
    assert gradient[:, FRAMES:].abs().max() == 0


def test_a_picture_is_a_clip_of_one_frame_to_a_recurrent_model():
    network, motion = joint("recurrent")
    with torch.no_grad():
        for parameter in motion.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    x = torch.randn(1, 4, 48, 4, 4, generator=torch.Generator().manual_seed(0))
    out = network(x, torch.ones(1, 4), shown(x, 1))
    alone = network(x[:, 3:], torch.ones(1, 1), shown(x[:, 3:]))
    torch.testing.assert_close(out[:, 3:], alone, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(network(x, torch.ones(1, 4), shown(x))[:, 3:], alone, atol=1e-3)


def test_some_blocks_train_alone():
    _unet, motion, _ = motion_task()
    names = named_parameters(motion=scoped(motion, ["down_blocks", "mid_block"]))
    assert names and all(".up_blocks" not in name for name in names) and any("mid_block" in name for name in names)
    with pytest.raises(ValueError, match="'sideways', where there is no motion module"):
        scoped(motion, ["sideways"])


def test_a_motion_lora_starts_as_nothing_and_saves_what_it_does():
    about, unet = base()
    motion = motion_on(unet)
    frozen(unet, motion)
    network = native_network(about, unet, [motion])
    x, sigma = torch.randn(1, FRAMES, 48, 4, 4), torch.full((1, FRAMES), 2.0)
    before = network(x, sigma, shown(x))
    layers = motion_projections(motion)
    branches = trainable_branches(layers, 4, seed=0)
    beside(layers, branches)
    assert torch.equal(network(x, sigma, shown(x)), before)
    job = task(about, network, named_parameters(lora=branches), objective=Objective("v", loss=LossSettings("debiased")))
    run = Run(job, replace(SETTINGS, ema=0.0))
    list(train(run))
    after = network(x, sigma, shown(x))
    assert not torch.allclose(after, before)
    found = deltas_of(branches, run.weights(), "lora.")
    assert set(found) == {f"{name}.weight" for name in layers} and len(found) == 8 * len(motion.names)
    other = motion_on(unet)
    other.load_state_dict(merged(other.state_dict(), [MotionLora("trained", found)]))
    torch.testing.assert_close(native_network(about, unet, [other])(x, sigma, shown(x)), after, rtol=1e-4, atol=1e-4)


def test_an_adapter_has_diffusers_names():
    _, unet = base()
    names = set(image_projections(unet))
    assert "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q" in names
    assert "up_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0" in names


def test_two_paths_add_their_losses():
    about, unet = base()
    motion = motion_on(unet)
    frozen(unet, motion)
    network = native_network(about, unet, [motion])
    parts = []
    for name, layers in (("temporal", motion_projections(motion)), ("spatial", image_projections(unet))):
        branches = trainable_branches(layers, 2, seed=1)
        beside(layers, branches)
        parts.append(task(about, network, named_parameters(**{name: branches}), name=name))
    both = Together(parts)
    torch.testing.assert_close(both.losses(0, range(2)), parts[0].losses(0, range(2)) + parts[1].losses(0, range(2)))
    assert len(both.parameters()) == sum(len(part.parameters()) for part in parts)
    list(train(Run(both, SETTINGS)))


@pytest.mark.parametrize(("rank", "sentence"), [(0, "rank is 0: it must be from 1 to 32"), (1000, "rank is 1000")])
def test_a_rank_that_no_layer_has_is_refused(rank, sentence):
    _, unet = base()
    with pytest.raises(ValueError, match=sentence):
        trainable_branches(motion_projections(motion_on(unet)), rank, seed=0)
    with pytest.raises(ValueError, match="no attention"):
        trainable_branches({}, 4, seed=0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"levels": "stairs"}, "choose one of forcing"),
        ({"dropout": 2.0}, "dropout is 2.0"),
        ({"noise_offset": -1.0}, "noise_offset"),
    ],
)
def test_a_bad_objective_is_one_sentence(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        Objective(**change)


def test_the_loss_of_eps_is_the_plain_one():
    """With one level per clip and no weights it is the mean squared error of the noise, as AnimateDiff has it."""
    schedule = NoiseSchedule.named("linear")
    batch = Batch(torch.randn(3, FRAMES, 4, 5, 5))
    seen = {}

    def network(x, sigma, shown):
        seen["x"], seen["sigma"] = x, sigma
        return x - sigma[..., None, None, None] * torch.full_like(x, 0.25)

    loss = losses(network, batch, Objective("eps"), schedule, seed=0, step=0, places=range(3), total=3)
    noise = (seen["x"] - batch.clips) / seen["sigma"][..., None, None, None]
    torch.testing.assert_close(loss, ((0.25 - noise) ** 2).flatten(1).mean(1), rtol=1e-3, atol=1e-4)
