"""Loss weights and noise levels of training against their definitions: limits, test vectors, distributions written out."""

import itertools
import math
from collections import Counter

import pytest
import torch
from pack.modules.train import levels
from pack.modules.train.levels import LEVELS
from pack.modules.train.weights import WEIGHTS, WeightSettings, loss_weights

PREDICTIONS = ("eps", "v", "x0")


def sigmas(*snr):
    return torch.tensor([snr], dtype=torch.float64) ** -0.5


def random_sigma(b=4, f=7):
    return torch.rand(b, f, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4 + 0.02


def in_x0_units(weight, sigma, prediction):
    """What the weight is for the error of the clean frame."""
    snr = sigma**-2
    return weight * {"eps": snr, "v": snr + 1, "x0": 1}[prediction]


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("cap", [1.0, 5.0])
def test_min_snr_is_one_weight_whatever_is_predicted(prediction, cap):
    sigma = random_sigma()
    weight = loss_weights(sigma, prediction, WeightSettings("min_snr", cap=cap))
    torch.testing.assert_close(in_x0_units(weight, sigma, prediction), (sigma**-2).clamp_max(cap))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_snr_is_uniform_for_eps(prediction):
    sigma = random_sigma()
    weight = loss_weights(sigma, prediction, WeightSettings("snr"))
    torch.testing.assert_close(in_x0_units(weight, sigma, prediction), sigma**-2)
    assert (loss_weights(sigma, prediction, WeightSettings("uniform")) == 1).all()


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_capped_v_is_uniform_for_v_up_to_its_cap(prediction):
    """Whatever is predicted, the clean frame's squared error counts 1 + 1/sigma^2, at most the cap."""
    sigma = random_sigma()
    weight = loss_weights(sigma, prediction, WeightSettings("capped_v", cap=5.0))
    torch.testing.assert_close(in_x0_units(weight, sigma, prediction), (1 + sigma**-2).clamp(max=5.0))
    assert (1 + sigma**-2 > 5).any() and (1 + sigma**-2 < 5).any()


def test_the_test_vector_of_fused_snr():
    """SNR 10, 1, 0.1 at cap 5 and decay 0.5, worked out by hand."""
    sigma = sigmas(10.0, 1.0, 0.1)
    settings = WeightSettings("fused_snr", cap=5.0, decay=0.5)
    fused = torch.tensor([[1.0, 0.6, 0.314]], dtype=torch.float64)
    whole = torch.tensor([[2.0, 0.6, 0.314]], dtype=torch.float64)  # only the first frame is beyond the cap
    torch.testing.assert_close(loss_weights(sigma, "x0", settings), 5 * fused)
    torch.testing.assert_close(loss_weights(sigma, "eps", settings), fused / whole)
    torch.testing.assert_close(loss_weights(sigma, "v", settings), 5 * fused / (5 * whole + 1))


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("causal", [True, False])
def test_fused_snr_without_memory_is_min_snr(prediction, causal):
    sigma = random_sigma()
    plain = loss_weights(sigma, prediction, WeightSettings("min_snr"))
    bare = loss_weights(sigma, prediction, WeightSettings("fused_snr", decay=0.0, causal=causal))
    torch.testing.assert_close(bare, plain)
    faint = loss_weights(sigma, prediction, WeightSettings("fused_snr", decay=1e-7, causal=causal))
    torch.testing.assert_close(faint, plain, atol=1e-5, rtol=1e-5)


def test_fused_snr_looks_back_unless_the_model_sees_both_ways():
    noisy = sigmas(*[0.01] * 4)
    settings = WeightSettings("fused_snr", decay=0.5)
    both = WeightSettings("fused_snr", decay=0.5, causal=False)
    known_first, known_last = noisy.clone(), noisy.clone()
    known_first[0, 0] = known_last[0, -1] = 0.1
    base = loss_weights(noisy, "x0", settings)
    assert (loss_weights(known_first, "x0", settings)[0, 1:] > base[0, 1:]).all()
    torch.testing.assert_close(loss_weights(known_last, "x0", settings)[0, :-1], base[0, :-1])
    two_sided = loss_weights(known_last, "x0", both)
    assert (two_sided[0, :-1] > loss_weights(noisy, "x0", both)[0, :-1]).all()
    torch.testing.assert_close(two_sided, loss_weights(known_first, "x0", both).flip(1))


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_pure_noise_has_a_finite_weight(kind, prediction):
    weight = loss_weights(torch.full((1, 3), math.inf), prediction, WeightSettings(kind))
    assert torch.isfinite(weight).all()
    if prediction == "eps" and kind != "capped_v":  # where the noise is all there is, its error says nothing of v
        assert (weight == 1).all()


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_weights_are_weights(kind, prediction):
    weight = loss_weights(torch.logspace(-3, 3, 50)[None], prediction, WeightSettings(kind))
    assert weight.shape == (1, 50)
    assert torch.isfinite(weight).all()
    assert (weight >= 0).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "none"}, "the loss weight 'none' is not known: choose one of uniform, snr, min_snr, capped_v, fused_snr"),
        ({"cap": 0.0}, "cap is 0.0"),
        ({"decay": 1.0}, "decay is 1.0"),
    ],
)
def test_settings_that_cannot_be_meant(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        WeightSettings(**change)


def test_levels_that_have_no_weight():
    with pytest.raises(ValueError, match="leave that frame out of the loss"):
        loss_weights(torch.tensor([[0.0, 1.0]]), "v", WeightSettings())
    with pytest.raises(ValueError, match="no loss weights for the prediction 'flow'"):
        loss_weights(torch.ones(1, 2), "flow", WeightSettings())


# Noise levels of training clips


def draw(name, clips=64, frames=8, top=1000, seed=0):
    return LEVELS[name](clips, frames, top, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("frames", [1, 2, 9])
@pytest.mark.parametrize("top", [1, 10, 1000])
def test_every_way_gives_levels_of_the_table(name, frames, top):
    drawn = draw(name, 16, frames, top)
    assert drawn.shape == (16, frames)
    assert drawn.dtype == torch.int64
    assert drawn.min() >= 0
    assert drawn.max() < top
    assert torch.equal(drawn, draw(name, 16, frames, top))


def test_fopp_draws_what_its_definition_says():
    """Every non-decreasing row of three levels of four, with the chance that a random pivot and a uniform completion give it."""
    top, frames, count = 4, 3, 60_000
    drawn = Counter(map(tuple, draw("fopp", count, frames, top).tolist()))
    chances = {}
    for row in itertools.combinations_with_replacement(range(top), frames):
        ways = [
            math.comb(level + frame, frame) * math.comb(top - 1 - level + frames - 1 - frame, frames - 1 - frame)
            for frame, level in enumerate(row)
        ]
        chances[row] = sum(1 / way for way in ways) / (frames * top)
    assert sum(chances.values()) == pytest.approx(1)
    assert set(drawn) == set(chances)
    assert max(abs(drawn[row] / count - chance) for row, chance in chances.items()) < 0.006


def test_fopp_has_the_published_means():
    """Four frames at a thousand levels: 264, 428, 573, 739 where independent levels have 500."""
    means = draw("fopp", 20_000, 4).double().mean(0)
    assert (means - torch.tensor([262.0, 428.0, 573.0, 739.0])).abs().max() < 8
    assert (draw("fopp", 500, 32).diff(dim=1) >= 0).all()


def test_sorted_levels_are_independent_ones_in_order():
    assert torch.equal(draw("sorted"), draw("independent").sort(dim=1).values)


def test_blocks_share_a_level():
    drawn = draw("blocks", 400, 8)
    for row in drawn.tolist():
        lengths = [len(list(group)) for _, group in itertools.groupby(row)]
        assert lengths[0] in (1, 2, 3, 4) or len(set(row)) < 2  # two blocks may draw the same level
    changed = (drawn.diff(dim=1) != 0).double().mean(0)
    assert changed[0] < changed[3] < 1, "blocks of one frame change everywhere, those of four after the fourth only"
    assert changed[3].item() == pytest.approx(0.75, abs=0.08)


def test_keyframe_aware_keeps_some_frames_nearly_clean():
    drawn = draw("keyframe_aware", 2000, 8)
    level = drawn.max(dim=1, keepdim=True).values
    near = drawn < level
    count = near.sum(1)
    assert (drawn[near] < 50).all()
    assert (count <= 4).all(), "no keyframe is noisier than the rest: half the frames at least are at the highest level"
    assert torch.equal(torch.where(near, level, drawn), level.expand(-1, 8)), "all the others are at one level"
    noisy = level[:, 0] >= 50
    assert count[noisy].min() == 1
    assert count[noisy].max() == 4
    assert (drawn[near] == 0).double().mean() > 0.4
    assert near[noisy].double().mean(0).std() < 0.05, "keyframes are anywhere"


def test_between_keyframes_levels_grow_with_the_distance():
    drawn = draw("between", 400, 16)
    assert torch.equal(drawn[:200], draw("keyframe_aware", 200, 16)), "half the clips"
    slopes = []
    for row in drawn[200:]:
        keys = (row == 0).nonzero().flatten()
        assert len(keys) >= 1
        away = (torch.arange(16) - keys[:, None]).abs().amin(0)
        for distance in away.unique():
            assert len(row[away == distance].unique()) == 1, "frames equally far from keyframes are equally noisy"
        by_distance = torch.stack([row[away == distance][0] for distance in away.unique()])
        assert (by_distance.diff() >= 0).all()
        slopes.append(by_distance.diff().max().item() if len(by_distance) > 1 else 0)
    assert min(slopes) < 200 < 900 < max(slopes), "gentle tents and steep ones"
    assert drawn[200:].double().mean() > 300, "and little of them is clean all over"


def test_the_first_frame_is_known_and_the_rest_share_a_level():
    drawn = draw("first_frame_known")
    assert (drawn[:, 0] == 0).all()
    assert (drawn[:, 1:] == drawn[:, 1:2]).all()
    assert len(drawn[:, 1].unique()) > 30


def test_the_rows_that_were_there_first_are_as_they_were():
    """A run that was begun with them resumes bit for bit."""
    assert list(LEVELS)[:4] == ["forcing", "independent", "ramps", "shared"]
    assert draw("forcing", 4, 3, seed=1).tolist() == levels.forcing(4, 3, 1000, torch.Generator().manual_seed(1)).tolist()
    assert draw("independent", 1, 4).tolist() == [[44, 239, 933, 760]]
