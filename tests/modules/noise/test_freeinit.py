"""FreeInit's filters and mix: diffusers, brute force, and how energy divides."""

import math
import time

import pytest
import torch
from pack.modules.noise.freeinit import FILTERS, FreeInit, Start

SIZES = [(16, 8, 8), (5, 6, 7), (1, 4, 4), (8, 9, 16)]


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def brute_force(name, frames, height, width, order, spatial, temporal):
    """The response for every frequency of the whole transform, one by one, from the definitions."""

    def frequency(index, size):
        return (index if 2 * index < size else index - size) / (size / 2)

    out = torch.zeros(frames, height, width, dtype=torch.float64)
    for t in range(frames):
        for h in range(height):
            for w in range(width):
                a, b, c = frequency(t, frames) / temporal, frequency(h, height) / spatial, frequency(w, width) / spatial
                square = a * a + b * b + c * c
                out[t, h, w] = {
                    "butterworth": 1 / (1 + square**order),
                    "gaussian": math.exp(-square / 2),
                    "ideal": float(square <= 1),
                    "box": float(max(abs(a), abs(b), abs(c)) <= 1),
                }[name]
    return out


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FILTERS)
def test_responses_by_brute_force(name, size):
    settings = FreeInit(filter=name, order=3, spatial_stop=0.3, temporal_stop=0.55)
    wanted = brute_force(name, *size, 3, 0.3, 0.55)[..., : size[2] // 2 + 1]
    torch.testing.assert_close(settings.response(*size), wanted.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FILTERS)
def test_the_mix_by_a_whole_complex_transform(name, size):
    low, high = (noise(2, 3, *size, seed=seed, dtype=torch.float64) for seed in (1, 2))
    response = brute_force(name, *size, 4, 0.25, 0.4)
    axes = (-3, -2, -1)
    wanted = torch.fft.ifftn(torch.fft.fftn(low, dim=axes) * response + torch.fft.fftn(high, dim=axes) * (1 - response), dim=axes)
    assert wanted.imag.abs().max() < 1e-12, "the response must be symmetric, or the mix is not real"
    made = FreeInit(filter=name, spatial_stop=0.25, temporal_stop=0.4).mixed(low.float(), high.float())
    torch.testing.assert_close(made, wanted.real.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.comfy
@pytest.mark.parametrize("name", ["butterworth", "gaussian", "ideal"])
def test_even_sizes_equal_diffusers(name):
    utils = pytest.importorskip("diffusers.pipelines.free_init_utils")
    reference = utils.FreeInitMixin()
    low, high, shape = noise(1, 4, 16, 8, 12, seed=1), noise(1, 4, 16, 8, 12, seed=2), (1, 4, 16, 8, 12)
    response = reference._get_free_init_freq_filter(shape, "cpu", name, 4, 0.25, 0.5)
    wanted = reference._apply_freq_filter(low, high, response)
    # its ideal filter compares the squared distance, in units where the spatial stop is 1, with twice the stop
    scale = math.sqrt(2 * 0.25) / 0.25 if name == "ideal" else 1
    settings = FreeInit(filter=name, order=4)
    object.__setattr__(settings, "spatial_stop", 0.25 * scale)  # a stop above 1 is no user's choice
    object.__setattr__(settings, "temporal_stop", 0.5 * scale)
    torch.testing.assert_close(settings.mixed(low, high), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FILTERS)
def test_energy_divides_as_the_response_says(name, size):
    """Of white noise, the part kept has the mean of the squared response as its variance (Parseval)."""
    settings = FreeInit(filter=name, spatial_stop=0.5, temporal_stop=0.5)
    low = noise(4000, *size, seed=3)
    kept, left = settings.mixed(low, torch.zeros_like(low)), settings.mixed(torch.zeros_like(low), low)
    response = brute_force(name, *size, 4, 0.5, 0.5)
    assert float(kept.var()) == pytest.approx(float((response**2).mean()), abs=0.02)
    assert float(left.var()) == pytest.approx(float(((1 - response) ** 2).mean()), abs=0.02)
    torch.testing.assert_close(kept + left, low, rtol=0, atol=1e-5)
    if name in ("ideal", "box"):
        assert float(kept.var() + left.var()) == pytest.approx(1, abs=0.02)
        torch.testing.assert_close(settings.mixed(kept, torch.zeros_like(low)), kept, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", FILTERS)
def test_what_does_not_change_is_kept_and_the_fastest_change_is_new(name):
    still = torch.full((1, 8, 8, 8), 2.0)
    flicker = still * torch.tensor([1.0, -1.0] * 4)[:, None, None]
    nothing = torch.zeros_like(still)
    settings = FreeInit(filter=name)
    torch.testing.assert_close(settings.mixed(still, nothing), still)
    assert settings.mixed(flicker, nothing).abs().max() < 1e-3
    assert settings.mixed(noise(1, 8, 8, 8), noise(1, 8, 8, 8)).equal(noise(1, 8, 8, 8)), "equal halves make the same whole"


def test_the_paper_s_z_t_where_sampling_starts_from_noise_alone():
    """Equation 5 in variance-preserving form; a sampler at the top multiplies noise by sqrt(1 + sigma^2)."""
    result, first, sigma = noise(2, 3, 4, 5, seed=1), noise(2, 3, 4, 5, seed=2), 25.1
    kept = 1 / (1 + sigma**2)
    start = Start(gain=(1 + sigma**2) ** 0.5, signal=1.0, spread=sigma)
    wanted = kept**0.5 * result + (1 - kept) ** 0.5 * first
    torch.testing.assert_close(start.diffused(result, torch.zeros_like(result), first), wanted)


@pytest.mark.parametrize(("gain", "signal"), [(3.0, 1.0), (0.6, 0.4)])
def test_the_noise_takes_the_sampler_to_the_diffused_result(gain, signal):
    result, latent, first = (noise(2, 3, 4, 5, seed=seed) for seed in (1, 2, 3))
    made = Start(gain, signal, gain).diffused(result, latent, first)
    torch.testing.assert_close(gain * made + signal * latent, gain * first + signal * result)


def test_the_filter_is_fast():
    """The reference fills this response in a loop over 491,520 frequencies, which takes seconds."""
    began = time.perf_counter()
    FreeInit().response(120, 64, 64)
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"iterations": 0}, "iterations is 0: it must lie between 1 and 20"),
        ({"filter": "comb"}, "filter is 'comb': choose one of butterworth, gaussian, ideal, box"),
        ({"order": 0}, "order is 0: it must lie between 1 and 100"),
        ({"spatial_stop": 0.0}, "spatial_stop is 0: it must lie between 0.01 and 1"),
        ({"temporal_stop": 1.5}, "temporal_stop is 1.5"),
        ({"temporal_stop": float("nan")}, "temporal_stop is nan"),
    ],
)
def test_bad_settings_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        FreeInit(**options)


def test_models_that_start_from_noise_alone_are_refused():
    with pytest.raises(ValueError, match="flow model at full denoise"):
        Start(gain=1.0, signal=0.0, spread=1.0)
    with pytest.raises(ValueError, match="starts without noise"):
        Start(gain=0.0, signal=1.0, spread=0.0)
