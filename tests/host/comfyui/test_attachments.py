"""Everything that hangs on a MODEL under every way of showing a clip: the plain result, or a refusal in one sentence.

Each frame is told something of its own (a picture, a strength, a pose), and sees no other frame: its motion module looks at a window of one
frame with relative times. Then a frame is the same however the clip is cut up, and any frame that is told of another one shows.
"""

from dataclasses import replace
from functools import cache
from inspect import signature

import pytest
import torch
from attached_models import ATTACHED, FRAMES, LATENT, SIZE, TOLD
from custom import advanced, forcing, scheduler_sigmas, theirs
from pack import host
from pack.modules.control.camera_model import PoseEncoder
from pack.modules.guidance.branches import read_branches
from pack.modules.guidance.history import HistoryGuidance
from pack.modules.sampling.context_noise import ContextNoise
from pack.modules.sampling.forcing import Forcing
from pack.modules.sampling.noise_levels import NoiseLevels
from pack.modules.temporal.windows import WindowPlan
from pack.nodes.forcing.fifo import LongTakeFifoSampler
from tiny_motion import image_model, text
from whole_windows import close, core_handler, prompts

pytestmark = pytest.mark.comfy
STEPS = 8  # FIFO wants as many steps as frames in its queue
PLAN = WindowPlan(length=4, overlap=2)


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


def sampled(model, sampler=None, latent=None, **conds):
    own, known = model.get_attachment(TOLD) or (LATENT, CONDS)
    latent = own if latent is None else latent
    return advanced(model, sampler or theirs("euler"), latent, scheduler_sigmas(model, STEPS), **{**known, **conds})


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
    conds = {} if model.get_attachment(TOLD) else {"positive": text(3)}  # it does not cut texts along the batch
    return tuple(sampled(one, **conds) for one in (patched, model))


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


def rolling_over_all(model):
    return sampled(model, forcing("autoregressive", FRAMES, STEPS, block=2, window=FRAMES))


# what sees other frames at their noise levels, and what it is compared with; None where there is nothing else that shows the same
COMPARED = {
    ("recurrent modules", "a level per frame"): None,
    ("recurrent modules", "a rolling window"): rolling_over_all,
    ("recurrent modules", "FIFO"): None,
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_plain_result(attached, way):
    name, model = attached
    if (name, way) in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name, way]):
            WAYS[way](model)
        return
    reference = COMPARED.get((name, way), plain)
    if reference is None:
        pytest.skip("each frame sees the others at their levels: only this way shows them so")
    close(WAYS[way](model), reference(model), 1e-4)


def test_comfyuis_own_windows_give_the_plain_result(attached):
    import comfy.context_windows as core

    if attached[0] in ("SparseCtrl", "video hints") and "total_frames" not in signature(core.IndexListContextWindow).parameters:
        pytest.skip("this ComfyUI's windows do not cut the pictures of ControlNets or those beside the latent")
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
    own, known = attached[1].get_attachment(TOLD) or (LATENT, {"positive": text(3), "negative": text(4)})
    latent = own.clone()
    latent[:2] = torch.randn(latent[:2].shape, generator=torch.Generator().manual_seed(0))
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
                host.sample(
                    model,
                    known["positive"],
                    known["negative"],
                    sigmas=host.level_sigmas(model, levels.steps),
                    guide=guide,
                    **given,
                )
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
    sampled(
        cached, forcing("full_sequence", FRAMES, STEPS), cfg=1.0
    )  # one condition, as above; all frames in every call, at one level


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
    if name == "video hints":
        with pytest.raises(ValueError, match=r"the hints are 6 frames of \[48, 8, 8\] and the clip 6 of \[48, 16, 16\]"):
            sampled(tiled(model, 4), latent=torch.zeros(FRAMES, 48, 16, 16))
        return
    if name == "a weight of another pack":
        pytest.skip("other packs take all rows of a condition for frames: nothing can tell them of tiles")
    own, _ = model.get_attachment(TOLD) or (LATENT, None)
    latent = own.repeat(1, 1, 2, 2)
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
    with pytest.raises(ValueError, match=r"the latent has the shape \[2, \d+, 6, 8, 8\]"):
        sampled(attached[1], latent=torch.zeros(2, 4, FRAMES, SIZE, SIZE))
