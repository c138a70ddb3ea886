"""Takes without an end: the frames of a clip, one by one, from any row on, in memory that does not grow."""

import tracemalloc
from dataclasses import replace
from itertools import islice

import pytest
import torch
from living import living_bytes
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.sampling.context_noise import ContextNoise
from pack.modules.sampling.endless import Endless
from pack.modules.sampling.forcing import Forcing
from pack.modules.sampling.job import Job, State
from pack.modules.sampling.noise_levels import EndlessLevels, NoiseLevels
from pack.modules.sampling.schedules import ENDLESS

SHAPE = (2, 3, 4)
TABLE = NoiseSchedule.named("cosine")


def mixing(view):
    """A model whose guess of a frame depends on all frames in the call, their places and levels."""
    level = view.sigma[:, None, None, None]
    mean = (view.x / (1 + level)).mean(dim=0, keepdim=True)
    return 0.6 * view.x / (1 + level**2) + 0.3 * mean + 0.01 * torch.sin(view.ids.float())[:, None, None, None]


def job(known=None, steps=4, seed=3, denoise=mixing):
    known = torch.zeros(0, *SHAPE) if known is None else known
    return Job(denoise, torch.cat([known, torch.zeros(2, *SHAPE)]), TABLE.levels(steps), seed=seed)


def collected(take, given, rows=None):
    """All frames that come, by number, and where the take is then."""
    frames, state = {}, given.state
    for step in islice(take(given), rows):
        frames.update(zip(step.ids.tolist(), step.finished, strict=True))
        state = step.state
    return frames, state


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"eta": 1.0},
        {"order": "heun"},
        {"order": "unipc"},
        {"sink_frames": 2, "context_noise": ContextNoise(0.3, "noise")},
        {"context_noise": ContextNoise(0.3, "addnoise"), "eta": 0.5},
    ],
    ids=str,
)
def test_it_is_the_rollout_bit_for_bit(name, options):
    known = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    levels = NoiseLevels.named(name, 14, 4, lag=2, block=2, known=3)
    latent = torch.cat([known, torch.zeros(11, *SHAPE)])
    sampler = Forcing(levels, 9, **options)(Job(mixing, latent, TABLE.levels(4), seed=3))
    steps = 0
    while True:
        try:
            next(sampler)
            steps += 1
        except StopIteration as end:
            clip = end.value
            break
    take = Endless(EndlessLevels(name, 4, 2, 2, 3, 14), 9, **options)
    frames, state = collected(take, job(known))
    assert sorted(frames) == list(range(3, 14))
    assert all(torch.equal(frames[i], clip[i]) for i in frames)
    assert state.row == take.plan.rows_total
    assert state.row == steps


@pytest.mark.parametrize("sink_frames", [0, 2])
@pytest.mark.parametrize("recalls", [False, True])
def test_a_model_that_recalls_is_shown_all_known_frames_first(recalls, sink_frames):
    """Those that no window would show, each once and in order; a take that goes on does not show them again."""
    shown = []

    def watching(view):
        shown.append(view.ids.tolist())
        assert all(view.finished[view.ids < 11])
        return mixing(view)

    known = torch.randn(11, *SHAPE, generator=torch.Generator().manual_seed(1))
    given = replace(job(known, denoise=watching), recalls=recalls, sees_ahead=False)
    levels = NoiseLevels.named("pyramid", 14, 4, known=11)
    clip = replace(given, latent=torch.cat([known, torch.zeros(3, *SHAPE)]))
    for _ in Forcing(levels, 6, sink_frames=sink_frames)(clip):
        pass
    calls = [shown.pop(0) for _ in range(2 * recalls)]
    first = [*range(sink_frames), *range(8 + sink_frames, 12)]
    assert calls == ([[0, 1, 2, 3, 4, 5], list(range(6, 8 + sink_frames))] if recalls else [])
    assert shown[0] == first and len(shown) == levels.rows_total
    whole, shown[:] = calls + shown, []
    take = Endless(EndlessLevels("pyramid", 4, known=11, frames=14), 6, sink_frames=sink_frames)
    _, state = collected(take, given, rows=2)
    collected(take, replace(given, state=state))
    assert shown == whole


@pytest.mark.parametrize("options", [{}, {"eta": 1.0, "sink_frames": 1, "context_noise": ContextNoise(0.2, "addnoise")}], ids=str)
def test_it_goes_on_at_every_row_as_if_nothing_had_happened(options):
    known = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    plan = EndlessLevels("pyramid", 4, 1, 1, 2, 9)
    whole, _ = collected(Endless(plan, 7, **options), job(known))
    for row in range(plan.rows_total + 1):
        take = Endless(plan, 7, **options)
        frames, state = collected(take, job(known), row)
        frames |= collected(take, replace(job(known), state=state))[0]
        assert frames.keys() == whole.keys()
        assert all(torch.equal(frames[i], whole[i]) for i in whole)


def test_steps_say_what_is_finished():
    steps = list(Endless(EndlessLevels("pyramid", 3, 1, frames=4), 4)(job(steps=3)))
    assert [step.row for step in steps] == [1, 2, 3, 4, 5, 6]
    assert {step.total for step in steps} == {6}
    assert [step.ids.tolist() for step in steps] == [[], [], [0], [1], [2], [3]]
    endless = Endless(EndlessLevels("pyramid", 3, 1), 4)
    assert next(endless(job(steps=3))).total == 0


def test_what_is_kept_fits_the_window():
    take = Endless(EndlessLevels("pyramid", 4, 2, known=30), 6, sink_frames=2)
    for step in islice(take(job(torch.zeros(30, *SHAPE))), 90):
        assert len(step.state.x) == len(step.state.ids) <= 6
        assert step.state.row == step.row
    assert step.state.ids[:2].tolist() == [0, 1]


def test_memory_does_not_grow_with_the_take():
    """Bytes of all living tensors, and Python's own, after 50 and after 500 frames."""
    take = Endless(EndlessLevels("pyramid", 4, 1), 8, eta=0.5, context_noise=ContextNoise(0.2))
    steps = take(job())
    counts = []
    tracemalloc.start()
    for frames in (50, 500):
        while next(steps).row < frames + 4:
            pass
        counts.append((living_bytes(), tracemalloc.get_traced_memory()[0]))
    tracemalloc.stop()
    assert counts[1][0] == counts[0][0]
    assert counts[1][1] - counts[0][1] < 50_000


def test_a_model_that_breaks_stops_the_take_before_the_frame_is_handed_on():
    def breaking(view):
        return torch.where((view.ids == 5)[:, None, None, None], torch.nan, view.x / 2)

    take, got = Endless(EndlessLevels("pyramid", 3, 1), 4), {}
    with pytest.raises(ValueError, match="frame 5 came out not finite"):
        for step in islice(take(Job(breaking, torch.zeros(1, *SHAPE), TABLE.levels(3))), 30):
            got.update(zip(step.ids.tolist(), step.finished, strict=True))
    assert sorted(got) == [0, 1, 2, 3, 4]
    assert torch.isfinite(step.state.x[step.state.ids < 5]).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"latent": torch.zeros(2, *SHAPE), "known": 2}, "2 frames and 2 are known: it needs one more"),
        ({"latent": torch.full((4, *SHAPE), torch.nan), "known": 2}, "not finite"),
        ({"steps": 5}, "the sigmas have 5 steps and the noise levels 4"),
        ({"state": State(3, torch.arange(2), torch.zeros(2, 9, 9, 9))}, "go on with the model that began it"),
        (
            {"state": State(3, torch.arange(8), torch.zeros(8, *SHAPE), {"0/furthest": torch.zeros(1)})},
            "remembers what has left the window",
        ),
        (
            {"state": State(3, torch.arange(8) + 1, torch.zeros(8, *SHAPE))},
            "cannot go on at row 3 with frames that this schedule",
        ),
        ({"state": State(3, torch.arange(8), torch.zeros(7, *SHAPE))}, "cannot go on at row 3"),
        ({"state": State(10**9, torch.arange(3), torch.zeros(3, *SHAPE))}, "cannot go on at row 1000000000"),
        ({"state": State(3, torch.arange(8), torch.full((8, *SHAPE), torch.nan))}, "not finite"),
        ({"window": 0}, "set window"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused_before_the_first_call(change, sentence):
    def never(view):
        raise AssertionError("the model was called")

    given = {"latent": torch.zeros(3, *SHAPE), "known": 0, "steps": 4, "state": None, "window": 8} | change
    take = Endless(EndlessLevels("pyramid", 4, 1, known=given["known"]), given["window"])
    with pytest.raises(ValueError, match=sentence):
        next(take(Job(never, given["latent"], TABLE.levels(given["steps"]), state=given["state"])))


def test_a_window_or_an_order_that_cannot_be_is_refused_at_once():
    with pytest.raises(ValueError, match="window of at least 4"):
        Endless(EndlessLevels("pyramid", 4, 1), 3)
    with pytest.raises(ValueError, match="heun"):
        Endless(EndlessLevels("pyramid", 4, 1), 8, 0.5, "heun")
