"""Training on a model's own guesses, and on outlines that are wrong."""

import pytest
import torch
from pack.modules.data.shapes import MOST_COLOUR, clips
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.train.engine import Run
from pack.modules.train.native_methods import METHODS
from pack.modules.train.own_guesses import chosen_places, from_guesses
from pack.modules.train.sources import FromShapes
from tiny_training import SHORT, native, small

SCHEDULE = NoiseSchedule.named("cosine")


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_share_is_spread_over_the_places_however_they_are_cut_up(share):
    whole = chosen_places(range(16), share)
    assert whole.sum() == 16 * share
    assert torch.equal(whole, torch.cat([chosen_places(range(5), share), chosen_places(range(5, 16), share)]))


def made(guess, share, places=range(8), n=8):
    g = torch.Generator().manual_seed(1)
    shown, noise = torch.randn(2, n, 4, 3, 2, 2, generator=g)
    levels = torch.randint(0, 900, (n, 4), generator=g)
    noisy = shown + SCHEDULE.sigmas[levels][..., None, None, None] * noise
    chosen = slice(places.start, places.stop)
    part = from_guesses(guess, noisy[chosen], shown[chosen], levels[chosen], SCHEDULE, share=share, seed=3, step=7, places=places)
    return part, noisy[chosen], shown[chosen], levels[chosen]


def test_clips_that_are_not_chosen_are_as_they_were():
    part, noisy, _, _ = made(lambda x, sigma, told: torch.zeros_like(x), 0.5)
    chosen = chosen_places(range(8), 0.5)
    assert torch.equal(part[~chosen], noisy[~chosen])
    assert not torch.isclose(part[chosen], noisy[chosen]).flatten(1).all(1).any()
    assert torch.equal(made(lambda x, sigma, told: x, 0.0)[0], noisy)


def test_it_is_a_step_of_a_sampler_down_to_the_level():
    """From a network that knows the truth nothing but noise of the right size is left above the clip; the noise is shown with it."""
    seen = []

    def knows(x, sigma, told):
        seen.append((x, sigma, told))
        return truth

    truth = made(lambda x, sigma, told: x, 1.0, range(32), 32)[2]
    part, _, shown, levels = made(knows, 1.0, range(32), 32)
    (noisier, sigma, told) = seen[0]
    now = SCHEDULE.sigmas[levels]
    assert (sigma > now).all() and (noisier - shown).std() > (part - shown).std()
    left = (part - shown) / now[..., None, None, None]
    assert left.std().item() == pytest.approx(1, abs=0.1)
    carried = [torch.allclose(left[i], ((noisier - shown) / sigma[..., None, None, None])[i], atol=1e-3) for i in range(32)]
    assert any(carried) and not all(carried), "some clips keep the noise that is left, others get fresh noise"
    assert told.any() and not told.all()


def test_what_is_made_hangs_on_the_place_alone():
    guess = lambda x, sigma, told: 0.5 * x * told[:, None, None, None, None]  # noqa: E731
    whole = made(guess, 1.0)[0]
    assert torch.allclose(whole[3:6], made(guess, 1.0, range(3, 6))[0])


def test_outlines_are_wrong_where_they_are_asked_to_be_and_shapes_count_more():
    info = small()
    plain, wrong = FromShapes(info, 8, 5)(2, range(8)), FromShapes(info, 8, 5, wrong_outlines=0.75)(2, range(8))
    assert torch.equal(plain.clips, wrong.clips) and torch.equal(plain.labels, wrong.labels)
    shown, area = wrong.extra["shown"], wrong.extra["area"]
    apart = (shown != wrong.clips).flatten(1).any(1)
    assert apart.any() and not apart.all()
    assert torch.allclose(area.mean(dim=(1, 2, 3, 4)), torch.ones(8)) and area.min() < 1 < area.max()
    part = FromShapes(info, 8, 5, wrong_outlines=0.75)(2, range(3, 5))
    assert torch.equal(part.extra["shown"], shown[3:5]) and torch.equal(part.extra["area"], area[3:5])


def test_another_outline_changes_the_picture_and_nothing_else():
    true, other = clips(4, 3, 1), clips(4, 3, 1, further=torch.tensor([0, 1, 2, 3]))
    assert torch.equal(true.frames[0], other.frames[0]) and not torch.equal(true.frames[1], other.frames[1])
    assert torch.equal(true.labels, other.labels) and torch.equal(true.centre, other.centre)
    grey = (true.frames.amax(2) - true.frames.amin(2)) / MOST_COLOUR
    assert grey.amin() < 0.01 and grey.amax() > 0.95


def test_a_run_with_both_trains_and_asks_for_the_truth():
    info = small()
    source = FromShapes(info, SHORT.batch, SHORT.seed, wrong_outlines=1.0)
    task = native(info, source=source, own_guesses=0.5, dropout=0.0)
    plain = native(info, own_guesses=0.0, dropout=0.0)
    losses = [step.loss for step in Run(task, SHORT).steps()]
    assert all(loss > 0 for loss in losses) and len(losses) == SHORT.steps
    assert task.losses(0, range(2)).tolist() != plain.losses(0, range(2)).tolist()
    assert task.description()["objective"]["own_guesses"] == 0.5


def test_clips_without_words_are_shown_as_they_are():
    info = small()
    told = [FromShapes(info, SHORT.batch, SHORT.seed, wrong_outlines=share) for share in (0.0, 1.0)]
    seen = []
    for source in told:
        task = native(info, source=source, dropout=1.0)
        network = task.denoising.network

        def spy(x, sigma, batch, network=network):
            seen.append(x)
            return network(x, sigma, batch)

        task.denoising.network = spy
        task.losses(0, range(2))
    assert torch.equal(seen[0], seen[1])


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"own_guesses": 1.5}, "own_guesses is 1.5: it must lie between 0 and 1"),
        ({"wrong_outlines": -0.1}, "wrong_outlines is -0.1: it must lie between 0 and 1"),
        ({"own_guesses": 0.5, "method": "teacher"}, "own_guesses is 0.5 with the method teacher"),
        ({"own_guesses": 0.5, "method": "full", "hints": "article"}, "own_guesses is 0.5 with hints"),
    ],
)
def test_what_cannot_be_is_one_sentence(choices, sentence):
    with pytest.raises(ValueError, match=sentence):
        native(**choices)


def test_pictures_have_no_outlines_to_be_wrong():
    with pytest.raises(ValueError, match="wrong_outlines is 0.5 with images"):
        FromShapes(small(), 2, 0, images=1, wrong_outlines=0.5)


def test_every_method_but_the_one_with_the_truth_beside_it_takes_guesses():
    for name, method in METHODS.items():
        if not method.beside:
            native(own_guesses=0.5, method=name)
