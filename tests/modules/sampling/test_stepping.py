"""One row at a time: second order, what is shown of finished frames, fresh noise, and that noise is drawn once."""

import math
from dataclasses import replace

import pytest
import torch
from pack.modules.noise import seeded as noise_module
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.noise.seeded import KeptNoise, frame_noise
from pack.modules.sampling.context_noise import KINDS, ContextNoise
from pack.modules.sampling.forcing import Forcing
from pack.modules.sampling.job import Job, started
from pack.modules.sampling.model_view import View
from pack.modules.sampling.noise_levels import NoiseLevels
from pack.modules.sampling.plan import Row
from pack.modules.sampling.schedules import SCHEDULES
from pack.modules.sampling.stepping import Stepper, level_noise, move

SHAPE = (3, 4, 5)
TABLE = NoiseSchedule.named("cosine")


def finish(generator):
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def shrinking(view):
    """The exact denoiser of independent unit Gaussians."""
    return view.x / (1 + view.sigma[:, None, None, None] ** 2)


def run(
    denoise,
    *,
    frames=10,
    steps=5,
    window=10,
    schedule="pyramid",
    lag=1.0,
    known=0,
    latent=None,
    sigmas=None,
    noise=None,
    **options,
):
    levels = NoiseLevels.named(schedule, frames, steps, lag=lag, known=known)
    latent = torch.zeros(frames, *SHAPE) if latent is None else latent
    sigmas = TABLE.levels(steps) if sigmas is None else sigmas
    return finish(Forcing(levels, window, **options)(Job(denoise, latent, sigmas, noise=noise, seed=3)))


# Noise that is kept


@pytest.fixture
def drawn(monkeypatch):
    """(seed, frame, purpose) of every draw."""
    seen, real = [], noise_module.frame_seed

    def counted(*key):
        seen.append(key)
        return real(*key)

    monkeypatch.setattr(noise_module, "frame_seed", counted)
    return seen


def test_kept_noise_is_frame_noise(drawn):
    kept, like = KeptNoise(), torch.zeros(1, *SHAPE)
    first = kept(like, 5, [3, 4, 7], "stabilise")
    assert torch.equal(first, frame_noise(SHAPE, 5, [3, 4, 7], "stabilise"))
    count = len(drawn)
    assert torch.equal(kept(like, 5, [7, 3], "stabilise"), first[[2, 0]])
    assert len(drawn) == count, "nothing was drawn again"
    assert not torch.equal(kept(like, 6, [3], "stabilise"), first[:1]) and not torch.equal(kept(like, 5, [3], "other"), first[:1])
    assert kept(like.double(), 5, [3], "stabilise").dtype == torch.float64
    assert kept(torch.zeros(1, 2), 5, [3], "stabilise").shape == (1, 2)
    assert kept(like, 5, [], "stabilise").shape == (0, *SHAPE)


def test_kept_noise_does_not_grow_and_keeps_what_is_used(drawn):
    kept, like = KeptNoise(), torch.zeros(1, *SHAPE)
    for frame in range(0, 400, 2):
        kept(like, 0, [0, frame + 1, frame + 2], "stabilise")
        assert len(kept.kept) <= 12
    assert [frame for _, frame, _ in drawn].count(0) == 1


def test_a_take_draws_the_noise_of_a_finished_frame_once(drawn):
    run(shrinking, frames=30, window=8, context_noise=ContextNoise(0.2))
    stabilised = [frame for _, frame, purpose in drawn if purpose == "stabilise"]
    assert sorted(stabilised) == list(range(len(stabilised))) and len(stabilised) >= 24


# How finished frames are shown


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_frame_is_shown_as_its_kind_says_and_never_changed(kind):
    known, shown = torch.randn(10, *SHAPE), {}

    def denoise(view):
        if 0 in view.ids:
            assert (view.sigma[:2] == 0.25).all(), "the model is told the level"
            shown.setdefault(0, []).append(view.x[0])
        return torch.zeros_like(view.x)

    clip = run(denoise, latent=known, known=2, context_noise=ContextNoise(0.25, kind))
    assert torch.equal(clip[:2], known[:2]) and torch.equal(clip[2:], torch.zeros(8, *SHAPE))
    differences = [view - known[0] for view in shown[0]]
    assert [bool((change != 0).any()) for change in differences] == [kind != "label"] * len(differences)
    alike = all(torch.equal(change, differences[0]) for change in differences)
    assert alike == (kind != "addnoise")


def test_frames_that_are_kept_out_are_pure_noise():
    view = View(
        torch.ones(3, *SHAPE), torch.tensor([0.0, 0.0, 2.0]), torch.arange(3), torch.tensor([True, True, False]), top=50.0
    )
    shown = replace(view, seed=4, context_noise=ContextNoise(0.1, hidden=frozenset({0}))).shown()
    torch.testing.assert_close(shown.x[0], frame_noise(SHAPE, 4, [0], "dropped")[0] * math.sqrt(1 + 50.0**2))
    torch.testing.assert_close(shown.x[1], 1 + 0.1 * frame_noise(SHAPE, 4, [1], "stabilise")[0])
    assert torch.equal(shown.x[2], view.x[2]) and shown.sigma.tolist() == pytest.approx([50.0, 0.1, 2.0])


def test_only_some_finished_frames_are_noisy():
    view = View(
        *(torch.ones(3, *SHAPE), torch.tensor([0.0, 0.0, 2.0]), torch.arange(3), torch.tensor([True, True, False])),
        given=torch.tensor([True, False, False]),
    )
    for which, sigmas in (("known", [0.1, 0.0, 2.0]), ("generated", [0.0, 0.1, 2.0]), ("all", [0.1, 0.1, 2.0])):
        shown = replace(view, context_noise=ContextNoise(0.1, which=which)).shown()
        assert shown.sigma.tolist() == pytest.approx(sigmas)
        assert [not torch.equal(now, then) for now, then in zip(shown.x, view.x, strict=True)] == [
            0 < sigma < 2 for sigma in sigmas
        ]


# Second order


def exact(sigmas, start):
    """Where the differential equation of ``shrinking`` takes a frame: ``x / sqrt(1 + sigma^2)`` stays."""
    return start / (1 + sigmas[-1] ** 2).sqrt()


@pytest.mark.parametrize(("order", "power"), [("euler", 1), ("heun", 2), ("unipc", 3)])
def test_the_error_falls_with_the_order(order, power):
    """Halving the steps' size divides the error by two to the order; the last step to 0 is Euler's, so it stays small here."""
    errors = []
    for steps in (32, 64):
        sigmas = torch.cat([torch.zeros(1), torch.logspace(-3.5, 0.7, steps)]).double()
        latent = torch.zeros(1, *SHAPE, dtype=torch.float64)
        noise = frame_noise(SHAPE, 3, [0]).double()
        clip = run(shrinking, frames=1, steps=steps, sigmas=sigmas, latent=latent, order=order, noise=noise)
        errors.append((clip - exact(sigmas, noise * (1 + sigmas[-1] ** 2).sqrt())).abs().max().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(power, abs=0.25)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_frames_that_do_not_know_each_other_take_heuns_steps_under_every_schedule(schedule):
    first = run(shrinking, schedule="full_sequence", order="heun")
    torch.testing.assert_close(run(shrinking, schedule=schedule, order="heun"), first)
    assert (first - run(shrinking)).abs().max() > 1e-3


def test_the_second_call_shows_what_the_next_row_would():
    """At the levels after the step, with frames that have just finished shown as finished."""
    seen = []

    def denoise(view):
        seen.append(view)
        return shrinking(view)

    sigmas = torch.tensor([0.0, 1.0, 4.0])
    row = Row(torch.arange(3), torch.tensor([0, 1, 2]), torch.tensor([0, 0, 1]))
    x = torch.randn(3, *SHAPE)
    moved, clean = Stepper(Job(denoise, x, sigmas), order="heun", context_noise=ContextNoise(0.5)).step(x, row, 7)
    assert [view.sigma.tolist() for view in seen] == [[0.5, 1.0, 4.0], [0.5, 0.5, 1.0]]
    assert [view.call for view in seen] == [14, 15]
    assert torch.equal(moved[0], x[0]) and torch.equal(moved[1], clean[1])


# Fresh noise


def test_fresh_noise_depends_on_frame_and_level_alone():
    like = torch.zeros(2, *SHAPE)
    one = level_noise(like, 3, [4, 9], [2, 5])
    assert torch.equal(level_noise(like[:1], 3, [9], [5]), one[1:])
    assert torch.equal(level_noise(like[:1], 3, [9], [5.0]), one[1:]), "5 and 5.0 are one level"
    assert not torch.equal(level_noise(like[:1], 3, [9], [4]), one[1:])


def test_frames_that_stay_get_no_fresh_noise(drawn):
    sigmas, x = torch.tensor([0.0, 1.0, 4.0]), torch.randn(4, *SHAPE)
    row = Row(torch.tensor([0, 5, 6, 7]), torch.tensor([0, 1, 2, 2]), torch.tensor([0, 0, 1, 2]))
    moved, clean = Stepper(Job(shrinking, x, sigmas, seed=3), eta=1.0).step(x, row, 0)
    assert [key[1:] for key in drawn] == [(6, "level 2")], "nor do frames that become clean"
    assert torch.equal(moved[0], x[0]) and torch.equal(moved[1], clean[1]) and torch.equal(moved[3], x[3])


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_a_step_keeps_the_marginal_variance_in_flow_coordinates(eta):
    """A clean frame of 1 under noise: after the step its mean is ``1 - sigma`` and its deviation ``sigma``."""
    g = torch.Generator().manual_seed(0)
    clean = torch.ones(1, 200_000, 1, 1)
    x = 0.2 * clean + 0.8 * torch.randn(clean.shape, generator=g)
    fresh = torch.randn(clean.shape, generator=g)
    out = move(x, clean, torch.tensor([0.8]), torch.tensor([0.3]), fresh, eta, "flow")
    assert abs(out.std().item() - 0.3) < 0.005 and abs(out.mean().item() - 0.7) < 0.005


def test_euler_is_the_same_in_both_coordinates():
    x, clean = torch.randn(2, *SHAPE), torch.randn(2, *SHAPE)
    before, after = torch.tensor([0.9, 0.5]), torch.tensor([0.4, 0.0])
    assert torch.equal(move(x, clean, before, after), move(x, clean, before, after, coordinates="flow"))


# Beginning


@pytest.mark.parametrize(
    ("coordinates", "full", "latent", "noise"),
    [
        ("diffusion", True, 1.0, math.sqrt(10)),
        ("diffusion", False, 1.0, 3.0),
        ("flow", True, 0.3, 0.7),
        ("flow", False, 0.3, 0.7),
    ],
)
def test_sampling_starts_as_comfyuis_does(coordinates, full, latent, noise):
    a, b = torch.randn(2, *SHAPE), torch.randn(2, *SHAPE)
    sigma = torch.tensor(3.0 if coordinates == "diffusion" else 0.7)
    torch.testing.assert_close(started(a, b, sigma, coordinates, full=full), latent * a + noise * b)
