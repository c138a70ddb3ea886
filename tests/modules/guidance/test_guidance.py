"""History guidance: which branches a call is made into, and what comes out, against the exact answers of a Gaussian world."""

from dataclasses import replace

import pytest
import torch
from pack.modules.guidance.branches import Branch, chosen, fractional, read_branches, temporal, vanilla
from pack.modules.guidance.history import Composed, HistoryGuidance, compose, needs_history, on_model, variants_of
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.sampling.context_noise import NO_NOISE, ContextNoise
from pack.modules.sampling.forcing import Forcing
from pack.modules.sampling.job import Job
from pack.modules.sampling.model_view import View, plain
from pack.modules.sampling.noise_levels import NoiseLevels

FRAMES, RHO, TOP = 8, 0.9, 1e6
SHAPE = (2, 3)
TABLE = NoiseSchedule.named("cosine")


def covariance(ids):
    """Of an autoregressive process: every pixel of a clip is one draw."""
    times = ids.double()
    return RHO ** (times[:, None] - times[None, :]).abs()


def exact(view):
    """The best guess of the clean frames, each with noise of its own level: what a perfect model of that world answers."""
    clips = view.x.double().unflatten(0, (view.clips, len(view.ids)))
    prior = covariance(view.ids)
    guesses = [
        torch.einsum("ij,j...->i...", prior @ torch.linalg.inv(prior + torch.diag(sigma.double() ** 2)), clip)
        for clip, sigma in zip(clips, view.sigma.view(view.clips, -1), strict=True)
    ]
    return torch.cat(guesses).to(view.x)


def conditional(view, known, sigma):
    """The same by conditioning on fewer frames: those in flight, and ``known`` ones that have noise of ``sigma``."""
    rows = [i for i in range(len(view.ids)) if not view.finished[i] or int(view.ids[i]) in known]
    levels = torch.tensor([sigma if view.finished[i] else float(view.sigma[i]) for i in rows]).double()
    prior = covariance(view.ids)
    gain = prior[:, rows] @ torch.linalg.inv(prior[rows][:, rows] + torch.diag(levels**2))
    return torch.einsum("ij,j...->i...", gain, shown(view, sigma)[rows])


def shown(view, sigma):
    """The frames with the noise that ``ContextNoise(sigma)`` adds to finished ones."""
    return replace(view, context_noise=ContextNoise(sigma)).shown().x.double()


def view(finished=5, frames=FRAMES, context_noise=NO_NOISE):
    """The first frames finished, the others noisier and noisier."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(frames, *SHAPE, generator=g, dtype=torch.float64)
    done = torch.arange(frames) < finished
    sigma = torch.where(done, 0.0, (torch.arange(frames) - finished + 1) * 0.7).double()
    return View(
        x + sigma[:, None, None] * torch.randn(x.shape, generator=g),
        sigma,
        torch.arange(frames) + 3,
        done,
        top=TOP,
        context_noise=context_noise,
    )


def guided(branches, **options):
    return HistoryGuidance(branches, **options).on(lambda level: 2.0 * level)


def in_flight(view, x):
    return x[~view.finished]


# What is combined


@pytest.mark.parametrize("hidden", ["noise", "absent"])
@pytest.mark.parametrize(
    ("branches", "parts"),
    [
        (vanilla(1.5), [(1.5, range(3, 8), 0.0), (-0.5, (), 0.0)]),
        (vanilla(0.25), [(0.25, range(3, 8), 0.0), (0.75, (), 0.0)]),
        (fractional(3.0, 0.4), [(1.0, range(3, 8), 0.0), (2.0, range(3, 8), 0.8), (-2.0, (), 0.0)]),
        (vanilla(2.0, 0.1), [(2.0, range(3, 8), 0.2), (-1.0, (), 0.0)]),
        (temporal(["last 2", "0..4"], [0.7, 0.9]), [(0.7, (6, 7), 0.0), (0.9, (3, 4), 0.0), (-0.6, (), 0.0)]),
    ],
)
def test_guesses_add_up_to_the_combination_of_exact_conditionals(branches, parts, hidden):
    """Each branch is conditioning on its part of the history; so is the sum of scores, as a score is ``(guess - x) / sigma^2``."""
    given = view()
    guess = in_flight(given, guided(branches, hidden=hidden)(exact, given))
    expected = sum(weight * conditional(given, known, sigma) for weight, known, sigma in parts)
    torch.testing.assert_close(guess, in_flight(given, expected), rtol=1e-4, atol=1e-4)
    x, sigma = in_flight(given, given.x), in_flight(given, given.sigma)[:, None, None]
    scores = sum(weight * (in_flight(given, conditional(given, known, level)) - x) / sigma**2 for weight, known, level in parts)
    torch.testing.assert_close(guess, x + sigma**2 * scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("context_noise", [NO_NOISE, ContextNoise(0.3), ContextNoise(0.3, "label")])
def test_weight_1_is_no_guidance_bit_for_bit(context_noise):
    given = view(context_noise=context_noise)
    for branches in (vanilla(1.0), fractional(1.0, 0.5), read_branches("all:0.25, all:0.75")):
        assert torch.equal(guided(branches)(exact, given), plain(exact, given))


def test_the_newest_frame_says_it_all_where_the_process_has_no_longer_memory():
    given = view()
    torch.testing.assert_close(
        in_flight(given, guided(temporal(["last 1"], [1.0]))(exact, given)), in_flight(given, exact(given)), rtol=1e-4, atol=1e-4
    )
    oldest = guided(temporal(["first 1"], [1.0]))(exact, given)
    assert (in_flight(given, oldest) - in_flight(given, exact(given))).abs().max() > 0.1


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_fresh_noise_is_not_multiplied(eta):
    """A model that does not look at the history gives the same clip under any guidance, also where steps add noise."""

    def alone(view):
        return view.x / (1 + view.sigma[:, None, None] ** 2)

    clips = [finish(roll(alone, guide=guide, eta=eta)) for guide in (plain, guided(vanilla(3.0)), guided(fractional(2.0, 0.5)))]
    for clip in clips[1:]:
        torch.testing.assert_close(clip, clips[0], rtol=1e-4, atol=1e-4)


def test_a_take_holds_on_to_its_history_more_firmly():
    """The guess without history is the mean, so a weight above 1 is a stronger pull towards what the history says."""
    known = torch.full((4, *SHAPE), 1.5)
    means = [finish(roll(exact, guide=guided(vanilla(weight)), known=known)).float()[4:].mean() for weight in (0.5, 1.0, 2.0)]
    assert means[0] + 0.1 < means[1] < means[2] - 0.1


def roll(denoise, *, guide, known=None, eta=0.0, frames=10, steps=8):
    count = 0 if known is None else len(known)
    latent = torch.zeros(frames, *SHAPE)
    latent[:count] = 0.0 if known is None else known
    levels = NoiseLevels.named("pyramid", frames, steps, lag=2, known=count)
    return Forcing(levels, 8, eta)(Job(denoise, latent, TABLE.levels(steps), seed=1, guide=guide))


def finish(steps):
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


# Into what a call is made


class Model:
    """Answers exactly, and remembers what it was shown."""

    def __init__(self):
        self.views = []

    def __call__(self, view):
        self.views.append(view)
        return exact(view)


@pytest.mark.parametrize(
    ("branches", "options", "variants"),
    [
        (vanilla(1.5), {}, [2]),
        (fractional(2.0, 0.5), {}, [3]),
        (fractional(2.0, 0.5), {"branch_batch": 2}, [2, 1]),
        (fractional(2.0, 0.5), {"branch_batch": 1}, [1, 1, 1]),
        (vanilla(1.0), {}, [1]),
        (read_branches("last 9:0.5, all:0.7"), {}, [2]),  # both are the whole history here
        (read_branches("last 9:0.5, all:0.5"), {}, [1]),
        (read_branches("none:1"), {}, [1]),
        (vanilla(1.5), {"hidden": "absent"}, [1, 1]),
        (read_branches("all:2, all@0.5:-1, none:0.5, last 1@0.2:-0.5"), {"hidden": "absent"}, [2, 1, 1]),
    ],
)
def test_calls_and_variants(branches, options, variants):
    model, given = Model(), view()
    guide = guided(branches, **options)
    guide(model, given)
    assert [shown.clips for shown in model.views] == variants
    assert sum(variant.weight for variant in guide.variants(given)) == pytest.approx(1)
    names = [name for shown in model.views for name in shown.names]
    assert len(names) == len(set(names)) == sum(variants)
    assert max(variants) <= variants_of(guide)


@pytest.mark.parametrize("hidden", ["noise", "absent"])
def test_branches_give_the_same_together_and_one_by_one(hidden):
    given = view(context_noise=ContextNoise(0.2))
    branches = read_branches("all:1.5, all@0.3:0.5, last 2:0.25")
    together = guided(branches, hidden=hidden)(exact, given)
    for size in (1, 2, 3):
        torch.testing.assert_close(guided(branches, hidden=hidden, branch_batch=size)(exact, given), together, rtol=0, atol=1e-12)


def test_where_nothing_is_finished_there_is_one_call():
    model, given = Model(), view(finished=0)
    assert torch.equal(guided(fractional(4.0))(model, given), exact(given))
    assert [shown.clips for shown in model.views] == [1]


def test_what_the_variants_show():
    model, given = Model(), view(context_noise=ContextNoise(0.2, "noise"))
    guided(read_branches("all:1, last 2@0.5:0.5, all@0.05:0.5"))(model, given)
    (shown,) = model.views
    assert shown.clips == 3, "a level below the sampler's own is the sampler's own"
    own, part, nothing = shown.sigma.view(3, -1)
    torch.testing.assert_close(own[:5], torch.full((5,), 0.2).double())
    torch.testing.assert_close(part[:5], torch.tensor([TOP, TOP, TOP, 1.0, 1.0]).double())
    torch.testing.assert_close(nothing[:5], torch.full((5,), TOP).double())
    for row in shown.sigma.view(3, -1):
        torch.testing.assert_close(row[5:], given.sigma[5:])
    for clip in shown.x.view(3, FRAMES, *SHAPE):
        assert torch.equal(clip[5:], given.x[5:])
    first, last = shown.x.view(3, FRAMES, *SHAPE)[0], replace(given, context_noise=ContextNoise(0.2, "noise")).shown().x
    assert torch.equal(first, last)


def test_a_label_stays_a_label_and_a_level_is_noise():
    model, given = Model(), view(context_noise=ContextNoise(0.2, "label"))
    guided(read_branches("all:1, all@0.5:1"))(model, given)
    clips = model.views[0].x.view(3, FRAMES, *SHAPE)
    assert torch.equal(clips[0][:5], given.x[:5])
    assert (clips[1][:5] - given.x[:5]).abs().min() > 0


def test_absent_frames_are_not_shown_and_times_follow():
    model, given = Model(), replace(view(), times=torch.arange(FRAMES) + 100)
    guided(read_branches("last 2:2"), hidden="absent")(model, given)
    shown = {tuple(call.ids.tolist()): call for call in model.views}
    assert set(shown) == {(6, 7, 8, 9, 10), (8, 9, 10)}
    assert shown[8, 9, 10].times.tolist() == [105, 106, 107]
    assert not shown[8, 9, 10].finished.any()


def test_the_clip_is_not_touched():
    given = view()
    copy = given.x.clone()
    guided(fractional(3.0, 0.5))(exact, given)
    assert torch.equal(given.x, copy)


@pytest.mark.parametrize(
    ("frames", "finished", "expected"),
    [
        ("all", [3, 4, 9], {3, 4, 9}),
        ("none", [3, 4, 9], set()),
        ("last 2", [3, 4, 9], {4, 9}),
        ("last 0", [3], set()),
        ("first 2", [3, 4, 9], {3, 4}),
        ("FIRST2", [3, 4, 9], {3, 4}),
        ("last 7", [3, 4], {3, 4}),
        ("4", [3, 4, 9], {4}),
        ("-1", [3, 4, 9], {9}),
        ("-4", [3, 4, 9], set()),
        ("-9..-2", [3, 4, 9], {3, 4}),
        ("0..3 + 9", [3, 4, 9], {3, 9}),
        ("4..", [3, 4, 9], {4, 9}),
        ("..-2", [3, 4, 9], {3, 4}),
        ("0..-2", [3, 4, 9], {3, 4}),
        ("all", [], set()),
        ("-3..-1", [], set()),
    ],
)
def test_which_frames_are_meant(frames, finished, expected):
    assert chosen(frames, finished) == expected


def test_branches_are_read():
    assert read_branches("all@0:1.5, none:-0.5") == (Branch(1.5), Branch(-0.5, 0.0, "none"))
    assert read_branches(" last 4 @ 0.8 : 2\n0..3+8:.5,") == (Branch(2.0, 0.8, "last 4"), Branch(0.5, 0.0, "0..3+8"))


# Several guides


def test_history_guidance_is_innermost_wherever_it_stands_in_the_chain():
    seen = []

    def doubled(denoise, view):
        seen.append(view.context_noise)
        return 2 * denoise(view)

    def raised(denoise, view):
        return denoise(view) + 1

    given, history = view(context_noise=ContextNoise(0.3)), guided(vanilla(2.0))
    expected = 2 * history(exact, given) + 1
    for chain in ([history, doubled, raised], [doubled, history, raised], [doubled, None, raised, history]):
        torch.testing.assert_close(compose(chain)(exact, given), expected)
    assert seen == [ContextNoise(0.3)] * 3, "the others get frames as they are"
    nested = compose([compose([history, doubled]), raised])
    torch.testing.assert_close(nested(exact, given), expected)
    torch.testing.assert_close(compose([doubled, raised])(exact, given), 2 * plain(exact, given) + 1)


def test_composed_guides_are_told_of_the_model():
    def other(denoise, view):
        return denoise(view)

    guide = on_model(compose([HistoryGuidance(fractional(2.0, 0.5)), other]), lambda level: 3 * level)
    assert isinstance(guide, Composed)
    assert guide.guides[-1].sigma_at(0.5) == 1.5
    assert needs_history(guide)
    assert not needs_history(other)
    assert variants_of(other) == 1
    assert compose([]) is plain
    assert compose([None, plain, other]) is other
    assert on_model(other, float) is other


def test_two_history_guidances_are_refused():
    with pytest.raises(ValueError, match="two history guidances"):
        compose([HistoryGuidance(vanilla(2.0)), HistoryGuidance(vanilla(2.0))])


def test_levels_without_a_model_are_a_mistake_of_ours():
    with pytest.raises(RuntimeError, match=r"call on\(\) first"):
        HistoryGuidance(fractional(2.0, 0.5))(exact, view())


@pytest.mark.parametrize("level", [0.0, 0.02, 0.5, 1.0])
def test_levels_are_the_authors_timesteps(level):
    """``level * steps`` of the schedule's timesteps, counted from 1: 0.02 is index 19 of 1000."""
    index = round(level * 1000) - 1
    assert TABLE.at_level(level) == (0.0 if level == 0 else float(TABLE.sigmas[index]))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Branch(float("nan")), "weight nan"),
        (lambda: Branch(1.0, 1.5), "level 1.5"),
        (lambda: Branch(1.0, 0.0, "some"), "'some' cannot be read"),
        (lambda: Branch(1.0, 0.0, ""), "cannot be read"),
        (lambda: Branch(1.0, 0.0, "3-5"), "cannot be read"),
        (lambda: Branch(1.0, 0.0, "5..3"), "rising ranges"),
        (lambda: read_branches(" ,"), "no branches"),
        (lambda: read_branches("all"), "'all' cannot be read"),
        (lambda: read_branches("all:x"), "'all:x' cannot be read"),
        (lambda: read_branches("all@:1"), "cannot be read"),
        (lambda: read_branches("all@2:1"), "level 2.0"),
        (lambda: HistoryGuidance(()), "no branches"),
        (lambda: HistoryGuidance(vanilla(2.0), "gone"), "choose one of noise, absent"),
        (lambda: HistoryGuidance(vanilla(2.0), branch_batch=-1), "branch_batch is -1"),
    ],
)
def test_bad_input_is_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
