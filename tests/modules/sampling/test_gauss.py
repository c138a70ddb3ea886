"""The Gaussian world (``benchmarks/gauss.py``): what the reports found, in small, and our samplers against an independent computation.

Nothing is drawn: means and covariances are exact, so the orders below hold with certainty.
"""

import sys

import pytest
import torch
from conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))
import gauss
from gauss import FRAMES, GIVEN, RHO, conditional, covariance, distance, extended, given_frames, made_by, queue, truth
from pack.modules.sampling.noise_levels import NoiseLevels

STEPS = 32


@pytest.fixture(scope="module")
def found():
    return {(weight, corrector): conditional(weight, corrector, steps=STEPS) for weight in (0, 1, 2, 10) for corrector in (0, 1)}


def recursion(weight, corrector, steps, delta=0.1):
    """Mean and covariance of the sampler's clips by a recursion of matrices, written for these two methods and nothing else."""
    f, na, eye = FRAMES, GIVEN, torch.eye(FRAMES, dtype=torch.float64)
    true, given = covariance(FRAMES, RHO), given_frames()
    sigmas = gauss.cosine(steps).flip(0)

    def guess(sigma):
        jacobian = true @ torch.linalg.inv(true + sigma**2 * eye)
        matrix, constant = jacobian.clone(), torch.zeros(f, dtype=torch.float64)
        matrix[na:] -= weight * jacobian[:na, na:].T @ jacobian[:na]
        constant[na:] = weight * jacobian[:na, na:].T @ given
        matrix[:na], constant[:na] = 0, given
        return matrix, constant

    def replaced(mean, spread, sigma):
        mean, spread = mean.clone(), spread.clone()
        mean[:na], spread[:na], spread[:, :na] = given, 0, 0
        spread[:na, :na] = sigma**2 * eye[:na, :na]
        return mean, spread

    mean, spread = torch.zeros(f, dtype=torch.float64), (1 + sigmas[0] ** 2) * eye
    for before, after in zip(sigmas[:-1], sigmas[1:], strict=True):
        mean, spread = replaced(mean, spread, before)
        (matrix, constant), ratio = guess(before), (after / before) ** 2
        moved = ratio * eye + (1 - ratio) * matrix
        mean, spread = moved @ mean + (1 - ratio) * constant, moved @ spread @ moved.T + (1 - ratio) * after**2 * eye
        for _ in range(corrector if after > 0 else 0):
            mean, spread = replaced(mean, spread, after)
            matrix, constant = guess(after)
            moved = (1 - delta / 2) * eye + delta / 2 * matrix
            mean, spread = moved @ mean + delta / 2 * constant, moved @ spread @ moved.T + delta * after**2 * eye
    return mean[na:], spread[na:, na:]


@pytest.mark.parametrize(("weight", "corrector"), [(0, 0), (0, 1), (2, 0), (2, 1)])
def test_the_sampler_does_what_the_formulas_say(found, weight, corrector):
    mean, spread = recursion(weight, corrector, STEPS)
    true_mean, true = truth(given_frames())
    got = found[weight, corrector]
    assert got.mean == pytest.approx(float((mean - true_mean).norm()), rel=1e-6)
    assert got.spread == pytest.approx(float((spread - true).norm() / true.norm()), rel=1e-6)


def test_guidance_is_better_than_replacement_and_best_with_the_corrector(found):
    """Section 3.1 of the paper: replacement is incoherent, a weight above 1 helps, and most so with predictor-corrector sampling."""
    for measure in ("mean", "spread", "jump"):
        values = {key: getattr(row, measure) for key, row in found.items()}
        assert values[0, 0] == max(values.values()), "replacement is worst"
        for weight in (0, 1, 2):
            assert values[weight, 1] < values[weight, 0], "the corrector helps"
        for corrector in (0, 1):
            assert values[2, corrector] < values[1, corrector] < values[0, corrector], "guidance helps, more of it more"
    means = {key: row.mean for key, row in found.items()}
    assert means[2, 1] == min(means.values())
    assert found[10, 0].jump < found[2, 1].jump / 2, "too much of it makes frames alike"


def test_the_paper_s_order_at_its_own_number_of_steps():
    best, without, replaced = conditional(2, 1), conditional(2, 0), conditional(0, 0)
    assert (best.mean, best.spread, best.jump) == pytest.approx((0.51, 0.06, 0.133), rel=0.1)
    assert (without.mean, without.spread, without.jump) == pytest.approx((1.07, 0.13, 0.188), rel=0.1)
    assert (replaced.mean, replaced.spread, replaced.jump) == pytest.approx((2.71, 0.60, 0.757), rel=0.1)


def test_more_noise_per_step_and_the_corrector_bring_the_covariance_nearer():
    found = gauss.unconditional(steps=STEPS)
    plain, noisy, corrected = (found[key].exact for key in ((0.0, 0), (0.3, 0), (0.0, 1)))
    assert corrected < noisy < plain
    assert all(row.low < row.drawn < row.high for row in found.values())


def test_the_same_clips_drawn_again_have_the_reported_error():
    for key, row in gauss.unconditional().items():
        assert row.drawn == pytest.approx(gauss.UNCONDITIONAL[key], rel=0.1)


@pytest.mark.parametrize(("schedule", "lag"), [("full_sequence", 0), ("pyramid", 1), ("autoregressive", 99), ("trapezoid", 1)])
def test_every_schedule_converges_with_its_steps(schedule, lag):
    """To the truth, with the square of the steps: quarter the step, a sixteenth of the distance, or a little more."""
    away = [
        distance(made_by(NoiseLevels.named(schedule, 6, steps, lag=min(lag, steps)), 0.9), covariance(6, 0.9))
        for steps in (8, 32)
    ]
    assert 0 < away[1] < away[0] / 8


def test_a_pyramid_is_nearer_than_a_full_sequence_of_as_many_steps():
    away = {
        name: distance(made_by(NoiseLevels.named(name, 12, 8), 0.9), covariance(12, 0.9)) for name in ("pyramid", "full_sequence")
    }
    assert (away["full_sequence"], away["pyramid"]) == pytest.approx((0.0443, 0.0239), rel=0.1)


def test_partitions_cost_and_lookahead_pays_only_with_them():
    """FIFO-Diffusion with an exact model: partitions forget what is far back; lookahead mends some of it, and harms a single one."""
    rows = {
        (n, ahead): queue(n, lookahead=ahead, rho=0.9, window=8, passes=24 + 8 * n) for n in (1, 4) for ahead in (False, True)
    }
    away = {key: distance(made, covariance(len(made), 0.9)) for key, made in rows.items()}
    assert away[1, False] < away[1, True] and away[1, False] < away[4, False] and away[4, True] < away[4, False]


def test_windows_of_an_extension_meet_as_smoothly_as_frames_inside():
    meet, inside = extended(2, 2, delta=0.3, steps=48, frames=32)
    assert meet / inside == pytest.approx(1, abs=0.1)
    replaced, elsewhere = extended(0, 0, steps=24, frames=32)
    assert replaced / elsewhere > 1.5
