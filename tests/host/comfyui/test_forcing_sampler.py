"""The Forcing Sampler in ComfyUI's SamplerCustomAdvanced: against ComfyUI's samplers, frame by frame, and what it refuses."""

import logging

import pytest
import tiny_wan
import torch
from custom import advanced, forcing, scheduler_sigmas, theirs
from native import label
from pack import host
from pack.modules.checkpoints.motion import load_motion_module
from pack.modules.sampling.noise_levels import NoiseLevels
from pack.modules.sampling.schedules import SCHEDULES
from pack.modules.temporal.windows import WindowPlan
from pack.nodes.forcing.forcing import LongTakeRollout
from tiny import video_model
from tiny_motion import image_model, motion_file, text
from whole_windows import CONTROLS, controlled, core_handler, drawn, hints, later, prompts

pytestmark = pytest.mark.comfy
FRAMES, STEPS = 6, 4


def close(one, other, tolerance):
    """Relative to the largest value."""
    torch.testing.assert_close(one, other, rtol=0, atol=tolerance * float(other.abs().max()))


@pytest.fixture
def image():
    return image_model()


@pytest.fixture
def animated(image, tmp_path):
    return host.apply_motion(image, load_motion_module(motion_file(tmp_path)))


@pytest.fixture
def video():
    return host.video_model(video_model())


@pytest.fixture
def wan():
    return tiny_wan.wan_model()


KINDS = {
    "SD1.5 with motion": ("animated", (FRAMES, 4, 8, 8), text),
    "video model": ("video", (FRAMES, 48, 4, 4), label),
    "Wan": ("wan", (1, 16, FRAMES, *tiny_wan.SIZE), tiny_wan.text),
}


def case_of(request):
    name, shape, prompt = request.param
    return request.getfixturevalue(name), torch.zeros(shape), {"positive": prompt(3), "negative": prompt(4), "cfg": 2.0}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def any_case(request):
    """A model, an empty latent, and prompts with guidance."""
    return case_of(request)


@pytest.fixture(params=list(KINDS.values())[:2], ids=list(KINDS)[:2])
def case(request):
    """The same, of models whose frames are in the batch axis."""
    return case_of(request)


# Exactness


@pytest.mark.parametrize("name", ["euler", "ddim"])
def test_full_sequence_is_comfyuis_euler_and_ddim(any_case, name):
    model, latent, prompt = any_case
    sigmas = scheduler_sigmas(model, STEPS)
    ours = advanced(model, forcing(), latent, sigmas, **prompt)
    close(ours, advanced(model, theirs(name), latent, sigmas, **prompt), 1e-6)


def test_heun_is_comfyuis_heun(any_case):
    model, latent, prompt = any_case
    sigmas = scheduler_sigmas(model, STEPS)
    ours = advanced(model, forcing(order="heun"), latent, sigmas, **prompt)
    heun = advanced(model, theirs("heun"), latent, sigmas, **prompt)
    close(ours, heun, 1e-5)
    assert (heun - advanced(model, theirs("euler"), latent, sigmas, **prompt)).abs().max() > 1e-3


@pytest.mark.parametrize("denoise", [0.5, 0.8])
def test_starting_from_a_clip_is_comfyuis_too(any_case, denoise):
    """denoise below 1: sigmas that do not start at the noisiest level, over frames that are there."""
    model, latent, prompt = any_case
    clip, sigmas = drawn(*latent.shape, seed=8), scheduler_sigmas(model, STEPS, denoise)
    ours = advanced(model, forcing(), clip, sigmas, **prompt)
    close(ours, advanced(model, theirs("euler"), clip, sigmas, **prompt), 2e-6)
    assert (ours - advanced(model, forcing(), latent, sigmas, **prompt)).abs().max() > 1e-2


def test_without_added_noise_sampling_goes_on_from_the_latent(any_case):
    """A run in two parts, as with SplitSigmas and DisableNoise: the first is ComfyUI's, the second ours."""
    model, latent, prompt = any_case
    sigmas = scheduler_sigmas(model, 2 * STEPS)
    half = advanced(model, theirs("euler"), latent, sigmas[: STEPS + 1], **prompt)
    ours = advanced(model, forcing(), half, sigmas[STEPS:], noise=False, **prompt)
    close(ours, advanced(model, theirs("euler"), half, sigmas[STEPS:], noise=False, **prompt), 2e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_motion_every_schedule_gives_what_euler_gives(image, schedule):
    """Frames that do not know each other take the same steps, whenever they take them."""
    sigmas, latent = scheduler_sigmas(image, STEPS), torch.zeros(FRAMES, 4, 8, 8)
    given = {"positive": prompts(FRAMES), "negative": text(4), "cfg": 2.0}
    ours = advanced(image, forcing(schedule, lag=2.0), latent, sigmas, **given)
    close(ours, advanced(image, theirs("euler"), latent, sigmas, **given), 2e-5)


@pytest.mark.parametrize("family", ["v2", "v3"])
def test_a_sigma_per_frame_is_each_frame_on_its_own(image, tmp_path, family):
    """With the motion at rest; with it on, frames see each other, and everything stays finite."""
    from pack.modules.sampling.model_view import View
    from pack.modules.temporal.settings import MotionSettings

    module = load_motion_module(motion_file(tmp_path, family))
    sigma = torch.tensor([0.0, 0.1, 0.5, 2.0, 7.0, 14.0])
    x = drawn(FRAMES, 4, 8, 8) * (1 + sigma.view(-1, 1, 1, 1))

    def guess(model, x, sigma, ids):
        def once(job):
            yield from ()
            return job.denoise(View(x, sigma, ids, torch.zeros(len(x), dtype=torch.bool)))

        latent = torch.zeros_like(x)
        return host.sample(
            model, text(3), text(4), cfg=2.0, latent=latent, algorithm=once, seed=0, sigmas=torch.tensor([0.0, 14.0])
        )

    still = host.apply_motion(image, module, MotionSettings(effect=0.0))
    together = guess(still, x, sigma, torch.arange(FRAMES))
    pairs = [torch.arange(i, i + 2) for i in range(0, FRAMES, 2)]  # a clip of one frame is refused
    close(together, torch.cat([guess(still, x[ids], sigma[ids], ids) for ids in pairs]), 1e-5)
    close(together[:1] * 0.18215, x[:1], 1e-6)  # clean frames stay as they are; ComfyUI scales latents on the way out
    moving = guess(host.apply_motion(image, module), x, sigma, torch.arange(FRAMES))
    assert torch.isfinite(moving).all() and (moving - together).abs().max() > 1e-2


@pytest.mark.parametrize(("family", "schedule"), [("v2", "pyramid"), ("v3", "trapezoid"), ("v3", "autoregressive")])
def test_motion_modules_run_under_every_schedule(image, tmp_path, family, schedule):
    model = host.apply_motion(image, load_motion_module(motion_file(tmp_path, family)))
    sampler = forcing(schedule, context_noise=0.2, eta=0.5, block=2)
    made = advanced(model, sampler, torch.zeros(FRAMES, 4, 8, 8), scheduler_sigmas(model, STEPS), positive=text(3))
    assert torch.isfinite(made).all() and made.std() > 0.1


def test_a_first_generation_module_is_warned_of(image, tmp_path, caplog):
    model = host.apply_motion(image, load_motion_module(motion_file(tmp_path, "v1")))
    with caplog.at_level(logging.WARNING, logger="longtake"):
        made = advanced(model, forcing("pyramid"), torch.zeros(FRAMES, 4, 8, 8), scheduler_sigmas(model, STEPS), positive=text(3))
    assert torch.isfinite(made).all() and "statistics over all frames" in caplog.text


# Same seed, same frames


def long_take(video, frames, **inputs):
    """On a causal model, through a window that slides."""
    sampler = forcing("pyramid", frames, STEPS, **{"window": 6, "context_noise": 0.2, **inputs})
    noise = drawn(40, 48, 4, 4, seed=2)[:frames]  # RandomNoise would draw other noise for another length
    import comfy.samplers

    guider = comfy.samplers.CFGGuider(video)
    guider.set_conds(label(1), label(1))
    guider.set_cfg(1.0)
    return guider.sample(noise, torch.zeros_like(noise), sampler, scheduler_sigmas(video, STEPS), seed=5)


@pytest.mark.parametrize("inputs", [{}, {"eta": 1.0}, {"order": "heun"}, {"context_noise_kind": "label"}], ids=str)
def test_frames_do_not_depend_on_the_length_of_the_clip(video, inputs):
    close(long_take(video, 12, **inputs)[:8], long_take(video, 8, **inputs), 1e-5)


def test_the_sampler_and_rollout_give_the_same_take(video):
    """The same noise, levels and sigmas through both forms."""
    from pack.modules.noise.seeded import frame_noise

    levels = NoiseLevels.named("pyramid", 12, STEPS)
    options = {"noise_levels": levels, "window": 8, "context_noise": 0.3, "eta": 0.5}
    rolled = LongTakeRollout.execute(model=video, positive=label(1), seed=5, **options).args[0]["samples"]
    import comfy.samplers
    from pack.nodes.forcing.forcing_sampler import LongTakeForcingSampler

    sampler = LongTakeForcingSampler.execute(**options).args[0]
    guider = comfy.samplers.CFGGuider(video)
    guider.set_conds(label(1), label(1))
    guider.set_cfg(1.0)
    sigmas, noise = host.level_sigmas(video, STEPS).flip(0), frame_noise((48, 4, 4), 5, range(12))
    assert torch.equal(guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, seed=5), rolled)


# Frames that are given


GIVEN = {
    "in the latent": lambda frames: ({"samples": frames}, {}),
    "by its mask": lambda frames: ({"samples": frames, "noise_mask": made_frames(frames)}, {}),
    "as an input": lambda frames: ({"samples": torch.zeros_like(frames)}, {"known_frames": {"samples": frames[[0, 1, 5]]}}),
}


def made_frames(frames):
    mask = torch.ones(len(frames), 1, 8 * frames.shape[2], 8 * frames.shape[3])
    mask[[0, 1, 5]] = 0
    return mask


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_known_frames_come_back_bit_for_bit(case, given):
    model, empty, prompt = case
    frames = drawn(*empty.shape, seed=8)
    latent, inputs = given(frames)
    sampler = forcing("trapezoid", known=[0, 1, 5], eta=1.0, context_noise=0.2, **inputs)
    made = advanced(model, sampler, latent, scheduler_sigmas(model, STEPS), **prompt)
    assert torch.equal(made[[0, 1, 5]], frames[[0, 1, 5]])
    assert (made[2:5] - frames[2:5]).abs().amax((1, 2, 3)).min() > 0.1


def test_known_frames_are_seen_by_the_others(video):
    def made(seed):
        clip = drawn(FRAMES, 48, 4, 4, seed=seed)
        clip[2:] = 0
        return advanced(video, forcing("pyramid", known=2), clip, scheduler_sigmas(video, STEPS), positive=label(1))

    assert (made(8) - made(9))[2:].abs().amax((1, 2, 3)).min() > 1e-3


def test_rollout_takes_image_models_with_motion(animated):
    known = drawn(2, 4, 8, 8, seed=8)
    options = {"model": animated, "positive": text(3), "steps": STEPS, "lag": 1.0, "frames": FRAMES, "window": FRAMES}
    made = LongTakeRollout.execute(known_frames={"samples": known}, **options).args[0]["samples"]
    assert made.shape == (FRAMES, 4, 8, 8) and torch.equal(made[:2], known) and torch.isfinite(made).all()
    empty = {"samples": torch.zeros(1, 4, 8, 8)}
    assert LongTakeRollout.execute(latent=empty, **options).args[0]["samples"].shape == (FRAMES, 4, 8, 8)


def test_rollout_takes_video_models_with_a_time_axis(wan):
    known = drawn(1, 16, 2, *tiny_wan.SIZE, seed=8)
    options = {"model": wan, "positive": tiny_wan.text(3), "steps": STEPS, "lag": 1.0, "frames": 9, "window": 6}
    made = LongTakeRollout.execute(known_frames={"samples": known}, **options).args[0]["samples"]
    assert made.shape == (1, 16, 9, *tiny_wan.SIZE) and torch.equal(made[:, :, :2], known) and torch.isfinite(made).all()
    empty = {"samples": torch.zeros(2, 16, 1, *tiny_wan.SIZE)}
    assert LongTakeRollout.execute(latent=empty, **options).args[0]["samples"].shape == (2, 16, 9, *tiny_wan.SIZE)


@pytest.mark.parametrize("form", ["sampler", "rollout"])
def test_comfyui_makes_room_for_the_window_and_not_for_the_clip(video, wan, form, monkeypatch):
    import comfy.sampler_helpers

    asked, real = [], comfy.sampler_helpers._prepare_sampling

    def prepare(model, noise_shape, *args, **kwargs):
        asked.append(list(noise_shape))
        return real(model, noise_shape, *args, **kwargs)

    monkeypatch.setattr(comfy.sampler_helpers, "_prepare_sampling", prepare)
    if form == "rollout":
        empty = {"samples": torch.zeros(1, 16, 1, *tiny_wan.SIZE)}
        options = {"model": wan, "positive": tiny_wan.text(3), "latent": empty}
        LongTakeRollout.execute(frames=12, steps=2, lag=1.0, window=4, **options)
        assert [shape[2] for shape in asked] == [4]
    else:
        latent, sigmas = torch.zeros(24, 48, 4, 4), scheduler_sigmas(video, 2)
        advanced(video, forcing("pyramid", 24, 2, window=4), latent, sigmas, positive=label(1))
        assert asked and max(shape[0] for shape in asked) <= 4


# One level per frame, where ComfyUI looks at the first frame's


def test_starts_and_ends_of_prompts_hold_for_each_frame(image):
    """Without motion a frame must get what it gets when all frames are at its level."""
    sigmas, latent = scheduler_sigmas(image, STEPS), torch.zeros(FRAMES, 4, 8, 8)
    positive = later(prompts(FRAMES), 0.0, 0.4) + later(text(8), 0.4, 1.0)
    given = {"positive": positive, "negative": text(4), "cfg": 2.0}
    ours = advanced(image, forcing("pyramid"), latent, sigmas, **given)
    close(ours, advanced(image, theirs("euler"), latent, sigmas, **given), 2e-5)


@pytest.mark.parametrize("kind", CONTROLS)
def test_starts_and_ends_of_controls_hold_for_each_frame(image, kind):
    sigmas, latent = scheduler_sigmas(image, STEPS), torch.zeros(FRAMES, 4, 8, 8)
    results = []
    for sampler in (forcing("pyramid"), theirs("euler")):
        control = CONTROLS[kind]().set_cond_hint(hints(FRAMES), 0.8, (0.2, 0.7))
        positive, negative = controlled(control)
        results.append(advanced(image, sampler, latent, sigmas, positive=positive, negative=negative, cfg=2.0))
    close(*results, 2e-5)


@pytest.mark.parametrize("frames", [5, 8])
def test_our_windows_of_the_whole_model_work_inside_the_samplers(image, animated, frames):
    from pack.host.comfyui.parts.windows import whole_windows

    sigmas, latent = scheduler_sigmas(image, STEPS), torch.zeros(8, 4, 8, 8)
    plan, sampler = WindowPlan(length=4, overlap=2), forcing("pyramid", 8, STEPS, window=frames)
    plain = advanced(image, sampler, latent, sigmas, positive=text(3))
    close(advanced(whole_windows(image, plan), sampler, latent, sigmas, positive=text(3)), plain, 2e-5)
    moving = advanced(whole_windows(animated, plan), sampler, latent, sigmas, positive=text(3))
    assert torch.isfinite(moving).all()


@pytest.mark.parametrize("mode", ["temporal", "views"])
def test_windows_of_the_motion_modules_work_inside_the_samplers(animated, mode):
    """A sampler's window may then hold more frames than the module was trained on."""
    plan = WindowPlan(length=16, overlap=4)
    frames = 40
    sampler = forcing("full_sequence", frames, 2, window=frames)
    latent, sigmas = torch.zeros(frames, 4, 8, 8), scheduler_sigmas(animated, 2)
    model = host.context_windows(animated, plan, mode)
    ours = advanced(model, sampler, latent, sigmas, positive=text(3))
    close(ours, advanced(model, theirs("euler"), latent, sigmas, positive=text(3)), 2e-6)


# What is refused, before the model is called


class Never(torch.nn.Module):
    """In the place of a U-Net that must not be called."""


@pytest.fixture
def untouched(case, monkeypatch):
    model, latent, prompt = case

    def called(*args, **kwargs):
        raise AssertionError("the model was called")

    monkeypatch.setattr(type(model.model), "_apply_model", called)
    return model, latent, prompt


def refusal(untouched, sampler=None, *, latent=None, sigmas=None, model=None, **given):
    plain, empty, prompt = untouched
    with pytest.raises(ValueError) as error:
        advanced(
            model or plain,
            sampler or forcing("pyramid"),
            empty if latent is None else latent,
            scheduler_sigmas(plain, STEPS) if sigmas is None else sigmas,
            **{**prompt, **given},
        )
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_other_numbers_of_steps_or_frames_are_refused(untouched):
    model, latent, _ = untouched
    said = refusal(untouched, sigmas=scheduler_sigmas(model, 7))
    assert "the sigmas have 7 steps and the noise levels 4: set steps of the scheduler to 4, or of Noise Levels to 7" in said
    said = refusal(untouched, latent=latent[:5])
    assert "the latent has 5 frames and the noise levels are for 6" in said


def test_sigmas_that_do_not_end_clean_or_do_not_fall_are_refused(untouched):
    model = untouched[0]
    sigmas = scheduler_sigmas(model, 2 * STEPS)
    assert "so sigmas must end at 0" in refusal(untouched, sigmas=sigmas[: STEPS + 1])
    assert "do not fall" in refusal(untouched, sigmas=sigmas[STEPS:].flip(0))
    broken = sigmas[STEPS:].clone()
    broken[1] = torch.nan
    assert "do not fall" in refusal(untouched, sigmas=broken)


def test_latents_that_are_not_finite_are_refused(untouched):
    latent = untouched[1].clone()
    latent[3, 0, 0, 0] = torch.nan
    assert "not finite (NaN or infinite) in frame 3" in refusal(untouched, latent=latent)


def test_masks_of_parts_of_frames_are_refused(untouched):
    latent = {"samples": untouched[1], "noise_mask": torch.ones(FRAMES, 1, 8, 8)}
    latent["noise_mask"][2, :, :3] = 0
    assert "mask covers part of frame 2" in refusal(untouched, latent=latent)


def test_masks_of_other_frames_than_the_levels_are_refused(untouched):
    latent = {"samples": untouched[1] + 1, "noise_mask": torch.ones(FRAMES, 1, 8, 8)}
    latent["noise_mask"][:3] = 0
    said = refusal(untouched, latent=latent)
    assert "mask leaves 3 frames alone and the noise levels are for 0" in said and "set known of Noise Levels to 3" in said


def test_known_frames_that_are_not_there_are_refused(untouched):
    _, latent, _ = untouched
    assert "the latent is empty there: connect known_frames" in refusal(untouched, forcing("pyramid", known=2))
    one = {"samples": latent[:1] + 1}
    said = refusal(untouched, forcing("pyramid", known=2, known_frames=one))
    assert "noise levels are for 2 known frames and 1 are connected: connect that many, or a whole clip of 6" in said
    wide = {"samples": torch.ones(2, latent.shape[1], 2, 2)}
    assert "they must agree" in refusal(untouched, forcing("pyramid", known=2, known_frames=wide))


def test_windows_that_are_too_short_are_refused_when_the_sampler_is_made():
    with pytest.raises(ValueError, match=r"window holds 3 frames and this schedule has 4 in flight"):
        forcing("pyramid", window=3)
    with pytest.raises(ValueError, match=r"4 in flight and 2 sink frames at once: use a window of at least 6"):
        forcing("pyramid", 20, window=5, sink_frames=2)


def test_multistep_methods_are_refused_by_name():
    with pytest.raises(ValueError, match="order is 'dpmpp_2m': choose one of euler, heun, unipc, renoise"):
        forcing(order="dpmpp_2m")
    with pytest.raises(ValueError, match="heun, which is for deterministic sampling"):
        forcing(order="heun", eta=0.5)


def test_a_window_beyond_what_a_motion_module_knows_is_refused(animated, monkeypatch):
    said = refusal(
        (animated, torch.zeros(40, 4, 8, 8), {"positive": text(3)}),
        forcing("pyramid", 40, STEPS, window=40),
        latent=torch.zeros(40, 4, 8, 8),
    )
    assert "clips of at most 32 frames and got 40" in said


def test_a_model_that_does_not_say_its_length_needs_a_window(image):
    given = (image, torch.zeros(FRAMES, 4, 8, 8), {"positive": text(3)})
    assert "this model does not say it: set window" in refusal(given, forcing("pyramid", window=0))


def test_comfyuis_own_context_windows_are_refused(image):
    model = image.clone()
    model.model_options["context_handler"] = core_handler(
        schedule="standard_static", fuse="pyramid", context_length=4, context_overlap=2, context_stride=1, dim=0
    )
    given = (image, torch.zeros(FRAMES, 4, 8, 8), {"positive": text(3)})
    assert "remove them, or use LongTake's Context Windows" in refusal(given, model=model)


def test_hooks_with_keyframes_are_refused(image):
    import comfy.hooks

    hook = comfy.hooks.TransformerOptionsHook(transformers_dict={})
    group = comfy.hooks.HookGroup()
    group.add(hook)
    for percent in (0.0, 0.5):
        hook.hook_keyframe.add(comfy.hooks.HookKeyframe(1.0, percent))
    given = (image, torch.zeros(FRAMES, 4, 8, 8), {})
    assert "hooks with keyframes" in refusal(given, positive=[[text(3)[0][0], {"hooks": group}]])


def test_controls_of_other_packs_are_refused(image):
    import comfy.controlnet

    class Foreign(comfy.controlnet.ControlNet):
        def get_control(self, *args):
            raise AssertionError

    control = Foreign(CONTROLS["ControlNet"]().control_model, load_device=torch.device("cpu"))
    control.set_cond_hint(hints(FRAMES), 1.0, (0.0, 1.0))
    given = (image, torch.zeros(FRAMES, 4, 8, 8), {})
    assert "test_forcing_sampler and cannot be told a noise level per frame" in refusal(given, positive=controlled(control)[0])


def test_the_guider_shows_a_guide_the_level_of_every_frame(image):
    """For samplers of other packs that have one too."""
    seen = []

    def guide(denoise, view):
        seen.append(view.sigma)
        return denoise(view.shown())

    sigma, x = torch.tensor([0.5, 1.0, 2.0, 3.0, 4.0, 5.0]), drawn(FRAMES, 4, 8, 8)

    import comfy.samplers

    class Theirs(comfy.samplers.Sampler):
        def sample(
            self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False
        ):
            return model_wrap(x, sigma, **extra_args)

    guider = host.guider(image, text(3), text(4), 2.0, guide)
    guided = guider.sample(torch.zeros_like(x), torch.zeros_like(x), Theirs(), torch.tensor([5.0, 0.0]), seed=1)
    assert torch.equal(seen[0], sigma)
    plain = comfy.samplers.CFGGuider(image)
    plain.set_conds(text(3), text(4))
    plain.set_cfg(2.0)
    close(guided, plain.sample(torch.zeros_like(x), torch.zeros_like(x), Theirs(), torch.tensor([5.0, 0.0]), seed=1), 1e-5)
