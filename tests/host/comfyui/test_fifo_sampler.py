"""The FIFO Sampler in ComfyUI: SD1.5 with a motion module, prompts per frame, and what it refuses."""

import pytest
import torch
from custom import advanced, scheduler_sigmas, theirs
from native import label
from pack import host
from pack.modules.checkpoints.motion import load_motion_module
from pack.modules.noise.seeded import frame_noise
from pack.nodes.forcing.fifo import LongTakeFifoSampler
from tiny import video_model
from tiny_motion import image_model, motion_file, text
from whole_windows import CONTROLS, controlled, drawn, hints, masked

pytestmark = pytest.mark.comfy
FRAMES, WINDOW = 6, 4
STEPS = 2 * WINDOW


@pytest.fixture
def image():
    return image_model()


@pytest.fixture
def animated(image, tmp_path):
    return host.apply_motion(image, load_motion_module(motion_file(tmp_path)))


def fifo(**inputs):
    return LongTakeFifoSampler.execute(**{"partitions": 2, "window": WINDOW, "eta": 0.0, **inputs}).args[0]


def made(model, sampler, positive, frames=FRAMES, steps=STEPS, **more):
    shape = (48, 4, 4) if host.video_info(model) else (4, 8, 8)
    return advanced(model, sampler, torch.zeros(frames, *shape), scheduler_sigmas(model, steps), positive=positive, **more)


def close(one, other, tolerance=2e-5):
    torch.testing.assert_close(one, other, rtol=0, atol=tolerance * float(other.abs().max()))


@pytest.mark.parametrize("lookahead", [False, True])
def test_without_motion_it_is_euler(image, lookahead):
    """Frames that do not know each other take euler's steps, wherever they stand in the queue."""
    ours = made(image, fifo(lookahead=lookahead), text(3), negative=text(4), cfg=2.0)
    close(ours, made(image, theirs("euler"), text(3), negative=text(4), cfg=2.0))


@pytest.mark.parametrize("init", ["ramp_up", "base_clip"])
def test_motion_modules_of_short_clips_make_long_ones(animated, init):
    """Four times the window; every frame is another than the one before it."""
    base = {"base_clip": {"samples": drawn(WINDOW, 4, 8, 8)}} if init == "base_clip" else {}
    sampler = fifo(init=init, eta=0.5, lookahead=False, **base)
    long = made(animated, sampler, text(3), frames=4 * WINDOW)
    assert torch.isfinite(long).all() and (long[1:] - long[:-1]).abs().amax((1, 2, 3)).min() > 1e-3


def test_a_longer_clip_begins_with_the_shorter_one(animated):
    import comfy.samplers

    def take(frames):
        guider = comfy.samplers.CFGGuider(animated)
        guider.set_conds(text(3), text(4))
        guider.set_cfg(1.0)
        noise = frame_noise((4, 8, 8), 1, range(frames))  # so that what stands behind the clip's end is what comes later
        return guider.sample(noise, torch.zeros_like(noise), fifo(), scheduler_sigmas(animated, STEPS), seed=1)

    close(take(5)[:3], take(3), 1e-5)


def test_prompts_follow_the_frames(image):
    """A prompt for the first frames and one for the rest, as masks: each frame is what its own prompt makes of it."""
    first = torch.zeros(FRAMES, 8, 8)
    first[:3] = 1
    both = masked(text(3), first) + masked(text(8), 1 - first)
    ours = made(image, fifo(lookahead=True), both)
    alone = [made(image, theirs("euler"), text(seed)) for seed in (3, 8)]
    close(ours[:3], alone[0][:3])
    close(ours[3:], alone[1][3:])


def test_hints_follow_the_frames(image):
    results = []
    for sampler in (fifo(), theirs("euler")):
        control = CONTROLS["ControlNet"]().set_cond_hint(hints(FRAMES), 0.8, (0.0, 0.7))
        results.append(made(image, sampler, controlled(control)[0]))
    close(*results)


def test_a_label_per_frame_works_on_a_video_model():
    labels = torch.cat([label(1)[0][1]["pooled_output"]] * 3 + [label(2)[0][1]["pooled_output"]] * 3)
    model = host.video_model(video_model())
    assert torch.isfinite(
        made(model, fifo(partitions=1), [[torch.zeros(1, 1, 1), {"pooled_output": labels}]], steps=WINDOW)
    ).all()


def test_a_cancel_stops_it(animated, monkeypatch):
    import comfy.model_management

    calls = []
    real = type(animated.model)._apply_model

    def counted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            comfy.model_management.interrupt_current_processing(True)
        return real(*args, **kwargs)

    monkeypatch.setattr(type(animated.model), "_apply_model", counted)
    with pytest.raises(host.Interrupted):
        made(animated, fifo(), text(3))
    assert len(calls) == 3


REFUSED = [
    (
        lambda: made(image_model(), fifo(), text(3), steps=20),
        "sigmas have 20 steps and the queue 2 partitions of 4 frames: set steps of",
    ),
    (lambda: fifo(init="base_clip"), "init is base_clip and no base clip is connected"),
    (
        lambda: fifo(base_clip={"samples": torch.zeros(4, 4, 8, 8)}),
        "init is ramp_up and a base clip is connected, which it does not use",
    ),
    (lambda: fifo(init="middle"), "init is 'middle': choose one of ramp_up, base_clip"),
    (lambda: fifo(window=5), "window is 5 and lookahead moves half of a window"),
]


@pytest.mark.parametrize(("asked", "sentence"), REFUSED)
def test_what_cannot_work_is_one_sentence(asked, sentence, monkeypatch):
    import comfy.model_base

    def called(*args, **kwargs):
        raise AssertionError("the model was called")

    monkeypatch.setattr(comfy.model_base.BaseModel, "_apply_model", called)
    with pytest.raises(ValueError, match=sentence) as error:
        asked()
    assert "\n" not in str(error.value)


def test_a_mask_and_a_window_beyond_the_module_are_refused(animated):
    latent = {"samples": torch.zeros(FRAMES, 4, 8, 8), "noise_mask": torch.zeros(FRAMES, 1, 8, 8)}
    latent["noise_mask"][2:] = 1
    sigmas = scheduler_sigmas(animated, STEPS)
    with pytest.raises(ValueError, match="mask leaves 2 frames alone and FIFO makes all of them"):
        advanced(animated, fifo(), latent, sigmas, positive=text(3))
    with pytest.raises(ValueError, match="clips of at most 32 frames and got 40"):
        made(animated, fifo(window=40, partitions=1), text(3), steps=40)
