"""Noise schedules, prediction types, and noise that depends on the frame alone."""

import itertools

import pytest
import torch
from pack.modules.noise.levels import NOISE_SCHEDULES, PREDICTIONS, NoiseSchedule, linear, steps_before
from pack.modules.noise.seeded import broadcast, frame_noise, frame_seed


@pytest.fixture(params=NOISE_SCHEDULES)
def schedule(request):
    return NoiseSchedule.named(request.param)


def test_sigmas_rise(schedule):
    sigmas = schedule.sigmas
    assert sigmas.dtype == torch.float32
    assert sigmas.shape == (1000,)
    assert sigmas[0] > 0
    assert (sigmas.diff() > 0).all()


@pytest.mark.parametrize(
    ("name", "smallest", "largest"),
    [
        ("scaled_linear", 0.0292, 14.615),
        ("linear", 0.0292, 25.146),
        ("cosine", 0.01, 80),
        ("animatediff_sdxl", 0.0292, 65.93),
        ("animatelcm_i2v", 0.0292, 41.67),
    ],
)
def test_known_ends(name, smallest, largest):
    sigmas = NoiseSchedule.named(name).sigmas
    torch.testing.assert_close(sigmas[[0, -1]], torch.tensor([smallest, largest]), atol=0, rtol=2e-3)


@pytest.mark.parametrize("name", ["scaled_linear", "linear"])
def test_betas_by_brute_force(name):
    kept, expected = 1.0, []
    for i in range(1000):
        part = i / 999
        beta = (
            (0.00085**0.5 * (1 - part) + 0.012**0.5 * part) ** 2
            if name == "scaled_linear"
            else 0.00085 * (1 - part) + 0.012 * part
        )
        kept *= 1 - beta
        expected.append(((1 - kept) / kept) ** 0.5)
    torch.testing.assert_close(NOISE_SCHEDULES[name](), torch.tensor(expected))


# name of ours -> (its betas' shape in diffusers' words, their end)
BETAS = {
    "scaled_linear": ("scaled_linear", 0.012),
    "linear": ("linear", 0.012),
    "animatediff_sdxl": ("scaled_linear", 0.020),
    "animatelcm_i2v": ("linear", 0.014),
}


@pytest.mark.parametrize("name", BETAS)
def test_equals_diffusers(name):
    diffusers = pytest.importorskip("diffusers")
    shape, end = BETAS[name]
    kept = diffusers.DDIMScheduler(beta_start=0.00085, beta_end=end, beta_schedule=shape).alphas_cumprod.double()
    torch.testing.assert_close(NOISE_SCHEDULES[name]().double(), ((1 - kept) / kept).sqrt(), rtol=1e-4, atol=0)


@pytest.mark.comfy
@pytest.mark.parametrize("name", BETAS)
def test_equals_comfyuis(name):
    from comfy.model_sampling import ModelSamplingDiscrete

    shape, end = BETAS[name]

    class Config:
        sampling_settings = {
            "beta_schedule": {"scaled_linear": "linear", "linear": "sqrt_linear"}[shape],
            "linear_start": 0.00085,
            "linear_end": end,
        }

    torch.testing.assert_close(NOISE_SCHEDULES[name](), ModelSamplingDiscrete(Config()).sigmas, rtol=1e-5, atol=0)


def test_timesteps_round_trip(schedule):
    t = torch.arange(1000)
    assert torch.equal(schedule.timestep(schedule.sigmas), t)
    assert torch.equal(schedule.timestep(schedule.sigmas.double() * 1.0001), t)
    assert schedule.timestep(torch.tensor([0.0, 1e-30, 1e9])).tolist() == [0, 0, 999]


@pytest.mark.parametrize("steps", [1, 2, 7, 50, 999, 1000])
def test_levels_go_from_clean_to_the_noisiest(schedule, steps):
    levels = schedule.levels(steps)
    assert len(levels) == steps + 1
    assert levels[0] == 0
    assert levels[-1] == schedule.sigmas[-1]
    assert (levels.diff() > 0).all()


@pytest.mark.parametrize("sigmas", [[1.0], [0.0, 1.0], [2.0, 1.0], [1.0, 1.0], [[1.0, 2.0]]])
def test_lists_that_are_no_schedule_are_refused(sigmas):
    with pytest.raises(ValueError, match="at least two sigmas, all above 0 and rising"):
        NoiseSchedule(torch.tensor(sigmas))


def test_unknown_schedules_are_refused():
    with pytest.raises(ValueError, match="'quadratic' is not known: choose one of scaled_linear, linear, cosine"):
        NoiseSchedule.named("quadratic")


# Predictions


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize("sigma", [0.0, 0.02, 1.0, 14.6, 80.0])
def test_predictions_round_trip(name, sigma):
    """A network that gives the target exactly is understood to mean the clean frames exactly."""
    g = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=g) for _ in range(2))
    s = broadcast(torch.full((3,), sigma, dtype=torch.float64), clean)
    target = PREDICTIONS[name].target(clean, noise, s)
    torch.testing.assert_close(PREDICTIONS[name].clean(clean + s * noise, target, s), clean)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_predictions_take_a_sigma_per_frame(name):
    g = torch.Generator().manual_seed(0)
    x, output, sigma = torch.randn(3, 2, 4, 4, generator=g), torch.randn(3, 2, 4, 4, generator=g), torch.tensor([0.0, 1.0, 9.0])
    together = PREDICTIONS[name].clean(x, output, broadcast(sigma, x))
    for i in range(3):
        alone = PREDICTIONS[name].clean(x[i : i + 1], output[i : i + 1], broadcast(sigma[i : i + 1], x[i : i + 1]))
        assert torch.equal(together[i : i + 1], alone)


@pytest.mark.parametrize("name", ["eps", "v"])
def test_a_clean_frame_comes_back_whatever_the_network_says(name):
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(PREDICTIONS[name].clean(x, torch.full_like(x, 1e3), broadcast(torch.zeros(2), x)), x)


@pytest.mark.comfy
@pytest.mark.parametrize(("name", "theirs"), [("eps", "EPS"), ("v", "V_PREDICTION"), ("x0", "X0")])
def test_predictions_equal_comfyuis(name, theirs):
    from comfy import model_sampling

    kind = getattr(model_sampling, theirs)()
    kind.sigma_data = 1.0
    g = torch.Generator().manual_seed(0)
    x, output, sigma = torch.randn(3, 2, 4, 4, generator=g), torch.randn(3, 2, 4, 4, generator=g), torch.tensor([0.1, 1.0, 9.0])
    torch.testing.assert_close(PREDICTIONS[name].clean(x, output, broadcast(sigma, x)), kind.calculate_denoised(sigma, output, x))


# Noise


def test_noise_depends_on_seed_frame_and_purpose_alone():
    whole = frame_noise((2, 3), 5, range(10))
    assert torch.equal(frame_noise((2, 3), 5, [7, 2]), whole[[7, 2]])
    assert torch.equal(torch.stack([frame_noise((2, 3), 5, [i])[0] for i in range(10)]), whole)
    with torch.random.fork_rng():
        torch.manual_seed(123)
        before = torch.get_rng_state()
        assert torch.equal(frame_noise((2, 3), 5, range(10)), whole)
        assert torch.equal(torch.get_rng_state(), before)  # and the global generator is left alone


def test_each_of_the_three_matters():
    draws = [
        frame_noise((64,), seed, [frame], purpose)[0] for seed in (0, 1) for frame in (0, 1, 10) for purpose in ("start", "row 1")
    ]
    for first, second in itertools.combinations(draws, 2):
        assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.5


def test_noise_is_standard_normal():
    noise = frame_noise((4, 32, 32), 3, range(16))
    assert noise.dtype == torch.float32
    assert abs(float(noise.mean())) < 0.01
    assert abs(float(noise.std()) - 1) < 0.01


def test_seeds_are_known_for_good():
    """Saved seeds must give the same video after every update: this number is a promise."""
    assert frame_seed(0, 0, "start") == 6697584262409540924
    assert all(0 <= frame_seed(seed, 3, "x") < 2**63 for seed in (0, 2**64 - 1, -1))


def test_no_frames_is_no_noise():
    assert frame_noise((2, 3), 0, []).shape == (0, 2, 3)


def test_broadcast():
    like = torch.zeros(3, 2, 5, dtype=torch.float64)
    assert broadcast(torch.arange(3), like).shape == (3, 1, 1)
    assert broadcast(torch.arange(3), like).dtype == torch.float64


@pytest.mark.parametrize("before", [1, 5, 8, 17])
def test_steps_before_are_counted_from_whole_timesteps(before):
    """Twenty steps in timesteps that are cut to whole ones, as schedulers make them."""
    table = linear()
    whole = torch.linspace(len(table) - 1, 0, 20).long()
    assert steps_before(table[whole[before:]], table[-1], NoiseSchedule(table).timestep) == before
