"""Other packs beside this one, as they are: what they have for each frame follows the frames, whichever way a clip is shown.

The environment variable LONGTAKE_NEIGHBOURS names a folder with checkouts of ComfyUI_IPAdapter_plus, ComfyUI-Advanced-ControlNet and
ComfyUI-TiledDiffusion.
"""

import importlib.util
import os
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from custom import advanced, forcing, scheduler_sigmas, theirs
from pack import host
from pack.modules.checkpoints.motion import load_motion_module
from pack.modules.temporal.settings import MotionSettings
from pack.modules.temporal.windows import WindowPlan
from pack.nodes.forcing.fifo import LongTakeFifoSampler
from tiny_motion import image_model, motion_file, randomized, text
from whole_windows import close, control_net, controlled, hints

pytestmark = pytest.mark.comfy
FRAMES, SIZE, STEPS = 6, 8, 8
LATENT = torch.zeros(FRAMES, 4, SIZE, SIZE)


@cache
def neighbour(name, *modules):
    """Modules of a pack's checkout, in the order in which they are named."""
    folder = Path(os.environ.get("LONGTAKE_NEIGHBOURS", "/nowhere")) / name
    if not folder.is_dir():
        pytest.skip(f"no checkout of {name}: set LONGTAKE_NEIGHBOURS to the folder that holds it")
    package = "neighbour_" + name.lower().replace("-", "_")
    found = importlib.util.spec_from_loader(package, loader=None, is_package=True)
    sys.modules[package] = importlib.util.module_from_spec(found)
    sys.modules[package].__path__ = [str(folder)]
    return tuple(importlib.import_module(f"{package}.{module}") for module in modules)


@pytest.fixture
def animated(tmp_path):
    """A model with a motion module none of whose frames sees another."""
    module = load_motion_module(motion_file(tmp_path))
    module = replace(module, config=replace(module.config, positions="rotary"))
    return host.apply_motion(image_model(), module, MotionSettings(attention_window=1), "model")


def sampled(model, positive=None, sampler=None, latent=None):
    latent = (model.get_attachment("latent") or (LATENT,))[0] if latent is None else latent
    conds = {"positive": positive or text(3), "negative": text(4), "cfg": 2.0}
    return advanced(model, sampler or theirs("euler"), latent, scheduler_sigmas(model, STEPS), **conds)


def in_windows(model, positive, monkeypatch):
    return sampled(host.context_windows(model, WindowPlan(length=4, overlap=2), "whole"), positive)


def in_chunks(model, positive, monkeypatch):
    from pack.host.comfyui.attach import motion_call

    planned = motion_call.plan_for
    with monkeypatch.context() as patch:
        patch.setattr(motion_call, "plan_for", lambda *args, **kwargs: replace(planned(*args, **kwargs), chunk=2))
        return sampled(model, positive)


def under_fifo(model, positive, monkeypatch):
    return sampled(model, positive, LongTakeFifoSampler.execute(partitions=2, window=4, eta=0.0).args[0])


def in_motion_windows(model, positive, monkeypatch):
    return sampled(host.context_windows(model, WindowPlan(length=4, overlap=2), "temporal"), positive)


def rolling(model, positive, monkeypatch):
    return sampled(model, positive, forcing("autoregressive", FRAMES, STEPS, block=2, window=4))


def pyramid(model, positive, monkeypatch):
    return sampled(model, positive, forcing("pyramid", FRAMES, STEPS, lag=2.0))


WAYS = {
    "windows": in_windows,
    "motion windows": in_motion_windows,
    "chunks": in_chunks,
    "FIFO": under_fifo,
    "rolling": rolling,
    "pyramid": pyramid,
}
QUICK = [pytest.param(way, marks=() if way in ("windows", "FIFO") else pytest.mark.slow) for way in WAYS]


def rising(*shape):
    """A value of its own for each frame."""
    return torch.linspace(0.1, 1.9, FRAMES).view(-1, *(1,) * (len(shape) or 2)).expand(-1, *(shape or (1, 1))).contiguous()


ADAPTED = {
    "a weight per frame": {"weight": rising()},
    "a picture per frame": {"cond": randomized(torch.nn.Embedding(FRAMES, 4 * 16), 7).weight.view(FRAMES, 4, 16).detach() * 8},
    "a mask per frame": {"mask": rising(SIZE, SIZE)},
}


def adapted(model, **given):
    """IPAdapter_plus's own replacement of attention, with random keys and values."""
    (patch,) = neighbour("ComfyUI_IPAdapter_plus", "CrossAttentionPatch")
    patched, widths = model.clone(), {("input", 1): 32, ("input", 2): 32, ("output", 3): 64, ("output", 4): 32}
    unet = model.model.diffusion_model
    for place, (side, block) in enumerate(widths):
        inner = unet.input_blocks[block][1] if side == "input" else unet.output_blocks[block][1]
        width = inner.transformer_blocks[0].attn2.to_q.out_features
        layers = {f"{place}_to_{part}_ip": randomized(torch.nn.Linear(16, width, bias=False), 3 * place) for part in "kv"}
        adapter = SimpleNamespace(ip_layers=SimpleNamespace(to_kvs=layers))
        adapter.get_multigpu_clone = lambda device, adapter=adapter: adapter
        one = torch.randn(1, 4, 16, generator=torch.Generator().manual_seed(5))
        kwargs = {"weight": 1.0, "cond": one, "uncond": torch.zeros_like(one), "unfold_batch": True, **given}
        kwargs["uncond"] = torch.zeros_like(kwargs["cond"])
        kwargs |= {"ipadapter": adapter, "module_key": str(place), "sigma_start": 999999999.9, "sigma_end": 0.0}
        replacement = patch.Attn2Replace(patch.ipadapter_attention, **kwargs)
        patched.set_model_attn2_replace(replacement, side, block)
    return patched


@pytest.mark.parametrize("way", QUICK)
@pytest.mark.parametrize("kind", ADAPTED)
def test_ipadapter_plus_follows_the_frames(animated, kind, way, monkeypatch):
    model = adapted(animated, **ADAPTED[kind])
    expected = sampled(model)
    assert (expected - sampled(adapted(animated))).abs().max() > 1e-2 * expected.abs().max()
    close(WAYS[way](model, None, monkeypatch), expected, 1e-4)


def advanced_control(kind):
    control, utils = neighbour("ComfyUI-Advanced-ControlNet", "adv_control.control", "adv_control.utils")
    keyframes = None
    if kind == "latent keyframes":
        keyed, keyframes = utils.LatentKeyframeGroup(), utils.TimestepKeyframeGroup()
        for frame, strength in ((0, 0.3), (2, 1.7), (5, 0.9)):
            keyed.add(utils.LatentKeyframe(frame, strength))
        keyframes.add(utils.TimestepKeyframe(latent_keyframes=keyed))
    made = control.convert_to_advanced(control_net(), keyframes)
    return made.set_cond_hint(hints(FRAMES), 0.9, (0.0, 1.0))


@pytest.mark.parametrize("way", QUICK)
@pytest.mark.parametrize("kind", ["hints", "latent keyframes"])
def test_advanced_controlnet_follows_the_frames(animated, kind, way, monkeypatch):
    positive = controlled(advanced_control(kind))[0]
    expected = sampled(animated, positive)
    assert (expected - sampled(animated)).abs().max() > 1e-2 * expected.abs().max()
    close(WAYS[way](animated, positive, monkeypatch), expected, 1e-4)


def test_advanced_controlnet_that_changes_during_sampling_is_refused_where_frames_have_levels_of_their_own(animated, monkeypatch):
    _, utils = neighbour("ComfyUI-Advanced-ControlNet", "adv_control.control", "adv_control.utils")
    control = advanced_control("hints")
    control.timestep_keyframes.add(utils.TimestepKeyframe(start_percent=0.5, strength=0.5))
    with pytest.raises(ValueError, match="let it act from 0 to 1 with timestep keyframes at 0 only") as error:
        under_fifo(animated, controlled(control)[0], monkeypatch)
    assert "\n" not in str(error.value)


def tiled(model, at_once):
    """MultiDiffusion's whole function around the model, for a picture of four tiles."""
    (tiles,) = neighbour("ComfyUI-TiledDiffusion", "tiled_diffusion")
    made = tiles.MultiDiffusion()
    made.compression, made.width, made.height, made.overlap = 8, 16, 16, 0
    made.tile_width = made.tile_height = SIZE
    made.tile_overlap, made.tile_batch_size = 0, at_once
    model = model.clone()
    model.set_model_unet_function_wrapper(made)
    model.set_attachments("latent", (torch.zeros(FRAMES, 4, 2 * SIZE, 2 * SIZE),))
    return model


def test_tileddiffusion_with_four_tiles_in_a_call_gives_what_one_gives(animated):
    close(sampled(tiled(animated, 4)), sampled(tiled(animated, 1)), 1e-5)


@pytest.mark.parametrize("way", QUICK)
def test_tileddiffusion_in_every_way(animated, way, monkeypatch):
    close(WAYS[way](tiled(animated, 4), None, monkeypatch), sampled(tiled(animated, 1)), 1e-4)
