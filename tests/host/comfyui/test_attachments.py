"""Everything that hangs on a MODEL under every way of showing a clip: the plain result, or a refusal in one sentence.

Each frame is told something of its own (a picture, a strength, a pose), and sees no other frame: its motion module looks at a window of one
frame with relative times. Then a frame is the same however the clip is cut up, and any frame that is told of another one shows.
"""

from dataclasses import replace
from functools import cache

import pytest
import torch
from custom import advanced, forcing, scheduler_sigmas, theirs
from pack import host
from pack.modules.checkpoints.camera import load_camera
from pack.modules.checkpoints.image_prompt import load_image_prompt
from pack.modules.checkpoints.motion import graft_camera, load_motion_module
from pack.modules.checkpoints.motion_lora import load_motion_lora
from pack.modules.control.camera import moved
from pack.modules.control.camera_model import PoseEncoder
from pack.modules.control.first_frame import FirstFrameSettings
from pack.modules.control.keyframes import Keyframes
from pack.modules.control.prompt_settings import PromptSettings
from pack.modules.guidance.branches import read_branches
from pack.modules.guidance.history import HistoryGuidance
from pack.modules.sampling.context_noise import ContextNoise
from pack.modules.sampling.forcing import Forcing
from pack.modules.sampling.noise_levels import NoiseLevels
from pack.modules.temporal.settings import MotionKeyframe, MotionSettings, Strength
from pack.modules.temporal.windows import WindowPlan
from pack.nodes.forcing.fifo import LongTakeFifoSampler
from small_workflows import Pixels
from tiny_lora import lora_file
from tiny_motion import camera_file, image_model, motion_file, text
from tiny_prompt import SmallVision, pictures, prompt_file, prompt_state
from whole_windows import close, core_handler, prompts

pytestmark = pytest.mark.comfy
FRAMES, SIZE, STEPS = 6, 8, 8  # FIFO wants as many steps as frames in its queue
LATENT = torch.zeros(FRAMES, 4, SIZE, SIZE)
PLAN = WindowPlan(length=4, overlap=2)
ALONE = MotionSettings(attention_window=1)


def keyframes(*frames):
    return Keyframes(pictures(len(frames)), frames, (1.0,) * len(frames), (0,) * len(frames))


# What hangs on a MODEL


def module_of(folder, family="v3"):
    """A motion module none of whose frames sees another, wherever it stands in a window."""
    module = load_motion_module(motion_file(folder, family, name=f"{family}.safetensors"))
    return replace(module, config=replace(module.config, positions="rotary"), clip_norms=False, module_norms=False)


def animated(folder, family="v3", settings=ALONE):
    return host.apply_motion(image_model(), module_of(folder, family), settings, "model")


def by_frame_and_level(folder):
    factors = [Strength(frames=tuple((place * step % 7) / 3 for place in range(FRAMES))) for step in (2, 3, 5)]
    shown = (MotionKeyframe(0.0, factors[0]), MotionKeyframe(0.4, factors[1], factors[2]))
    return animated(folder, settings=replace(ALONE, keyframes=shown))


def half_a_lora(folder):
    return host.apply_motion_lora(animated(folder), load_motion_lora(lora_file(folder)), 1.0, None, 0.0, 0.5)


def camera(folder):
    grafted = graft_camera(module_of(folder), load_camera(camera_file(folder)))
    return host.apply_camera(host.apply_motion(image_model(), grafted, ALONE, "model"), moved([("pan left", 1.0)], FRAMES, 9.0))


def first_frame(folder, model, mode):
    latent = {"samples": LATENT}
    return host.apply_first_frame(model, Pixels(), latent, keyframes(0, 3, -1), FirstFrameSettings(mode=mode, drift=0.0))


def inpainting(folder):
    model = image_model(in_channels=9)
    model.model.set_inpaint()
    return first_frame(folder, model, "moonshot")


def image_prompt(folder):
    model = image_model()
    prompt = load_image_prompt(prompt_file(folder, prompt_state(model.model.diffusion_model)))
    return host.apply_image_prompt(model, prompt, PromptSettings(1.0, 0.0, 0.6), SmallVision(), None, keyframes(0, 3, -1), None)


def to_size(rows, count):
    """As others do it: the last goes on."""
    return torch.cat([rows, rows[-1:].expand(max(0, count - len(rows)))])[:count]


def anothers_weight(folder):
    """A weight per frame in attention to the text, which looks for the frames of a call where IPAdapter_plus looks for them."""
    weights = torch.tensor([0.2, 1.9, 0.7, 1.4, 0.1, 1.1])

    def weighted(out, extra):
        conds, told = len(extra["cond_or_uncond"]), extra.get("ad_params")
        if told is None or told["sub_idxs"] is None:
            mine = to_size(weights, len(out) // conds)
        else:
            mine = to_size(weights, told["full_length"])[told["sub_idxs"]]
        return out * mine.repeat(conds)[:, None, None]

    model = animated(folder)
    model.set_model_attn2_output_patch(weighted)
    return model


ATTACHED = {
    "motion": animated,
    "motion by frame and level": by_frame_and_level,
    "MotionLoRA to the middle": half_a_lora,
    "camera": camera,
    "channels of a picture": inpainting,
    "PIA": lambda folder: first_frame(folder, animated(folder, "PIA"), "pia"),
    "AnimateLCM-I2V": lambda folder: first_frame(folder, animated(folder, "AnimateLCM-I2V"), "animatelcm_i2v"),
    "image prompt": image_prompt,
    "a weight of another pack": anothers_weight,
}


@pytest.fixture(params=ATTACHED, scope="module")
def attached(request, comfyui, tmp_path_factory):
    return request.param, ATTACHED[request.param](tmp_path_factory.mktemp("attached"))


@pytest.fixture(autouse=True)
def absolute_camera(monkeypatch):
    """A camera's features count from the first frame of a window; here they are each pose's own, so that windows can be compared."""

    def forward(self, path, height, width, device="cpu"):
        features = []
        for residuals in self.encoder_down_conv_blocks:
            channels = torch.arange(1, residuals[0].block1.out_channels + 1)
            own = torch.sin(path.poses.float().flatten(1).sum(1)[:, None] * channels)
            features.append(own[:, :, None, None].expand(-1, -1, height, width).to(device))
            height, width = -(-height // 2), -(-width // 2)
        return features

    monkeypatch.setattr(PoseEncoder, "forward", forward)


# Ways of showing a clip

CONDS = {"positive": prompts(FRAMES), "negative": text(4), "cfg": 2.0}


def sampled(model, sampler=None, latent=LATENT, **conds):
    return advanced(model, sampler or theirs("euler"), latent, scheduler_sigmas(model, STEPS), **{**CONDS, **conds})


@cache
def plain(model):
    return sampled(model)


def windows(model, mode):
    return sampled(host.context_windows(model, PLAN, mode))


def cores_windows(model):
    import comfy.context_windows as core

    handler = core_handler(
        context_length=4, context_overlap=2, schedule="standard_static", fuse="flat", context_stride=1, closed_loop=False, dim=0
    )
    handler.set_step = lambda timestep, options: core.IndexListContextHandler.set_step(handler, timestep[:1], options)
    patched = model.clone()
    patched.model_options["context_handler"] = handler
    positive = {"positive": text(3), "negative": text(4), "cfg": 2.0}  # it does not cut conditions along the batch
    return tuple(advanced(one, theirs("euler"), LATENT, scheduler_sigmas(model, STEPS), **positive) for one in (patched, model))


def fifo(model):
    return sampled(model, LongTakeFifoSampler.execute(partitions=2, window=4, eta=0.0).args[0])


WAYS = {
    "windows of the whole model": lambda model: windows(model, "whole"),
    "windows of the motion module": lambda model: windows(model, "temporal"),
    "a level per frame": lambda model: sampled(model, forcing("pyramid", FRAMES, STEPS, lag=2.0)),
    "a rolling window": lambda model: sampled(model, forcing("autoregressive", FRAMES, STEPS, block=2, window=4)),
    "FIFO": fifo,
}
# what cannot be, and what is said: (attached, way) -> sentence
REFUSED = {
    ("channels of a picture", "windows of the motion module"): "the model has no motion module whose windows could slide",
    ("image prompt", "windows of the motion module"): "the model has no motion module whose windows could slide",
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_plain_result(attached, way):
    name, model = attached
    if (name, way) in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name, way]):
            WAYS[way](model)
        return
    close(WAYS[way](model), plain(model), 1e-4)


def test_comfyuis_own_windows_give_the_plain_result(attached):
    windowed, whole = cores_windows(attached[1])
    close(windowed, whole, 1e-4)


def test_a_few_frames_at_once_give_the_plain_result(attached, monkeypatch):
    """Chunks, which there are only with a motion module."""
    from pack.host.comfyui.attach import motion_call

    planned = motion_call.plan_for
    monkeypatch.setattr(motion_call, "plan_for", lambda *args, **kwargs: replace(planned(*args, **kwargs), chunk=2))
    close(sampled(attached[1].clone()), plain(attached[1]), 1e-4)


def test_conditions_one_by_one_give_the_plain_result(attached, monkeypatch):
    """As ComfyUI runs them when memory is short."""
    import comfy.model_base

    calls, inner = [], comfy.model_base.BaseModel.apply_model

    def counting(self, x, *args, **kwargs):
        calls.append(len(x))
        return inner(self, x, *args, **kwargs)

    expected = plain(attached[1])
    monkeypatch.setattr(comfy.model_base.BaseModel, "apply_model", counting)
    monkeypatch.setattr(comfy.model_base.BaseModel, "memory_required", lambda *args, **kwargs: 1e30)
    close(sampled(attached[1]), expected, 1e-4)
    assert set(calls) == {FRAMES}


@pytest.mark.parametrize("windowed", [False, True], ids=["all frames", "windows of the whole model"])
def test_variants_of_history_guidance_together_are_those_one_by_one(attached, windowed):
    model = host.context_windows(attached[1], PLAN, "whole") if windowed else attached[1]
    levels = NoiseLevels.named("pyramid", FRAMES, 2, lag=1.0, known=2)
    latent = LATENT.clone()
    latent[:2] = torch.randn(2, 4, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    given = {
        "cfg": 2.0,
        "latent": latent,
        "algorithm": Forcing(levels, window=FRAMES, context_noise=ContextNoise(0.1)),
        "seed": 1,
    }
    found = []
    for at_once in (0, 1):
        guide = HistoryGuidance(read_branches("all:1.5, last 2@0.3:0.5, 1..3@0.5:-0.25"), "noise", at_once)
        with torch.inference_mode():
            found.append(
                host.sample(model, text(3), text(4), sigmas=host.level_sigmas(model, levels.steps), guide=guide, **given)
            )
    close(found[0], found[1], 1e-4)


# What others remember


def test_easycache_does_not_take_one_window_for_another():
    """It skips steps in the first window, as it does in a clip of that length, and leaves the others alone."""
    from comfy_extras.nodes_easycache import EasyCacheNode

    model = image_model()
    windowed = host.context_windows(model, PLAN, "whole")
    made = sampled(EasyCacheNode.execute(windowed, 3.0, 0.0, 1.0, False).args[0], cfg=1.0)  # 0.3.64's fails with two conditions
    expected = sampled(model, cfg=1.0)
    close(made[4:], expected[4:], 1e-5)
    assert (made[:2] - expected[:2]).abs().max() > 1e-3 * expected.abs().max()
    alone = sampled(EasyCacheNode.execute(model, 3.0, 0.0, 1.0, False).args[0], cfg=1.0)
    assert (alone - expected).abs().amax((1, 2, 3)).min() > 1e-3 * expected.abs().max(), "without windows every frame skips"


@pytest.mark.parametrize("kind", ["EasyCache", "LazyCache"])
def test_what_goes_on_from_the_last_call_is_refused_where_the_next_is_about_other_frames(kind):
    from comfy_extras import nodes_easycache

    cached = getattr(nodes_easycache, f"{kind}Node").execute(image_model(), 0.2, 0.0, 1.0, False).args[0]
    with pytest.raises(ValueError, match=f"{kind} goes on from what the model gave in the call before"):
        fifo(cached)
    sampled(cached, forcing("full_sequence", FRAMES, STEPS))  # all frames in every call, at one level


# Rows that are not frames


def tiled(model, at_once):
    """A tiled sampler as TiledDiffusion is one: quarters of the picture, so many in a call, tile after tile, each with its conditions."""

    def wrapper(apply_model, given):
        x, made = given["input"], torch.zeros_like(given["input"])
        half = x.shape[-1] // 2
        corners = [(top, left) for top in (0, half) for left in (0, half)]
        for start in range(0, len(corners), at_once):
            some = corners[start : start + at_once]

            def cut(value, some=some):
                if not isinstance(value, torch.Tensor):
                    return value
                if value.ndim == 4:
                    return torch.cat([value[..., top : top + half, left : left + half] for top, left in some])
                return value.repeat(len(some), *(1,) * (value.ndim - 1)) if len(value) == len(x) else value

            out = apply_model(cut(x), cut(given["timestep"]), **{name: cut(value) for name, value in given["c"].items()})
            for (top, left), part in zip(some, out.chunk(len(some)), strict=True):
                made[..., top : top + half, left : left + half] = part
        return made

    patched = model.clone()
    patched.set_model_unet_function_wrapper(wrapper)
    return patched


WHOLE_PICTURE = {
    "camera": "the camera",
    "channels of a picture": "First Frame",
    "PIA": "First Frame",
    "AnimateLCM-I2V": "First Frame",
}


def test_tiles_in_one_call_are_those_of_a_call_each(attached):
    name, model = attached
    if name in WHOLE_PICTURE:
        for at_once in (1, 4):
            with pytest.raises(ValueError, match=f"{WHOLE_PICTURE[name]} is about the whole picture of 8x8 latents and"):
                sampled(tiled(model, at_once))
        return
    if name == "a weight of another pack":
        pytest.skip("other packs take all rows of a condition for frames: nothing can tell them of tiles")
    latent = torch.zeros(FRAMES, 4, 2 * SIZE, 2 * SIZE)
    one, four = (sampled(tiled(model, at_once), latent=latent) for at_once in (1, 4))
    close(four, one, 1e-5)


@pytest.mark.parametrize("times", [1, 2], ids=["one is left out", "everything comes twice"])
def test_a_batch_that_is_not_what_was_announced_is_refused(attached, times):
    def wrapper(apply_model, given):
        rows = len(given["input"])
        places = torch.arange(rows).repeat(times)[: rows * times - (times == 1)]

        def cut(value):
            return value[places] if isinstance(value, torch.Tensor) and len(value) == rows else value

        return apply_model(cut(given["input"]), cut(given["timestep"]), **{key: cut(part) for key, part in given["c"].items()})

    patched = attached[1].clone()
    patched.set_model_unet_function_wrapper(wrapper)
    with pytest.raises(ValueError, match="another node cuts the batch up or puts more into it") as error:
        sampled(patched)
    assert "\n" not in str(error.value)


def test_a_batch_of_videos_is_refused(attached):
    with pytest.raises(ValueError, match=r"the latent has the shape \[2, 4, 6, 8, 8\]"):
        sampled(attached[1], latent=torch.zeros(2, 4, FRAMES, SIZE, SIZE))
