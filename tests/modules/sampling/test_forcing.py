"""The Diffusion Forcing sampler as hosts run it: what it costs, sink frames, and frames that are given."""

import math

import pytest
import torch
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.noise.seeded import frame_noise
from pack.modules.sampling.context_noise import ContextNoise
from pack.modules.sampling.forcing import Forcing, take
from pack.modules.sampling.job import Job
from pack.modules.sampling.noise_levels import NoiseLevels

SHAPE, SEED = (2, 3, 4), 3
TABLE = NoiseSchedule.named("cosine")
FRAMES, STEPS = 12, 6


class Counted:
    """The exact denoiser of unit Gaussians, which remembers its calls."""

    def __init__(self):
        self.views = []

    def __call__(self, view):
        self.views.append(view)
        return view.x / (1 + view.sigma[:, None, None, None] ** 2)


def levels_for(schedule="pyramid", frames=FRAMES, steps=STEPS, **more):
    return NoiseLevels.named(schedule, frames, steps, **more)


def run(algorithm, *, denoise=None, latent=None, **job):
    latent = torch.zeros(algorithm.plan.frames, *SHAPE) if latent is None else latent
    sigmas = job.pop("sigmas", TABLE.levels(algorithm.plan.steps))
    generator = algorithm(Job(denoise or Counted(), latent, sigmas, seed=SEED, **job))
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


# (schedule, its options): model calls of 12 frames in 6 steps
COSTS = {
    "full_sequence": (("full_sequence", {}), 6),
    "autoregressive": (("autoregressive", {}), 6 * 12),
    "blocks": (("autoregressive", {"block": 3}), 6 * 4),
    "pyramid": (("pyramid", {"lag": 2}), 6 + 11 * 2),
    "pyramid of blocks": (("pyramid", {"lag": 3, "block": 4}), 6 + 2 * 3),
    "half a step behind": (("pyramid", {"lag": 0.5}), 6 + 5),
    "trapezoid": (("trapezoid", {"lag": 2}), 6 + 5 * 2),
    "after four known frames": (("pyramid", {"lag": 2, "known": 4}), 6 + 7 * 2),
}


@pytest.mark.parametrize(("schedule", "calls"), COSTS.values(), ids=COSTS)
@pytest.mark.parametrize("order", ["euler", "heun"])
def test_model_calls_are_counted_and_as_predicted(schedule, calls, order):
    name, options = schedule
    algorithm, denoise = Forcing(levels_for(name, **options), FRAMES, order=order), Counted()
    run(algorithm, denoise=denoise, latent=torch.ones(FRAMES, *SHAPE))
    assert len(denoise.views) == algorithm.model_calls
    if order == "euler":
        assert len(denoise.views) == calls
    else:  # once more in every row but those in which all that move become clean
        before, after = (levels_for(name, **options).matrix()[part] for part in (slice(None, -1), slice(1, None)))
        assert len(denoise.views) == calls + int(((after < before) & (after > 0)).any(dim=1).sum())


@pytest.mark.parametrize("lag", [1, 2, 3])
def test_a_longer_clip_costs_the_lag_per_frame(lag):
    counts = []
    for frames in (30, 31):
        denoise = Counted()
        run(Forcing(levels_for(frames=frames, lag=lag), 8), denoise=denoise)
        counts.append(len(denoise.views))
    assert counts[1] - counts[0] == lag


def test_sink_frames_stay_in_the_window_and_times_have_no_gap():
    denoise = Counted()
    clip = run(Forcing(levels_for(frames=30), 10, sink_frames=2), denoise=denoise)
    late = [view for view in denoise.views if 15 < int(view.ids[-1]) < 29]
    assert len(late) > 10
    for view in late:
        ids, times = view.ids.tolist(), view.times.tolist()
        assert ids[:2] == [0, 1] and len(ids) == 10, "the first frames, and the window is full"
        assert ids[2:] == list(range(ids[2], ids[2] + 8)) and ids[2] > 2
        assert times == list(range(ids[2] - 2, ids[2] + 8)), "as if they stood right before the others"
        assert torch.equal(view.x[:2], clip[:2]) and (view.sigma[:2] == 0).all()
    assert all(view.times is None for view in denoise.views if int(view.ids[0]) == 0 and len(view.ids) == int(view.ids[-1]) + 1)


def test_the_seed_of_context_noise_is_the_jobs():
    shown = []

    def denoise(view):
        shown.append(view.x[0])
        return torch.zeros_like(view.x)

    latent = torch.ones(FRAMES, *SHAPE)
    run(Forcing(levels_for(known=1), 8, context_noise=ContextNoise(0.5)), denoise=denoise, latent=latent)
    torch.testing.assert_close(shown[0], 1 + 0.5 * frame_noise(SHAPE, SEED, [0], "stabilise")[0])


def test_the_models_own_length_is_the_window():
    denoise = Counted()
    run(Forcing(levels_for(frames=30)), denoise=denoise, trained=9)
    assert max(len(view.ids) for view in denoise.views) == 9
    with pytest.raises(ValueError, match="this model does not say it: set window"):
        run(Forcing(levels_for()))
    assert Forcing(levels_for()).shown(12, 9) == 9 and Forcing(levels_for(), 20).shown(12, 9) == 12


# Frames that are given


def encode(samples):
    """A host's latents as its model has them."""
    return samples * 0.18215


def test_known_frames_are_encoded_and_come_back_unchanged():
    given, seen = torch.randn(2, *SHAPE), Counted()
    algorithm = Forcing(levels_for(known=[0, -1]), FRAMES, known_frames=given, eta=1.0)
    clip = run(algorithm, denoise=seen, encode=encode)
    assert torch.equal(clip[[0, -1]], encode(given))
    assert all(torch.equal(view.x[view.ids == 0][0], encode(given)[0]) for view in seen.views if 0 in view.ids)
    restored = algorithm.restored(clip / 0.18215, torch.zeros(FRAMES, *SHAPE))
    assert torch.equal(restored[[0, -1]], given) and torch.equal(restored[1:-1], (clip / 0.18215)[1:-1])


def test_a_take_has_known_frames_in_their_places_in_either_layout():
    levels, known = levels_for(known=[0, 5, -1]), torch.randn(3, *SHAPE)
    clip = take(levels, known, known)
    assert torch.equal(clip[[0, 5, 11]], known) and int((clip != 0).flatten(1).any(1).sum()) == 3
    assert torch.equal(take(levels, torch.where(clip == 0, 7.0, clip), known), clip), "of a whole clip, those in their places"
    video = take(levels, known.movedim(0, 1)[None], known.movedim(0, 1)[None])
    assert torch.equal(video, clip.movedim(0, 1)[None])
    assert take(levels_for(), None, known).shape == (FRAMES, *SHAPE)


REFUSED = [
    (lambda: run(Forcing(levels_for(), 8), sigmas=TABLE.levels(9)), "sigmas have 9 steps and the noise levels 6: set steps"),
    (lambda: run(Forcing(levels_for(), 8), latent=torch.zeros(7, *SHAPE)), "latent has 7 frames and the noise levels are for 12"),
    (lambda: run(Forcing(levels_for(), 8), sigmas=TABLE.levels(6).flip(0)), "do not fall from noise to clean"),
    (
        lambda: run(Forcing(levels_for(), 8), sigmas=TABLE.levels(7)[1:]),
        "sigmas end at .*, and here frames finish one after the other",
    ),
    (
        lambda: run(Forcing(levels_for(), 8), latent=torch.full((12, *SHAPE), math.inf)),
        r"not finite \(NaN or infinite\) in frame 0",
    ),
    (lambda: Forcing(levels_for(), 5), "window holds 5 frames and this schedule has 6 in flight"),
    (lambda: Forcing(levels_for(), 8, sink_frames=-1), "sink_frames is -1"),
    (
        lambda: Forcing(levels_for(), order="uni_pc"),
        "order 'uni_pc' is not offered: choose euler or heun or unipc or renoise; ComfyUI's own multistep",
    ),
    (lambda: Forcing(levels_for(), eta=-0.1), "eta is -0.1"),
    (
        lambda: take(levels_for(known=2), torch.zeros(3, *SHAPE), torch.zeros(3, *SHAPE)),
        "2 known frames and 3 are connected: connect that many, or a whole clip of 12, or set",
    ),
    (lambda: take(levels_for(), None, torch.zeros(3, 4)), r"latent has the shape \[3, 4\]"),
]


@pytest.mark.parametrize(("asked", "sentence"), REFUSED)
def test_bad_input_is_one_sentence(asked, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        asked()
    assert "\n" not in str(error.value)
