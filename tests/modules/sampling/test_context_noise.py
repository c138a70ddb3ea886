"""Context noise follows the model, unless the user says it."""

import logging

import pytest
import torch
from pack.modules.checkpoints.video_info import VideoModelInfo
from pack.modules.nets.unet_config import UNetConfig
from pack.modules.sampling.context_noise import OWN, ContextNoise, ContextNoiseSettings, OwnNoise
from pack.modules.sampling.forcing import Forcing
from pack.modules.sampling.job import Job
from pack.modules.sampling.noise_levels import NoiseLevels
from pack.modules.temporal.config import TemporalConfig

WAN = OwnNoise(0.02, 0.05, "its authors")


def shown(noise, own):
    """The sigmas that finished frames are shown at."""
    seen = []

    def denoise(view):
        seen.extend(round(sigma, 4) for sigma in view.sigma[view.finished].tolist())
        return view.x * 0

    levels = NoiseLevels.named("autoregressive", 4, 2, lag=2.0)
    job = Job(denoise, torch.zeros(4, 1, 2, 2), torch.tensor([0.0, 0.5, 1.0]), own_noise=own, coordinates="flow")
    for _ in Forcing(levels, window=4, context_noise=noise)(job):
        pass
    return set(seen)


@pytest.mark.parametrize(
    ("chosen", "own", "sigma"),
    [(OWN, WAN, 0.02), (OWN, OwnNoise(0.2), 0.2), (OWN, OwnNoise(), 0.0), (0.0, WAN, 0.0), (0.3, WAN, 0.3)],
)
def test_frames_are_shown_with_the_models_own_noise_or_what_is_chosen(chosen, own, sigma):
    assert shown(ContextNoiseSettings(chosen).made(), own) == {sigma}


def test_more_than_the_authors_bear_is_said(caplog):
    with caplog.at_level(logging.WARNING, "longtake"):
        shown(ContextNoise(0.05), WAN)
        assert not caplog.text
        shown(ContextNoise(0.2), WAN)
    assert "context_noise is 0.2, and its authors warn of more than 0.05" in caplog.text


@pytest.mark.parametrize("sigma", [-0.5, -2.0, float("inf"), float("nan")])
def test_other_numbers_below_zero_are_refused(sigma):
    with pytest.raises(ValueError, match="must"):
        ContextNoiseSettings(sigma)


def test_what_nobody_resolved_is_an_error_and_not_a_noise():
    with pytest.raises(RuntimeError, match="was not told"):
        ContextNoise(OWN).sigma_of(True)


def test_a_models_file_says_its_own():
    info = VideoModelInfo(UNetConfig(), TemporalConfig(16), ())
    assert info.context_noise == 0.2 and "context_noise" not in info.json()
    told = VideoModelInfo(UNetConfig(), TemporalConfig(16), (), context_noise=0.05)
    assert VideoModelInfo.parse(told.json()) == told
    with pytest.raises(ValueError, match="context_noise is -1"):
        VideoModelInfo(UNetConfig(), TemporalConfig(16), (), context_noise=-1.0)
