"""Frames against AnimateDiff-Evolved's, kept in a file, and against the authors' definitions where that pack departs from them.

``benchmarks/parity_ade.py --write`` makes the file; the models, seeds and settings are those of ``benchmarks/parity_cases.py``, drawn
anew here, so nothing of the other pack is needed. The authors' definitions are put together from diffusers' temporal transformer and
schedulers around ComfyUI's own U-Net, with forward hooks instead of this pack's slots.
"""

import functools
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from sparing import sparing

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "data" / "ade_frames.safetensors"
sys.path.append(str(ROOT / "benchmarks"))

from parity_cases import CASES, Models, ours, relative_difference, sampled  # noqa: E402
from parity_models import FAMILIES, TRANSFORMER, image_model, module_state, slots  # noqa: E402

pytestmark = pytest.mark.comfy
LIMIT = 1e-4
BY_NAME = {case.name: case for case in CASES}
QUICK = (
    "v3, one window",
    "AnimateLCM, euler",
    "whole: looped_uniform 16/4, stride 1, flat",
    "views: standard_static 16/4, stride 1, pyramid",
    "effect 0.5, scale 1.2 from 0.4 of the steps on",
    "effect and scale as masks",
    "MotionLoRA 0.8",
    "FreeNoise, whole windows",
)
DEPARTURES = ["v1, one window", "SDXL beta, one window", "HotshotXL, one window"]


@functools.cache
def stored():
    return load_file(GOLDEN)


@pytest.fixture(scope="session")
def models(comfyui):
    with safe_open(GOLDEN, "pt") as file:
        return Models(int(file.metadata()["width"]))


def test_the_file_holds_the_rows_that_are_to_be_repeated():
    assert set(stored()) == {case.name for case in CASES if case.golden}
    assert GOLDEN.stat().st_size < 300_000


@pytest.mark.parametrize("name", sparing([case.name for case in CASES if case.golden], *QUICK))
def test_frames_are_animatediff_evolveds(models, name):
    assert relative_difference(ours(BY_NAME[name].small(), models), stored()[name]) < LIMIT


def temporal_transformer(state, channels, frames, *, across):
    """diffusers' temporal transformer with a file's weights; its norm sees the whole clip if ``across``, as it is in diffusers."""
    pytest.importorskip("diffusers")
    from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

    module = AnimateDiffTransformer3D(
        num_attention_heads=8,
        attention_head_dim=channels // 8,
        in_channels=channels,
        norm_num_groups=32,
        activation_fn="geglu",
        attention_bias=False,
        double_self_attention=True,
        positional_embeddings="sinusoidal",
        num_positional_embeddings=frames,
    )
    names = {f"attention_blocks.{i}.": f"attn{i + 1}." for i in (0, 1)} | {f"norms.{i}.": f"norm{i + 1}." for i in (0, 1)}
    names |= {"ff_norm.": "norm3.", f"{TRANSFORMER}.": "transformer_blocks.0.", "temporal_transformer.": ""}
    renamed = {}
    for key, value in state.items():
        for theirs, diffusers in names.items():
            key = key.replace(theirs, diffusers, 1)
        renamed[key] = value
    missing, strange = module.load_state_dict(renamed, strict=False)
    assert not strange and all(key.endswith("pos_embed.pe") for key in missing), (missing, strange)
    if not across:
        norm = module.norm.forward
        module.norm.forward = lambda x: norm(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1)).transpose(1, 2)
    return module.eval().requires_grad_(False)


def over_clip(norm, frames):
    """The forward of a norm that takes a clip as ``1 channels frames height width``, as the originals' U-Nets do."""

    def forward(x):
        clip = x.unflatten(0, (-1, frames)).transpose(1, 2)
        out = torch.nn.functional.group_norm(clip, norm.num_groups, norm.weight, norm.bias, norm.eps)
        return out.transpose(1, 2).flatten(0, 1)

    return forward


def places(unet, family):
    """The layer before each motion module, by the module's name: every block with a residual block has one, in order."""
    inside = [
        [layer for layer in block if hasattr(layer, "emb_layers") or hasattr(layer, "transformer_blocks")]
        for block in unet.input_blocks
    ]
    down = [layers[-1] for layers in inside if layers]
    up = [
        [layer for layer in block if hasattr(layer, "emb_layers") or hasattr(layer, "transformer_blocks")][-1]
        for block in unet.output_blocks
    ]
    middle = [unet.middle_block[1]] if family.middle else []
    return [*down, *middle, *up]


def reference(case, models):
    """ComfyUI's sampler and U-Net, diffusers' transformers hooked in behind its layers, the authors' norms and schedule."""
    pytest.importorskip("diffusers")
    from diffusers import DDIMScheduler

    family = FAMILIES[case.modules[0]]
    model = image_model(case.base, models.width)
    unet = model.model.diffusion_model
    for (name, channels), layer in zip(slots(family, models.width).items(), places(unet, family), strict=True):
        weights = module_state(case.modules[0], name, channels)
        module = temporal_transformer(weights, channels, family.table, across=family.norms == "module")
        layer.register_forward_hook(lambda _, __, output, module=module: module(output, num_frames=case.frames))
    if family.norms == "residual":
        residuals = [layer for layer in unet.modules() if hasattr(layer, "emb_layers")]
        for norm in [unet.out[0], *(layer.in_layers[0] for layer in residuals), *(layer.out_layers[0] for layer in residuals)]:
            norm.forward = over_clip(norm, case.frames)
    kind, end = {"v1": ("linear", 0.012), "SDXL-beta": ("scaled_linear", 0.020), "HotshotXL": ("scaled_linear", 0.012)}[
        case.modules[0]
    ]
    kept = DDIMScheduler(beta_schedule=kind, beta_start=0.00085, beta_end=end).alphas_cumprod.double()
    model.model.model_sampling.set_sigmas(((1 - kept) / kept).sqrt().float())
    return sampled(model, case)


@pytest.mark.parametrize("name", sparing(DEPARTURES, "SDXL beta, one window"))
def test_where_animatediff_evolved_departs_the_authors_definition_holds(models, name):
    case = BY_NAME[name]
    assert relative_difference(ours(case, models), reference(case, models)) < 2 * LIMIT  # 1.03e-4 on some processors


def lcm_sampling(models):
    from pack.nodes.motion.motion import LongTakeApplyMotionModule, LongTakeLoadMotionModule

    motion = LongTakeLoadMotionModule.execute(motion_module=models.module("AnimateLCM")).result[0]
    animated = LongTakeApplyMotionModule.execute(model=models.image("SD1.5"), motion_module=motion).result[0]
    return animated.get_model_object("model_sampling")


def lcm_scheduler():
    pytest.importorskip("diffusers")
    from diffusers import LCMScheduler

    scheduler = LCMScheduler(beta_schedule="linear", beta_start=0.00085, beta_end=0.012, original_inference_steps=100)
    scheduler.set_timesteps(100)
    return scheduler


def test_animatelcms_noise_levels_are_the_hundred_it_was_distilled_on(models):
    scheduler, sampling = lcm_scheduler(), lcm_sampling(models)
    timesteps = scheduler.timesteps.flip(0)
    kept = scheduler.alphas_cumprod[timesteps].double()
    torch.testing.assert_close(sampling.sigmas.double(), ((1 - kept) / kept).sqrt(), rtol=1e-5, atol=0)
    assert sampling.timestep(sampling.sigmas).tolist() == timesteps.tolist() == list(range(9, 1000, 10))


def test_animatelcms_clean_frames_are_the_consistency_functions(models):
    """What the model's output becomes at each noise level, against diffusers' step from there to the last level."""
    scheduler, sampling = lcm_scheduler(), lcm_sampling(models)
    generator = torch.Generator().manual_seed(2)
    for step in (0, 40, 99):
        scheduler.set_timesteps(100)
        t = scheduler.timesteps[step]
        kept = scheduler.alphas_cumprod[t]
        noisy, noise = (torch.randn(1, 4, 8, 8, generator=generator, dtype=torch.float64) for _ in range(2))
        wanted = scheduler.step(noise, t, noisy).denoised
        sigma = ((1 - kept) / kept).sqrt()[None]
        given = sampling.calculate_denoised(sigma, noise, noisy / kept.sqrt())
        # the share of the input is 3e-5 at the last level; diffusers' table is in single precision, and versions sum it differently
        torch.testing.assert_close(given, wanted, rtol=1e-6, atol=5e-6)
