"""The stepping function and the rollout, with denoisers whose answers are known exactly."""

import pytest
import torch
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.sampling.context_noise import ContextNoise
from pack.modules.sampling.forcing import Forcing
from pack.modules.sampling.job import Job, Step
from pack.modules.sampling.model_view import View
from pack.modules.sampling.noise_levels import NoiseLevels
from pack.modules.sampling.schedules import SCHEDULES
from pack.modules.sampling.stepping import move

SHAPE = (3, 4, 5)
TABLE = NoiseSchedule.named("cosine")


def finish(generator):
    steps = []
    while True:
        try:
            steps.append(next(generator))
        except StopIteration as end:
            return end.value, steps


def target(ids):
    return torch.stack([torch.full(SHAPE, float(i) / 10) for i in ids.tolist()])


def perfect(view):
    """Knows every frame."""
    return target(view.ids)


def shrinking(view):
    """The exact denoiser of independent unit Gaussians: answers depend on input and sigma."""
    return view.x / (1 + view.sigma[:, None, None, None] ** 2)


def run(denoise, frames=10, steps=5, window=10, schedule="pyramid", seed=3, latent=None, **options):
    shape = {key: options.pop(key) for key in ("lag", "block", "known") if key in options}
    levels = NoiseLevels.named(schedule, frames, steps, **shape)
    latent = torch.zeros(frames, *SHAPE) if latent is None else latent
    return finish(Forcing(levels, window, **options)(Job(denoise, latent, TABLE.levels(steps), seed=seed)))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_perfect_model_gives_the_truth_under_every_schedule(schedule, eta):
    clip, steps = run(perfect, schedule=schedule, eta=eta)
    torch.testing.assert_close(clip, target(torch.arange(10)))
    assert [step.row for step in steps] == list(range(1, steps[-1].total + 1))
    assert isinstance(steps[0], Step)


def test_full_sequence_is_euler():
    clip, _ = run(shrinking, schedule="full_sequence")
    from pack.modules.noise.seeded import frame_noise

    sigmas = TABLE.levels(5).flip(0)
    x = frame_noise(SHAPE, 3, range(10)) * (1 + sigmas[0] ** 2).sqrt()
    for now, after in zip(sigmas[:-1], sigmas[1:], strict=True):
        slope = (x - shrinking(View.plain(x, now.expand(10)))) / now
        x = x + slope * (after - now)
    torch.testing.assert_close(clip, x, rtol=1e-5, atol=1e-5)


def test_a_model_that_ignores_other_frames_gives_every_schedule_the_same_clip():
    clips = [run(shrinking, schedule=schedule)[0] for schedule in SCHEDULES]
    for clip in clips[1:]:
        torch.testing.assert_close(clip, clips[0])


def test_same_seed_same_frames_whatever_length_and_window():
    short, _ = run(shrinking, frames=8, window=6, lag=1)
    long, _ = run(shrinking, frames=30, window=9, lag=1)
    torch.testing.assert_close(long[:8], short)
    other, _ = run(shrinking, frames=8, seed=4)
    assert (other - short).abs().min() > 0


def test_known_frames_come_back_bit_for_bit_and_are_seen_clean():
    latent = torch.randn(10, *SHAPE)
    seen = []

    def denoise(view):
        given = view.ids < 3
        seen.append((view.sigma[given], view.x[given], view.ids[given]))
        return shrinking(view)

    clip, _ = run(denoise, latent=latent, known=3)
    assert torch.equal(clip[:3], latent[:3])
    for sigma, x, ids in seen:
        assert (sigma == 0).all()
        assert torch.equal(x, latent[ids])


@pytest.mark.parametrize("kind", ["label", "noise"])
def test_stabilisation_shows_finished_frames_noisier_and_never_writes_it_back(kind):
    latent = torch.randn(10, *SHAPE)
    seen = {}

    def denoise(view):
        finished = view.sigma == torch.tensor(0.25)
        for i in view.ids[finished].tolist():
            seen.setdefault(i, []).append(view.x[view.ids == i][0])
        return target(view.ids)

    clip, _ = run(denoise, latent=latent, known=3, context_noise=ContextNoise(0.25, kind))
    assert torch.equal(clip[:3], latent[:3])
    torch.testing.assert_close(clip[3:], target(torch.arange(3, 10)))
    assert set(seen) >= {0, 1, 2, 3}, "known and finished frames are both stabilised"
    for i in range(3):
        assert all(torch.equal(view, seen[i][0]) for view in seen[i]), "the same noise at every call"
        spread = (seen[i][0] - latent[i]).std().item()
        assert spread == 0 if kind == "label" else 0.1 < spread < 0.4


def test_untouched_frames_come_back_bit_for_bit():
    x, clean = torch.randn(4, *SHAPE), torch.randn(4, *SHAPE)
    before, after = torch.tensor([0.0, 2.0, 2.0, 5.0]), torch.tensor([0.0, 1.0, 2.0, 0.0])
    out = move(x, clean, before, after, torch.randn(4, *SHAPE), eta=1.0)
    assert torch.equal(out[0], x[0])
    assert torch.equal(out[2], x[2])
    assert torch.equal(out[3], clean[3]), "a frame that ends at 0 is the clean guess exactly"


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_a_step_keeps_the_marginal_variance(eta):
    """With the true clean frames, a step from sigma to sigma' leaves noise of exactly sigma'."""
    g = torch.Generator().manual_seed(0)
    clean = torch.zeros(1, 200_000, 1, 1)
    x = 3.0 * torch.randn(clean.shape, generator=g)
    out = move(x, clean, torch.tensor([3.0]), torch.tensor([1.5]), torch.randn(clean.shape, generator=g), eta)
    assert abs(out.std().item() - 1.5) < 0.01


def test_cancelling_in_the_middle_leaves_the_latent_alone():
    latent = torch.randn(10, *SHAPE)
    copy = latent.clone()
    levels = NoiseLevels.named("pyramid", 10, 5, known=2)
    sampler = Forcing(levels, 10)(Job(shrinking, latent, TABLE.levels(5)))
    next(sampler)
    sampler.close()
    assert torch.equal(latent, copy)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"window": 2, "lag": 1}, "window of at least 5"),
        ({"latent": torch.zeros(4, *SHAPE)}, "latent has 4 frames"),
        ({"latent": torch.full((10, *SHAPE), float("nan")), "known": 2}, "not finite"),
    ],
)
def test_bad_input_is_refused_before_the_first_call(change, sentence):
    def never(view):
        raise AssertionError("the model was called")

    with pytest.raises(ValueError, match=sentence):
        run(never, **change)


@pytest.mark.parametrize(("sigma", "kind"), [(-2.0, "noise"), (float("inf"), "noise"), (float("nan"), "noise"), (0.1, "magic")])
def test_bad_stabilisation(sigma, kind):
    with pytest.raises(ValueError, match="context noise"):
        ContextNoise(sigma, kind)


def test_a_model_that_breaks_is_reported_not_returned():
    with pytest.raises(ValueError, match="not finite"):
        run(lambda view: torch.full_like(view.x, float("nan")))
