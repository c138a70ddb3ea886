"""Temporal losses against closed forms: the article's example, eigenvalues, and the same sums written out frame by frame."""

import math

import pytest
import torch
from pack.modules.train import losses
from pack.modules.train.losses import LOSSES, LossSettings, clip_losses, converted, start_frames

F = 16


def clip(*values):
    """A clip of one pixel whose error is these numbers."""
    return torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1, 1)


def drawn(b=3, f=F, seed=0):
    return torch.randn(b, f, 2, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss(e, kind, at=0, weight=None, images=0, **numbers):
    weight = e.new_ones(e.shape[:2]) if weight is None else weight
    return clip_losses(e, weight, torch.as_tensor(at).expand(len(e)), LossSettings(kind, **numbers), images)


def hessian(kind, start, frames, **numbers):
    """Of the loss as a function of one pixel's errors over time, in units of that of ``mse``."""
    rows = torch.autograd.functional.hessian(
        lambda e: loss(e.view(1, -1, 1, 1, 1), kind, start, **numbers).sum(), torch.zeros(frames, dtype=torch.float64)
    )
    return rows * frames / 2


# The article's example: three frames that should be 128


@pytest.mark.parametrize(("shown", "expected"), [((129, 129, 129), 1 / 3), ((127, 129, 127), 3.0)])
def test_the_articles_example(shown, expected):
    e = clip(*(value - 128 for value in shown))
    over_starts = sum(loss(e, "chain", s) for s in range(3)) / 3
    assert over_starts.item() == pytest.approx(expected, abs=1e-12)
    assert loss(e, "mse").item() == pytest.approx(1.0)


def test_differences_walked_outwards_from_the_start_frame_are_the_same():
    e = drawn()
    for s in range(F):
        outwards = torch.cat([e[:, s : s + 1], e[:, s + 1 :] - e[:, s:-1], e[:, :s] - e[:, 1 : s + 1]], dim=1)
        torch.testing.assert_close(loss(e, "chain", s), outwards.square().flatten(1).mean(1))


def test_suffix_is_the_chain_of_what_follows():
    e = drawn()
    for s in (0, 5, F - 1):
        torch.testing.assert_close(loss(e, "suffix", s), loss(e[:, s:], "chain", 0))


def test_each_clip_has_its_own_start():
    e, starts = drawn(), torch.tensor([0, 7, 15])
    for kind in ("chain", "suffix", "debiased"):
        each = torch.stack([loss(e[i : i + 1], kind, s)[0] for i, s in enumerate(starts.tolist())])
        torch.testing.assert_close(clip_losses(e, e.new_ones(3, F), starts, LossSettings(kind)), each)


def test_start_frames_are_all_drawn_and_repeat_with_the_seed():
    g = torch.Generator()
    first, second = (start_frames(2000, 4, g.manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    counts = torch.bincount(first, minlength=4)
    assert len(counts) == 4
    assert (counts - 500).abs().max() < 100


# What each weighs


def test_squared_differences_have_the_eigenvalues_of_a_chain():
    rows = hessian("general", 0, F, rec=0.0, diff=1.0) * (F - 1) / F
    wanted = 4 * torch.sin(math.pi * torch.arange(F, dtype=torch.float64) / (2 * F)) ** 2
    torch.testing.assert_close(torch.linalg.eigvalsh(rows), wanted, atol=1e-12, rtol=0)


def test_the_chain_over_all_starts_weighs_from_one_frame_to_four():
    values = torch.linalg.eigvalsh(sum(hessian("chain", s, F) for s in range(F)) / F)
    assert values[0].item() == pytest.approx(1 / F)
    assert values[-1].item() == pytest.approx(1 / F + 4 * math.cos(math.pi / (2 * F)) ** 2)


@pytest.mark.parametrize("kind", ["blend", "second_difference"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("frames", [2, 3, 16, 33])
def test_blends_are_never_steeper_than_squared_error(kind, share, frames):
    values = torch.linalg.eigvalsh(hessian(kind, 0, frames, share=share))
    assert values[-1] <= 1 + 1e-12
    assert values[0].item() == pytest.approx(1 - share)


def test_a_full_blend_weighs_alternation_as_squared_error_does():
    e = clip(*([1, -1] * 500))
    assert loss(e, "blend", share=1.0).item() == pytest.approx(1.0, abs=2e-3)
    assert loss(e, "second_difference", share=1.0).item() == pytest.approx(1.0, abs=3e-3)
    ramp = clip(*range(20))
    assert loss(ramp, "second_difference", share=1.0).item() == 0


def test_debiased_is_the_published_sum():
    """Written as the authors' code has it: on prediction and target, not on their difference."""
    beta, s = 0.7, 5
    prediction, target = drawn(seed=1), drawn(seed=2)

    def phi(x):
        return (beta**2 + 1) ** 0.5 * x - beta * x[:, s : s + 1]

    published = (prediction - target).square().flatten(1).mean(1) + (phi(prediction) - phi(target)).square().flatten(1).mean(1)
    torch.testing.assert_close(loss(prediction - target, "debiased", s, beta=beta), published)


def test_debiased_forgives_what_all_frames_share():
    still = loss(clip(*[1.0] * 8), "debiased") - 1
    assert still.item() == pytest.approx((math.sqrt(2) - 1) ** 2)
    assert loss(clip(*[1.0] * 8), "debiased", beta=0.0).item() == pytest.approx(2.0)


def test_the_general_form_holds_the_others():
    e = drawn()
    torch.testing.assert_close(loss(e, "general"), loss(e, "mse"))
    chain = loss(e, "general", 4, rec=0.0, start=1 / F, diff=(F - 1) / F)
    torch.testing.assert_close(chain, loss(e, "chain", 4))
    second = (e[:, 2:] - 2 * e[:, 1:-1] + e[:, :-2]).square().flatten(1).mean(1)
    torch.testing.assert_close(loss(e, "general", rec=0.0, diff2=1.0), second)


# Weights


@pytest.mark.parametrize("kind", LOSSES)
def test_one_weight_for_all_frames_is_a_factor(kind):
    e = drawn()
    torch.testing.assert_close(loss(e, kind, 3, weight=e.new_full((3, F), 2.5)), 2.5 * loss(e, kind, 3))


@pytest.mark.parametrize("kind", LOSSES)
def test_a_frame_without_weight_changes_nothing(kind):
    e = drawn()
    weight = e.new_ones(3, F)
    weight[:, 9:] = 0
    other = e.clone()
    other[:, 9:] = 1e6
    torch.testing.assert_close(loss(e, kind, 3, weight), loss(other, kind, 3, weight))


def test_a_difference_counts_as_the_frame_that_is_known_least():
    e, weight = clip(0.0, 1.0, 0.0), torch.tensor([[4.0, 1.0, 9.0]], dtype=torch.float64)
    assert loss(e, "general", weight=weight, rec=0.0, diff=1.0).item() == 1.0
    assert losses.second_differences(e, weight).item() == 4.0


# Pictures after the clip


@pytest.mark.parametrize("kind", LOSSES)
def test_appended_pictures_have_an_error_and_no_differences(kind):
    e = drawn(f=7)
    together = loss(e, kind, 2, images=3)
    apart = (4 * loss(e[:, :4], kind, 2) + e[:, 4:].square().flatten(2).mean(2).sum(1)) / 7
    torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("kind", LOSSES)
def test_one_frame_is_no_clip_and_still_has_a_loss(kind):
    assert torch.isfinite(loss(drawn(f=1), kind)).all()


# Spaces


def errors(sigma):
    """The same wrong guess as an error of x0, of eps and of v."""
    x0, eps, wrong = drawn(seed=1), drawn(seed=2), drawn(seed=3)
    s = sigma[..., None, None, None]
    a, b = 1 / (1 + s**2).sqrt(), s / (1 + s**2).sqrt()
    z = a * x0 + b * eps
    guess = x0 + wrong
    eps_guess = (z - a * guess) / b
    return {"x0": wrong, "eps": eps_guess - eps, "v": (a * eps_guess - b * guess) - (a * eps - b * x0)}


@pytest.mark.parametrize("given", ["x0", "eps", "v"])
@pytest.mark.parametrize("wanted", ["x0", "eps", "v"])
def test_errors_convert_between_spaces(given, wanted):
    sigma = torch.rand(3, F, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 5 + 0.01
    found = errors(sigma)
    torch.testing.assert_close(converted(found[given], sigma, given=given, wanted=wanted), found[wanted])


def test_at_one_level_spaces_differ_by_a_factor():
    """So differences in x0 space are differences in eps space, reweighted, unless frames have levels of their own."""
    sigma = torch.full((3, F), 0.8, dtype=torch.float64)
    e = drawn()
    for wanted, factor in (("x0", 0.8**2), ("v", 1 + 0.8**2)):
        other = converted(e, sigma, given="eps", wanted=wanted)
        torch.testing.assert_close(loss(other, "chain", 2), factor * loss(e, "chain", 2))


def test_clean_frames_convert_where_there_is_a_limit():
    e, clean = drawn(1, 2), torch.zeros(1, 2, dtype=torch.float64)
    torch.testing.assert_close(converted(e, clean, given="eps", wanted="v"), e)
    assert (converted(e, clean, given="eps", wanted="x0").abs() < 1e-300).all()
    with pytest.raises(ValueError, match="sigma 0 has no noise"):
        converted(e, clean, given="x0", wanted="eps")


def test_the_loss_has_the_gradient_of_finite_differences():
    e = drawn(1, 5)
    for kind in LOSSES:
        assert torch.autograd.gradcheck(lambda x, kind=kind: loss(x, kind, 2).sum(), e.clone().requires_grad_(True))


# Bad input


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "nothing"}, "the loss 'nothing' is not known: choose one of mse, chain"),
        ({"share": 1.5}, "share is 1.5"),
        ({"beta": -1.0}, "beta is -1.0"),
        ({"diff2": math.nan}, "diff2 is nan"),
        ({"kind": "general", "rec": 0.0}, "all 0: give at least one term"),
        ({"space": "flow"}, "wanted in 'flow' space"),
    ],
)
def test_settings_that_cannot_be_meant(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        LossSettings(**change)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"start": torch.tensor([0, 0, 16])}, "start frames are .0, 0, 16.: each must be one of the clip's 16 frames"),
        ({"start": torch.tensor([0])}, "give one weight per frame and one start frame per clip"),
        ({"weight": torch.ones(3, 4)}, "give one weight per frame"),
        ({"images": 16}, "16 of 16 frames are said to be single pictures"),
    ],
)
def test_sizes_that_do_not_fit(given, sentence):
    values = {"e": drawn(), "weight": torch.ones(3, F), "start": torch.zeros(3, dtype=torch.long), "settings": LossSettings()}
    with pytest.raises(ValueError, match=sentence):
        clip_losses(**(values | given))


def test_spaces_that_are_not_known():
    with pytest.raises(ValueError, match="there is no 'flow' space: choose one of x0, eps, v"):
        converted(drawn(), torch.ones(3, F), given="eps", wanted="flow")
