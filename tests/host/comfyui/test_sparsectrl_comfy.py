"""SparseCtrl in ComfyUI: the same residuals in every call that a sampling may make of a clip, and what ComfyUI asks of a control."""

import pytest
import torch
from pack import host
from pack.modules.checkpoints.motion import load_motion_module
from pack.modules.checkpoints.sparsectrl import load_sparse_control
from pack.modules.control.keyframes import Keyframes
from pack.modules.control.sparse_pictures import SparseSettings
from pack.modules.temporal.frames import Frames
from pack.modules.temporal.windows import WindowPlan
from sparing import sparing
from tiny_motion import UNET, image_model, motion_file, text
from tiny_sparse import PIXELS, RGB, network, sparse_file
from whole_windows import close, core_handler, drawn, guess, prompts, run, straddling, whole

pytestmark = pytest.mark.comfy
FRAMES = 7
SIGMAS = torch.linspace(12.0, 0.5, FRAMES)


class Vae:
    """Stands in for a VAE: means of eight by eight pixels are a latent's first channels. Counts how often it is used."""

    used = 0

    def spacial_compression_encode(self):
        return 8

    def encode(self, pixels):
        self.used += 1
        colours = torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), 8) * 4 - 2
        return torch.cat([colours, colours.mean(dim=1, keepdim=True)], dim=1)


def keyframes(*frames, clip=FRAMES, strengths=None, seed=3):
    images = torch.rand(len(frames), 64, 64, 3, generator=torch.Generator().manual_seed(seed))
    return Keyframes(images, frames, strengths or (1.0,) * len(frames), (0,) * len(frames)).at(clip)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory, comfyui):
    folder = tmp_path_factory.mktemp("sparse")
    files = {"rgb": sparse_file(folder), "scribble": sparse_file(folder, "scribble.safetensors", PIXELS)}
    return {name: host.sparse_control(load_sparse_control(path)) for name, path in files.items()}


@pytest.fixture(scope="module")
def model(comfyui):
    return image_model()


@pytest.fixture(scope="module")
def animated(tmp_path_factory, model):
    return host.apply_motion(model, load_motion_module(motion_file(tmp_path_factory.mktemp("motion"))))


def led(encoder, frames=(0, -1), positive=None, negative=None, clip=FRAMES, **settings):
    """Both conditionings."""
    keyed = settings.pop("keyframes", None) or keyframes(*frames, clip=clip)
    return host.apply_sparse_control(positive or text(3), negative or text(4), encoder, SparseSettings(keyed, **settings), Vae())


X = drawn(FRAMES, 4, 8, 8) * 5


def guessed(model, conds, x=X, sigma=None, **options):
    return guess(model, x, torch.tensor(5.0) if sigma is None else sigma, *conds, **options)


class Recorder:
    """Keeps the residuals that a control gives in each call, with the call's frames."""

    def __init__(self, conds):
        self.calls, self.control = [], conds[0][0][1]["control"]
        inner = self.control.get_control

        def get_control(x, t, cond, rows, options):
            from pack.host.comfyui.options import frame_numbers

            made = inner(x, t, cond, rows, options)
            kept = {place: list(features) for place, features in made.items()}  # the U-Net empties the lists
            self.calls.append((frame_numbers(options, len(x) // rows).tolist(), kept))
            return made

        self.control.get_control = get_control

    def by_frame(self, frame, row=0):
        """Every output for a frame of one condition, from the first call that was about it."""
        ids, made = next((ids, made) for ids, made in self.calls if frame in ids)
        assert len(made["output"]) == 6 and len(made["middle"]) == 1
        return [rows[row * len(ids) + ids.index(frame)].flatten() for place in ("output", "middle") for rows in made[place]]


@pytest.mark.parametrize("kind", ["rgb", "scribble"])
def test_the_u_net_gets_what_the_encoder_makes_of_the_keyframes(kind, encoders, model):
    """Put together here by hand: condition, mask, text and timestep of each condition, and strength."""
    from pack.modules.control.sparse_pictures import at_size

    conds = led(encoders[kind], strength=0.7)
    record = Recorder(conds)
    guessed(model, conds)
    ((ids, made),) = record.calls
    assert ids == list(range(FRAMES))
    config, pictures = (RGB, 64) if kind == "rgb" else (PIXELS, 64)
    shown = at_size(keyframes(0, -1).images, pictures, pictures, kind)
    hints = Vae().encode(shown.movedim(1, -1)) * 0.18215 if kind == "rgb" else shown
    condition = torch.zeros(FRAMES, config.condition + 1, *hints.shape[-2:])
    condition[[0, -1], :-1], condition[[0, -1], -1] = hints, 1
    t = model.get_model_object("model_sampling").timestep(torch.tensor([5.0]))
    order = (3, 4) if len(made["middle"][0]) == 2 * FRAMES else ()
    expected = []
    for seed in order:
        with torch.no_grad():
            expected.append(
                network(config)(
                    condition, t.float().expand(FRAMES), text(seed)[0][0].expand(FRAMES, -1, -1), frames=Frames.of(FRAMES)
                )
            )
    joined = [torch.cat(parts) * 0.7 for parts in zip(*expected, strict=True)]
    swapped = [torch.cat(parts) * 0.7 for parts in zip(*reversed(expected), strict=True)]  # ComfyUI may have the negative first
    got = [*made["output"], *made["middle"]]
    assert len(got) == len(joined)
    best = min((joined, swapped), key=lambda those: float((those[-1] - got[-1]).abs().max()))
    for one, other in zip(got, best, strict=True):
        close(one, other, 1e-5)


def test_what_is_added_does_not_depend_on_the_noisy_frames(encoders, model):
    results = []
    for x in (X, X * 0 + 100):
        conds = led(encoders["rgb"])
        record = Recorder(conds)
        guessed(model, conds, x)
        results.append(record.calls[0][1])
    for place in ("output", "middle"):
        assert results[0][place] and all(
            torch.equal(one, other) for one, other in zip(results[0][place], results[1][place], strict=True)
        )


@pytest.mark.parametrize("sigma", [torch.tensor(5.0), SIGMAS], ids=["one sigma", "one per frame"])
@pytest.mark.parametrize("texts", sparing(["one prompt", "a prompt per frame"], "a prompt per frame"))
@pytest.mark.parametrize("motion", [True, False])
def test_windows_change_nothing(encoders, model, sigma, texts, motion):
    """With a U-Net that sees each frame by itself; the encoder's own motion modules see the whole clip in any case."""
    positive = prompts() if texts != "one prompt" else None
    made = {
        name: guessed(sampled, led(encoders["rgb"], (0, 5), positive, motion=motion), sigma=sigma)
        for name, sampled in (("windows", whole(model)), ("none", model))
    }
    close(made["windows"], made["none"])
    apart = guessed(model, led(encoders["rgb"], (0, 5), positive, motion=not motion), sigma=sigma)
    assert (made["none"] - apart).abs().max() > 1e-3, "its motion modules must matter here"


def test_comfyuis_own_windows_show_each_frame_its_keyframe(encoders, model):
    """They do not say what the other frames are, so the encoder sees the window; without its motion that is all the same."""
    import comfy.context_windows as core

    if not hasattr(core, "create_sampler_sample_wrapper"):
        pytest.skip("this ComfyUI's windows crash for frames in the batch axis")
    theirs, settings = model.clone(), {"context_length": 4, "context_overlap": 2, "context_stride": 1, "dim": 0}
    theirs.model_options["context_handler"] = handler = core_handler(schedule="standard_static", fuse="flat", **settings)
    handler.causal_window_fix = True
    made = []
    for sampled in (theirs, model):
        positive, negative = led(encoders["rgb"], (0, 5), motion=False)
        made.append(run(sampled, positive=positive, negative=negative, steps=2))
    close(*made)


def test_prompts_of_different_length_under_windows(encoders, model):
    longer = [[drawn(1, 8, 16, seed=9), {}]]
    close(*(guessed(sampled, led(encoders["rgb"], positive=longer)) for sampled in (whole(model), model)))


def test_a_clip_is_encoded_once_however_many_windows_there_are(encoders, model):
    conds = led(encoders["rgb"])
    control, runs = conds[0][0][1]["control"], []
    forward = control.encoder.patcher.model.forward
    control.encoder.patcher.model.forward = lambda *args, **kwargs: runs.append(len(args[0])) or forward(*args, **kwargs)
    try:
        guessed(whole(model), conds)
    finally:
        del control.encoder.patcher.model.forward
    assert runs == [FRAMES, FRAMES], "the positive and the negative condition, over three windows"
    assert control.vae.used == 1
    assert control.known is None and not control.made_hints, "nothing is kept after the sampling"


@pytest.mark.parametrize("mode", sparing(["temporal", "views", "whole"], "whole"))
def test_windows_of_every_mode_add_the_same(encoders, animated, mode):
    plan = WindowPlan(length=4, overlap=2)
    records = []
    for sampled in (host.context_windows(animated, plan, mode), animated):
        conds = led(encoders["rgb"], (2,))
        records.append(Recorder(conds))
        guessed(sampled, conds)
    for frame in range(FRAMES):
        for one, other in zip(records[0].by_frame(frame), records[1].by_frame(frame), strict=True):
            close(one, other, 1e-5)


@pytest.mark.parametrize("mode", ["temporal", "whole"])
def test_clips_longer_than_it_knows_go_through_the_models_windows(encoders, animated, mode):
    plan = WindowPlan(length=16, overlap=4)
    x = drawn(40, 4, 8, 8)
    conds = led(encoders["rgb"], (0, 20, -1), clip=40)
    record = Recorder(conds)
    assert torch.isfinite(guessed(host.context_windows(animated, plan, mode), conds, x)).all()
    windows = plan.windows(40, 0)
    motion = network(RGB).motion
    hints = Vae().encode(keyframes(0, 20, -1, clip=40).images) * 0.18215
    condition = torch.zeros(40, 5, 8, 8)
    condition[[0, 20, -1], :4], condition[[0, 20, -1], 4] = hints, 1
    frames = motion.frames_for(torch.arange(40), None, windows)
    t = animated.get_model_object("model_sampling").timestep(torch.tensor([5.0])).float().expand(40)
    rows = {seed: network(RGB)(condition, t, text(seed)[0][0].expand(40, -1, -1), frames=frames) for seed in (3, 4)}
    for frame in (0, 10, 39):
        got = record.by_frame(frame)
        best = min(rows.values(), key=lambda row: float((row[-1][frame].flatten() - got[-1]).abs().max()))
        for one, other in zip(got, best, strict=True):
            close(one, other[frame].flatten(), 2e-5)


def test_longer_clips_without_windows_are_refused(encoders, model):
    with pytest.raises(ValueError, match="at most 32 frames and got 33: put Context Windows before the sampler"):
        guessed(model, led(encoders["rgb"], clip=33), drawn(33, 4, 8, 8))


def test_it_starts_and_ends_for_each_frame_at_its_own_level(encoders, model):
    limit = straddling(model)
    sigma = torch.tensor([limit * factor for factor in (0.3, 0.5, 2.0, 0.8, 3.0, 1.5, 0.9)])
    on, off = guessed(model, led(encoders["rgb"]), sigma=sigma), guessed(model, (text(3), text(4)), sigma=sigma)
    expected = torch.where((sigma >= limit).view(-1, 1, 1, 1), on, off)
    for sampled in (model, whole(model)):
        close(guessed(sampled, led(encoders["rgb"], end_percent=0.4), sigma=sigma), expected)
    assert torch.equal(guessed(model, led(encoders["rgb"], start_percent=0.999)), guessed(model, (text(3), text(4))))


def test_multipliers_and_strength(encoders, model):
    plain = guessed(model, (text(3), text(4)))
    assert torch.equal(guessed(model, led(encoders["rgb"], strength=0.0)), plain)
    whole_ = guessed(model, led(encoders["rgb"]))
    keyed, others = (
        guessed(model, led(encoders["rgb"], other_multiplier=0.0)),
        guessed(model, led(encoders["rgb"], hint_multiplier=0.0)),
    )
    at = torch.tensor([frame in (0, FRAMES - 1) for frame in range(FRAMES)]).view(-1, 1, 1, 1)
    close(keyed, torch.where(at, whole_, plain), 1e-6)
    close(others, torch.where(at, plain, whole_), 1e-6)
    both = keyframes(0, -1, strengths=(1.0, 0.0))
    alone = Keyframes(both.images[:1], (0,), (1.0,), (0,), FRAMES)
    absent = guessed(model, led(encoders["rgb"], keyframes=both, other_multiplier=0.0, hint_multiplier=1.0))[:-1]
    close(absent, guessed(model, led(encoders["rgb"], keyframes=alone, other_multiplier=0.0))[:-1], 1e-5)
    assert (absent - whole_[:-1]).abs().max() > 1e-3


def test_a_control_before_it_goes_on(encoders, model):
    from whole_windows import control_net, controlled, hints

    def before():
        return controlled(control_net().set_cond_hint(hints(), 0.8), uncond=True)

    positive, negative = before()
    both = led(encoders["rgb"], positive=positive, negative=negative)
    assert positive[0][1]["control"] is not both[0][0][1]["control"]
    assert both[0][0][1]["control"].previous_controlnet is positive[0][1]["control"]
    record = Recorder(both)
    guessed(model, both)
    apart = before(), led(encoders["rgb"])
    alone, sparse = map(Recorder, apart)
    for conds in apart:
        guessed(model, conds)
    for frame in (0, 3):
        for together, one, two in zip(record.by_frame(frame), alone.by_frame(frame), sparse.by_frame(frame), strict=True):
            close(together, one + two, 1e-5)


def test_comfyui_loads_it_and_nothing_is_left(encoders, model):
    import comfy.model_management
    import nodes

    positive, negative = led(encoders["rgb"])
    control = positive[0][1]["control"]
    assert negative[0][1]["control"] is control, "both conditions share a call"
    assert control.get_models() == [encoders["rgb"].patcher]
    made = [
        nodes.KSampler().sample(
            model, 1, 2, 2.0, "euler", "normal", positive, negative, {"samples": torch.zeros(FRAMES, 4, 8, 8)}
        )[0]
        for _ in range(2)
    ]
    assert torch.equal(made[0]["samples"], made[1]["samples"])
    assert any(loaded.model is encoders["rgb"].patcher for loaded in comfy.model_management.current_loaded_models)
    assert control.base is None and control.timestep_range is None


def test_after_a_cancel_the_next_sampling_is_as_ever(encoders, model):
    from comfy.model_management import InterruptProcessingException

    conds = led(encoders["rgb"])
    expected = guessed(whole(model), conds)
    control = conds[0][0][1]["control"]

    def interrupted(*_, **__):
        raise InterruptProcessingException

    model.model.diffusion_model.forward = interrupted
    try:
        with pytest.raises(InterruptProcessingException):
            guessed(whole(model), conds, X * 2, torch.tensor(3.0))
    finally:
        del model.model.diffusion_model.forward
    assert control.known is not None, "the encoder had run"
    assert torch.equal(guessed(whole(model), conds), expected)


def test_copies_and_clones_for_other_devices_give_the_same(encoders, model):
    expected = guessed(model, led(encoders["rgb"]))
    for make in (lambda c: c.copy(), lambda c: c.deepclone_multigpu(torch.device("cpu"))):
        conds = led(encoders["rgb"])
        made = make(conds[0][0][1]["control"])
        assert made is not conds[0][0][1]["control"]
        replaced = tuple([[tokens, {**values, "control": made}] for tokens, values in some] for some in conds)
        close(guessed(model, replaced), expected, 1e-6)
    assert made.encoder.patcher.model is not encoders["rgb"].patcher.model
    (one, *_), (two, *_) = made.encoder.patcher.model.parameters(), encoders["rgb"].patcher.model.parameters()
    assert torch.equal(one, two) and one.data_ptr() != two.data_ptr()


BAD = {
    "another clip": (
        lambda e, m: guessed(m, led(e["rgb"], clip=8)),
        "has 7 frames and its keyframes were laid out for 8: set clip_frames",
    ),
    "a longer clip in windows": (
        lambda e, m: guessed(whole(m), led(e["rgb"], clip=6)),
        "keyframes were laid out for 6: set clip_frames",
    ),
    "no VAE": (
        lambda e, m: host.apply_sparse_control(text(), text(), e["rgb"], SparseSettings(keyframes(0))),
        "takes latents of its keyframes: connect the checkpoint's VAE",
    ),
    "no encoder": (
        lambda e, m: host.apply_sparse_control(text(), text(), "x", SparseSettings(keyframes(0))),
        "'x' was given for a SparseCtrl encoder: connect Load Sparse Control",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_sentence(case, encoders, model):
    run, sentence = BAD[case]
    with pytest.raises(ValueError, match=sentence) as caught:
        run(encoders, model)
    assert "\n" not in str(caught.value)


def test_another_base_model_is_refused_before_anything_is_sampled(encoders):
    from dataclasses import replace

    other = image_model(config=replace(UNET, channel_mult=(1, 4)))
    with pytest.raises(
        ValueError, match=r"is for a U-Net with levels of 32, 64 channels and the model is a U-Net with levels of 32, 128"
    ):
        guessed(other, led(encoders["rgb"]))


def test_a_vae_of_other_latents_is_refused(encoders, model):
    class Wide(Vae):
        def encode(self, pixels):
            return super().encode(pixels).repeat(1, 4, 1, 1)

    conds = host.apply_sparse_control(text(3), text(4), encoders["rgb"], SparseSettings(keyframes(0)), Wide())
    with pytest.raises(ValueError, match=r"latents of shape \[1, 16, 8, 8\] and .* takes \[1, 4, 8, 8\]: connect the VAE"):
        guessed(model, conds)
