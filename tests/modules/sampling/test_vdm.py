"""Video Diffusion Models' samplers: against ComfyUI's and the paper's formulas in its own coordinates; what becomes of known frames."""

from dataclasses import replace

import pytest
import torch
from pack import host
from pack.modules.guidance.extension import Extension, about, frames_of, lengthened
from pack.modules.guidance.history import Composed
from pack.modules.guidance.reconstruction import PAST_ONLY, ReconstructionGuidance, Small
from pack.modules.noise.levels import NoiseSchedule
from pack.modules.noise.seeded import frame_noise
from pack.modules.sampling.coordinates import SIGNAL
from pack.modules.sampling.job import Job
from pack.modules.sampling.model_view import plain
from pack.modules.sampling.stepping import move
from pack.modules.sampling.vdm import REPLACEMENTS, VdmSampler, ancestral, langevin
from pack.modules.temporal.transformer import TemporalConfig
from pack.nodes.forcing.vdm import LongTakeExtend, LongTakeVdmSampler
from pack.nodes.models.models import LongTakeLabelPrompt
from tiny import video_model

SHAPE = (3, 2, 2)
SIGMAS = NoiseSchedule.named("cosine").levels(6)
FULL = TemporalConfig(heads=2, attentions=1, groups=8, positions="rotary", mask="full")


def finish(generator):
    steps = []
    while True:
        try:
            steps.append(next(generator))
        except StopIteration as end:
            return end.value, steps


def shrinking(view):
    """The exact denoiser of independent unit Gaussians in diffusion coordinates."""
    return view.x / (1 + view.sigma[:, None, None, None] ** 2)


def job(denoise=shrinking, frames=5, **changes):
    values = {"latent": torch.zeros(frames, *SHAPE), "sigmas": SIGMAS, "seed": 3}
    return Job(denoise, **(values | changes))


# Steps


def paper(x, clean, before, after, noise, gamma, coordinates):
    """Equations 3 and 4 as they stand there, for ``z = alpha x + sigma noise`` with alpha and sigma on the unit circle."""

    def both(sigma):
        a = SIGNAL[coordinates](sigma)
        size = (a**2 + sigma**2).sqrt()
        return a / size, sigma / size, size

    (a_t, s_t, n_t), (a_s, s_s, n_s) = both(before), both(after)
    lam_t, lam_s = (2 * torch.log(a / s) for a, s in ((a_t, s_t), (a_s, s_s)))
    e, z = torch.exp(lam_t - lam_s), x / n_t
    mean = e * (a_s / a_t) * z + (1 - e) * a_s * clean
    lower, upper = (1 - e) * s_s**2, (1 - e) * s_t**2
    return n_s * (mean + (lower ** (1 - gamma) * upper**gamma).sqrt() * noise)


@pytest.mark.parametrize("coordinates", SIGNAL)
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_a_step_is_the_paper_s_in_its_own_coordinates(coordinates, gamma):
    x, clean, noise = torch.randn(3, 5, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before, after = torch.tensor([0.9, 0.4], dtype=torch.float64)
    theirs = paper(x, clean, before, after, noise, gamma, coordinates)
    torch.testing.assert_close(ancestral(x, clean, before, after, noise, gamma, coordinates), theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("coordinates", SIGNAL)
def test_gamma_0_is_the_ancestral_step_of_the_other_samplers(coordinates):
    x, clean, noise = torch.randn(3, 5, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before, after = torch.tensor([0.9, 0.4], dtype=torch.float64)
    theirs = move(x, clean, before.expand(5), after.expand(5), noise, 1.0, coordinates)
    torch.testing.assert_close(ancestral(x, clean, before, after, noise, 0.0, coordinates), theirs, rtol=1e-9, atol=1e-9)


def test_flow_models_begin_without_a_trace_of_the_clip():
    x, clean, noise = torch.randn(3, 5, *SHAPE)
    first = ancestral(x, clean, torch.tensor(1.0), torch.tensor(0.75), noise, 0.0, "flow")
    torch.testing.assert_close(first, 0.25 * clean + 0.75 * noise)


@pytest.mark.parametrize("coordinates", SIGNAL)
def test_langevin_s_step_is_the_paper_s(coordinates):
    """Equation 5 with the score ``-eps / sigma``."""
    x, clean, noise = torch.randn(3, 5, *SHAPE, dtype=torch.float64)
    sigma, delta = torch.tensor(0.6, dtype=torch.float64), 0.3
    eps = (x - SIGNAL[coordinates](sigma) * clean) / sigma
    theirs = x - 0.5 * delta * sigma * eps + delta**0.5 * sigma * noise
    torch.testing.assert_close(langevin(x, clean, sigma, noise, delta, coordinates), theirs)


def test_the_corrector_leaves_the_right_distribution_alone():
    """Frames of unit variance under noise of sigma have variance ``1 + sigma^2``, before and after: up to ``delta^2``."""
    sigma = torch.tensor(2.0)
    draw = torch.Generator().manual_seed(0)
    x, noise = ((1 + sigma**2).sqrt() * torch.randn(200_000, generator=draw), torch.randn(200_000, generator=draw))
    after = langevin(x, x / (1 + sigma**2), sigma, noise, 0.05, "diffusion")
    assert abs(float(after.var() / 5) - 1) < 0.01


# Whole samplings


@pytest.mark.comfy
def test_gamma_0_is_comfyui_s_euler_ancestral():
    """Given the same noise: 1e-6 of its size. ComfyUI's is given a network and a noise sampler."""
    import comfy.k_diffusion.sampling as k_diffusion
    from comfy.model_sampling import EPS

    class Wrapped:
        inner_model = type("Inner", (), {"inner_model": type("Model", (), {"model_sampling": EPS()})()})()

        def __call__(self, x, sigma):
            return x / (1 + sigma[:, None, None, None] ** 2)

    ours, steps = finish(VdmSampler()(job(latent=torch.zeros(5, *SHAPE, dtype=torch.float64), sigmas=SIGMAS.double())))
    sigmas, count = SIGMAS.double().flip(0), iter(range(100))
    start = frame_noise(SHAPE, 3, range(5), "start").double() * (1 + sigmas[0] ** 2).sqrt()

    def sampler(sigma, following):
        return frame_noise(SHAPE, 3, range(5), f"ancestral {next(count)}").double()

    theirs = k_diffusion.sample_euler_ancestral(Wrapped(), start, sigmas, noise_sampler=sampler, disable=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    assert [step.row for step in steps] == [1, 2, 3, 4, 5, 6]


def test_the_corrector_costs_a_call_after_every_step_but_the_last():
    seen = []

    def counting(view):
        seen.append(view.call)
        return shrinking(view)

    settings = VdmSampler(corrector_steps=2)
    finish(settings(job(counting)))
    assert seen == list(range(settings.calls(4, 6, 0))) == list(range(16))


@pytest.mark.parametrize("replacement", REPLACEMENTS)
def test_known_frames_come_back_and_are_shown_as_asked(replacement):
    latent, known = torch.randn(5, *SHAPE), torch.tensor([True, False, False, True, False])
    seen = []

    def denoise(view):
        seen.append(view)
        return shrinking(view)

    clip, _ = finish(VdmSampler(replacement=replacement, corrector_steps=1)(job(denoise, latent=latent, known=known)))
    assert torch.equal(clip[known], latent[known])
    for view in seen:
        top = view.sigma[~known][0]
        assert (view.sigma[~known] == top).all() and (view.finished == (known & (replacement == "none"))).all()
        if replacement == "none":
            assert torch.equal(view.x[known], latent[known]) and (view.sigma[known] == 0).all()
    if replacement != "none":
        noises = [(view.x[known] - latent[known]) / view.sigma[0] for view in seen[:-1]]
        same = [torch.allclose(noise, noises[0], atol=1e-3) for noise in noises[1:4]]
        assert same == [replacement == "fixed"] * 3
        assert 0.7 < float(torch.stack(noises).std()) < 1.3


def test_what_a_clip_holds_shows_through_where_sampling_starts_late():
    latent = torch.full((5, *SHAPE), 7.0)
    begun = []
    finish(
        VdmSampler()(job(lambda view: (begun.append(view.x), shrinking(view))[1], latent=latent, full=False, sigmas=SIGMAS[:3]))
    )
    assert abs(float((begun[0] - 7).std() / SIGMAS[2]) - 1) < 0.3


def test_the_same_seed_is_the_same_clip_and_another_is_not():
    clips = [finish(VdmSampler(0.3, 1)(job(seed=seed)))[0] for seed in (3, 3, 4)]
    assert torch.equal(clips[0], clips[1]) and not torch.allclose(clips[0], clips[2], atol=0.1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"gamma": 1.5}, "gamma is 1.5: it must lie between 0"),
        ({"gamma": float("nan")}, "gamma is nan"),
        ({"corrector_steps": -1}, "corrector_steps is -1"),
        ({"delta": 0.0}, "delta is 0: it must lie between 0.001 and 3.9"),
        ({"delta": 4.0}, "delta is 4"),
        ({"replacement": "magic"}, "choose one of none, fresh, fixed"),
    ],
)
def test_bad_settings(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        VdmSampler(**change)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"known": torch.ones(5, dtype=torch.bool)}, "all 5 frames are known"),
        ({"latent": torch.full((5, *SHAPE), float("nan"))}, "not finite"),
        ({"sigmas": torch.tensor([0.5, 1.0]), "known": torch.arange(5) == 0}, "the sigmas end at 0.5"),
    ],
)
def test_bad_jobs_are_refused_before_the_first_call(change, sentence):
    def never(view):
        raise AssertionError("the model was called")

    with pytest.raises(ValueError, match=sentence):
        finish(VdmSampler()(job(never, **change)))


def test_a_broken_model_is_reported_not_returned():
    with pytest.raises(ValueError, match="not finite"):
        finish(VdmSampler()(job(lambda view: torch.full_like(view.x, float("nan")))))


# Extension


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    ("known", "frames", "window", "overlap"), [(8, 30, 8, 4), (3, 30, 8, 5), (20, 30, 16, 8), (1, 4, 8, 3), (2, 9, 3, 1)]
)
def test_windows_make_every_new_frame_once(known, frames, window, overlap, backwards):
    extension = Extension(known, window, overlap, backwards)
    made = set(range(frames - known, frames) if backwards else range(known))
    for low, high, count in extension.windows(frames):
        ids = list(range(low, high))
        given, new = (ids[-count:], ids[:-count]) if backwards else (ids[:count], ids[count:])
        assert len(ids) == min(window, frames), "as the model was trained"
        assert set(given) <= made and not made & set(new) and count >= min(overlap, known)
        made |= set(new)
    assert made == set(range(frames))


@pytest.mark.parametrize("backwards", [False, True])
def test_a_take_is_extended_window_by_window(backwards):
    samples = torch.randn(4, *SHAPE)
    latent, seen = lengthened(samples, 8, backwards=backwards), []

    def denoise(view):
        seen.append(tuple(view.ids.tolist()))
        return shrinking(view)

    clip, steps = finish(Extension(4, 6, 3, backwards)(job(denoise, latent=latent)))
    kept = slice(-4, None) if backwards else slice(0, 4)
    assert torch.equal(clip[kept], samples) and (clip != 0).all()
    assert [step.row for step in steps] == list(range(1, 19)) and {step.total for step in steps} == {18}
    order = [(5, 11), (2, 8), (0, 6)] if backwards else [(1, 7), (4, 10), (6, 12)]
    assert list(dict.fromkeys(seen)) == [tuple(range(*window)) for window in order]


def test_the_window_is_the_model_s_own_if_none_is_asked_for():
    clip, _ = finish(Extension(4, 0, 3)(job(latent=torch.zeros(9, *SHAPE), trained=6)))
    assert len(clip) == 9
    with pytest.raises(ValueError, match="set window"):
        finish(Extension(4, 0, 3)(job(latent=torch.zeros(9, *SHAPE))))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"known": 0}, "the clip has no frame"),
        ({"window": 1}, "window is 1: it must be at least 2"),
        ({"overlap": 0}, "overlap is 0: it must be at least 1 and at most 5 in windows of 6"),
        ({"overlap": 6}, "overlap is 6"),
    ],
)
def test_bad_extensions(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        Extension(**({"known": 4, "window": 6, "overlap": 3} | change))


def test_frames_of_video_latents_lie_in_an_axis_of_their_own():
    samples = torch.randn(1, 16, 3, 2, 2)
    longer = lengthened(samples, 2, backwards=True)
    assert longer.shape == (1, 16, 5, 2, 2) and torch.equal(longer[:, :, 2:], samples) and frames_of(longer) == 5
    assert frames_of(torch.zeros(4, *SHAPE)) == 4


# Nodes


@pytest.fixture
def model():
    return host.video_model(video_model(temporal=FULL))


def extend(model, **options):
    values = {
        "clip": {"samples": torch.randn(4, 48, 4, 4, generator=torch.Generator().manual_seed(0))},
        "new_frames": 7,
        "overlap": 3,
    }
    latent, report = LongTakeExtend.execute(
        model=model, **(values | {"steps": 2, "gradient_checkpointing": False} | options)
    ).args
    return latent["samples"], report


@pytest.mark.parametrize("direction", ["after", "before"])
def test_a_clip_is_extended_on_this_host(model, direction):
    given = torch.randn(4, 48, 4, 4)
    positive, negative = (LongTakeLabelPrompt.execute(model=model, prompt=prompt).args[0] for prompt in ("red square", ""))
    options = {"clip": {"samples": given}, "direction": direction, "positive": positive, "negative": negative, "cfg": 2.0}
    clip, report = extend(model, **options)
    assert len(clip) == 11 and torch.isfinite(clip).all()
    assert torch.equal(clip[:4] if direction == "after" else clip[-4:], given)
    assert report.startswith("seed 0, 11 frames, 7 of them new, ")
    unguided, _ = extend(model, weight=0.0, **options)
    assert not torch.allclose(clip, unguided, atol=1e-3)


def test_a_causal_model_is_guided_backwards_and_refuses_forwards():
    causal = host.video_model(video_model())
    with pytest.raises(ValueError, match=PAST_ONLY):
        extend(causal)
    forwards, _ = extend(causal, weight=0.0, replacement="none")
    backwards, _ = extend(causal, direction="before")
    plain, _ = extend(causal, direction="before", weight=0.0)
    assert len(forwards) == len(backwards) == 11 and not torch.allclose(backwards, plain, atol=1e-4)


def test_the_bad_input_of_extend(model):
    for change, sentence in (
        ({"cfg": 2.0}, "no negative conditioning is connected"),
        ({"new_frames": 0}, "new_frames is 0"),
        ({"overlap": 8, "window": 8}, "overlap is 8"),
        ({"clip": {"samples": torch.full((4, 48, 4, 4), float("nan"))}}, "not finite"),
        ({"weight": -2.0}, "weight is -2: it must lie"),
        ({"gamma": 2.0}, "gamma is 2: it must lie"),
    ):
        with pytest.raises(ValueError, match=sentence):
            extend(model, **change)


def test_guidance_of_a_window_knows_what_was_made_before():
    """The known frames of each window are those of the clip so far."""
    told = []

    def denoise(view):
        return shrinking(view)

    class Watching(ReconstructionGuidance):
        def about(self, ids, frames, others):
            told.append((ids, frames.clone()))
            return replace(self, weight=0.0)

    clip, _ = finish(Extension(4, 6, 3)(job(denoise, latent=lengthened(torch.randn(4, *SHAPE), 5), guide=Watching())))
    assert [ids for ids, _ in told] == [(1, 2, 3), (3, 4, 5, 6)]
    for ids, frames in told:
        assert torch.equal(frames, clip[list(ids)])


def test_other_guidance_is_left_as_it_is_in_every_window():
    latent, ids = torch.randn(6, *SHAPE), torch.arange(2, 6)
    open_still, small = ReconstructionGuidance(3.0), ReconstructionGuidance(small=Small(torch.zeros(6, 3, 1, 1)))
    told = about(Composed((open_still, small)), latent, ids, ids < 4)
    assert told.guides[1] is small and told.guides[0].known.ids == (2, 3) and told.guides[0].weight == 3.0
    assert torch.equal(told.guides[0].known.frames, latent[2:4])
    assert about(plain, latent, ids, ids < 4) is plain


def test_the_sampler_is_for_custom_sampling_only():
    if host.name == "standalone":
        with pytest.raises(ValueError, match="SamplerCustomAdvanced"):
            LongTakeVdmSampler.execute()
    else:
        sampler = LongTakeVdmSampler.execute(gamma=0.3, corrector_steps=1, replacement="fixed").args[0]
        assert sampler.algorithm == VdmSampler(0.3, 1, 0.1, "fixed")


@pytest.mark.comfy
@pytest.mark.parametrize("replacement", REPLACEMENTS)
def test_the_mask_of_a_latent_says_what_is_known(replacement, model):
    import comfy.samplers

    sampler = LongTakeVdmSampler.execute(corrector_steps=1, replacement=replacement).args[0]
    latent, mask = torch.randn(6, 48, 4, 4), torch.ones(6, 1, 4, 4)
    mask[2:4] = 0
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(*[LongTakeLabelPrompt.execute(model=model, prompt="red").args[0]] * 2)
    sigmas = host.level_sigmas(model, 3).flip(0)
    with torch.inference_mode():
        clip = guider.sample(torch.randn(6, 48, 4, 4), latent, sampler, sigmas, denoise_mask=mask, seed=1, disable_pbar=True)
    torch.testing.assert_close(clip[2:4], latent[2:4])
    assert not torch.allclose(clip[:2], latent[:2], atol=0.1)
