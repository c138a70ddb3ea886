"""History guidance against DFoT's formula, written out from its repository's definitions and nothing of ours but the noise."""

import itertools
from fractions import Fraction

import pytest
import torch
from pack.modules.guidance.branches import Branch, fractional, read_branches, temporal, vanilla
from pack.modules.guidance.history import HistoryGuidance
from pack.modules.guidance.history_settings import HistorySettings
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.noise.seeded import frame_noise
from pack.modules.sampling.model_view import View

SHAPE, SEED = (2, 3), 11
HISTORY, NEW, FIRST = 6, 4, 20  # frames 20 to 25 are finished, the first two of them given; 26 to 29 are new
GIVEN = 2
TABLE = NoiseSchedule.named("cosine")
TOP = float(TABLE.sigmas[-1])


class Model:
    """A random function of all frames and their noise levels; remembers what it was asked."""

    def __init__(self):
        g = torch.Generator().manual_seed(2)
        count = HISTORY + NEW
        self.mixing, self.turned = (torch.randn(count, count, generator=g, dtype=torch.float64) for _ in range(2))
        self.asked = []

    def one(self, x, sigma):
        level = (1 + sigma).log()[:, None, None]
        seen = x / (1 + sigma**2).sqrt()[:, None, None]
        return torch.einsum("ij,j...->i...", self.mixing, torch.tanh(seen)) + torch.einsum(
            "ij,j...->i...", self.turned, seen * level.cos()
        )

    def __call__(self, view):
        self.asked += view.sigma.view(view.clips, -1).tolist()
        return torch.cat([self.one(x, s) for x, s in zip(view.x.chunk(view.clips), view.sigma.chunk(view.clips), strict=True)])


def given_view():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(HISTORY + NEW, *SHAPE, generator=g, dtype=torch.float64)
    sigma = torch.cat([torch.zeros(HISTORY), torch.tensor([0.5, 1.0, 2.0, 4.0])]).double()
    finished = torch.arange(HISTORY + NEW) < HISTORY
    ids = torch.arange(HISTORY + NEW) + FIRST
    return View(x, sigma, ids, finished, torch.arange(HISTORY + NEW) < GIVEN, top=TOP, seed=SEED)


def shown(x, ids, levels, hidden):
    """A clip whose history has noise of these levels, 0 to 1 in thousandths of the way, and some new frames are pure noise."""
    x, sigma = x.clone(), given_view().sigma.clone()
    for place in range(len(x)):
        level = levels[place] if place < HISTORY else 1 if place in hidden else None
        index = (
            None if level is None else int(Fraction(level).limit_denominator(10**6) * len(TABLE.sigmas)) - 1
        )  # as theirs: -1 is clean
        if index is None or index < 0:
            continue
        purpose = "dropped" if level == 1 else "stabilise"
        noise = frame_noise(SHAPE, SEED, [int(ids[place])], purpose)[0].double()
        sigma[place] = TOP if level == 1 else float(TABLE.sigmas[index])
        x[place] = noise * (1 + TOP**2) ** 0.5 if level == 1 else x[place] + sigma[place] * noise
    return x, sigma


def spread(ranges, count):
    """Theirs: a range for each chosen frame, for all, or the first's and the last's with a line between."""
    if len(ranges) == count:
        return ranges
    if len(ranges) == 1:
        return ranges * count
    first, last = ranges
    return (
        [last]
        if count == 1
        else [tuple(a + (b - a) * t / (count - 1) for a, b in zip(first, last, strict=True)) for t in range(count)]
    )


def dfot(model, view, segments, together=(range(NEW),)):
    """The composed guess of the new frames: segments are (times in the history, ranges, ranges of generated frames, weight)."""
    terms = {(1.0,) * HISTORY: 1.0}
    for times, ranges, generated, weight in segments:
        of_given, of_made = spread(ranges, len(times)), spread(generated, len(times))
        levels = [(1.0, 1.0)] * HISTORY
        for number, time in enumerate(times):
            levels[time % HISTORY] = of_given[number] if time % HISTORY < GIVEN else of_made[number]
        for side, sign in ((0, 1), (1, -1)):
            key = tuple(level[side] for level in levels)
            terms[key] = terms.get(key, 0.0) + sign * weight
    total, counts = torch.zeros_like(view.x), torch.zeros(HISTORY + NEW, dtype=torch.float64)
    for part in together:
        mine = {HISTORY + place for place in part}
        hidden = set(range(HISTORY, HISTORY + NEW)) - mine
        counts[sorted(mine)] += 1
        for levels, weight in terms.items():
            guess = model.one(*shown(view.x, view.ids, levels, hidden))
            total[sorted(mine)] += weight * guess[sorted(mine)]
    return (total / counts.clamp_min(1)[:, None, None])[HISTORY:]


ALL = list(range(HISTORY))
CASES = {  # their scheme's name -> (ours, theirs)
    "vanilla": (vanilla(4.0), [(ALL, [(0, 1)], [(0, 1)], 4.0)]),
    "stabilized_conditional": (vanilla(1.0, 0.02, 0.0), [(ALL, [(0, 1)], [(0.02, 1)], 1.0)]),
    "stabilized_vanilla": (vanilla(4.0, 0.02, 0.0), [(ALL, [(0, 1)], [(0.02, 1)], 4.0)]),
    "stabilised everywhere": (vanilla(4.0, 0.02), [(ALL, [(0.02, 1)], [(0.02, 1)], 4.0)]),
    "fractional": (fractional(4.0, 0.4), [(ALL, [(0, 1)], [(0, 1)], 1.0), (ALL, [(0.4, 1)], [(0.4, 1)], 3.0)]),
    "stabilized_fractional": (
        fractional(4.0, 0.4, 0.02, 0.0),
        [(ALL, [(0, 1)], [(0.02, 1)], 1.0), (ALL, [(0.4, 1)], [(0.4, 1)], 3.0)],
    ),
    "temporal": (
        temporal(["h0..h2", "h1..h3"], [2.0, 2.0]),
        [([0, 1, 2], [(0, 1)], [(0, 1)], 2.0), ([1, 2, 3], [(0, 1)], [(0, 1)], 2.0)],
    ),
    "temporal of the newest": (
        temporal(["all", "last 4"], [0.5, 0.5]),
        [(ALL, [(0, 1)], [(0, 1)], 0.5), ([-4, -3, -2, -1], [(0, 1)], [(0, 1)], 0.5)],
    ),
    "levels along a line": (
        read_branches("all@0.1..0.7:2, last 3@0/0.9..0.2:1.5"),
        [(ALL, [(0.1, 1), (0.7, 1)], [(0.1, 1), (0.7, 1)], 2.0), ([3, 4, 5], [(0, 1)], [(0.9, 1), (0.2, 1)], 1.5)],
    ),
    "a level for each": (
        (Branch(2.0, (0.0, 0.1, 0.5, 0.2), "h1..h4", (0.3, 0.0, 0.0, 0.0)),),
        [([1, 2, 3, 4], [(0.3, 1), (0, 1), (0, 1), (0, 1)], [(0.0, 1), (0.1, 1), (0.5, 1), (0.2, 1)], 2.0)],
    ),
    "between two levels": (
        read_branches("all@0>0.5:1, all@0.2>0.4..0.8:0.7"),
        [(ALL, [(0, 0.5)], [(0, 0.5)], 1.0), (ALL, [(0.2, 0.4), (0.2, 0.8)], [(0.2, 0.4), (0.2, 0.8)], 0.7)],
    ),
}


TOGETHER = {
    ("all",): [range(4)],
    ("0..2", "1..3"): [range(3), range(1, 4)],
    ("h0..h1", "last 3", "first 1"): [range(2), range(1, 4), range(1)],
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("together", TOGETHER)
@pytest.mark.parametrize("branch_batch", [0, 1])
def test_it_is_their_formula_on_random_tensors(name, together, branch_batch):
    ours, theirs = CASES[name]
    view, model = given_view(), Model()
    parts = {
        ("all",): [range(4)],
        ("0..2", "1..3"): [range(3), range(1, 4)],
        ("h0..h1", "last 3", "first 1"): [range(2), range(1, 4), range(1)],
    }
    guess = HistoryGuidance(ours, branch_batch=branch_batch, segments=together).on(TABLE.at_level)(model, view)
    torch.testing.assert_close(guess[HISTORY:], dfot(model, view, theirs, parts[together]), rtol=1e-9, atol=1e-9)


def test_given_frames_stay_clean_in_stabilised_presets_and_not_where_that_is_asked_for():
    for name, only in itertools.product(("vanilla", "fractional"), (True, False)):
        model, view = Model(), given_view()
        branches = HistorySettings(name, 4.0, 0.4, 0.02, generated_only=only).chosen()
        HistoryGuidance(branches).on(TABLE.at_level)(model, view)
        first = model.asked[0]
        level = TABLE.at_level(0.02)
        assert first[:HISTORY] == pytest.approx([0.0 if only else level] * GIVEN + [level] * (HISTORY - GIVEN))


def test_frames_in_no_segment_are_guessed_with_all():
    view, model = given_view(), Model()
    guess = HistoryGuidance(vanilla(2.0), segments=("first 2",)).on(TABLE.at_level)(model, view)
    wanted = dfot(model, view, [(ALL, [(0, 1)], [(0, 1)], 2.0)], [range(2), range(4)])
    torch.testing.assert_close(guess[HISTORY:], wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "branch"),
    [
        ("all@0/0.02:4", Branch(4.0, 0.02, "all", 0.0)),
        ("last 4@0.2..0.8:1", Branch(1.0, (0.2, 0.8), "last 4")),
        ("all@0..1>0.5..1 : 2", Branch(2.0, (0.0, 1.0), "all", None, (0.5, 1.0))),
        ("h0..h2>0.4:-.5", Branch(-0.5, 0.0, "h0..h2", None, 0.4)),
        ("-3..-1@.1/.2>.3:1", Branch(1.0, 0.2, "-3..-1", 0.1, 0.3)),
    ],
)
def test_ranges_are_read(text, branch):
    assert read_branches(text) == (branch,)
