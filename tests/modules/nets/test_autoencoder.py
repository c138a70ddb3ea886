"""The autoencoder of pictures, and one step of its training."""

import pytest
import torch
from pack.modules.nets.autoencoder import AutoencoderConfig, new_autoencoder
from pack.modules.train.autoencoder import AutoencoderTask, divergence, picture_losses
from pack.modules.train.engine import Run, train
from pack.modules.train.settings import RunSettings

SMALL = AutoencoderConfig(latent=4, widths=(8, 16), scale=0.5)


def test_a_latent_is_so_many_times_smaller():
    network = new_autoencoder(SMALL, 0)
    assert SMALL.ratio == 4
    latents = network.encode(torch.rand(2, 16, 24, 3))
    assert latents.shape == (2, 4, 4, 6)
    assert network.decode(latents).shape == (2, 16, 24, 3)


def test_frames_do_not_see_each_other_and_the_scale_is_undone():
    network, clip = new_autoencoder(SMALL, 0).eval(), torch.rand(3, 16, 16, 3)
    together = network.encode(clip)
    torch.testing.assert_close(together[1:2], network.encode(clip[1:2]))
    mean, _ = network.moments(clip.permute(0, 3, 1, 2) * 2 - 1)
    torch.testing.assert_close(together, 0.5 * mean)
    torch.testing.assert_close(network.decode(together), (network.unscaled(mean).permute(0, 2, 3, 1) / 2 + 0.5).clamp(0, 1))


def test_the_divergence_is_torch_s():
    mean, logvar = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    normal = torch.distributions.Normal
    true = torch.distributions.kl_divergence(normal(mean, (logvar / 2).exp()), normal(0.0, 1.0))
    torch.testing.assert_close(divergence(mean, logvar), true.mean((1, 2, 3)))


def test_errors_count_where_they_are_said_to():
    true = torch.zeros(1, 3, 8, 8)
    made = true.clone()
    made[..., 2:4, 2:4] = 0.5
    weights = torch.ones(1, 1, 8, 8)
    plain = picture_losses(made, true, weights)
    weights[..., 2:4, 2:4] = 4.0
    assert plain < picture_losses(made, true, weights) < 4 * plain
    assert picture_losses(true, true, weights) == 0


def test_training_lowers_the_error_and_goes_on_bit_for_bit(tmp_path):
    pictures = torch.rand(4, 3, 1, 1).expand(4, 3, 16, 16) * 2 - 1

    def given(step, places, batch):
        return pictures[[(step * batch + place) % 4 for place in places]], torch.ones(len(places), 1, 16, 16)

    def task():
        return AutoencoderTask(new_autoencoder(SMALL, 0), given, 4, 0, {"pictures": "plain"})

    settings = RunSettings(steps=30, batch=4, learning_rate=5e-3, warmup=1)
    unbroken = Run(task(), settings)
    steps = list(train(unbroken))
    assert steps[-1].loss < 0.7 * steps[0].loss
    path = tmp_path / "run.safetensors"
    for _, step in zip(range(11), train(Run(task(), settings, path), every=5), strict=False):
        assert step.step <= 11
    resumed = Run(task(), settings, path)
    assert resumed.done > 0
    list(train(resumed))
    assert all(torch.equal(value, resumed.weights()[name]) for name, value in unbroken.weights().items())


@pytest.mark.parametrize("change", [{"latent": 0}, {"widths": ()}, {"widths": (12,)}, {"scale": 0.0}])
def test_shapes_that_cannot_be_are_refused(change):
    with pytest.raises(ValueError, match="is no autoencoder|a level has"):
        AutoencoderConfig(**change)
