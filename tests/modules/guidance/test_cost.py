"""What a sampling costs is what it really does: calls of the model and gradients, counted."""

import pytest
import torch
from pack.modules.guidance import steering
from pack.modules.guidance.branches import vanilla
from pack.modules.guidance.cost import SamplingCost, cost_of
from pack.modules.guidance.extension import Extension
from pack.modules.guidance.goals import GoalGuidance
from pack.modules.guidance.history import HistoryGuidance, compose
from pack.modules.guidance.reconstruction import Known, ReconstructionGuidance
from pack.modules.guidance.steering import Space, fitted
from pack.modules.sampling.endless import Endless
from pack.modules.sampling.fifo import Fifo
from pack.modules.sampling.forcing import Forcing
from pack.modules.sampling.job import Job
from pack.modules.sampling.model_view import plain
from pack.modules.sampling.noise_levels import EndlessLevels, NoiseLevels
from pack.modules.sampling.vdm import VdmSampler
from pack.modules.temporal.gradients import Gradients

FRAMES, STEPS, TRAINED = 8, 4, 4
SIGMAS = torch.linspace(0, 1, STEPS + 1)


def pyramid(window=4, **given):
    return Forcing(NoiseLevels.named("pyramid", FRAMES, STEPS, lag=1.0), window=window, **given)


SAMPLERS = {
    "forcing": pyramid(),
    "forcing, heun": pyramid(order="heun"),
    "stream": Endless(EndlessLevels("pyramid", STEPS, 1.0, 1, 0, FRAMES), window=4),
    "FIFO": Fifo(partitions=1, window=4),
    "FIFO without lookahead": Fifo(partitions=1, window=0, lookahead=False),
    "VDM": VdmSampler(),
    "VDM with corrector": VdmSampler(corrector_steps=2),
    "extend": Extension(3, overlap=2, sampler=VdmSampler(corrector_steps=1)),
    "extend backwards": Extension(3, window=3, overlap=1, backwards=True),
}


class Counting:
    """A model whose frames hang on each other."""

    def __init__(self, monkeypatch):
        self.calls, self.guesses, self.backwards = 0, 0, 0
        differentiated = torch.autograd.grad
        monkeypatch.setattr(
            steering.torch.autograd, "grad", lambda *args, **kwargs: self.back() or differentiated(*args, **kwargs)
        )

    def back(self):
        self.backwards += 1

    def __call__(self, view):
        self.calls += 1
        self.guesses += view.clips
        return view.x * 0.5 + view.x.mean(dim=0, keepdim=True) * 0.25


def run(algorithm, guide, monkeypatch):
    model = Counting(monkeypatch)
    space = Space(mixing="all", pixels=lambda clean: clean[:, :3])
    job = Job(model, torch.ones(FRAMES, 4, 2, 2), SIGMAS, guide=fitted(guide, space), trained=TRAINED)
    steps = sum(1 for _ in algorithm(job))
    assert steps
    return model


@pytest.mark.parametrize("name", SAMPLERS)
def test_calls_are_those_that_are_made(name, monkeypatch):
    algorithm = SAMPLERS[name]
    cost = cost_of(algorithm, plain, frames=FRAMES, steps=STEPS, trained=TRAINED)
    assert cost.calls == run(algorithm, plain, monkeypatch).calls > 0
    assert cost.passes == 1 and cost.backwards == 0 and cost.lines()[1] == "gradients: none"


HISTORY = HistoryGuidance(vanilla(1.5), sigma_at=lambda level: level)
GOAL = GoalGuidance(lambda colours: colours.mean(), weight=0.1)
KNOWN = ReconstructionGuidance(2.0, Known((0,), torch.ones(1, 4, 2, 2)))
GUIDES = {
    "reconstruction": (KNOWN, 1, 1),
    "reconstruction, off": (ReconstructionGuidance(0.0, KNOWN.known), 1, 0),
    "goal": (GOAL, 1, 1),
    "goal, off": (GoalGuidance(GOAL.score, weight=0.0), 1, 0),
    "goal around reconstruction": (compose([KNOWN, GOAL]), 1, 2),
}


@pytest.mark.parametrize("name", GUIDES)
def test_gradients_are_those_that_are_taken(name, monkeypatch):
    guide, guesses, backwards = GUIDES[name]
    algorithm = VdmSampler()
    cost = cost_of(algorithm, guide, frames=FRAMES, steps=STEPS, trained=TRAINED)
    model = run(algorithm, guide, monkeypatch)
    assert (cost.guesses, cost.backwards) == (guesses, backwards)
    at_noise = model.backwards in (
        cost.calls * backwards,
        (cost.calls - 1) * backwards,
    )  # flow at pure noise has nothing to compare
    assert at_noise and model.guesses == cost.calls * guesses


def test_variants_of_history_are_guesses(monkeypatch):
    algorithm = pyramid(6)  # with room for finished frames
    cost = cost_of(algorithm, HISTORY, frames=FRAMES, steps=STEPS, trained=TRAINED)
    model = run(algorithm, HISTORY, monkeypatch)
    with_history = model.guesses - model.calls  # where nothing is finished yet there is no variant
    assert cost.guesses == 2 and 0 < with_history <= cost.calls and model.calls == cost.calls


def test_continuations_are_guesses_with_gradients(monkeypatch):
    goal = GoalGuidance(GOAL.score, weight=0.1, futures=3)
    cost = cost_of(pyramid(), goal, frames=FRAMES, steps=STEPS, trained=TRAINED)
    model = run(pyramid(), goal, monkeypatch)
    assert (cost.guesses, cost.backwards) == (3, 3)
    assert cost.calls * 2 < model.backwards == model.guesses <= cost.calls * 3  # the last frames have no continuation


def test_words():
    cost = SamplingCost(36, 11, 4, 2, 3, 3, 1, ("goal guidance",), Gradients("positive"), ("memory: 2.0 GB",))
    assert cost.lines() == [
        "cost: 36 model calls of up to 4 frames, 3.27 per frame; each is 2 conditions x 3 guesses (goal guidance), 9 passes of the network",
        "gradients: 3 times back through the network in each call and layers computed twice (gradient_checkpointing), for goal guidance;"
        " weight 0 does without",
        "memory: 2.0 GB",
    ]
    assert SamplingCost(0, 0, 4).lines()[0] == "cost: an endless number of model calls of up to 4 frames"
