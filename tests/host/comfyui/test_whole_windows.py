"""Windows of the whole model, against loops over slices written out here, ComfyUI's own handler, and the model without windows."""

import inspect

import pytest
import torch
from pack import host
from pack.modules.checkpoints.motion import load_motion_module
from pack.modules.temporal.windows import WindowPlan
from sparing import sparing
from tiny_motion import UNET, image_model, motion_file, randomized, text
from whole_windows import (
    CONTROLS,
    FRAMES,
    PLAN,
    close,
    config,
    control_lora,
    control_net,
    controlled,
    core_handler,
    drawn,
    guess,
    hints,
    later,
    masked,
    prompts,
    run,
    straddling,
    t2i_adapter,
    whole,
)

pytestmark = pytest.mark.comfy
WINDOWS = [[0, 1, 2, 3], [2, 3, 4, 5], [3, 4, 5, 6]]  # by hand
PYRAMID = [1.0, 2.0, 2.0, 1.0]
SAMPLERS = ("euler", "euler_ancestral", "heun", "dpmpp_2m", "dpmpp_2s_ancestral", "ddim")


@pytest.fixture
def model():
    return image_model()


@pytest.fixture
def animated(model, tmp_path):
    return host.apply_motion(model, load_motion_module(motion_file(tmp_path)))


def by_hand(call, frames=FRAMES, windows=WINDOWS, weights=PYRAMID):
    """The weighted mean, by loops, of ``call(indices)`` over windows."""
    total, count = None, torch.zeros(frames)
    for window in windows:
        part = call(window)
        total = torch.zeros(frames, *part.shape[1:]) if total is None else total
        for place, frame in enumerate(window):
            total[frame] += weights[place] * part[place]
            count[frame] += weights[place]
    return total / count.view(-1, 1, 1, 1)


SIGMAS = torch.linspace(12.0, 0.5, FRAMES)


@pytest.mark.parametrize("sigma", [torch.tensor(5.0), SIGMAS], ids=["one sigma", "one per frame"])
def test_equals_a_loop_over_slices(animated, sigma):
    x = drawn(FRAMES, 4, 8, 8) * 5
    positive = prompts()

    def call(window):
        part = sigma[window] if sigma.ndim else sigma
        return guess(animated, x[window], part, [[positive[0][0][window], {}]])

    windowed = guess(whole(animated), x, sigma, positive)
    close(windowed, by_hand(call))
    assert not torch.allclose(windowed, guess(animated, x, sigma, positive), rtol=1e-3), "the motion module must matter here"


SCHEDULES = ("standard_static", "standard_uniform", "looped_uniform", "batched")
THEIRS = [
    *((schedule, fuse, "euler") for schedule in SCHEDULES for fuse in ("pyramid", "flat")),
    *((schedule, fuse, "euler") for schedule in SCHEDULES[:2] for fuse in ("relative", "overlap-linear")),  # a seam differs
    *((schedule, "pyramid", sampler) for schedule in SCHEDULES[1:3] for sampler in ("heun", "dpmpp_2m")),
]
QUICK = THEIRS[0], THEIRS[4], THEIRS[6], ("standard_uniform", "overlap-linear", "euler"), ("looped_uniform", "pyramid", "heun")


@pytest.mark.parametrize(("schedule", "fuse", "sampler"), sparing(THEIRS, *QUICK), ids=map("-".join, THEIRS))
def test_equals_the_hosts_own_windows_where_those_work(animated, schedule, fuse, sampler):
    import comfy.context_windows as core

    if not hasattr(core, "create_sampler_sample_wrapper"):
        pytest.skip("this ComfyUI's windows crash for frames in the batch axis")
    plan = WindowPlan(schedule, 4, 2, fuse=fuse)
    theirs = animated.clone()
    theirs.model_options["context_handler"] = core_handler(
        schedule=schedule, fuse=fuse, context_length=4, context_overlap=2, context_stride=1, dim=0
    )
    close(run(whole(animated, plan), sampler, frames=10), run(theirs, sampler, frames=10), 2e-5)


@pytest.mark.parametrize("frames", [2, 4])
def test_a_clip_that_fits_one_window_is_as_without(animated, frames):
    assert torch.equal(run(whole(animated), frames=frames), run(animated, frames=frames))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_without_motion_windows_change_nothing(model, sampler):
    close(run(whole(model), sampler, positive=prompts()), run(model, sampler, positive=prompts()))


def masks(frames=FRAMES):
    """One per frame, each another half."""
    return (torch.arange(8) < torch.arange(frames).view(-1, 1, 1) + 1).float().expand(frames, 8, 8)


PER_FRAME = {
    "prompts": lambda: prompts(),
    "fewer prompts than frames": lambda: prompts(3),
    "masks": lambda: masked(text(3), masks()) + masked(text(8), 1 - masks()),
    "masks and prompts": lambda: masked(prompts(), masks()) + text(8),
    "an area": lambda: [*text(3), [prompts()[0][0], {"area": (4, 4, 2, 2), "strength": 1.0}]],
    "an area in percent with masks": lambda: text(3) + masked(text(5), masks(), area=("percentage", 0.5, 0.5, 0.25, 0.5)),
    "a start": lambda: later(prompts(), 0.0, 0.4) + later(text(8), 0.4, 1.0),
    "a default": lambda: [*masked(prompts(), masks()), [text(8)[0][0], {"default": True}]],
}


@pytest.mark.parametrize("kind", PER_FRAME)
def test_every_frame_keeps_its_own_conditions(model, kind):
    close(run(whole(model), positive=PER_FRAME[kind]()), run(model, positive=PER_FRAME[kind]()))


@pytest.mark.parametrize("kind", ["prompts", "masks", "an area"])
def test_every_frame_keeps_its_own_conditions_and_sigma(model, kind):
    x = drawn(FRAMES, 4, 8, 8) * 5
    alone = [guess(model, x, SIGMAS, PER_FRAME[kind]())]  # ComfyUI can do that much
    close(guess(whole(model), x, SIGMAS, PER_FRAME[kind]()), alone[0])


def test_inpainting_keeps_what_the_mask_keeps(model):
    latent = drawn(FRAMES, 4, 8, 8, seed=2)
    mask = (torch.arange(FRAMES) % 2).float().view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    given = {"latent": latent, "noise_mask": mask}
    close(run(whole(model), **given), run(model, **given))
    close(run(whole(model), **given)[::2], latent[::2])


def inpaint_model():
    """The same U-Net with five more input channels, a mask and a masked latent, as inpainting checkpoints have."""
    from dataclasses import replace

    model = image_model(config=replace(UNET, in_channels=9))
    model.model.set_inpaint()
    return model


def test_concatenated_latents_follow_the_window():
    latent, mask = drawn(FRAMES, 4, 8, 8, seed=6), masks()[:, None]
    positive = [[text(3)[0][0], {"concat_latent_image": latent, "concat_mask": mask}]]
    model = inpaint_model()
    plain = run(model, positive=positive, negative=positive)
    close(run(whole(model), positive=positive, negative=positive), plain)
    shifted = [[text(3)[0][0], {"concat_latent_image": latent.roll(1, 0), "concat_mask": mask}]]
    assert not torch.allclose(run(model, positive=shifted, negative=positive), plain), "what is concatenated must matter here"


def test_labels_follow_the_window():
    """``y``, as SDXL's size and pooled prompt."""
    import comfy.conds
    from pack.host.comfyui.parts.conds import of_frames

    ids = torch.tensor([5, 6, 0])
    y, lists = torch.arange(7.0).view(-1, 1), [torch.arange(7.0).view(-1, 1), torch.zeros(1, 1)]
    given = {
        "y": comfy.conds.CONDRegular(y),
        "one": comfy.conds.CONDRegular(y[:1]),
        "lists": comfy.conds.CONDList(lists),
        "constant": comfy.conds.CONDConstant(y),
        "num_video_frames": comfy.conds.CONDConstant(7),
    }
    window = of_frames([[{"model_conds": given}], None], ids, 0, lambda control: control)
    made = {key: cond.cond for key, cond in window[0][0]["model_conds"].items()}
    assert made["y"].flatten().tolist() == [5, 6, 0] and made["one"].tolist() == [[0]] and made["num_video_frames"] == 3
    assert made["lists"][0].flatten().tolist() == [5, 6, 0] and len(made["lists"][1]) == 1 and made["constant"] is y
    assert window[1] is None and given["y"].cond is y


def test_a_video_models_own_labels_are_left_to_it(tiny_video_model):
    model = host.video_model(tiny_video_model)
    x = drawn(FRAMES, 48, 4, 4)
    labels = drawn(FRAMES, 4, seed=9)

    def prompt(rows):
        return [[torch.zeros(1, 1, 1), {"pooled_output": rows}]]

    def call(window):
        return guess(model, x[window], torch.tensor(2.0), prompt(labels[window]), prompt(labels[window]))

    close(guess(whole(model), x, torch.tensor(2.0), prompt(labels), prompt(labels)), by_hand(call))


def test_starts_and_ends_hold_for_each_frame(model):
    limit = straddling(model)
    sigma = torch.tensor([limit * factor for factor in (0.3, 0.5, 2.0, 0.8, 3.0, 1.5, 0.9)])
    x = drawn(FRAMES, 4, 8, 8) * 5
    first, second = prompts(), text(8)
    both = later(first, 0.0, 0.4) + later(second, 0.4, 1.0)
    early, late = guess(model, x, sigma, first), guess(model, x, sigma, second)
    expected = torch.where((sigma >= limit).view(-1, 1, 1, 1), early, late)
    close(guess(whole(model), x, sigma, both), expected)
    close(guess(whole(model, WindowPlan(length=16)), x, sigma, both), expected)  # one window holds the clip


def compared(model, make, *, uncond=True, **sampling):
    """Latents with windows and without, each with a control from ``make()``."""
    results = []
    for sampled in (whole(model), model):
        positive, negative = controlled(make(), uncond) if uncond else (controlled(make(), uncond)[0], text(4))
        results.append(run(sampled, positive=positive, negative=negative, **sampling))
    return results


@pytest.mark.parametrize("count", sparing([FRAMES, FRAMES + 3, 3, 1], FRAMES + 3, 3))
@pytest.mark.parametrize("kind", CONTROLS)
def test_every_frame_keeps_its_own_hint(model, kind, count):
    windowed, plain = compared(model, lambda: CONTROLS[kind]().set_cond_hint(hints(count), 0.8, (0.0, 0.9)))
    close(windowed, plain)
    other = compared(model, lambda: CONTROLS[kind]().set_cond_hint(hints(count, seed=4), 0.8, (0.0, 0.9)))[1]
    assert (other - plain).abs().max() > 1e-3 * plain.abs().max(), "the hint must matter here"


def test_the_hosts_own_windows_would_mix_the_hints_up(model):
    """The reason for all of this; when it fails, ComfyUI has learned it."""
    import comfy.context_windows as core

    if not hasattr(core, "create_sampler_sample_wrapper"):
        pytest.skip("this ComfyUI's windows crash for frames in the batch axis")
    theirs = model.clone()
    theirs.model_options["context_handler"] = core_handler(
        schedule="batched", fuse="flat", context_length=4, context_overlap=0, context_stride=1, dim=0
    )
    positive, negative = controlled(control_net().set_cond_hint(hints(), 1.0))
    wrong = run(theirs, positive=positive, negative=negative)
    plain = run(model, positive=positive, negative=negative)
    close(wrong[:4], plain[:4], 1e-4)
    assert not torch.allclose(wrong[4:], plain[4:], rtol=1e-2)


def test_a_chain_of_controls_keeps_every_hint(model):
    def make():
        first = t2i_adapter(6).set_cond_hint(hints(seed=6), 0.7)
        second = control_lora().set_cond_hint(hints(seed=7), 0.5, (0.0, 0.5)).set_previous_controlnet(first)
        return control_net().set_cond_hint(hints(1, seed=8), 0.6).set_previous_controlnet(second)

    close(*compared(model, make))
    close(*compared(model, make, uncond=False))


def test_a_masked_hint_keeps_its_mask(model):
    """Inpainting ControlNets take a mask behind the picture."""

    def make():
        import comfy.cldm.cldm
        import comfy.controlnet

        network = randomized(comfy.cldm.cldm.ControlNet(hint_channels=4, **config()).eval(), 5)
        control = comfy.controlnet.ControlNet(network, load_device=torch.device("cpu"), concat_mask=True)
        return control.set_cond_hint(hints(), 1.0, extra_concat=[masks()[:, None]])

    close(*compared(model, make))


def remembered(control):
    return dict(vars(control))


def same(before, after):
    return before.keys() == after.keys() and all(before[name] is after[name] for name in before)


def test_controls_are_afterwards_as_before(model):
    """Within a sampling: the state that the control has between two calls is the same object for object."""
    control = control_net().set_cond_hint(hints(), 0.8)
    control.set_previous_controlnet(t2i_adapter().set_cond_hint(hints(seed=4), 0.5))
    positive, negative = controlled(control)
    x, states = drawn(FRAMES, 4, 8, 8), []

    def between(conds):
        assert conds["positive"][0]["control"] is control
        states.append((remembered(control), remembered(control.previous_controlnet)))
        control.__dict__["cleanup"] = lambda: states.append((remembered(control), remembered(control.previous_controlnet)))

    guess(whole(model), x, torch.tensor(5.0), positive, negative, between=between)
    (mine, previous), (mine_after, previous_after) = states[0], states[1]
    mine_after.pop("cleanup")
    assert same(mine, mine_after) and same(previous, previous_after)


def test_a_controls_start_and_end_hold_for_each_frame(model):
    limit = straddling(model)
    sigma = torch.tensor([limit * factor for factor in (0.3, 0.5, 2.0, 0.8, 3.0, 1.5, 0.9)])
    x = drawn(FRAMES, 4, 8, 8) * 5
    for make, count in ((control_net, FRAMES), (t2i_adapter, FRAMES), (t2i_adapter, 1)):
        always, until = (
            controlled(
                make()
                .set_cond_hint(hints(count), 0.8, (0.0, end))
                .set_previous_controlnet(control_net(9).set_cond_hint(hints(), 1.0))
            )
            for end in (1.0, 0.4)
        )
        never = controlled(control_net(9).set_cond_hint(hints(), 1.0))
        on, off = guess(model, x, sigma, *always), guess(model, x, sigma, *never)
        expected = torch.where((sigma >= limit).view(-1, 1, 1, 1), on, off)
        assert not torch.allclose(on, off, rtol=1e-2)
        close(guess(whole(model), x, sigma, *until), expected)


def test_controls_in_chunks_start_and_end_for_each_frame(model):
    from pack.host.comfyui.parts.windows import FrameHandler, handled

    limit = straddling(model)
    sigma = torch.tensor([limit * factor for factor in (0.3, 0.5, 0.2, 0.8, 3.0, 1.5, 0.9)])  # the first three are past its end
    x = drawn(FRAMES, 4, 8, 8) * 5
    for make in (control_net, t2i_adapter):
        before = control_net(9).set_cond_hint(hints(), 1.0)
        given = controlled(make().set_cond_hint(hints(), 0.8, (0.0, 0.4)).set_previous_controlnet(before))
        at_once = guess(handled(model, FrameHandler()), x, sigma, *given)
        close(guess(handled(model, FrameHandler(control_chunk=3)), x, sigma, *given), at_once)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONTROLS)
@pytest.mark.parametrize("chunk", [1, 3])
def test_controls_in_chunks_are_the_same(model, kind, chunk):
    from pack.host.comfyui.parts.windows import FrameHandler, handled

    for count in (FRAMES, 3, 1):
        chained = control_net(9)

        def make(count=count, chained=chained):
            return (
                CONTROLS[kind]()
                .set_cond_hint(hints(count), 0.8, (0.0, 0.7))
                .set_previous_controlnet(chained.set_cond_hint(hints(), 1.0))
            )

        parts = handled(model, FrameHandler(control_chunk=chunk))
        most = []
        network = chained.control_model
        network.register_forward_pre_hook(lambda module, args, kwargs, most=most: most.append(len(kwargs["x"])), with_kwargs=True)
        chunked = run(parts, positive=controlled(make())[0])
        assert max(most) <= 2 * chunk
        close(chunked, run(model, positive=controlled(make())[0]))


def test_a_control_that_sees_to_its_windows_itself_is_left_alone(model):
    import comfy.controlnet

    seen = []

    class Own(comfy.controlnet.ControlNet):
        def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
            window = transformer_options["context_window"]
            assert self.cond_hint_original is mine and window.dim == 0
            seen.append(list(window.index_list))
            return (
                None
                if self.previous_controlnet is None
                else self.previous_controlnet.get_control(x_noisy, t, cond, batched_number, transformer_options)
            )

    mine = hints()

    def make(kind):
        before = control_net().set_cond_hint(hints(seed=4), 1.0)
        return kind(None).set_cond_hint(mine, 1.0).set_previous_controlnet(before) if kind else before

    Own.get_models = lambda self: self.previous_controlnet.get_models()
    windowed = run(whole(model), positive=controlled(make(Own))[0], steps=1)
    assert seen[:3] == WINDOWS or seen[::2][:3] == WINDOWS
    close(windowed, run(model, positive=controlled(make(None))[0], steps=1))


def test_the_window_is_published_as_the_hosts_own(model):
    from comfy.context_windows import IndexListContextWindow

    seen = []

    def watching(call, given):
        window = given["c"]["transformer_options"]["context_window"]
        assert isinstance(window, IndexListContextWindow) and window.context_length == 4
        seen.append((list(window.index_list), window.dim, len(given["input"]) // len(given["cond_or_uncond"])))
        return call(given["input"], given["timestep"], **given["c"])

    watched = whole(model)
    watched.set_model_unet_function_wrapper(watching)
    run(watched, steps=1)
    assert list(dict.fromkeys(map(str, seen))) == [str((window, 0, 4)) for window in WINDOWS]
    assert "context_window" not in watched.model_options["transformer_options"]


def test_a_rollout_goes_through_windows_by_absolute_frame(model):
    """A sampler that shows the model frames 2 to 6: prompts are those frames', and the windows lie in the call."""
    from pack.host.comfyui.options import IDS

    x, positive = drawn(5, 4, 8, 8), prompts(9)
    frames = torch.arange(2, 7)
    shown = whole(model)
    shown.model_options["transformer_options"] = {IDS: frames}
    clip = drawn(9, 4, 8, 8)
    clip[2:7] = x
    expected = guess(model, clip, torch.tensor(5.0), positive)[2:7]

    import comfy.samplers

    class Some(comfy.samplers.Sampler):
        def sample(
            self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False
        ):
            return model_wrap(x, torch.full((5,), 5.0), **extra_args)

    guider = comfy.samplers.CFGGuider(shown)
    guider.set_conds(positive, text(4))
    guider.set_cfg(2.0)
    with torch.inference_mode():
        close(guider.sample(torch.zeros_like(clip), torch.zeros_like(clip), Some(), torch.tensor([10.0, 0.0]), seed=1), expected)


@pytest.mark.slow
def test_it_survives_clones_and_lora_loaders(animated):
    import comfy.lora
    import comfy.sd

    windowed = whole(animated)
    expected = run(windowed)
    assert torch.equal(run(windowed.clone().clone()), expected)
    key, target = next(
        item for item in comfy.lora.model_lora_keys_unet(animated.model, {}).items() if item[0].endswith("proj_in")
    )
    weight = animated.model.state_dict()[target]
    lora = {
        f"{key}.lora_up.weight": drawn(weight.shape[0], 2, seed=5),
        f"{key}.lora_down.weight": drawn(2, weight[0].numel(), seed=6),
    }
    after, _ = comfy.sd.load_lora_for_models(windowed, None, dict(lora), 1.0, 0)
    before, _ = comfy.sd.load_lora_for_models(animated, None, dict(lora), 1.0, 0)
    styled = run(after)
    close(styled, run(whole(before)))
    assert not torch.allclose(styled, expected)
    assert torch.equal(run(windowed), expected)


def test_custom_sampling_and_guiders(animated):
    """SamplerCustomAdvanced with a basic guider, as against KSampler at cfg 1."""
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import BasicGuider, RandomNoise, SamplerCustomAdvanced

    windowed = whole(animated)
    sampling = animated.get_model_object("model_sampling")

    def result(out):
        return out.result if hasattr(out, "result") else out

    with torch.inference_mode():
        static = isinstance(inspect.getattr_static(SamplerCustomAdvanced, "execute", None), classmethod)
        noise = result(RandomNoise.execute(1) if static else RandomNoise().get_noise(1))[0]
        guider = result(BasicGuider.execute(windowed, text(3)) if static else BasicGuider().get_guider(windowed, text(3)))[0]
        given = noise, guider, comfy.samplers.sampler_object("euler"), comfy.samplers.calculate_sigmas(sampling, "normal", 3)
        latent = {"samples": torch.zeros(FRAMES, 4, 8, 8)}
        made = result((SamplerCustomAdvanced.execute if static else SamplerCustomAdvanced().sample)(*given, latent))[0]
    close(made["samples"], run(windowed, cfg=1.0))


class Stop(Exception):
    pass


def failing_at(model, call):
    """A clone whose model call number ``call`` fails, and the list of calls."""
    made = []

    def maybe(apply, given):
        made.append(1)
        if len(made) == call:
            raise Stop
        return apply(given["input"], given["timestep"], **given["c"])

    clone = model.clone()
    clone.set_model_unet_function_wrapper(maybe)
    return clone


@pytest.mark.parametrize("call", sparing([1, 2, 5], 2))
def test_an_error_in_the_middle_leaves_everything_clean(animated, call):
    control = control_net().set_cond_hint(hints(), 0.8)
    positive, negative = controlled(control)
    windowed = whole(animated)
    expected = run(windowed, positive=positive, negative=negative)
    given = control.cond_hint_original
    with pytest.raises(Stop):
        run(failing_at(windowed, call), positive=positive, negative=negative)
    assert control.cond_hint_original is given and control.cond_hint is None and control.strength == 0.8
    assert torch.equal(run(windowed, positive=positive, negative=negative), expected)


def test_an_error_in_the_control_restores_it(model):
    control = control_net().set_cond_hint(hints(), 0.8)

    def fail(module, args):
        raise Stop

    handle = control.control_model.register_forward_pre_hook(fail)
    positive, negative = controlled(control)
    before = remembered(control)
    with pytest.raises(Stop):
        run(whole(model), positive=positive, negative=negative)
    handle.remove()
    after = remembered(control)
    assert after["cond_hint_original"] is before["cond_hint_original"] and after["cond_hint"] is None
    assert after["strength"] == 0.8


def test_cancel_stops_before_the_next_window(animated):
    import comfy.model_management

    calls = []

    def cancelling(apply, given):
        calls.append(1)
        comfy.model_management.interrupt_current_processing(True)
        options = given["c"]["transformer_options"]
        with_flag = comfy.model_management.processing_interrupted()
        assert with_flag and options["context_window"].index_list == WINDOWS[0]
        return torch.zeros_like(given["input"])

    watched = whole(animated)
    watched.set_model_unet_function_wrapper(cancelling)
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            run(watched, cfg=1.0)
    finally:
        comfy.model_management.interrupt_current_processing(False)
    assert len(calls) == 1


@pytest.mark.slow
def test_only_one_window_of_guesses_is_alive(model):
    import gc
    import weakref

    from pack.host.comfyui.parts.windows import FrameHandler

    alive, most = [], []

    def call(model, conds, x, sigma, options):
        gc.collect()
        most.append(sum(guess() is not None for guess in alive))
        guesses = [torch.zeros_like(x) for _ in conds]
        alive.extend(map(weakref.ref, guesses))
        return guesses

    x = drawn(100, 4, 8, 8)
    FrameHandler(PLAN).execute(call, None, [None, None], x, torch.ones(100), {"transformer_options": {}})
    assert len(most) > 40 and max(most) == 0


def test_memory_is_asked_for_one_window(model, monkeypatch):
    import comfy.sampler_helpers

    asked = []
    original = comfy.sampler_helpers.estimate_memory

    def estimate(model, noise_shape, *args, **kwargs):
        asked.append(noise_shape[0])
        return original(model, noise_shape, *args, **kwargs)

    monkeypatch.setattr(comfy.sampler_helpers, "estimate_memory", estimate)
    run(whole(whole(model)), steps=1)
    run(model, steps=1)
    assert asked == [4, FRAMES]


def test_an_automatic_length_and_video_models_are_refused(model):
    import comfy.latent_formats

    with pytest.raises(ValueError, match="give a length"):
        whole(model, WindowPlan(length=0, overlap=0))
    video = image_model()
    video.model.latent_format = comfy.latent_formats.Wan21()
    with pytest.raises(ValueError, match="time axis of its own"):
        whole(video)
